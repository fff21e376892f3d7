"""One call each, in scanpy's manner: what is written, where, and that it is what the model says."""

import os
import re
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest

import celbo
from celbo.tl.genes import scanpy_layout

QUICK = {"max_epochs": 2, "verbose": 0}


@pytest.fixture
def adata():
    made = celbo.data.synthetic_iid(batch_size=60, n_genes=30, n_proteins=0, n_regions=0, seed=0)
    made.layers["counts"] = made.X.copy()
    return made


@pytest.fixture(scope="module")
def told():
    """Cells of two types that differ in their markers, and a model of them."""
    made = celbo.data.simulate_counts(300, 60, n_cell_types=3, n_batches=2, median_library=800, seed=0)
    return made, celbo.tl.integrate(made, "batch", train_kwargs={"max_epochs": 30, "verbose": 0})


class TestIntegrate:
    def test_writes_what_the_model_says(self, adata):
        model = celbo.tl.integrate(adata, "batch", model_kwargs={"n_latent": 4}, train_kwargs=QUICK)
        assert isinstance(model, celbo.model.SCVI)
        assert np.array_equal(adata.obsm["X_celbo"], model.get_latent_representation())
        notes = adata.uns["celbo"]["X_celbo"]
        assert (notes["by"], notes["model"], notes["setup_batch_key"], notes["seed"]) == (
            "integrate",
            "SCVI",
            "batch",
            0,
        )
        assert notes["model_kwargs"] == {"n_latent": 4}
        assert notes["epochs"] == 2
        assert notes["elbo_validation"] == model.history["elbo_validation"].to_numpy().min()

    def test_the_same_again(self, adata):
        first, second = (celbo.tl.integrate(adata.copy(), "batch", copy=True, train_kwargs=QUICK) for _ in range(2))
        assert np.array_equal(first.obsm["X_celbo"], second.obsm["X_celbo"])

    def test_copy(self, adata):
        made = celbo.tl.integrate(adata, "batch", copy=True, train_kwargs=QUICK)
        assert "X_celbo" in made.obsm
        assert "X_celbo" not in adata.obsm
        assert set(adata.uns) == set()
        assert list(adata.obs) == ["batch", "labels"]

    def test_two_keys_stay_beside_each_other(self, adata):
        celbo.tl.integrate(adata, "batch", train_kwargs=QUICK)
        celbo.tl.integrate(adata, "batch", model="linear_scvi", key_added="X_linear", train_kwargs=QUICK)
        assert {"X_celbo", "X_linear"} <= set(adata.obsm)
        assert [adata.uns["celbo"][key]["model"] for key in ("X_celbo", "X_linear")] == ["SCVI", "LinearSCVI"]

    def test_counts_in_a_layer_and_in_raw(self, adata):
        of_x = celbo.tl.integrate(adata, "batch", copy=True, train_kwargs=QUICK).obsm["X_celbo"]
        adata.raw = adata.copy()
        adata.X = np.log1p(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X)
        adata = adata[:, :20].copy()  # highly variable genes, as scanpy keeps them
        raw = celbo.tl.integrate(adata, "batch", use_raw=True, copy=True, train_kwargs=QUICK)
        assert np.allclose(raw.obsm["X_celbo"], of_x, atol=1e-5)
        celbo.tl.integrate(adata, "batch", layer="counts", train_kwargs=QUICK)
        assert adata.uns["celbo"]["X_celbo"]["setup_layer"] == "counts"

    def test_no_counts_says_where_they_are(self, adata):
        adata.X = np.log1p(np.asarray(adata.X.todense() if hasattr(adata.X, "todense") else adata.X)) * 0.7
        with pytest.warns(UserWarning, match="layer=.counts."):
            celbo.tl.integrate(adata, "batch", train_kwargs=QUICK)

    def test_a_view_becomes_an_object_of_its_own(self, adata):
        view = adata[:80]
        with pytest.warns(UserWarning, match="Received a view"):
            celbo.tl.integrate(view, "batch", train_kwargs=QUICK)
        assert not view.is_view
        assert view.obsm["X_celbo"].shape == (80, 10)
        assert "X_celbo" not in adata.obsm

    def test_backed(self, adata, tmp_path):
        adata.write_h5ad(tmp_path / "cells.h5ad")
        backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        model = celbo.tl.integrate(backed, "batch", train_kwargs=QUICK)
        assert backed.isbacked
        assert np.allclose(backed.obsm["X_celbo"], model.get_latent_representation(adata), atol=1e-5)
        made = celbo.tl.integrate(backed, "batch", copy=True, train_kwargs=QUICK)
        assert not made.isbacked
        backed.file.close()

    def test_written_and_read(self, adata, tmp_path):
        categories = {"categorical_covariate_keys": ["labels"]}
        celbo.tl.integrate(adata, "batch", model_kwargs={"n_latent": 4}, train_kwargs=QUICK, **categories)
        adata.write_h5ad(tmp_path / "cells.h5ad")
        notes = anndata.read_h5ad(tmp_path / "cells.h5ad").uns["celbo"]["X_celbo"]
        assert notes["model_kwargs"]["n_latent"] == 4
        assert list(notes["setup_categorical_covariate_keys"]) == ["labels"]

    def test_a_class_and_a_trained_model(self, adata):
        model = celbo.tl.integrate(adata, model=celbo.model.PEAKVI, train_kwargs=QUICK)
        assert isinstance(model, celbo.model.PEAKVI)
        assert celbo.tl.integrate(adata, model=model, key_added="X_again") is model
        assert np.array_equal(adata.obsm["X_again"], adata.obsm["X_celbo"])

    def test_what_a_trained_model_cannot_take(self, adata):
        model = celbo.tl.integrate(adata, train_kwargs=QUICK)
        with pytest.raises(ValueError, match="made already: leave batch_key, train_kwargs out"):
            celbo.tl.integrate(adata, "batch", model=model, train_kwargs=QUICK)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [({"model": "scvy"}, "Did you mean 'scvi'"), ({"bach_key": "batch"}, "Did you mean 'batch_key'")],
    )
    def test_unknown_names(self, adata, wrong, said):
        with pytest.raises(ValueError, match=said):
            celbo.tl.integrate(adata, train_kwargs=QUICK, **wrong)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (
                {"max_epochs": 3},
                "max_epochs is an argument of SCVI.train, not of integrate: train_kwargs={'max_epochs': 3}.",
            ),
            ({"n_latent": 3}, "n_latent is an argument of SCVI, not of integrate: model_kwargs={'n_latent': 3}."),
        ],
    )
    def test_arguments_of_the_training_and_of_the_class(self, adata, wrong, said):
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            celbo.tl.integrate(adata, "batch", **wrong)
        assert "_scvi_uuid" not in adata.uns

    @pytest.mark.parametrize("verb", ["denoise", "doublets"])
    def test_verbs_that_pass_arguments_on_say_by_which(self, adata, verb):
        with pytest.raises(ValueError, match=rf"argument of SCVI.train, not of {verb}: train_kwargs"):
            getattr(celbo.tl, verb)(adata, max_epochs=3)

    def test_a_reference_says_where_arguments_of_a_query_go(self, adata):
        said = "max_epochs is an argument of SCVI.train, not of map_query: train_kwargs={'max_epochs': 3}."
        celbo.model.SCVI.setup_anndata(query := adata.copy())
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            celbo.tl.map_query(query, celbo.model.SCVI(query), max_epochs=3)


