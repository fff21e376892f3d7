"""The verbs of a model: scvi-tools' figures from its own archives, cells in the order asked, names, seeds."""

import copy
import json
import logging

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from celbo.core import settings
from celbo.data import synthetic_iid
from celbo.data.simulated.counts import simulate_counts
from celbo.model import SCVI, LinearSCVI

CASES = (
    "scvi_default",
    "scvi_nb_deep",
    "scvi_latent_library",
    "scvi_genecell_embed",
    "scvi_poisson_ln",
    "linear_scvi",
)


@pytest.fixture(scope="module")
def archived(shared_dir):
    """Maker of a model that scvi-tools saved, with the figures it must give."""
    made = {}

    def load(case):
        if case not in made:
            folder = shared_dir / "parity" / case
            kind = {"SCVI": SCVI, "LinearSCVI": LinearSCVI}[json.loads((folder / "case.json").read_text())["class"]]
            adata = anndata.read_h5ad(folder / "adata.h5ad")
            made[case] = (
                kind.load(str(folder / "model"), adata, accelerator="cpu"),
                dict(np.load(folder / "expected.npz")),
            )
        return made[case]

    return load


@pytest.fixture(scope="module")
def model():
    """A small model with two batches, quickly trained; gene names are gene_0 to gene_29."""
    adata = synthetic_iid(batch_size=60, n_genes=30, n_proteins=0, n_regions=0, seed=0)
    adata.var_names = [f"gene_{i}" for i in range(30)]
    SCVI.setup_anndata(adata, batch_key="batch", labels_key="labels")
    model = SCVI(adata, n_latent=4, n_hidden=16)
    model.train(max_epochs=2, accelerator="cpu", seed=0, verbose=0)
    return model


@pytest.fixture(scope="module")
def untrained():
    adata = synthetic_iid(batch_size=10, n_genes=8, n_proteins=0, n_regions=0, seed=0)
    SCVI.setup_anndata(adata)
    return SCVI(adata, n_hidden=8)


@pytest.fixture(scope="module")
def simulated():
    """Two cell types in two batches; which genes are markers, and by how much, is known."""
    adata = simulate_counts(800, 120, 2, 2, median_library=1500, marker_strength=1.5, batch_strength=0.4, seed=1)
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata, n_latent=5, n_hidden=64, gene_likelihood="nb")
    model.train(max_epochs=30, accelerator="cpu", seed=0, verbose=0)
    return model


VERBS = {
    "latent": lambda model, **kw: model.get_latent_representation(give_mean=False, **kw),
    "elbo": lambda model, **kw: model.get_elbo(return_mean=False, **kw).numpy(),
    "error": lambda model, **kw: model.get_reconstruction_error(return_mean=False, **kw)["reconstruction_loss"].numpy(),
    "marginal": lambda model, **kw: model.get_marginal_ll(return_mean=False, n_mc_samples=7, **kw).numpy(),
    "expression": lambda model, **kw: model.get_normalized_expression(return_numpy=True, **kw),
    "parameters": lambda model, **kw: model.get_likelihood_parameters(**kw)["mean"],
    "library": lambda model, **kw: model.get_latent_library_size(give_mean=False, **kw),
    "predictive": lambda model, **kw: model.posterior_predictive_sample(**kw).todense(),
}
"""Every verb with an answer for each cell."""


