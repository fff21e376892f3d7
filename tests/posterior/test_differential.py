"""Evidence for a change, where the draws' distributions make it known."""

import numpy as np
import pytest
from scipy import stats

from celbo.posterior import (
    Hypothesis,
    Pairs,
    differential_effects,
    estimate_delta,
    estimate_pseudocount,
    expected_fdr,
)
from celbo.posterior.differential import bayes_factor, describe_draws, highest_density_interval

R = 40_000


@pytest.fixture
def log_normal_pairs(rng):
    """Draws whose log2 fold change is N(shift, 1) exactly, for five shifts."""
    shift_g = np.array([-2.0, -0.3, 0.0, 0.5, 3.0])
    logs1, logs2 = (rng.normal(scale=np.sqrt(0.5), size=(R, 5)) for _ in range(2))
    return shift_g, Pairs(2.0 ** (logs1 + shift_g), 2.0**logs2)


class TestVanilla:
    def test_probability(self, log_normal_pairs):
        shift_g, pairs = log_normal_pairs
        found = differential_effects(pairs, Hypothesis(mode="vanilla"))
        assert list(found) == ["proba_m1", "proba_m2", "bayes_factor", "scale1", "scale2"]
        np.testing.assert_allclose(found["proba_m1"], stats.norm.cdf(shift_g), atol=0.015)
        np.testing.assert_allclose(found["proba_m1"] + found["proba_m2"], 1)
        np.testing.assert_allclose(found["scale1"], pairs.scale1_rg.mean(0), rtol=1e-5)

    def test_bayes_factor_at_certainty(self):
        np.testing.assert_allclose(bayes_factor(np.array([0.5, 1.0, 0.0])), [0, 18.420681, -18.420681], atol=1e-6)


class TestChange:
    options = {"mode": "change", "pseudocounts": 0.0}

    @pytest.mark.parametrize("delta", [0.0, 0.25, 1.0])
    def test_three_way(self, log_normal_pairs, delta):
        shift_g, pairs = log_normal_pairs
        found = differential_effects(pairs, Hypothesis(delta=delta, **self.options))
        up, down = stats.norm.sf(delta - shift_g), stats.norm.cdf(-delta - shift_g)
        np.testing.assert_allclose(found["proba_de"], np.maximum(up, down), atol=0.015)
        two = differential_effects(pairs, Hypothesis(delta=delta, test_mode="two", **self.options))
        np.testing.assert_allclose(two["proba_de"], up + down, atol=0.015)
        np.testing.assert_allclose(two["proba_not_de"], 1 - two["proba_de"])

    def test_a_wide_posterior_is_no_discovery(self, rng):
        """Effect N(0, 5^2): "any change" is nearly sure, its direction is not known at all."""
        pairs = Pairs(2.0 ** rng.normal(scale=5, size=(R, 1)), np.ones((R, 1)))
        assert differential_effects(pairs, Hypothesis(test_mode="two", **self.options))["proba_de"][0] > 0.95
        assert differential_effects(pairs, Hypothesis(**self.options))["proba_de"][0] < 0.51

    def test_described(self, log_normal_pairs):
        shift_g, pairs = log_normal_pairs
        found = differential_effects(pairs, Hypothesis(cred_interval_lvls=[0.5, 0.95], **self.options))
        np.testing.assert_allclose(found["lfc_mean"], shift_g, atol=0.03)
        np.testing.assert_allclose(found["lfc_median"], shift_g, atol=0.03)
        np.testing.assert_allclose(found["lfc_std"], 1, atol=0.02)
        assert (found["lfc_min"] < shift_g - 3).all()
        assert (found["lfc_max"] > shift_g + 3).all()
        for level in (0.5, 0.95):
            half = stats.norm.ppf(0.5 + level / 2)
            low, high = (found[f"lfc_confidence_interval_{level}_{end}"] for end in ("min", "max"))
            np.testing.assert_allclose(high - low, 2 * half, rtol=0.03)
            np.testing.assert_allclose((high + low) / 2, shift_g, atol=0.15)

    def test_blocks_of_genes_change_nothing(self, log_normal_pairs, monkeypatch):
        _, pairs = log_normal_pairs
        whole = differential_effects(pairs, Hypothesis(**self.options))
        monkeypatch.setattr("celbo.posterior.differential._ENTRIES", 2 * R)
        blocks = differential_effects(pairs, Hypothesis(**self.options))
        for name in whole:
            np.testing.assert_allclose(blocks[name], whole[name])

    def test_own_functions(self, log_normal_pairs):
        shift_g, pairs = log_normal_pairs
        hypothesis = Hypothesis(
            mode="change", change_fn=lambda one, two: one - two, m1_domain_fn=lambda effect: effect > 0, delta=None
        )
        found = differential_effects(pairs, hypothesis)
        np.testing.assert_allclose(found["proba_de"], stats.norm.cdf(shift_g), atol=0.015)
        np.testing.assert_allclose(found["lfc_mean"], (pairs.scale1_rg - pairs.scale2_rg).mean(0))
        assert np.isnan(found["delta"]).all()

    def test_own_domain_of_both_directions(self, log_normal_pairs):
        _, pairs = log_normal_pairs
        for test_mode in ("three", "two"):
            usual = differential_effects(pairs, Hypothesis(mode="change", delta=0.5, test_mode=test_mode))
            own = Hypothesis(
                mode="change", m1_domain_fn=lambda effect: (effect >= 0.5, effect < -0.5), test_mode=test_mode
            )
            np.testing.assert_array_equal(differential_effects(pairs, own)["proba_de"], usual["proba_de"])

    def test_pairs_by_row(self, rng):
        one, two = rng.uniform(size=(4, 3)), rng.uniform(size=(4, 3))
        rows1, rows2 = np.array([0, 3, 3, 1, 2]), np.array([1, 1, 0, 0, 2])
        found = differential_effects(Pairs(one, two, rows1, rows2), Hypothesis())
        np.testing.assert_allclose(found["proba_m1"], (one[rows1] > two[rows2]).mean(0))