class TestAnnotate:
    def test_writes_labels_and_how_sure_it_is(self, adata):
        adata.obs["known"] = adata.obs["labels"].astype(object).where(adata.obs["batch"] == "batch_0")
        model = celbo.tl.annotate(adata, "known", "batch", train_kwargs=QUICK)
        soft = model.predict(soft=True)
        assert list(adata.obs["celbo_label"].astype(str)) == list(soft.idxmax(axis=1))
        assert np.array_equal(adata.obs["celbo_label_probability"], soft.to_numpy().max(1))
        assert np.allclose(adata.obsm["celbo_label_probabilities"].sum(1), 1)
        assert adata.obsm["X_celbo"].shape == (120, 10)
        assert adata.obs["known"].isna().sum() == 60
        assert adata.uns["celbo"]["celbo_label"]["setup_labels_key"] == "known"

    def test_labels_are_needed(self, adata):
        with pytest.raises(ValueError, match="labels_key= must name"):
            celbo.tl.annotate(adata)


class TestMapQuery:
    def test_labels_and_latents_of_other_genes(self, adata):
        model = celbo.tl.annotate(
            adata, "labels", "batch", model_kwargs={"encode_covariates": True}, train_kwargs=QUICK
        )
        query = celbo.data.synthetic_iid(batch_size=20, n_genes=30, n_proteins=0, n_regions=0, seed=1)[:, ::-1].copy()
        query.obs["batch"] = "new"
        genes = list(query.var_names)
        mapped = celbo.tl.map_query(query, model, train_kwargs=QUICK)
        assert list(query.var_names) == genes
        assert np.array_equal(query.obsm["X_celbo"], mapped.get_latent_representation())
        assert set(query.obs["celbo_label"]) <= set(adata.obs["labels"])
        assert query.uns["celbo"]["celbo_label"]["by"] == "map_query"

    def test_a_folder_is_no_model(self, adata):
        with pytest.raises(ValueError, match="Load a saved one first"):
            celbo.tl.map_query(adata, "reference")