class TestPeersFigures:
    @pytest.mark.parametrize("case", CASES)
    def test_latent(self, archived, case):
        model, expected = archived(case)
        mean, variance = model.get_latent_representation(return_dist=True)
        np.testing.assert_allclose(np.sqrt(variance), expected["qz_scale"], rtol=1e-4, atol=1e-6)
        if case != "scvi_poisson_ln":
            np.testing.assert_allclose(mean, expected["z"], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(model.get_latent_representation(), expected["latent"], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("case", [case for case in CASES if case != "scvi_poisson_ln"])
    def test_at_the_posterior_mean(self, archived, case):
        """The figures are at the mean of the latents: with a posterior of no width the answers are those."""
        model, expected = archived(case)
        sharp = copy.copy(model)
        sharp.module = copy.deepcopy(model.module)
        for encoder in (sharp.module.z_encoder, sharp.module.l_encoder):
            encoder.var_eps = 0
            torch.nn.init.zeros_(encoder.var_encoder.weight)
            torch.nn.init.constant_(encoder.var_encoder.bias, -60)
        rows = np.arange(40)
        error = sharp.get_reconstruction_error(return_mean=False)["reconstruction_loss"]
        np.testing.assert_allclose(error, expected["reconstruction_loss/reconstruction_loss"], rtol=1e-4)
        found = sharp.get_normalized_expression(indices=rows, return_numpy=True)
        np.testing.assert_allclose(found, expected["px/scale"], rtol=1e-3, atol=1e-8)
        found = sharp.get_normalized_expression(indices=rows, library_size="latent", return_numpy=True, n_samples=3)
        np.testing.assert_allclose(found, expected["px/mu"], rtol=1e-3, atol=1e-6)
        if "px/zi_logits" in expected:
            found = sharp.get_likelihood_parameters(indices=rows)["dropout"]
            np.testing.assert_allclose(found, 1 / (1 + np.exp(-expected["px/zi_logits"])), rtol=1e-3)

    @pytest.mark.parametrize("case", [case for case in CASES if case != "scvi_poisson_ln"])
    def test_divergence_in_the_elbo(self, archived, case):
        """The KL terms are exact whatever is drawn: what the ELBO has beyond the reconstruction error is the figure."""
        model, expected = archived(case)
        error = model.get_reconstruction_error(return_mean=False, seed=3)["reconstruction_loss"].numpy()
        kl = sum(value for key, value in expected.items() if key.startswith("kl_local/"))
        found = model.get_elbo(return_mean=False, seed=3).numpy()
        np.testing.assert_allclose(-found - error, kl, rtol=1e-3, atol=2e-5 * np.abs(error).max())

    def test_dispersions(self, archived):
        model, expected = archived("scvi_nb_deep")
        found = model.get_likelihood_parameters(indices=range(40), seed=0)
        assert list(found) == ["mean", "dispersions"]
        np.testing.assert_allclose(found["dispersions"], expected["px/theta"], rtol=1e-3)

    def test_embedding_of_batches(self, archived):
        model, _ = archived("scvi_genecell_embed")
        codes = model.get_from_registry(model.adata, "batch").ravel()
        if "_embeddings_dict" not in dict(model.module.named_children()):
            with pytest.raises(KeyError, match="embedding"):
                model.get_batch_representation()
            return
        table = model.module.get_embedding("batch").weight.detach().numpy()
        np.testing.assert_array_equal(model.get_batch_representation(), table[codes])


class TestWhichCells:
    @pytest.mark.parametrize("verb", VERBS)
    def test_order_of_indices(self, model, verb):
        """One minibatch of cell after cell: the draws of a row do not depend on who else is there but on its place."""
        ask, rows = VERBS[verb], np.array([7, 3, 119, 0, 3])
        once = ask(model, indices=rows, seed=0)
        assert len(once) == 5
        np.testing.assert_allclose(ask(model, indices=list(rows), seed=0), once)
        if verb == "predictive":
            return  # how many random numbers a count takes depends on its rate, so that others' counts change it
        swapped = ask(model, indices=rows[[0, 1, 3, 2, 4]], seed=0)
        np.testing.assert_allclose(swapped[[0, 1, 4]], once[[0, 1, 4]], rtol=1e-4, atol=1e-5)

    def test_deterministic_rows(self, model):
        whole = model.get_latent_representation()
        rows = np.array([7, 3, 119, 0, 3])
        np.testing.assert_allclose(model.get_latent_representation(indices=rows, batch_size=2), whole[rows], rtol=1e-4)
        mask = np.isin(np.arange(120), rows)
        np.testing.assert_allclose(model.get_latent_representation(indices=mask), whole[mask], rtol=1e-4)
        labels = model.get_normalized_expression(indices=rows).index
        assert labels.tolist() == model.adata.obs_names[rows].tolist()

    @pytest.mark.parametrize("verb", VERBS)
    @pytest.mark.parametrize(
        ("wrong", "message"), [([0, 120], "No cell 120"), ([-121], "No cell -121"), ([True], "mask")]
    )
    def test_wrong_indices(self, model, verb, wrong, message):
        with pytest.raises(IndexError, match=message):
            VERBS[verb](model, indices=wrong)

    @pytest.mark.parametrize("verb", VERBS)
    def test_dataloader(self, model, verb):
        rows = np.arange(5, 60)
        batches = list(model._make_data_loader(adata=model.adata, indices=rows, batch_size=20))
        expected = VERBS[verb](model, indices=rows, batch_size=20, seed=0)
        np.testing.assert_allclose(VERBS[verb](model, dataloader=iter(batches), seed=0), expected)

    def test_dataloader_alone(self, model):
        with pytest.raises(ValueError, match="leave out"):
            model.get_latent_representation(indices=[0], dataloader=[])
        with pytest.raises(ValueError, match="n_samples_overall draws cells by number"):
            model.get_normalized_expression(dataloader=[], n_samples_overall=3)

    def test_other_data_with_genes_in_another_order(self, model):
        other = anndata.AnnData(model.adata.X[:9].copy(), model.adata.obs[["batch", "labels"]][:9].copy())
        other.var_names = model.adata.var_names
        turned = other[:, ::-1].copy()
        np.testing.assert_allclose(
            model.get_latent_representation(turned), model.get_latent_representation()[:9], rtol=1e-4, atol=1e-6
        )
        expression = model.get_normalized_expression(turned, seed=0)
        assert expression.columns.tolist() == model.adata.var_names.tolist()
        table = model.differential_expression(turned, idx1=[0, 1, 2], n_samples_overall=20, seed=0)
        expected = np.asarray(other.X[:3].mean(0)).ravel()
        np.testing.assert_allclose(table.loc[other.var_names, "raw_mean1"], expected, rtol=1e-5)


class TestSeeds:
    @pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "library"])
    def test_seed_decides_and_nothing_else_moves(self, model, verb, global_rng_untouched, monkeypatch):
        ask = VERBS[verb]
        first = ask(model, seed=1)
        np.testing.assert_array_equal(first, ask(model, seed=1))
        assert not np.allclose(first, ask(model, seed=2), rtol=1e-6)
        assert not np.allclose(ask(model), ask(model), rtol=1e-6)
        monkeypatch.setattr(settings, "_seed", 1)
        np.testing.assert_array_equal(first, ask(model))

    def test_mode_of_the_module_stays(self, model):
        model.module.train()
        model.get_normalized_expression(indices=[0])
        assert model.module.training
        model.module.eval()


