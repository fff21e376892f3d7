"""POISSONVI: fragments, the regions' factors as a bias, scvi-tools' archives and their figures."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from scipy.special import softmax

import celbo
from celbo.external import POISSONVI
from celbo.model import PEAKVI
from celbo.module.variants import without_bias
from celbo.testing import check_model


def fragments(n_cells: int = 200, n_regions: int = 50, seed: int = 0) -> AnnData:
    """Poisson counts of two types in two batches."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(2, size=n_cells)
    rate_tg = rng.gamma(0.6, 1.0, size=(2, n_regions))
    depth_n = rng.uniform(0.5, 1.5, size=n_cells)
    adata = AnnData(sp.csr_matrix(rng.poisson(depth_n[:, None] * rate_tg[kind]).astype(np.float32)))
    adata.obs["type"] = pd.Categorical([f"type_{k}" for k in kind])
    adata.obs["batch"] = pd.Categorical([f"batch_{i % 2}" for i in range(n_cells)])
    return adata


@pytest.fixture(scope="module")
def model() -> POISSONVI:
    adata = fragments()
    POISSONVI.setup_anndata(adata, batch_key="batch", labels_key="type")
    model = POISSONVI(adata, n_hidden=32, n_latent=4)
    model.train(max_epochs=60, lr=5e-3, verbose=0, seed=0, accelerator="cpu")
    return model


@pytest.mark.usefixtures("global_rng_untouched")
def test_contract():
    check_model(POISSONVI, lambda: fragments(40), setup={"batch_key": "batch"}, init={"n_hidden": 6, "n_latent": 3})


class TestConstruction:
    def test_is_a_peakvi(self, model):
        assert isinstance(model, PEAKVI)

    def test_sizes_follow_from_the_number_of_regions(self):
        adata = fragments(30)
        POISSONVI.setup_anndata(adata)
        module = POISSONVI(adata).module
        assert (module.n_hidden, module.n_latent, module.n_layers) == (7, 2, 2)

    def test_further_arguments_reach_the_module(self):
        adata = fragments(30)
        POISSONVI.setup_anndata(adata, batch_key="batch")
        model = POISSONVI(adata, use_observed_lib_size=False, gene_likelihood="nb")
        assert model.module.library_log_means.shape == (1, 2)
        assert model.module.gene_likelihood == "nb"

    def test_size_factors(self):
        adata = fragments(30)
        adata.obs["sf"] = np.asarray(adata.X.sum(1)).ravel() / 10
        POISSONVI.setup_anndata(adata, size_factor_key="sf")
        assert POISSONVI(adata).module.use_size_factor_key


