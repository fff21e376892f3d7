"""Queries mapped onto references: genes, weights, what moves; against scvi-tools where the two agree."""

import importlib.util
import json
import logging
import subprocess
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from celbo.core.rules import CELBO, SCVI_TOOLS, followed
from celbo.model import SCVI
from celbo.model.base.query import surgery

PARITY = Path(__file__).resolve().parents[1] / "parity"
COVARIATES = {
    "batch_key": "batch",
    "categorical_covariate_keys": ["site"],
    "continuous_covariate_keys": ["depth"],
}


def cells(n, batches, sites=("u", "v"), seed=0, n_genes=12):
    rng = np.random.default_rng(seed)
    adata = ad.AnnData(rng.poisson(3, (n, n_genes)).astype(np.float32))
    adata.var_names = [f"g{i}" for i in range(n_genes)]
    adata.obs_names = [f"c{i}" for i in range(n)]
    adata.obs["batch"] = [batches[i % len(batches)] for i in range(n)]
    adata.obs["site"] = [sites[i // 2 % len(sites)] for i in range(n)]
    adata.obs["depth"] = rng.normal(size=n)
    return adata


@pytest.fixture
def reference(quick):
    def reference(batches=("a", "b"), **kwargs):
        adata = cells(60, batches)
        SCVI.setup_anndata(adata, **COVARIATES)
        return quick(SCVI(adata, **({"n_hidden": 8, "n_latent": 3, "n_layers": 2, "encode_covariates": True} | kwargs)))

    return reference


@pytest.fixture
def mapped(quick):
    def mapped(model, query=None, plan_kwargs=None, **options):
        query = cells(40, ["c"], ["w"], seed=1) if query is None else query
        mapped = SCVI.load_query_data(query, model, accelerator="cpu", **options)
        mapped.is_trained = True
        before = mapped.get_latent_representation()
        quick(mapped, plan_kwargs=plan_kwargs)
        return mapped, np.abs(mapped.get_latent_representation() - before).max()

    return mapped


def latents_of_reference(model):
    """Of the reference's cells, from counts and categories, under any model."""
    return model.get_latent_representation(cells(60, ["a", "b"]))


class TestWhatMoves:
    @pytest.mark.parametrize(
        "kwargs",
        [
            {},
            {"batch_representation": "embedding"},
            {"dispersion": "gene-batch"},
            {"use_observed_lib_size": False},
            {"deeply_inject_covariates": False},
            {"use_layer_norm": "both", "use_batch_norm": "none"},
            {"latent_distribution": "ln", "gene_likelihood": "nb"},
        ],
        ids=str,
    )
    def test_cells_of_the_reference_stay_to_the_bit_and_cells_of_the_query_move(self, reference, mapped, kwargs):
        model = reference(**kwargs)
        query_model, moved = mapped(model)
        if "latent_distribution" in kwargs:  # the mean on the simplex is drawn: compare what it is drawn from
            data = cells(60, ["a", "b"])
            old, new = (one.get_latent_representation(data.copy(), return_dist=True) for one in (model, query_model))
            np.testing.assert_array_equal(old, new)
        else:
            np.testing.assert_array_equal(latents_of_reference(query_model), model.get_latent_representation())
            assert moved > 1e-4

    def test_known_categories_beside_new_ones_stay_too(self, reference, mapped):
        model = reference()
        query_model, moved = mapped(model, cells(40, ["c", "a"], ["v", "w"], seed=1))
        np.testing.assert_array_equal(latents_of_reference(query_model), model.get_latent_representation())
        assert moved > 1e-4

    def test_one_batch_in_the_reference_two_in_all(self, reference, mapped):
        """One category has no column; with a second one both have."""
        model = reference(batches=["a"])
        query_model, moved = mapped(model)
        latents = query_model.get_latent_representation(cells(60, ["a"]))
        np.testing.assert_array_equal(latents, model.get_latent_representation())
        assert moved > 1e-4

    @pytest.mark.parametrize(
        "options", [{"unfrozen": True}, {"freeze_expression": False}, {"freeze_batchnorm_encoder": False}], ids=str
    )
    def test_options_that_free_a_part_of_the_encoder_move_the_reference(self, reference, mapped, options):
        model = reference()
        query_model, _ = mapped(model, **options)
        assert np.abs(latents_of_reference(query_model) - model.get_latent_representation()).max() > 1e-4

    def test_weight_decay_is_zero_unless_it_is_asked_for(self, reference, mapped):
        model = reference()
        kept, _ = mapped(model)
        decayed, _ = mapped(model, plan_kwargs={"weight_decay": 1e-6})
        np.testing.assert_array_equal(latents_of_reference(kept), model.get_latent_representation())
        assert not np.array_equal(latents_of_reference(decayed), model.get_latent_representation())

    def test_the_reference_itself_is_not_changed(self, reference, mapped):
        model = reference()
        before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
        mapped(model, unfrozen=True)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.module.state_dict().items())

    def test_frozen_batch_normalization_uses_the_reference_in_training_too(self, reference):
        query_model = SCVI.load_query_data(cells(40, ["c"], seed=1), reference(), accelerator="cpu")
        query_model.module.train()
        encoder_norm = query_model.module.z_encoder.encoder.fc_layers[0][1]
        assert not encoder_norm.training
        assert query_model.module.decoder.px_decoder.fc_layers[0][1].training

    def test_freeze_dropout(self, reference):
        query = cells(40, ["c"], seed=1)
        query_model = SCVI.load_query_data(query, reference(), accelerator="cpu", freeze_dropout=True)
        rates = [part.p for part in query_model.module.z_encoder.modules() if isinstance(part, torch.nn.Dropout)]
        assert rates == [0, 0]


class TestArchives:
    @pytest.mark.parametrize("options", [{}, {"unfrozen": True}, {"freeze_expression": False, "freeze_dropout": True}])
    def test_a_query_model_goes_on_training_as_it_would_have(self, reference, quick, tmp_path, options):
        query = cells(40, ["c", "a"], ["w", "u"], seed=1)
        first = SCVI.load_query_data(query, reference(), accelerator="cpu", **options)
        first.save(tmp_path / "m")
        second = SCVI.load(tmp_path / "m", query, accelerator="cpu")
        free = [{name: p.requires_grad for name, p in one.module.named_parameters()} for one in (first, second)]
        assert free[0] == free[1]
        a, b = (quick(one).module.state_dict() for one in (first, second))
        assert all(torch.equal(a[name], b[name]) for name in a)

    def test_a_trained_query_model_keeps_cells_of_the_reference_after_loading_too(
        self, reference, mapped, quick, tmp_path
    ):
        model = reference()
        query_model, _ = mapped(model)
        query_model.save(tmp_path / "m", save_anndata=True)
        again = quick(SCVI.load(tmp_path / "m", accelerator="cpu"))
        np.testing.assert_array_equal(latents_of_reference(again), model.get_latent_representation())


class TestWhatIsSaid:
    def test_an_encoder_without_covariates_cannot_adapt(self, reference, mapped, said):
        model = reference(encode_covariates=False)
        _, moved = mapped(model)
        (warning,) = said(logging.WARNING)
        assert moved == 0
        assert "encode_covariates=False" in warning
        assert "freeze_expression=False" in warning

    def test_but_it_can_with_a_free_first_layer(self, reference, mapped, said):
        _, moved = mapped(reference(encode_covariates=False), freeze_expression=False)
        assert moved > 1e-4
        assert said(logging.WARNING) == []

    def test_a_query_without_new_categories(self, reference, mapped, said):
        _, moved = mapped(reference(), cells(40, ["a"], ["u", "v"], seed=1))
        (warning,) = said(logging.WARNING)
        assert moved == 0
        assert "no batch or category that the reference does not know" in warning

    def test_nothing_to_warn_of(self, reference, mapped, said):
        mapped(reference())
        assert said(logging.WARNING) == []


class TestFromArchives:
    def test_folder(self, reference, mapped, tmp_path):
        model = reference()
        model.save(tmp_path / "model")
        query_model, moved = mapped(str(tmp_path / "model"))
        np.testing.assert_array_equal(latents_of_reference(query_model), model.get_latent_representation())
        assert moved > 1e-4

    def test_folder_of_scvi_tools(self):
        """The archive is minified; surgery needs its weights and registry only."""
        query = cells(30, ["c"], seed=1, n_genes=6)
        query_model = SCVI.load_query_data(query, PARITY / "surgery" / "minified", accelerator="cpu")
        assert query_model.module.n_batch == 3
        assert query_model.minified_data_type is None

    def test_a_mapped_model_is_saved_and_loaded_as_any_other(self, reference, mapped, tmp_path):
        query_model, _ = mapped(reference())
        query_model.save(tmp_path / "query", save_anndata=True)
        loaded = SCVI.load(tmp_path / "query")
        np.testing.assert_array_equal(loaded.get_latent_representation(), query_model.get_latent_representation())

    def test_registry_instead_of_data(self, reference):
        model = reference()
        query_model = SCVI.load_query_data(registry=model.registry, reference_model=model, accelerator="cpu")
        assert query_model.adata is None
        assert query_model.module.n_batch == 2


class TestErrors:
    def test_no_data(self, reference):
        with pytest.raises(ValueError, match="AnnData or a registry"):
            SCVI.load_query_data(reference_model=reference())

    def test_no_reference(self):
        with pytest.raises(ValueError, match="reference model"):
            SCVI.load_query_data(cells(10, ["a"]))

    def test_reference_of_another_class(self, make):
        from celbo.model import LinearSCVI

        with pytest.raises(ValueError, match="is a LinearSCVI, wanted a SCVI"):
            SCVI.load_query_data(cells(10, ["a"]), make(cls=LinearSCVI))

    def test_missing_genes(self, reference):
        query = cells(20, ["c"])[:, 2:].copy()
        with pytest.raises(ValueError, match=r"lacks 2 of the reference's 12 genes: 'g0', 'g1'.*prepare_query_anndata"):
            SCVI.load_query_data(query, reference())

    def test_new_batches_can_be_refused(self, reference):
        with pytest.raises(ValueError, match=r"batch categories missing from the reference.*'c'"):
            SCVI.load_query_data(cells(20, ["c"]), reference(), transfer_batch=False)


class TestGenes:
    @pytest.fixture
    def model(self, reference):
        return reference()

    @staticmethod
    def shuffled(sparse):
        """Ten of the twelve genes and a strange one, out of order."""
        adata = cells(20, ["c"], ["w"], seed=3)
        names = ["g7", "strange", "g0", "g11", "g3", "g5", "g1", "g10", "g4", "g9", "g8"]
        columns = [adata.var_names.get_loc(name.replace("strange", "g2")) for name in names]
        x = adata.X[:, columns]
        query = ad.AnnData(sp.csr_matrix(x) if sparse else x, obs=adata.obs, var=pd.DataFrame(index=names))
        query.layers["twice"] = query.X * 2
        query.var["rank"] = np.arange(11)
        query.varm["loadings"] = np.ones((11, 2))
        query.obsm["X_pca"] = np.zeros((20, 2))
        query.uns["note"] = "kept"
        query.raw = query.copy()
        return query

    @pytest.mark.parametrize("sparse", [False, True])
    def test_found_by_name_padded_with_zeros_and_said(self, model, sparse, said):
        query = self.shuffled(sparse)
        prepared = SCVI.prepare_query_anndata(query, model, inplace=False)
        assert list(prepared.var_names) == list(model.get_var_names())
        assert sp.issparse(prepared.X) == sparse
        assert prepared.X.dtype == np.float32
        found = [name for name in prepared.var_names if name in query.var_names]
        for name in (None, "twice"):
            full, given = (one.to_df(layer=name) for one in (prepared, query))
            pd.testing.assert_frame_equal(full[found], given[found])
            assert (full[["g2", "g6"]] == 0).all(axis=None)
        assert prepared.uns["note"] == "kept"
        assert prepared.obsm["X_pca"].shape == (20, 2)
        assert query.n_vars == 11
        (summary,) = [line for line in said(logging.INFO) if "Query genes" in line]
        assert (
            "10 of the reference's 12 found (83.3%), 2 missing and padded with zeros ('g2', 'g6'), 1 others" in summary
        )

    def test_in_place(self, model, mapped):
        query = self.shuffled(True)
        assert SCVI.prepare_query_anndata(query, model) is None
        assert list(query.var_names) == list(model.get_var_names())
        _, moved = mapped(model, query)
        assert moved > 1e-4

    def test_genes_in_another_order_and_others_need_no_preparation(self, model):
        query = cells(20, ["c"], seed=3)
        more = ad.concat(
            [query, ad.AnnData(np.ones((20, 1)), obs=query.obs[[]], var=pd.DataFrame(index=["h"]))], axis=1
        )
        more.obs = query.obs
        more = more[:, list(more.var_names[::-1])].copy()
        first, second = (SCVI.load_query_data(one, model, accelerator="cpu") for one in (query, more))
        first.is_trained = second.is_trained = True
        np.testing.assert_array_equal(first.get_latent_representation(), second.get_latent_representation())
        SCVI.load_query_data(more, model, accelerator="cpu", inplace_subset_query_vars=True)
        assert list(more.var_names) == list(model.get_var_names())

    def test_names_only(self, model, tmp_path):
        model.save(tmp_path / "model")
        for reference in (model, tmp_path / "model"):
            names = SCVI.prepare_query_anndata(cells(5, ["a"]), reference, return_reference_var_names=True)
            assert list(names) == list(model.get_var_names())

    def test_few_genes_are_warned_of(self, model):
        with pytest.warns(UserWarning, match=r"Only 9 of the reference's 12 genes \(75.0%\)"):
            SCVI.prepare_query_anndata(cells(5, ["a"])[:, :9].copy(), model)

    def test_no_gene_is_an_error(self, model):
        query = cells(5, ["a"])
        query.var_names = [f"ENSG{i}" for i in range(12)]
        with pytest.raises(ValueError, match=r"None of the reference's 12 genes.*'g0'.*'ENSG0'"):
            SCVI.prepare_query_anndata(query, model)

    def test_a_name_twice_is_an_error(self, model):
        query = cells(5, ["a"])
        query.var_names = ["g0", "g0", *query.var_names[2:]]
        with pytest.raises(ValueError, match="more than once"):
            SCVI.prepare_query_anndata(query, model)


class TestExtending:
    def test_a_column_goes_into_the_block_of_its_covariate(self):
        old = torch.arange(12.0).reshape(2, 6)  # 1 dense, 2 batches, 3 sites
        fresh = torch.full((2, 8), -1.0)
        state, new = surgery.extended_state({"w": old}, {"w": fresh}, {"w": [2, 3]}, {"w": [3, 4]})
        mean = [old[:, 1:3].mean(1), old[:, 3:].mean(1)]
        torch.testing.assert_close(state["w"][:, [0, 1, 2, 4, 5, 6]], old)
        torch.testing.assert_close(state["w"][:, [3, 7]], torch.stack(mean, dim=1))
        assert new["w"].tolist() == [[False, False, False, True, False, False, False, True]]

    def test_one_category_had_no_column_which_is_zeros(self):
        old = torch.ones(2, 3)
        state, new = surgery.extended_state({"w": old}, {"w": torch.ones(2, 6)}, {"w": [0]}, {"w": [3]})
        assert state["w"][:, 3:].eq(0).all()
        assert new["w"].tolist() == [[False, False, False, False, True, True]]

    def test_rows_columns_and_figures_of_the_data(self):
        old = {"table": torch.ones(2, 3), "px_r": torch.ones(4, 2), "prior": torch.ones(1, 2)}
        fresh = {"table": torch.zeros(3, 3), "px_r": torch.zeros(4, 3), "prior": torch.full((1, 3), 5.0)}
        state, new = surgery.extended_state(old, fresh, {}, {}, frozenset(["prior"]))
        assert state["table"].eq(1).all()
        assert state["px_r"].eq(1).all()
        assert state["prior"].tolist() == [[1, 1, 5]]
        assert {name: tuple(mask.shape) for name, mask in new.items()} == {
            "table": (3, 1),
            "px_r": (1, 3),
            "prior": (1, 3),
        }

    @pytest.mark.parametrize("n_cells", [2, 3, 5])
    def test_weights_of_cells_are_all_new(self, n_cells):
        old, fresh = {"w": torch.ones(3, 2)}, {"w": torch.zeros(n_cells, 2)}
        state, new = surgery.extended_state(old, fresh, {}, {}, of_cells=frozenset(["w"]))
        assert torch.equal(state["w"], fresh["w"])
        assert new["w"].expand(n_cells, 2).all()

    @pytest.mark.parametrize("shape", [(2, 3), (5, 5), (3,)])
    def test_what_new_categories_do_not_explain(self, shape):
        with pytest.raises(ValueError, match="new categories alone do not explain"):
            surgery.extended_state({"w": torch.ones(4, 3)}, {"w": torch.ones(shape)}, {}, {})

    def test_other_weights(self):
        with pytest.raises(ValueError, match="other weights than this model: w"):
            surgery.extended_state({"w": torch.ones(1)}, {}, {}, {})


def load_script():
    spec = importlib.util.spec_from_file_location("make_surgery", PARITY / "make_surgery.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture(scope="module")
def ours():
    return load_script().freedom(SCVI, verbose=0)


def compare(ours, theirs):
    """The same columns of the same parameters, but for those of known batches, which scvi-tools lets move."""
    assert ours.keys() == theirs.keys()
    for option in ours:
        assert ours[option].keys() == theirs[option].keys()
        for name, free in ours[option].items():
            known = set()
            if name.endswith(".0.weight") and ".fc_layers." in name and not name.startswith("l_encoder"):
                width = max(theirs[option][name]) + 1
                known = {width - 3, width - 2} - set(free)
            assert set(free) == set(theirs[option][name]) - known, (option, name)


def test_what_moves_is_what_moves_in_scvi_tools(ours):
    compare(ours, json.loads((PARITY / "surgery" / "freedom.json").read_text()))


def test_what_moves_is_what_moves_in_scvi_tools_live(ours, peer_python, tmp_path):
    command = [peer_python, "-W", "ignore", PARITY / "make_surgery.py", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    compare(ours, json.loads((tmp_path / "freedom.json").read_text()))


def test_a_query_of_which_nothing_moves_trains_all_the_same(quick, said):
    """Known batches, an encoder with layer norm: nothing that the loss depends on is free."""
    adata = cells(60, ("a", "b"))
    SCVI.setup_anndata(adata, **COVARIATES)
    layers = {"use_layer_norm": "both", "use_batch_norm": "none"}
    trained = quick(SCVI(adata, n_hidden=8, n_latent=3, encode_covariates=True, **layers))
    mapped = SCVI.load_query_data(cells(40, ("a", "b"), seed=1), trained)
    before = {name: value.clone() for name, value in mapped.module.state_dict().items()}
    quick(mapped)
    assert [text for text in said(logging.WARNING) if "no parameter that may move" in text]
    assert all(torch.equal(before[name], value) for name, value in mapped.module.state_dict().items())


@pytest.mark.parametrize(("chosen", "has_gradient"), [(CELBO, False), (SCVI_TOOLS, True)])
def test_gradients_of_frozen_first_layers(reference, quick, chosen, has_gradient):
    """None are worked out, or by scvi-tools' rules zeros, which code of others looks at; nothing moves either way."""
    model = reference(encode_covariates=False)
    with followed(chosen):
        mapped = SCVI.load_query_data(cells(40, ("c",), seed=1), model)
    weight = mapped.module.z_encoder.encoder.fc_layers[0][0].weight
    before = weight.detach().clone()
    quick(mapped)
    assert torch.equal(weight, before)
    (tensors,) = mapped._make_data_loader(mapped.adata, batch_size=40)
    mapped.module(tensors)[2].loss.backward()
    assert (weight.grad is not None) is has_gradient
    assert weight.grad is None or not weight.grad.any()
    assert mapped.module.z_encoder.encoder.fc_layers[0][1].momentum == 0  # its running mean stays