class TestExpression:
    def test_batches_by_name(self, model):
        single = [
            model.get_normalized_expression(transform_batch=name, return_numpy=True, seed=0)
            for name in ("batch_0", "batch_1")
        ]
        both = model.get_normalized_expression(transform_batch=["batch_0", "batch_1"], seed=0)
        np.testing.assert_allclose(both, (single[0] + single[1]) / 2, rtol=1e-5)
        with pytest.raises(ValueError, match="Did you mean 'batch_1'"):
            model.get_normalized_expression(transform_batch=["batch_11"])
        with pytest.raises(ValueError, match=r"No batch category \(transform_batch\) is called 0"):
            model.get_normalized_expression(transform_batch=0)

    def test_genes_and_library(self, model):
        some = model.get_normalized_expression(gene_list=["gene_7", "gene_2"], library_size=1e4, seed=0)
        whole = model.get_normalized_expression(library_size=1e4, seed=0)
        pd.testing.assert_frame_equal(some, whole[["gene_2", "gene_7"]])
        np.testing.assert_allclose(whole.sum(1), 1e4, rtol=1e-4)
        latent = model.get_normalized_expression(library_size="latent")
        np.testing.assert_allclose(latent.sum(1), np.asarray(model.adata.X.sum(1)).ravel(), rtol=1e-4)

    def test_draws(self, model):
        draws = model.get_normalized_expression(n_samples=3, return_mean=False, seed=0)
        assert draws.shape == (3, 120, 30)
        np.testing.assert_allclose(model.get_normalized_expression(n_samples=3, seed=0), draws.mean(0), rtol=1e-5)
        assert model.get_normalized_expression(n_samples_overall=50, seed=0).shape == (50, 30)

    def test_importance(self, model, global_rng_untouched):
        options = {"n_samples_overall": 15, "weights": "importance", "indices": np.arange(6), "seed": 0}
        draws = model.get_normalized_expression(n_mc_samples=5, n_mc_samples_per_pass=5, **options)
        np.testing.assert_allclose(draws.sum(1), 1, rtol=1e-4)
        z = torch.zeros(2, 3, 4)
        weights = model.get_importance_weights(None, np.arange(6), None, None, z, max_cells=3, n_mc_samples=4, seed=0)
        np.testing.assert_allclose(weights, 1 / 6, rtol=1e-4)

    def test_weights_are_checked(self, model):
        with pytest.raises(ValueError, match="n_samples_overall"):
            model.get_normalized_expression(weights="importance")
        with pytest.raises(ValueError, match="Did you mean 'uniform'"):
            model.get_normalized_expression(weights="unifrom")
        with pytest.raises(TypeError, match=r"called 'n_sample'\. Did you mean 'n_samples'"):
            model.get_normalized_expression(n_sample=3)

    def test_predictive_of_one_batch(self, model):
        found = model.posterior_predictive_sample(n_samples=2, transform_batch="batch_1", gene_list=["gene_3"])
        assert found.shape == (120, 1, 2)
        both = model.posterior_predictive_sample(transform_batch=["batch_0", "batch_1"], indices=range(9))
        assert both.shape == (9, model.adata.n_vars)

    @pytest.mark.parametrize("kind", ["pearson", "spearman"])
    def test_correlation(self, model, kind):
        found = model.get_feature_correlation_matrix(
            n_samples=2, correlation_type=kind, transform_batch=["batch_0", "batch_1"], seed=0
        )
        assert found.index.tolist() == found.columns.tolist() == model.adata.var_names.tolist()
        assert np.abs(found.to_numpy()).max() <= 1