class TestCheckOfFragments:
    def test_reads_are_warned_of(self):
        adata = fragments(60)
        adata.X = adata.X * 2
        with pytest.warns(UserWarning, match=r"reads_to_fragments\(adata\).*layer='fragments'"):
            POISSONVI.setup_anndata(adata)

    def test_the_way_out_is_silent(self):
        adata = fragments(60)
        adata.X = adata.X * 2
        celbo.data.reads_to_fragments(adata)
        POISSONVI.setup_anndata(adata, layer="fragments")

    def test_zeros_and_ones_are_warned_of(self):
        adata = fragments(60)
        adata.X = (adata.X > 0).astype(np.float32)
        with pytest.warns(UserWarning, match=r"no count above 1.*PEAKVI"):
            POISSONVI.setup_anndata(adata)

    def test_a_few_cells_are_no_error(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            POISSONVI.setup_anndata(fragments(20))


class TestAccessibility:
    def test_is_the_softmax_without_the_bias(self, model):
        module = model.module
        (tensors,) = model._make_data_loader(model.adata, batch_size=200)
        encoded = module.inference(**module._get_inference_input(tensors))
        with torch.no_grad():
            hidden = module.decoder.px_decoder(encoded["qz"].loc, tensors["batch"])
            logits_ng = (hidden @ module.decoder.px_scale_decoder[0].weight.T).numpy()
        draws = model.get_normalized_accessibility(n_samples=400, seed=0, return_numpy=True)
        assert np.abs(draws - softmax(logits_ng, -1)).max() < 0.02
        np.testing.assert_allclose(draws.sum(1), 1, rtol=1e-5)

    def test_with_the_factors_it_is_the_expected_share(self, model):
        own = model.get_normalized_accessibility(normalize_regions=True, seed=3, return_numpy=True)
        np.testing.assert_array_equal(own, model.get_normalized_expression(seed=3, return_numpy=True))
        factors_g = model.get_region_factors()
        assert factors_g.shape == (50,)
        bare = model.get_normalized_accessibility(seed=3, return_numpy=True)
        np.testing.assert_allclose(own, softmax(np.log(bare) + factors_g, -1), rtol=1e-3)

    def test_frame(self, model):
        frame = model.get_normalized_accessibility(indices=[4, 1], region_list=["3", "9"], transform_batch="batch_1")
        assert list(frame.index) == ["4", "1"]
        assert list(frame.columns) == ["3", "9"]

    def test_draws_of_all_cells(self, model):
        rows = model.get_normalized_accessibility(n_samples_overall=6, weights="importance", seed=0, max_cells=20)
        assert rows.shape == (6, 50)

    def test_no_parameter_changes_while_it_answers(self, model):
        bias = model.module.decoder.px_scale_decoder[0].bias
        before = bias.detach().clone()
        seen = []
        handle = model.module.z_encoder.register_forward_hook(
            lambda *_: seen.append(model.module.decoder.px_scale_decoder[0].bias)
        )
        model.get_normalized_accessibility()
        handle.remove()
        assert all(one is bias for one in [*seen, model.module.decoder.px_scale_decoder[0].bias])
        torch.testing.assert_close(bias.detach(), before, rtol=0, atol=0)

    def test_library(self, model):
        totals_n = np.asarray(model.adata.X.sum(1)).ravel()
        np.testing.assert_allclose(model.get_library_size_factors(), totals_n, rtol=1e-5)
        latent = model.get_normalized_accessibility(library_size="latent", return_numpy=True)
        np.testing.assert_allclose(latent.sum(1), totals_n, rtol=1e-4)


class TestDifferences:
    def test_table(self, model):
        table = model.differential_accessibility(groupby="type", group1="type_0", group2="type_1", seed=0)
        is_open = pd.DataFrame(model.adata.X.toarray() > 0, columns=model.adata.var_names)
        shares = is_open.groupby(model.adata.obs["type"].to_numpy()).mean()
        np.testing.assert_allclose(table["emp_prob1"], shares.loc["type_0", table.index], atol=1e-9)
        np.testing.assert_allclose(table["emp_effect"], table["emp_prob1"] - table["emp_prob2"], atol=1e-9)
        assert np.corrcoef(table["lfc_mean"], table["emp_effect"])[0, 1] > 0.6

    def test_one_side(self, model):
        groups = {"groupby": "type", "group1": "type_0", "group2": "type_1", "seed": 0, "delta": 0.5}
        both = model.differential_accessibility(**groups)["proba_de"].sort_index()
        up, down = (
            model.differential_accessibility(two_sided=False, **(groups | swapped))["proba_de"].sort_index()
            for swapped in ({}, {"group1": "type_1", "group2": "type_0"})
        )
        np.testing.assert_allclose(both, up + down, atol=0.05)

    def test_genes_are_not_compared(self, model):
        with pytest.raises(NotImplementedError, match="differential_accessibility"):
            model.differential_expression()


class TestVariantsOfAModule:
    def test_shares_all_other_weights(self, model):
        variant = without_bias(model.module, "decoder.px_scale_decoder.0")
        shared = dict(variant.named_parameters())
        own = dict(model.module.named_parameters())
        assert own.keys() - shared.keys() == {"decoder.px_scale_decoder.0.bias"}
        assert all(own[name] is shared[name] for name in shared)


def test_minified(model, tmp_path):
    copy = model.adata.copy()
    POISSONVI.setup_anndata(copy, batch_key="batch", labels_key="type")
    model.save(str(tmp_path / "model"))
    small = POISSONVI.load(str(tmp_path / "model"), copy, accelerator="cpu")
    copy.obsm["m"], copy.obsm["v"] = small.get_latent_representation(return_dist=True)
    expected = small.get_normalized_accessibility(n_samples=50, seed=0, return_numpy=True)
    small.minify_adata(use_latent_qzm_key="m", use_latent_qzv_key="v")
    assert small.adata.X.nnz == 0
    stored = small.get_normalized_accessibility(n_samples=50, seed=0, return_numpy=True)
    assert np.abs(stored - expected).mean() < 1e-3


def test_query(model):
    query = fragments(40, seed=1)
    query.obs["batch"] = "new"
    mapped = POISSONVI.load_query_data(query, model)
    mapped.train(max_epochs=1, verbose=0, seed=0, accelerator="cpu")
    assert mapped.get_latent_representation().shape == (40, 4)


@pytest.mark.parametrize("case", ["poissonvi", "poissonvi_covariates"])
def test_figures_of_scvi_tools(case, check_case):
    asked, compared, faults = check_case(case)
    assert faults == []
    assert compared > asked > 12
