"""PEAKVI: open chromatin, its factors and differences; scvi-tools' archives and their figures."""

import logging

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from scipy.special import expit
from torch.distributions import Bernoulli

from celbo import posterior
from celbo.dataloaders import DataSplitter
from celbo.distributions import Accessibility
from celbo.model import PEAKVI
from celbo.module import PEAKVAE
from celbo.ops import reference

ENCODER_AND_DECODER = ("z_encoder.encoder", "z_decoder.px_decoder")


def peaks(n_cells: int = 300, n_regions: int = 60, seed: int = 0) -> AnnData:
    """Two types that differ in which regions are open, in two batches, of different depth."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(2, size=n_cells)
    open_tg = expit(rng.normal(-1.5, 2, size=(2, n_regions)))
    depth_n = rng.uniform(0.5, 1, size=n_cells)
    x_ng = rng.random((n_cells, n_regions)) < depth_n[:, None] * open_tg[kind]
    adata = AnnData(sp.csr_matrix(x_ng.astype(np.float32) * rng.integers(1, 4, size=x_ng.shape)))
    adata.obs["type"] = pd.Categorical([f"type_{k}" for k in kind])
    adata.obs["batch"] = pd.Categorical([f"batch_{i % 2}" for i in range(n_cells)])
    adata.var_names = [f"chr1:{1000 * g}-{1000 * g + 500}" for g in range(n_regions)]
    return adata


@pytest.fixture(scope="module")
def model() -> PEAKVI:
    adata = peaks()
    PEAKVI.setup_anndata(adata, batch_key="batch", labels_key="type")
    model = PEAKVI(adata, n_hidden=32, n_latent=4)
    model.train(max_epochs=100, lr=1e-2, verbose=0, seed=0, accelerator="cpu")
    return model


class TestModule:
    def test_sizes_follow_from_the_number_of_regions(self):
        module = PEAKVAE(50)
        assert (module.n_hidden, module.n_latent) == (7, 2)

    def test_loss_is_the_closed_form(self, model):
        """The product of three probabilities, in float64; the KL divergence weighs once, the rest once a cell."""
        (tensors,) = model._make_data_loader(model.adata, batch_size=300)
        inferred, generated, record = model.module(tensors, loss_kwargs={"kl_weight": 0.3})
        px = generated["px"]
        p_ng = px.logits.double().sigmoid() * inferred["d"].double() * model.module.region_factors.double().sigmoid()
        nll_n = -Bernoulli(p_ng).log_prob((tensors["X"] > 0).double()).sum(-1)
        torch.testing.assert_close(record.reconstruction_loss["reconstruction_loss"].double(), nll_n, rtol=1e-5, atol=0)
        expected = 300 * nll_n.sum() + 0.3 * record.kl_local_sum
        torch.testing.assert_close(record.loss.double(), expected.double(), rtol=1e-5, atol=0)

    def test_only_zero_or_not_counts_in_the_likelihood(self, model):
        (tensors,) = model._make_data_loader(model.adata, batch_size=300)
        px = model.module(tensors, compute_loss=False)[1]["px"]
        torch.testing.assert_close(px.log_prob_sum(tensors["X"]), px.log_prob_sum((tensors["X"] > 0).float()))

    def test_gradients_do_not_vanish_where_a_probability_rounds_to_one(self):
        logits = torch.tensor([[40.0, -120.0]], requires_grad=True)
        reference.accessibility_log_prob_sum(torch.tensor([[0.0, 1.0]]), logits).sum().backward()
        torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 1.0]]))

    def test_means_of_the_latents_on_request(self, model):
        (tensors,) = model._make_data_loader(model.adata, batch_size=300)
        encoded = model.module.inference(**model.module._get_inference_input(tensors))
        one, other = (
            model.module(tensors, generative_kwargs={"use_z_mean": True}, compute_loss=False)[1]["px"].logits
            for _ in range(2)
        )
        torch.testing.assert_close(one, other)
        assert encoded["qz_m"] is encoded["qz"].loc

    def test_draws(self, model):
        (tensors,) = model._make_data_loader(model.adata, batch_size=300)
        assert model.module.sample(tensors).shape == (300, 60)
        assert set(model.module.sample(tensors, n_samples=3).unique().tolist()) == {0.0, 1.0}


class TestTraining:
    def test_as_scvi_tools_does(self, model, monkeypatch):
        seen = {}
        monkeypatch.setattr("celbo.model.base.training.train_model", lambda model, **given: seen.update(given))
        model.train(recipe="classic")
        assert seen["max_epochs"] == 500
        assert seen["plan_kwargs"] == {
            "lr": 1e-4,
            "weight_decay": 1e-3,
            "eps": 1e-8,
            "n_epochs_kl_warmup": 50,
            "n_steps_kl_warmup": None,
        }
        stopping = {name: seen["trainer_kwargs"][name] for name in seen["trainer_kwargs"] if "early" in name}
        assert stopping == {
            "early_stopping": True,
            "early_stopping_monitor": "reconstruction_loss_validation",
            "early_stopping_patience": 50,
        }
        assert model._plan_defaults["optimizer"] == "AdamW"

    @pytest.mark.parametrize(
        ("given", "recipe", "max_epochs", "lr"),
        [
            ({}, "one_cycle", None, 3e-3),
            ({"max_epochs": 7}, "one_cycle", 7, 3e-3),
            ({"lr": 1e-3}, "classic", 500, 1e-3),  # who gives a rate means scvi-tools' schedule
            ({"lr": 1e-3, "recipe": "one_cycle"}, "one_cycle", None, 1e-3),
            ({"train_size": 0.4}, "classic", 200, 3e-4),  # 120 cells: one minibatch
            ({"train_size": 0.4, "lr": 1e-3}, "classic", 500, 1e-3),
            ({"train_size": 0.4, "max_epochs": 9}, "one_cycle", 9, 3e-3),
            ({"train_size": 0.4, "recipe": "classic"}, "classic", 500, 1e-4),
        ],
    )
    def test_by_its_own_recipe(self, model, monkeypatch, given, recipe, max_epochs, lr):
        seen = {}
        monkeypatch.setattr("celbo.model.base.training.train_model", lambda model, **given: seen.update(given))
        model.train(**given)
        assert (seen["recipe"], seen["max_epochs"], seen["plan_kwargs"]["lr"]) == (recipe, max_epochs, lr)
        assert seen["trainer_kwargs"]["early_stopping"] == (recipe == "classic" and max_epochs == 500)
        gives_up = recipe == "one_cycle" and "max_epochs" not in given  # who asks for seven epochs gets seven
        assert seen["trainer_kwargs"].get("gives_up_after", 1.0) == (0.3 if gives_up else 1.0)

    def test_by_loaders_without_data(self, model, monkeypatch, tmp_path):
        seen = {}
        model.save(tmp_path / "model")
        alone = PEAKVI.load(tmp_path / "model", adata=False)
        monkeypatch.setattr("celbo.model.base.training.train_model", lambda model, **given: seen.update(given))
        alone.train(datamodule=DataSplitter(model.adata_manager))
        assert (seen["recipe"], seen["max_epochs"], seen["plan_kwargs"]["lr"]) == ("one_cycle", None, 3e-3)

    def test_what_is_said_of_the_plan_wins(self, model, monkeypatch):
        seen = {}
        monkeypatch.setattr("celbo.model.base.training.train_model", lambda model, **given: seen.update(given))
        model.train(lr=1e-2, plan_kwargs={"eps": 0.1})
        assert (seen["plan_kwargs"]["lr"], seen["plan_kwargs"]["eps"]) == (1e-2, 0.1)

    def test_separates_the_types(self, model):
        z_nk = model.get_latent_representation()
        kind = model.adata.obs["type"].to_numpy()
        nearest = [kind[np.argsort(((z_nk - z) ** 2).sum(1))[1:6]] for z in z_nk]
        assert np.mean([np.mean(near == own) for near, own in zip(nearest, kind)]) > 0.9


class TestFactors:
    def test_of_cells(self, model):
        d_n = model.get_library_size_factors()
        assert d_n.shape == (300,)
        assert ((d_n > 0) & (d_n < 1)).all()
        np.testing.assert_allclose(model.get_library_size_factors(indices=[5, 3]), d_n[[5, 3]], rtol=1e-5)

    def test_there_is_no_library(self, model):
        with pytest.raises(RuntimeError, match="PEAKVAE has no library size"):
            model.get_latent_library_size()

    def test_of_regions(self, model):
        np.testing.assert_allclose(
            model.get_region_factors(), expit(model.module.region_factors.detach().numpy()), rtol=1e-6
        )

    def test_a_model_without_them_says_so(self):
        adata = peaks(30)
        PEAKVI.setup_anndata(adata)
        model = PEAKVI(adata, model_depth=False, region_factors=False)
        with pytest.raises(RuntimeError, match="model_depth=False"):
            model.get_library_size_factors()
        with pytest.raises(RuntimeError, match="region_factors=False"):
            model.get_region_factors()


class TestAccessibility:
    def test_factors_multiply(self, model):
        bare, of_cells, of_regions, seen = (
            model.get_normalized_accessibility(return_numpy=True, normalize_cells=cells, normalize_regions=regions)
            for cells, regions in ((False, False), (True, False), (False, True), (True, True))
        )
        d_n1, f_g = model.get_library_size_factors()[:, None], model.get_region_factors()
        np.testing.assert_allclose(of_cells, bare * d_n1, rtol=1e-5)
        np.testing.assert_allclose(of_regions, bare * f_g, rtol=1e-5)
        np.testing.assert_allclose(seen, bare * d_n1 * f_g, rtol=1e-5)

    def test_frame(self, model):
        regions = list(model.adata.var_names[[7, 2]])
        frame = model.get_normalized_accessibility(indices=[4, 1], region_list=regions)
        assert list(frame.index) == ["4", "1"]
        assert set(frame.columns) == set(regions)

    def test_threshold_is_sparse(self, model):
        full = model.get_normalized_accessibility(return_numpy=True)
        cut = model.get_normalized_accessibility(threshold=0.4, return_numpy=True)
        assert isinstance(cut, sp.csr_matrix)
        np.testing.assert_array_equal(cut.toarray(), np.where(full >= 0.4, full, 0))
        frame = model.get_normalized_accessibility(threshold=0.4)
        assert all(isinstance(dtype, pd.SparseDtype) for dtype in frame.dtypes)
        with pytest.raises(ValueError, match="at least 0 and at most 1, or None, got 2"):
            model.get_normalized_accessibility(threshold=2)

    def test_batches_are_averaged(self, model):
        one, two, both = (
            model.get_normalized_accessibility(transform_batch=batch, return_numpy=True)
            for batch in ("batch_0", "batch_1", ["batch_0", "batch_1"])
        )
        np.testing.assert_allclose(both, (one + two) / 2, rtol=1e-5)
        with pytest.raises(ValueError, match="batch_7"):
            model.get_normalized_accessibility(transform_batch="batch_7")

    def test_draws(self, model):
        draws = [model.get_normalized_accessibility(use_z_mean=False, seed=s, return_numpy=True) for s in (0, 0, 1)]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert not np.array_equal(draws[0], draws[2])
        some = model.get_normalized_accessibility(n_samples_overall=7, seed=0)
        assert some.shape == (7, 60)

    def test_likelihood(self, model):
        mean_ng = model.get_likelihood_parameters(seed=0)["mean"]
        seen = model.get_normalized_accessibility(
            use_z_mean=False, normalize_cells=True, normalize_regions=True, seed=0, return_numpy=True
        )
        np.testing.assert_allclose(mean_ng, seen, rtol=1e-5)


class TestDifferences:
    def test_table(self, model):
        table = model.differential_accessibility(groupby="type", group1="type_0", group2="type_1", seed=0)
        counts = pd.DataFrame(model.adata.X.toarray() > 0, columns=model.adata.var_names)
        shares = counts.groupby(model.adata.obs["type"].to_numpy()).mean()
        for i, kind in ((1, "type_0"), (2, "type_1")):
            np.testing.assert_allclose(table[f"emp_prob{i}"], shares.loc[kind, table.index], atol=1e-9)
        np.testing.assert_allclose(table["emp_effect"], table["emp_prob2"] - table["emp_prob1"], atol=1e-9)
        np.testing.assert_allclose(table["effect_size"], table["est_prob2"] - table["est_prob1"], atol=1e-6)
        assert np.corrcoef(table["effect_size"], table["emp_effect"])[0, 1] > 0.8
        assert (table["is_da_fdr"] == posterior.expected_fdr(table["prob_da"].to_numpy(), 0.05)).all()

    def test_vanilla_and_several_targets(self, model):
        table = model.differential_accessibility(
            idx1=[0, 1, 2, 3], idx2=[7, 8, 9], mode="vanilla", fdr_target=[0.05, 0.2], all_stats=False, seed=0
        )
        assert {"is_da_fdr_0.05", "is_da_fdr_0.2"} <= set(table)
        assert table["prob_da"].between(0.5, 1).all()
        assert "emp_effect" not in table


class TestQueries:
    @pytest.fixture
    def query(self):
        query = peaks(40, seed=1)
        query.obs["batch"] = "new"
        return query

    def test_only_what_is_new_moves(self, model, query):
        old = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
        mapped = PEAKVI.load_query_data(query, model)
        mapped.train(max_epochs=2, verbose=0, seed=0, accelerator="cpu")
        first = "z_decoder.px_decoder.fc_layers.Layer 0.0.weight"
        new = mapped.module.state_dict()
        for name, before in old.items():
            after = new[name]
            if name == first:
                assert not torch.equal(after[:, -1], before[:, -2:].mean(1))
                after = after[:, :-1]
            torch.testing.assert_close(after, before, rtol=0, atol=0)

    def test_keeps_the_optimizer(self, model, query):
        mapped = PEAKVI.load_query_data(query, model)
        assert mapped._plan_defaults == {"optimizer": "AdamW", "weight_decay": 0.0}

    def test_encoders_on_request(self, model, query):
        mapped = PEAKVI.load_query_data(query, model, freeze_expression=False)
        free = {name for name, parameter in mapped.module.named_parameters() if parameter.requires_grad}
        assert "z_encoder.encoder.fc_layers.Layer 0.0.weight" in free
        assert "d_encoder.px_decoder.fc_layers.Layer 0.0.weight" in free


def test_covariates_reach_encoders_and_decoder(caplog):
    adata = peaks(40)
    adata.obs["donor"] = [f"d{i % 3}" for i in range(40)]
    adata.obs["age"] = np.linspace(0, 1, 40)
    keys = {"categorical_covariate_keys": ["donor"], "continuous_covariate_keys": ["age"]}
    PEAKVI.setup_anndata(adata, batch_key="batch", **keys)
    model = PEAKVI(adata, encode_covariates=True)
    assert model.module.z_encoder.encoder.n_cat_list == [2, 3]
    assert model.module.d_encoder.px_decoder.fc_layers[0][0].weight.shape[1] == 60 + 1 + 2 + 3
    with caplog.at_level(logging.WARNING):
        model.train(max_epochs=1, verbose=0, accelerator="cpu")


@pytest.mark.parametrize("deep", [False, True])
def test_covariates_enter_each_layer_of_the_encoder(deep):
    """As in scvi-tools, whatever the decoders have."""
    module = PEAKVAE(20, n_batch=3, n_hidden=8, encode_covariates=True, deeply_inject_covariates=deep)
    weights = module.state_dict()
    widths = {name: weights[f"{name}.fc_layers.Layer 1.0.weight"].shape[1] - 8 for name in ENCODER_AND_DECODER}
    assert widths == dict(zip(ENCODER_AND_DECODER, (3, 3 * deep), strict=True))


def test_distribution_repeats_its_factors():
    px = Accessibility(torch.zeros(3, 4), torch.zeros(3, 1), torch.zeros(4))
    assert px.expand(torch.Size([2, 3, 4])).log_prob_sum(torch.ones(3, 4)).shape == (2, 3)
    torch.testing.assert_close(px.get_normalized("mu"), torch.full((3, 4), 0.125))


@pytest.mark.parametrize("case", ["peakvi", "peakvi_covariates", "peakvi_plain"])
def test_figures_of_scvi_tools(case, check_case):
    asked, compared, faults = check_case(case)
    assert faults == []
    assert compared > asked > 12


@pytest.fixture(scope="module")
def wide() -> AnnData:
    rng = np.random.default_rng(0)
    x = sp.random_array((150, 6000), density=0.02, format="csr", dtype=np.float32, rng=rng)
    x.data = rng.integers(1, 3, size=x.nnz).astype(np.float32)
    adata = AnnData(sp.csr_matrix(x))
    adata.obs["batch"] = pd.Categorical([f"batch_{i % 2}" for i in range(150)])
    return adata


class TestSparse:
    """Counts that reach networks and likelihood as CSR."""

    @pytest.fixture
    def train(self, wide):
        def train(**options):
            PEAKVI.setup_anndata(wide, batch_key="batch")
            model = PEAKVI(wide, **options)
            model.train(max_epochs=2, lr=1e-3, batch_size=50, verbose=0, seed=0, accelerator="cpu")
            return model

        return train

    @pytest.mark.parametrize("options", [{}, {"encode_covariates": True}, {"model_depth": False}])
    def test_same_training(self, train, options, monkeypatch):
        sparse = train(**options)
        monkeypatch.setattr("celbo.model.base.training._sparse_reading", lambda *_: {})
        dense = train(**options)
        for name in ("train_loss", "reconstruction_loss_validation", "kl_local_validation"):
            np.testing.assert_allclose(sparse.history[name], dense.history[name], rtol=1e-4)

    def test_training_makes_nothing_dense(self, train, monkeypatch):
        monkeypatch.setattr(torch.Tensor, "to_dense", lambda self: pytest.fail("counts were made dense"))
        model = train()
        assert model.get_latent_representation().shape == (150, 8)
        assert model.get_library_size_factors().shape == (150,)

    def test_same_answers(self, train, monkeypatch):
        model = train()
        sparse = model.get_latent_representation(), model.get_normalized_accessibility(return_numpy=True)
        monkeypatch.setattr("celbo.verbs.cells.encodes_faster_sparse", lambda *_: False)
        dense = model.get_latent_representation(), model.get_normalized_accessibility(return_numpy=True)
        for one, other in zip(sparse, dense, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