class TestUntrained:
    @pytest.mark.parametrize("verb", ["latent", "library"])
    def test_refuses(self, untrained, verb):
        with pytest.raises(RuntimeError, match="train the model first"):
            VERBS[verb](untrained)

    @pytest.mark.parametrize("verb", ["expression", "parameters", "predictive"])
    def test_answers(self, untrained, verb):
        assert len(VERBS[verb](untrained)) == 20

    @pytest.mark.parametrize("verb", ["elbo", "error", "marginal"])
    def test_how_well_it_fits_is_answered_with_a_warning(self, untrained, verb, said):
        assert len(VERBS[verb](untrained)) == 20
        assert ["train the model first" in message for message in said(logging.WARNING)] == [True]


class TestAbundance:
    def test_densities_of_the_samples(self, model):
        adata = model.adata
        adata.obs["donor"] = np.array(["y", "x", "y", "z"])[np.arange(adata.n_obs) % 4]
        adata.obs.loc[adata.obs_names[3], "donor"] = np.nan
        model.differential_abundance(sample_key="donor", dof=4)
        table = adata.obsm["da_log_probs"]
        assert table.columns.tolist() == ["y", "x", "z"]
        assert table.index.equals(adata.obs_names)
        z_nk = torch.from_numpy(model.get_latent_representation())
        for donor in table:
            mixture = model.get_aggregated_posterior(indices=(adata.obs["donor"] == donor).to_numpy(), dof=4)
            np.testing.assert_allclose(table[donor], mixture.log_prob(z_nk), rtol=1e-5)

    def test_of_a_part(self, model):
        del model.adata.obsm
        part = model.adata[::2].copy()
        part.obs["donor"] = [0, 1] * (part.n_obs // 2)
        model.differential_abundance(part, sample_key="donor", num_cells_posterior=7, seed=0)
        assert part.obsm["da_log_probs"].shape == (part.n_obs, 2)
        assert "da_log_probs" not in model.adata.obsm

    def test_unknown_column(self, model):
        with pytest.raises(KeyError, match="sample_key"):
            model.differential_abundance(sample_key=None)

    def test_no_cells_are_all_cells(self, model):
        everyone = model.get_aggregated_posterior(indices=np.array([]))
        assert len(everyone.mixture_distribution.probs) == model.adata.n_obs


class TestAggregatedPosterior:
    def test_scale_is_the_root_of_the_variance(self, model):
        mean, variance = model.get_latent_representation(return_dist=True)
        component = model.get_aggregated_posterior(dof=None).component_distribution.base_dist
        np.testing.assert_allclose(component.loc, mean)
        np.testing.assert_allclose(component.scale, np.sqrt(variance), rtol=1e-6)


class TestDifferentialExpression:
    def ask(self, model, **kwargs):
        first, second = model.adata.obs["cell_type"].astype("category").cat.categories[:2]
        return model.differential_expression(
            groupby="cell_type", group1=first, group2=second, n_samples_overall=1500, seed=0, **kwargs
        )

    @pytest.mark.parametrize("batch_correction", [False, True])
    def test_finds_the_genes_that_differ(self, simulated, batch_correction):
        table = self.ask(simulated, mode="change", batch_correction=batch_correction)
        expected_gcb = np.einsum(
            "gc,gb->gcb", *(simulated.adata.varm[k] for k in ("cell_type_profile", "batch_effect"))
        )
        share_gc = (expected_gcb / expected_gcb.sum(0)).mean(-1)
        truth = pd.Series(np.log2(share_gc[:, 0] / share_gc[:, 1]), index=simulated.adata.var_names)[table.index]
        assert np.corrcoef(table["lfc_mean"], truth)[0, 1] > 0.9
        called = table["is_de_fdr_0.05"].to_numpy()
        assert 5 <= called.sum() < 100
        # Genes of few counts differ by chance among 800 cells: most calls are right, where one gene in five would be.
        assert (truth.abs() > 0.25).mean() < 0.3
        assert (truth.abs() > 0.25)[called].mean() > 0.75
        assert called[(truth.abs() > 1.5).to_numpy()].mean() > 0.8

    def test_vanilla_calls_too(self, simulated):
        table = self.ask(simulated)
        called = table["is_de_fdr_0.05"]
        assert called.any()
        assert (np.maximum(table["proba_m1"], table["proba_m2"])[called] > 0.5).all()

    def test_writes_nothing(self, simulated, global_rng_untouched):
        before = simulated.adata.obs.columns.tolist(), sorted(simulated.adata.uns)
        self.ask(simulated)
        assert (simulated.adata.obs.columns.tolist(), sorted(simulated.adata.uns)) == before

    def test_batches_by_name(self, simulated):
        names = simulated.get_state_registry("batch")["categorical_mapping"]
        table = self.ask(simulated, batch_correction=True, batchid1=names[:1], batchid2=names[1:], use_permutation=True)
        assert np.isfinite(table["bayes_factor"]).all()
        with pytest.raises(ValueError, match="No batch category"):
            self.ask(simulated, batch_correction=True, batchid1=["nowhere"])

    def test_options(self, simulated):
        with pytest.raises(TypeError, match="Did you mean 'test_mode'"):
            self.ask(simulated, test_mod="two")
        two = self.ask(simulated, mode="change", test_mode="two", all_stats=False, cred_interval_lvls=[0.9])
        assert "raw_mean1" not in two
        assert "lfc_confidence_interval_0.9_min" in two
