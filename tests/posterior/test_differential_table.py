"""From a module to a table: pairing within batches, columns, seeds."""

import numpy as np
import pytest

from celbo.posterior import (
    Comparison,
    Counts,
    Hypothesis,
    Sampling,
    Weighting,
    differential_expression,
    sampled,
    split_options,
)
from celbo.posterior.differential_table import batch_of_row, permuted_rows, without_outliers

GENES = [f"gene{i}" for i in range(12)]


def ask(vae, loader, hypothesis=None, comparison=None, counts=True, seed=0, all_stats=True, **sampling):
    comparison = comparison or Comparison(np.arange(10), np.arange(10, 23), "a", "Rest")
    return differential_expression(
        vae,
        loader.of,
        [comparison],
        GENES,
        hypothesis=hypothesis or Hypothesis(),
        sampling=Sampling(**({"n_samples_overall": 60} | sampling)),
        counts=[Counts(loader.tables["X"].numpy())] if counts else None,
        all_stats=all_stats,
        seed=seed,
    )


COUNTED = [f"{name}{k}" for name in ("raw_mean", "non_zeros_proportion", "raw_normalized_mean") for k in (1, 2)]
NAMED = ["comparison", "group1", "group2"]


class TestTable:
    def test_vanilla(self, vae, loader, global_rng_untouched):
        table = ask(vae, loader)
        first = ["proba_m1", "proba_m2", "bayes_factor", "scale1", "scale2"]
        assert list(table) == [*first, *COUNTED, "is_de_fdr_0.05", *NAMED]
        assert sorted(table.index) == sorted(GENES)
        assert table["bayes_factor"].is_monotonic_decreasing
        assert set(table["comparison"]) == {"a vs Rest"}
        x = loader.tables["X"].numpy()
        np.testing.assert_allclose(table.loc[GENES, "raw_mean1"], x[:10].mean(0), rtol=1e-6)

    def test_change(self, vae, loader):
        table = ask(vae, loader, Hypothesis(mode="change", cred_interval_lvls=[0.9]))
        lfc = [f"lfc_{name}" for name in ("mean", "median", "std", "min", "max")]
        interval = [f"lfc_confidence_interval_0.9_{end}" for end in ("min", "max")]
        first = ["proba_de", "proba_not_de", "bayes_factor", "scale1", "scale2", "pseudocounts", "delta", *lfc]
        assert list(table) == [*first, *interval, *COUNTED, "is_de_fdr_0.05", *NAMED]
        assert table["proba_de"].is_monotonic_decreasing

    def test_without_statistics_or_names(self, vae, loader):
        plain = ask(vae, loader, comparison=Comparison(np.arange(5), np.arange(5, 9)), all_stats=False)
        assert not set(plain) & {*COUNTED, *NAMED}
        assert not set(ask(vae, loader, counts=False)) & set(COUNTED)

    def test_seeds(self, vae, loader):
        assert ask(vae, loader, seed=1).equals(ask(vae, loader, seed=1))
        assert not ask(vae, loader, seed=1).equals(ask(vae, loader, seed=2))

    def test_scales_are_the_groups_means(self, vae, loader):
        table = ask(vae, loader, n_samples_overall=5000)
        draws = sampled(vae, loader.of, np.arange(10), 5000, seed=9)
        error = draws.std(0) / np.sqrt(5000)
        assert (np.abs(table.loc[GENES, "scale1"] - draws.mean(0)) < 7 * error).all()

    def test_weighted(self, vae, loader):
        weighting = Weighting(max_cells=3, n_mc_samples=4, n_mc_samples_per_pass=4)
        table = ask(vae, loader, weighting=weighting)
        np.testing.assert_allclose(table["scale1"].sum(), 1, rtol=1e-4)

    def test_outliers(self, vae, make):
        pytest.importorskip("sklearn", reason="filter_outlier_cells needs scikit-learn")
        loader = make.loader(n=60)
        kept = without_outliers(vae, loader.of, np.arange(60), seed=0)
        assert len(kept) == 54
        few = np.arange(5)
        np.testing.assert_array_equal(without_outliers(vae, loader.of, few, seed=0), few)


class TestBatches:
    def test_pairs_stay_within_a_batch(self, vae, loader):
        """The same cells in both groups and only the batch to tell draws apart: no gene differs."""
        same = Comparison(np.array([3]), np.array([3]))
        corrected = ask(vae, loader, comparison=same, n_samples_overall=4000, batches1=[0, 1, 2], batches2=[2, 1, 0])
        np.testing.assert_allclose(corrected["proba_m1"], 0.5, atol=0.05)
        apart = ask(vae, loader, comparison=same, n_samples_overall=4000, batches1=[0], batches2=[1, 2])
        assert np.abs(apart["proba_m1"] - 0.5).max() > 0.2

    def test_codes_of_rows(self):
        assert batch_of_row(None, 5) is None
        codes = batch_of_row([2, 0, 1], 5000)
        np.testing.assert_array_equal(np.bincount(codes), [1667, 1667, 1666])
        assert (np.diff(codes) >= 0).all()

    @pytest.mark.parametrize(("first", "second"), [([0, 1], [1, 2]), ([0], None), (None, [0])])
    def test_refused(self, first, second):
        with pytest.raises(ValueError, match="batchid1 and batchid2"):
            Sampling(batches1=first, batches2=second)

    def test_permuted_pairs(self, rng):
        codes = batch_of_row([0, 1, 2], 50)
        rows1, rows2 = permuted_rows(codes, codes, 50, 1000, rng)
        np.testing.assert_array_equal(codes[rows1], codes[rows2])
        assert set(rows1) == set(rows2) == set(range(50))
        other = batch_of_row([4], 50)
        rows1, rows2 = permuted_rows(codes, other, 50, 5000, rng)
        assert len(set(zip(rows1, rows2))) > 1500

    def test_permuted_table(self, vae, loader):
        table = ask(vae, loader, use_permutation=True, m_permutation=500, batches1=[0, 1], batches2=[0, 1])
        np.testing.assert_allclose(table["proba_m1"] * 500, (table["proba_m1"] * 500).round(), atol=1e-9)


def test_options():
    hypothesis, sampling = split_options({"test_mode": "two", "n_samples_overall": 9})
    assert (hypothesis, sampling) == ({"test_mode": "two"}, {"n_samples_overall": 9})
    with pytest.raises(TypeError, match="Did you mean 'n_samples_overall'"):
        split_options({"n_samples_overal": 9})
    with pytest.raises(ValueError, match="n_samples_overall must be a whole number of at least 1, got 0"):
        Sampling(n_samples_overall=0)