class TestDenoise:
    def test_a_layer(self, told):
        adata, model = told
        assert celbo.tl.denoise(adata, model=model) is model
        denoised_ng = adata.layers["denoised"]
        assert np.allclose(denoised_ng.sum(1), 1e4, rtol=1e-4)
        expected = model.get_normalized_expression(library_size=1e4, seed=0, return_numpy=True)
        assert np.array_equal(denoised_ng, expected)

    def test_some_genes_in_the_order_asked(self, told):
        adata, model = told
        celbo.tl.denoise(adata, model=model, genes=["gene_7", "gene_2"], library_size=1, key_added="two")
        both = adata.obsm["two"]
        assert list(both.columns) == ["gene_7", "gene_2"]
        all_of_them = model.get_normalized_expression(seed=0)
        assert np.allclose(both, all_of_them[["gene_7", "gene_2"]])

    def test_unknown_gene(self, told):
        with pytest.raises(ValueError, match="Did you mean 'gene_1'"):
            celbo.tl.denoise(told[0], model=told[1], genes=["gene_1x"])


@pytest.fixture(scope="module")
def ranked(told):
    adata, model = told
    celbo.tl.rank_genes(adata, "cell_type", model=model, delta=0.5)
    return adata, adata.uns["rank_genes_groups"]


class TestRankGenes:
    def test_layout(self, ranked):
        adata, found = ranked
        groups = tuple(adata.obs["cell_type"].cat.categories)
        for kind in ("names", "scores", "logfoldchanges", "pvals", "pvals_adj"):
            assert found[kind].dtype.names == groups
            assert found[kind].shape == (60,)
        assert found["scores"].dtype[0] == np.float32
        assert found["pvals_adj"].dtype[0] == np.float64
        assert set(found["names"]["type_0"]) == set(adata.var_names)
        assert found["params"]["reference"] == "rest"
        assert found["params"]["groupby"] == "cell_type"

    def test_order_and_agreement_with_the_truth(self, ranked):
        adata, found = ranked
        profile = np.log2(adata.varm["cell_type_profile"])
        for c, group in enumerate(found["names"].dtype.names):
            assert (np.diff(found["scores"][group]) <= 0).all()
            change = pd.Series(found["logfoldchanges"][group], index=found["names"][group]).reindex(adata.var_names)
            true = profile[:, c] - np.delete(profile, c, 1).mean(1)
            assert np.corrcoef(change, true)[0, 1] > 0.6

    def test_rates_are_means_of_what_is_listed(self, ranked):
        _, found = ranked
        null_g, rate_g = found["pvals"]["type_0"], found["pvals_adj"]["type_0"]
        for g in (0, 17, 59):
            assert np.isclose(rate_g[g], null_g[null_g <= null_g[g]].mean())

    def test_one_group_against_another(self, told):
        adata, model = told
        options = {"groups": ["type_1"], "reference": "type_0", "n_genes": 5, "key_added": "pair"}
        celbo.tl.rank_genes(adata, "cell_type", model=model, **options)
        assert adata.uns["pair"]["names"].dtype.names == ("type_1",)
        assert len(adata.uns["pair"]["names"]) == 5
        celbo.tl.rank_genes(adata, "cell_type", model=model, reference="type_0", key_added="to_first")
        assert adata.uns["to_first"]["names"].dtype.names == ("type_1", "type_2")

    def test_unknown_group(self, told):
        with pytest.raises(ValueError, match="Did you mean 'type_0'"):
            celbo.tl.rank_genes(told[0], "cell_type", model=told[1], groups=["type_00"])

    def test_written_and_read(self, ranked, tmp_path):
        adata, found = ranked
        small = anndata.AnnData(adata.X, adata.obs[["cell_type"]], adata.var[[]], uns={"rank_genes_groups": found})
        small.write_h5ad(tmp_path / "ranked.h5ad")
        back = anndata.read_h5ad(tmp_path / "ranked.h5ad").uns["rank_genes_groups"]
        assert list(back["names"]["type_1"]) == list(found["names"]["type_1"])

    def test_scanpy_reads_and_draws_it(self, ranked, tmp_path):
        python = _python_with_scanpy()
        adata, found = ranked
        small = anndata.AnnData(adata.X, adata.obs[["cell_type"]], adata.var[[]], uns={"rank_genes_groups": found})
        small.write_h5ad(tmp_path / "ranked.h5ad")
        code = f"""
import matplotlib; matplotlib.use("Agg")
import scanpy as sc
adata = sc.read_h5ad({str(tmp_path / "ranked.h5ad")!r})
sc.pp.log1p(adata)
sc.pl.rank_genes_groups(adata, n_genes=5, show=False)
sc.pl.rank_genes_groups_dotplot(adata, n_genes=3, values_to_plot="logfoldchanges", dendrogram=False, show=False)
sc.pl.rank_genes_groups_violin(adata, groups="type_0", n_genes=3, show=False)
table = sc.get.rank_genes_groups_df(adata, group="type_0", pval_cutoff=0.05)
print(len(table), ",".join(table.columns))
"""
        done = subprocess.run([python, "-W", "ignore", "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        n, columns = done.stdout.split()
        assert int(n) == (found["pvals_adj"]["type_0"] < 0.05).sum()
        assert {"names", "scores", "logfoldchanges", "pvals", "pvals_adj"} <= set(columns.split(","))


def _python_with_scanpy() -> str:
    for python in (sys.executable, os.environ.get("CELBO_PEER_PYTHON")):
        ask = "import importlib.util, sys; sys.exit(importlib.util.find_spec('scanpy') is None)"
        if python and subprocess.run([python, "-c", ask]).returncode == 0:
            return python
    pytest.skip("no scanpy here, nor where CELBO_PEER_PYTHON points")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda adata: celbo.tl.denoise(adata, model="peakvi"),
            "PEAKVI does not give expression",
        ),
        (
            lambda adata: celbo.tl.rank_genes(adata, "labels", model="sysvi"),
            "SysVI does not give .* These models do: scvi",
        ),
        (
            lambda adata: celbo.tl.annotate(adata, "labels", model="scvi"),
            "SCVI does not give labels. These .*: scanvi",
        ),
    ],
)
def test_models_that_do_not_do_what_is_asked(adata, call, said):
    with pytest.raises(ValueError, match=said):
        call(adata)
    assert "_scvi_uuid" not in adata.uns  # said before anything is set up


