"""Every family is one row: parameters, values and an oracle."""

import itertools

import numpy as np
import pytest
import scipy.stats as st
import torch
from scipy.special import expit, gammaln, log_expit

from celbo.distributions import (
    Accessibility,
    BetaBinomial,
    Gamma,
    Log1pNormal,
    LogNormal,
    Methylation,
    NegativeBinomial,
    NegativeBinomialMixture,
    Normal,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from celbo.testing import check_distribution

COUNTS = [0, 1, 2, 3, 7, 30, 100, 5000]
MU, THETA = [1e-3, 0.1, 10.0, 1e3], [1e-2, 1.0, 30.0, 1e4, 1e6]


def grid(**axes):
    return dict(zip(axes, np.array(list(itertools.product(*axes.values()))).T, strict=True))


def nb(x, mu, theta):  # scipy.stats.nbinom has no digits of 1 - p at large theta
    gamma_functions = gammaln(x + theta) - gammaln(theta) - gammaln(x + 1)
    return gamma_functions - theta * np.log1p(mu / theta) + x * np.log(mu / (theta + mu))


def zinb(x, mu, theta, zi_logits):
    kept = nb(x, mu, theta) + np.log(expit(-zi_logits))
    return np.where(x == 0, np.logaddexp(np.log(expit(zi_logits)), kept), kept)


def mixture(x, mu1, mu2, theta1, theta2, mixture_logits):
    first = nb(x, mu1, theta1) + np.log(expit(mixture_logits))
    return np.logaddexp(first, nb(x, mu2, theta2) + np.log(expit(-mixture_logits)))


def beta_binomial(x, total_count, alpha, beta):
    return st.betabinom.logpmf(x, total_count, alpha, beta)


def methylation(x, logits, gamma_logits, total_count):
    size = np.exp(-gamma_logits)
    return st.betabinom.logpmf(x, total_count, expit(logits) * size, expit(-logits) * size)


def methylation_binomial(x, logits, total_count):
    return st.binom.logpmf(x, total_count, expit(logits))


def accessibility(x, logits, depth_logits, region_logits):
    log_odds = np.stack(np.broadcast_arrays(logits, depth_logits, region_logits))
    log_open = log_expit(log_odds).sum(0)
    unseen = expit(-log_odds[1]) + expit(log_odds[1]) * expit(-log_odds[2])
    log_closed = np.logaddexp(log_expit(-log_odds[0]), log_expit(log_odds[0]) + np.log(unseen))
    return np.where(x > 0, log_open, log_closed)


ROWS = {
    "NegativeBinomial": (NegativeBinomial, grid(mu=MU, theta=THETA), COUNTS, nb),
    "ZeroInflatedNegativeBinomial": (
        ZeroInflatedNegativeBinomial,
        grid(mu=[1e-3, 10.0, 300.0], theta=[0.1, 3.0, 1e6], zi_logits=[-6.0, 0.0, 4.0]),
        COUNTS,
        zinb,
    ),
    "NegativeBinomialMixture": (
        NegativeBinomialMixture,
        grid(mu1=[0.1, 20.0], mu2=[1.0, 300.0], theta1=[0.5, 1e5], theta2=[3.0], mixture_logits=[-3.0, 0.0, 2.0]),
        COUNTS,
        mixture,
    ),
    "Poisson": (Poisson, grid(rate=[1e-3, 0.3, 8.0, 1e3]), COUNTS, lambda x, rate: st.poisson.logpmf(x, rate)),
    "Normal": (
        Normal,
        grid(mu=[-3.0, 0.0, 10.0], scale=[0.1, 1.0, 30.0]),
        [-2.0, 0.0, 0.7, 40.0],
        lambda x, mu, scale: st.norm.logpdf(x, mu, scale),
    ),
    "Gamma": (
        Gamma,
        grid(concentration=[8.0, 30.0], rate=[0.1, 1.0, 20.0]),
        [1e-3, 0.5, 3.0, 40.0],
        lambda x, concentration, rate: st.gamma.logpdf(x, concentration, scale=1 / rate),
    ),
    "LogNormal": (
        LogNormal,
        grid(mu=[-2.0, 0.0, 3.0], scale=[0.05, 0.2]),
        [1e-3, 0.5, 3.0, 40.0],
        lambda x, mu, scale: st.lognorm.logpdf(x, scale, scale=np.exp(mu)),
    ),
    "Log1pNormal": (
        Log1pNormal,
        grid(mu=[-2.0, 0.3, 3.0], sigma=[0.05, 0.2]),
        [-0.9, 0.0, 0.5, 40.0],
        lambda x, mu, sigma: st.lognorm.logpdf(x + 1, sigma, scale=np.exp(mu)),
    ),
    "Accessibility": (
        Accessibility,
        grid(logits=[-30.0, -4.0, 0.5, 40.0], depth_logits=[-3.0, 2.0], region_logits=[-20.0, 1.0, 30.0]),
        [0, 1],
        accessibility,
    ),
    "Methylation": (
        Methylation,
        grid(logits=[-3.0, 0.5, 4.0], gamma_logits=[-9.0, -2.0, 1.0], total_count=[1.0, 10.0, 200.0]),
        [0, 1, 2, 10, 150],
        methylation,
    ),
    "Methylation_binomial": (
        Methylation,
        grid(logits=[-7.0, 0.5, 3.0], total_count=[1.0, 10.0, 200.0]),
        [0, 1, 2, 10, 150],
        methylation_binomial,
    ),
    "BetaBinomial": (
        BetaBinomial,
        grid(total_count=[1.0, 10.0, 200.0], alpha=[0.05, 1.0, 30.0, 1e5], beta=[0.3, 7.0, 1e5]),
        [0, 1, 2, 10, 150],
        beta_binomial,
    ),
}


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize("family", ROWS)
def test_contract(family):
    make, parameters, values, oracle = ROWS[family]
    check_distribution(make, parameters, values, log_prob=oracle)


class Naive(NegativeBinomial):
    """The textbook formula: no digits at large theta in float32."""

    def log_prob(self, value):
        gamma_functions = torch.lgamma(value + self.theta) - torch.lgamma(self.theta) - torch.lgamma(value + 1)
        log_total = (self.theta + self.mu).log()
        return gamma_functions + self.theta * (self.theta.log() - log_total) + value * (self.mu.log() - log_total)


class Shapeless(NegativeBinomial):
    def __init__(self, **parameters):
        super().__init__(**parameters)
        self._batch_shape = torch.Size()


class Heavy(NegativeBinomial):
    def log_prob(self, value):
        return super().log_prob(value) + 1e-4


class TooWide(NegativeBinomial):
    @property
    def variance(self):
        return 1.01 * super().variance


class SampledPoisson(NegativeBinomial):
    def sample(self, sample_shape=None, *, generator=None):
        return torch.poisson(self.mu.expand(sample_shape + self.batch_shape))


class WrongSum(NegativeBinomial):
    def log_prob_sum(self, value):
        return self.log_prob(value).mean(-1)


class Detached(NegativeBinomial):
    def log_prob(self, value):
        return super().log_prob(value) + (self.mu - self.mu.detach())


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Naive, "log_prob in float32 against float64"),
        (Shapeless, "batch_shape"),
        (Heavy, "sum of all probabilities"),
        (TooWide, "variance: expected"),
        (SampledPoisson, "standard errors from the variance"),
        (WrongSum, "Tensor-likes are not close"),
        (Detached, "Jacobian mismatch"),
    ],
)
def test_contract_finds_a_breach(broken, complaint):
    with pytest.raises((AssertionError, RuntimeError), match=complaint):
        check_distribution(broken, {"mu": [5.0, 8.0], "theta": [2.0, 1e6 if broken is Naive else 3.0]}, [0, 1, 20])