class TestEstimates:
    def test_pseudocount(self, rng):
        scale, low = rng.uniform(size=(50, 20)), np.arange(20) < 8
        expected = np.quantile(scale.max(0)[:8], 0.9) / 20
        assert estimate_pseudocount(scale, low) == pytest.approx(expected)
        assert estimate_pseudocount(scale, ~(low | ~low)) == 1e-10
        assert estimate_pseudocount(scale, None) == 1e-10
        larger = Pairs(scale, 3 * scale)
        found = differential_effects(larger, Hypothesis(mode="change"), low1_g=low, low2_g=low)
        np.testing.assert_allclose(found["pseudocounts"], 3 * expected)

    def test_delta(self, rng):
        """Three groups of genes at -2, 0 and 1.5: 0.6 (2 + 1.5) / 2."""
        pytest.importorskip("sklearn", reason="delta=None needs scikit-learn")
        lfc = np.concatenate([rng.normal(m, s, n) for m, s, n in ((-2, 0.3, 100), (0, 0.1, 800), (1.5, 0.3, 100))])
        assert estimate_delta(lfc) == pytest.approx(1.05, abs=0.05)
        assert estimate_delta(0.001 * lfc) == 0.1
        pairs = Pairs(2.0 ** lfc[None], np.ones((1, 1000)))
        assert differential_effects(pairs, Hypothesis(mode="change", delta=None))["delta"][0] == pytest.approx(
            1.05, abs=0.05
        )

    def test_interval_is_the_shortest(self, rng):
        draws = rng.gamma(1.0, 1.0, size=(20_000, 1))
        low, high = highest_density_interval(draws, 0.9)
        assert low[0] < 0.01
        assert high[0] == pytest.approx(stats.gamma(1).ppf(0.9), rel=0.05)

    def test_describe_without_levels(self):
        assert list(describe_draws(np.ones((3, 2)))) == ["mean", "median", "std", "min", "max"]


class TestFdr:
    def test_by_hand(self):
        """Errors 0.01, 0.02, 0.09, 0.3: their running means are 0.01, 0.015, 0.04, 0.105."""
        proba = np.array([0.7, 0.99, 0.91, 0.98])
        np.testing.assert_array_equal(expected_fdr(proba, 0.05), [False, True, True, True])
        np.testing.assert_array_equal(expected_fdr(proba, 0.11), [True] * 4)
        np.testing.assert_array_equal(expected_fdr(proba, 0.001), [False] * 4)

    def test_holds_for_calibrated_probabilities(self, rng):
        proba = rng.beta(0.5, 0.5, size=100_000)
        truth = rng.uniform(size=proba.size) < proba
        called = expected_fdr(proba, 0.1)
        assert (~truth[called]).mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "chnage"}, "Did you mean 'change'"),
        ({"test_mode": "four"}, "'three'"),
        ({"change_fn": "ratio"}, "'log-fold'"),
        ({"cred_interval_lvls": [95]}, "cred_interval_lvls must be a number greater than 0 and less than 1"),
    ],
)
def test_refused_questions(wrong, message):
    with pytest.raises(ValueError, match=message):
        Hypothesis(**wrong)