def test_proteins():
    made = celbo.data.synthetic_iid(batch_size=40, n_genes=20, n_proteins=4, n_regions=0, seed=0)
    setup = {"protein_expression_obsm_key": "protein_expression"}
    model = celbo.tl.integrate(made, "batch", model="totalvi", train_kwargs=QUICK, **setup)
    assert np.array_equal(made.obsm["X_celbo"], model.get_latent_representation())
    assert made.uns["celbo"]["X_celbo"]["setup_protein_expression_obsm_key"] == "protein_expression"
    celbo.tl.denoise(made, model=model)
    assert np.allclose(made.layers["denoised"].sum(1), 1e4, rtol=1e-3)


def test_expected_rate_of_equal_probabilities():
    table = pd.DataFrame(
        {
            "proba_not_de": [0.0, 0.0, 0.4, 0.4, 1.0],
            "lfc_mean": [3.0, -3.0, 1.0, 0.5, 0.0],
            "lfc_std": [1.0, 1.0, 1.0, 1.0, 1.0],
            "group1": "a",
        },
        index=list("abcde"),
    )
    made = scanpy_layout(table)
    assert list(made["names"]["a"]) == ["a", "c", "d", "e", "b"]
    assert np.allclose(made["pvals_adj"]["a"], [0, 0.2, 0.2, 0.36, 0])


class TestDoublets:
    def test_each_batch_by_itself(self, adata):
        models = celbo.tl.doublets(adata, "batch", train_kwargs=QUICK, solo_kwargs=QUICK, threshold=0.4)
        assert sorted(models) == ["batch_0", "batch_1"]
        for name, solo in models.items():
            rows = (adata.obs["batch"] == name).to_numpy()
            assert np.array_equal(adata.obs["doublet_score"][rows], solo.predict()["doublet"])
        assert np.array_equal(adata.obs["predicted_doublet"], adata.obs["doublet_score"] > 0.4)
        assert adata.uns["celbo"]["doublet_score"]["threshold"] == 0.4
