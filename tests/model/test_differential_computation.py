"""Differential expression from a function that draws expression: figures against the formulas."""

import numpy as np
import pytest

from celbo.data import AnnDataManager, synthetic_iid
from celbo.data.fields import CategoricalObsField, LayerField
from celbo.model.base import DifferentialComputation

N_GENES = 6


@pytest.fixture
def manager():
    adata = synthetic_iid(batch_size=40, n_genes=N_GENES, seed=0)
    manager = AnnDataManager([LayerField("X", None), CategoricalObsField("batch", "batch")])
    manager.register_fields(adata)
    return manager


class Model:
    """Expression that doubles, gene by gene, from the cells below 20 to the others; the batch shows in gene 0."""

    def __init__(self):
        self.calls = []
        self.rng = np.random.default_rng(0)

    def __call__(self, adata, indices, transform_batch, n_samples_overall):
        self.calls.append((len(indices), transform_batch, n_samples_overall))
        drawn = self.rng.choice(indices, n_samples_overall)
        scale = 1 + (drawn[:, None] >= 20) * (np.arange(N_GENES) % 2)
        scale = scale * self.rng.lognormal(sigma=0.05, size=scale.shape)
        scale[:, 0] += transform_batch == "batch_1"
        return scale.astype(np.float32)


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def computation(manager, model):
    return DifferentialComputation(model, None, manager)


def test_change(computation, model):
    found = computation.get_bayes_factors(np.arange(20), np.arange(20, 80), delta=0.5, pseudocounts=1e-6)
    assert found["proba_de"].round(2).tolist() == [0, 1, 0, 1, 0, 1]
    np.testing.assert_allclose(found["lfc_mean"][1::2], -1, atol=0.02)
    assert (found["pseudocounts"], found["delta"]) == (1e-6, 0.5)
    batches = ["batch_0", "batch_1"]
    assert model.calls == [(20, name, 2500) for name in batches] + [(60, name, 2500) for name in batches]


def test_masks_and_own_batches(computation, model):
    mask = np.arange(80) < 20
    found = computation.get_bayes_factors(mask, ~mask, mode="vanilla", use_observed_batches=True, n_samples_overall=300)
    assert found["proba_m1"].round(2)[1] == 0
    assert model.calls == [(20, None, 300), (60, None, 300)]


def test_batches_of_each_group(computation, model):
    computation.get_bayes_factors([0, 1], [2], "vanilla", ["batch_1"], ["batch_0"], n_samples_overall=10)
    assert [call[1] for call in model.calls] == ["batch_1", "batch_0"]
    with pytest.warns(UserWarning, match="'batch_0'. in common"):
        computation.get_bayes_factors([0], [2], "vanilla", ["batch_0"], ["batch_1", "batch_0"], n_samples_overall=10)


def test_random_pairs_stay_within_a_batch(computation):
    """Gene 0 differs by 1 between batches, which pairs across them would show.

    Noise alone has a standard deviation of .1: at .75 none of the 3,000 effects reaches ``delta`` by chance.
    """
    found = computation.get_bayes_factors(
        np.arange(10), np.arange(10, 20), use_permutation=True, m_permutation=500, pseudocounts=1e-6, delta=0.75
    )
    assert found["proba_de"].max() == 0


def test_effects_of_ones_own(computation):
    def apart(one, two):
        return one - two

    def with_pseudocount(one, two, pseudocount):
        assert pseudocount == 1e-3 or pseudocount == 1e-6
        return one - two

    options = {"m1_domain_fn": lambda effect: np.abs(effect) > 0.5, "pseudocounts": 1e-3}
    for change_fn in (apart, with_pseudocount):
        found = computation.get_bayes_factors(np.arange(20), np.arange(20, 80), change_fn=change_fn, **options)
        assert found["proba_de"].round(2).tolist() == [0, 1, 0, 1, 0, 1]
        np.testing.assert_allclose(found["lfc_mean"][1], -1, atol=0.02)


def test_pseudocounts_come_from_genes_without_counts(manager, model):
    manager.adata.X[:, 2] = 0
    computation = DifferentialComputation(model, None, manager)
    found = computation.get_bayes_factors(np.arange(20), np.arange(20, 80))
    assert 1 / N_GENES < found["pseudocounts"] < 1.5 / N_GENES  # gene 2 is drawn around 1
    assert computation.get_bayes_factors([0], [1], "vanilla").keys() >= {"proba_m1", "scale2"}


class TestSampler:
    def test_numbers_of_draws(self, computation):
        drawn = computation.scale_sampler(np.arange(20), n_samples_overall=100)
        assert drawn["scale"].shape == (100, N_GENES)
        assert drawn["batch"].tolist() == ["batch_0"] * 50 + ["batch_1"] * 50
        assert len(computation.scale_sampler([3, 4], None, n_samples_per_cell=6)["scale"]) == 12
        assert computation.scale_sampler([3], 10, give_mean=True)["scale"].shape == (N_GENES,)
        with pytest.warns(UserWarning, match="Ignoring `n_samples_per_cell`"):
            computation.scale_sampler([3], 10, 10)

    def test_outliers_are_left_out(self, manager, model):
        pytest.importorskip("sklearn")
        z = np.random.default_rng(0).normal(size=(80, 2))
        z[[3, 7]] = 50
        computation = DifferentialComputation(model, lambda adata, indices: z[indices], manager)
        kept = computation.filter_outlier_cells(np.arange(40))
        assert len(kept) == 36
        assert not {3, 7} & {*kept}
        computation.scale_sampler(np.arange(40), 10)
        assert model.calls[-1][0] == 36
        assert computation.filter_outlier_cells([1, 2]).tolist() == [1, 2]
