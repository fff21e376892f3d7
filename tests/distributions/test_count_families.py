"""Construction, conversion, logits and messages of the count families; exactness is in tests/contract."""

import copy

import pytest
import torch
from torch.distributions import Independent, kl_divergence

from celbo import ops
from celbo.distributions import (
    BetaBinomial,
    NegativeBinomial,
    NegativeBinomialMixture,
    Poisson,
    ZeroInflatedNegativeBinomial,
)

MU, THETA, LOGITS = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 5.0]), torch.tensor([0.1, 0.5, 0.7])
FROM_LOGITS = {
    "nb": (NegativeBinomial, ("scale_logits", "log_library", "log_theta")),
    "zinb": (ZeroInflatedNegativeBinomial, ("scale_logits", "log_library", "log_theta", "zi_logits")),
    "poisson": (Poisson, ("scale_logits", "log_library")),
}


@pytest.fixture
def decoded(torch_rng):
    return {
        "scale_logits": torch.randn(4, 5, generator=torch_rng),
        "log_library": torch.tensor([[3.0], [5.0], [-torch.inf], [1.0]]),
        "log_theta": torch.randn(5, generator=torch_rng),
        "zi_logits": torch.randn(4, 5, generator=torch_rng),
    }


@pytest.fixture
def counts(torch_rng):
    x = torch.poisson(torch.full((4, 5), 2.0), generator=torch_rng)
    x[2] = 0  # the empty cell
    return x


@pytest.fixture(params=FROM_LOGITS)
def kept_and_plain(request, decoded):
    """The same distribution with and without its logits."""
    family, names = FROM_LOGITS[request.param]
    kept = family.from_logits(**{name: decoded[name] for name in names})
    mean = decoded["log_library"].exp() * decoded["scale_logits"].softmax(-1)
    if family is Poisson:
        return kept, Poisson(mean)
    extra = {"zi_logits": decoded["zi_logits"]} if "zi_logits" in names else {}
    return kept, family(mu=mean, theta=decoded["log_theta"].exp(), **extra)


# Parameterizations


def test_total_count_and_logits_or_probs():
    by_logits = NegativeBinomial(total_count=THETA, logits=LOGITS)
    torch.testing.assert_close(by_logits.mu, LOGITS.exp() * THETA)
    torch.testing.assert_close(by_logits.theta, THETA)
    torch.testing.assert_close(by_logits.scale, by_logits.mu / by_logits.mu.sum())
    by_probs = NegativeBinomial(total_count=THETA, probs=LOGITS)
    torch.testing.assert_close(by_probs.mu, LOGITS * THETA)  # a logarithm, not a logit: scvi-tools' convention


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"mu": MU},
        {"theta": THETA},
        {"total_count": THETA},
        {"mu": MU, "theta": THETA, "total_count": THETA, "logits": LOGITS},
        {"total_count": THETA, "logits": LOGITS, "probs": LOGITS},
        {"mu": MU, "theta": THETA, "logits": LOGITS},
    ],
)
def test_half_or_double_parameterization_is_refused(arguments):
    with pytest.raises(ValueError, match=r"takes `mu` and `theta`, or `total_count`.*given") as caught:
        NegativeBinomial(**arguments)
    assert all(f"`{name}`" in str(caught.value) for name in arguments)


def test_zinb_needs_zi_logits():
    with pytest.raises(ValueError, match="needs `zi_logits`"):
        ZeroInflatedNegativeBinomial(mu=MU, theta=THETA)


def test_beta_binomial_by_mean_and_dispersion():
    trials, mu, gamma = torch.tensor([10.0, 4.0, 5.0]), torch.tensor([0.1, 0.4, 0.5]), torch.tensor([0.1, 0.4, 0.5])
    distribution = BetaBinomial(trials, mu=mu, gamma=gamma)
    torch.testing.assert_close(distribution.concentration1, torch.tensor([0.9, 0.6, 0.5]))
    torch.testing.assert_close(distribution.concentration0, torch.tensor([8.1, 0.9, 0.5]))
    torch.testing.assert_close(distribution.mean, trials * mu)
    for arguments in ({"alpha": mu}, {"alpha": mu, "beta": mu, "mu": mu, "gamma": gamma}, {}):
        with pytest.raises(ValueError, match="takes `alpha` and `beta`, or `mu` and `gamma`"):
            BetaBinomial(trials, **arguments)


def test_beta_binomial_support():
    distribution = BetaBinomial(torch.tensor(3.0), alpha=torch.tensor(2.0), beta=torch.tensor(0.5))
    values = distribution.enumerate_support()
    torch.testing.assert_close(values, torch.arange(4.0))
    torch.testing.assert_close(distribution.log_prob(values).exp().sum(), torch.tensor(1.0))
    assert distribution.log_prob(torch.tensor(4.0)) == -torch.inf
    with pytest.raises(NotImplementedError, match="one `total_count`"):
        BetaBinomial(torch.tensor([1.0, 2.0]), alpha=torch.ones(2), beta=torch.ones(2)).enumerate_support()


# Validation


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: NegativeBinomial(mu=-MU, theta=THETA, validate_args=True), "mu"),
        (lambda: NegativeBinomial(mu=MU, theta=-THETA, validate_args=True), "theta"),
        (lambda: ZeroInflatedNegativeBinomial(mu=-MU, theta=THETA, zi_logits=MU, validate_args=True), "mu"),
        (lambda: NegativeBinomialMixture(MU, -MU, THETA, MU, validate_args=True), "mu2"),
        (lambda: Poisson(-MU), "rate"),
        (lambda: BetaBinomial(THETA, alpha=-MU, beta=MU, validate_args=True), "alpha"),
        (lambda: BetaBinomial(THETA, mu=2 * MU, gamma=MU / 9, validate_args=True), "mu"),
    ],
)
def test_parameters_out_of_range_are_named(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_values_are_validated_only_on_request():
    half = torch.tensor([1.5, 1.0, 2.0])
    parameters = {"mu": MU, "theta": THETA, "zi_logits": MU}
    assert bool(ZeroInflatedNegativeBinomial(**parameters).log_prob(half).isfinite().all())
    with pytest.warns(UserWarning, match=r"The value argument must be within the support .* that are not counts"):
        ZeroInflatedNegativeBinomial(**parameters, validate_args=True).log_prob(half)
    with pytest.raises(ValueError, match="support"):
        Poisson(MU).log_prob(half)
    trials = torch.tensor([5.0, 5.0, 5.0])
    assert bool(BetaBinomial(trials, alpha=MU, beta=MU).log_prob(half).isfinite().all())
    with pytest.raises(ValueError, match="support"):
        BetaBinomial(trials, alpha=MU, beta=MU, validate_args=True).log_prob(half)


# Moments and shapes


def test_zinb_variance_holds_the_added_zeros():
    mu, theta, pi = torch.tensor(4.0), torch.tensor(2.0), torch.tensor(0.25)
    distribution = ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=torch.logit(pi))
    second_moment = (1 - pi) * (mu + mu**2 / theta + mu**2)
    torch.testing.assert_close(distribution.zi_probs, pi)
    torch.testing.assert_close(distribution.mean, (1 - pi) * mu)
    torch.testing.assert_close(distribution.variance, second_moment - distribution.mean**2)


def test_one_dimensional_theta_does_not_add_a_dimension():
    distribution = ZeroInflatedNegativeBinomial(mu=MU, theta=THETA, zi_logits=MU)
    assert distribution.batch_shape == distribution.log_prob(MU).shape == (3,)


def test_parameters_broadcast():
    distribution = NegativeBinomial(mu=torch.ones(4, 3), theta=THETA)
    assert distribution.theta.shape == distribution.mean.shape == distribution.variance.shape == (4, 3)
    assert Independent(distribution, 1).event_shape == (3,)


def test_gradient_reaches_a_broadcast_theta():
    distribution = NegativeBinomial(mu=torch.ones(4, 3), theta=THETA.clone().requires_grad_())
    log_prob = distribution.log_prob(MU)
    (whole,) = torch.autograd.grad(log_prob.sum(), distribution.theta)
    alone = NegativeBinomial(mu=torch.ones(3), theta=THETA.clone().requires_grad_())
    (expected,) = torch.autograd.grad(alone.log_prob(MU).sum(), alone.theta)
    torch.testing.assert_close(whole, expected.expand(4, 3))


def test_mixture_has_a_dispersion_for_each_component():
    shared = NegativeBinomialMixture(MU, 2 * MU, THETA, LOGITS)
    torch.testing.assert_close(shared.theta2, THETA)
    own = NegativeBinomialMixture(MU, 2 * MU, THETA, torch.full((3,), -40.0), theta2=3 * THETA)
    torch.testing.assert_close(own.log_prob(MU), NegativeBinomial(mu=2 * MU, theta=3 * THETA).log_prob(MU))
    torch.testing.assert_close(own.mixture_probs, torch.sigmoid(own.mixture_logits))


# get_normalized, repr, copies


def test_get_normalized():
    scale = MU / 6
    for distribution in (NegativeBinomial(mu=MU, theta=THETA, scale=scale), Poisson(MU, scale=scale)):
        assert distribution.get_normalized("mu") is distribution.mean
        assert distribution.get_normalized("scale") is scale
        with pytest.raises(ValueError, match=r"normalized value of .* is called 'other'. There are: "):
            distribution.get_normalized("other")
    assert NegativeBinomial(mu=MU, theta=THETA).get_normalized("scale") is None
    mixture = NegativeBinomialMixture(MU, MU, THETA, LOGITS)
    torch.testing.assert_close(mixture.get_normalized("mu"), mixture.mean)
    with pytest.raises(ValueError, match="'scale'"):
        mixture.get_normalized("scale")


def test_repr_gives_shapes_and_single_values():
    assert repr(NegativeBinomial(mu=MU, theta=THETA)) == "NegativeBinomial(mu: (3,), theta: (3,))"
    assert repr(Poisson(torch.tensor(0.5))) == "Poisson(rate: 0.5)"


def test_repr_of_logits_computes_nothing(kept_and_plain):
    kept, _ = kept_and_plain
    assert repr(kept).startswith(f"{type(kept).__name__}(scale_logits: (4, 5), log_library: (4, 1)")
    assert not {"mu", "rate", "theta", "scale"} & set(vars(kept))


def test_poisson_is_torchs():
    kl = kl_divergence(Poisson(MU), Poisson(2 * MU))
    torch.testing.assert_close(kl, kl_divergence(torch.distributions.Poisson(MU), torch.distributions.Poisson(2 * MU)))


# from_logits


def test_logits_give_the_same_distribution(kept_and_plain, counts):
    kept, plain = kept_and_plain
    assert kept.batch_shape == plain.batch_shape == (4, 5)
    for name in ("mean", "variance"):
        torch.testing.assert_close(getattr(kept, name), getattr(plain, name))
    torch.testing.assert_close(kept.log_prob(counts), plain.log_prob(counts))
    torch.testing.assert_close(kept.scale.sum(-1), torch.ones(4))
    torch.testing.assert_close(kept.get_normalized("mu").sum(-1), kept.log_library.exp()[:, 0])
    torch.testing.assert_close(copy.deepcopy(kept).mean, plain.mean)


def test_the_scale_is_read_without_the_mean(kept_and_plain):
    """At 50,000 regions a table of means beside that of shares would double what an answer needs."""
    kept, _ = kept_and_plain
    torch.testing.assert_close(kept.get_normalized("scale"), kept.scale_logits.softmax(-1))
    assert {"scale", "mu", "rate"} & vars(kept).keys() == {"scale"}


def test_log_prob_sum(kept_and_plain, counts):
    kept, plain = kept_and_plain
    expected = plain.log_prob(counts.double()).sum(-1).float()
    torch.testing.assert_close(plain.log_prob_sum(counts), expected)
    torch.testing.assert_close(kept.log_prob_sum(counts), expected, rtol=1e-5, atol=1e-5)


def test_log_prob_sum_of_logits_is_the_fused_op(kept_and_plain, counts, monkeypatch):
    kept, _ = kept_and_plain
    seen = []
    for name in ("nb_log_prob_sum", "zinb_log_prob_sum", "poisson_log_prob_sum"):
        monkeypatch.setattr(ops, name, lambda *arguments, name=name: seen.append((name, len(arguments))))
    kept.log_prob_sum(counts)
    expected = {"NegativeBinomial": ("nb", 4), "ZeroInflatedNegativeBinomial": ("zinb", 5), "Poisson": ("poisson", 3)}
    family, n_arguments = expected[type(kept).__name__]
    assert seen == [(f"{family}_log_prob_sum", n_arguments)]
    kept.log_prob_sum(counts.expand(2, 4, 5))  # samples of posterior: more than two dimensions
    assert len(seen) == 1


def test_log_prob_sum_has_gradients_in_the_logits(decoded, counts):
    names = FROM_LOGITS["zinb"][1]
    leaves = [decoded[name].clone().requires_grad_(name != "log_library") for name in names]
    gradients = []
    for total in (lambda d: d.log_prob_sum(counts), lambda d: d.log_prob(counts).sum(-1)):
        kept = ZeroInflatedNegativeBinomial.from_logits(*leaves)
        gradients.append(torch.autograd.grad(total(kept).sum(), [p for p in leaves if p.requires_grad]))
    for fused, plain in zip(*gradients, strict=True):
        assert bool(fused.isfinite().all())
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


# Sampling


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize(
    "distribution",
    [
        NegativeBinomial(mu=MU, theta=THETA),
        ZeroInflatedNegativeBinomial(mu=MU, theta=THETA, zi_logits=MU - 1),
        NegativeBinomialMixture(MU, 9 * MU, THETA, LOGITS),
        Poisson(MU),
        BetaBinomial(torch.full((3,), 9.0), alpha=MU, beta=THETA),
    ],
    ids=lambda d: type(d).__name__,
)
def test_a_private_generator_makes_samples_repeat(distribution):
    first, second = (distribution.sample((50,), generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (50, 3)
    assert distribution.sample(generator=torch.Generator().manual_seed(3)).shape == (3,)
    assert not torch.equal(first, distribution.sample((50,), generator=torch.Generator().manual_seed(4)))


def test_samples_at_the_edges(torch_rng):
    mu = torch.tensor([0.0, 1e12])
    x = NegativeBinomial(mu=mu, theta=torch.tensor(10.0)).sample((20,), generator=torch_rng)
    assert bool((x[:, 0] == 0).all())
    assert bool((x[:, 1] < 1.01e8).all())  # rates are cut at 1e8
    assert bool((x[:, 1] > 0.99e8).all())


@pytest.mark.parametrize("leading", [(4,), (2, 3)])
@pytest.mark.parametrize("per_cell_theta", [False, True])
def test_log_prob_sum_of_samples_equals_the_sum_over_genes(leading, per_cell_theta):
    rng = torch.Generator().manual_seed(0)
    n, g = 5, 7
    x = torch.poisson(torch.full((n, g), 2.0), generator=rng)
    scale_logits, zi_logits = (torch.randn(*leading, n, g, generator=rng) for _ in range(2))
    log_library = torch.randn(*leading, n, 1, generator=rng) + 3
    log_theta = torch.randn(*((n, g) if per_cell_theta else (g,)), generator=rng)
    made = (
        NegativeBinomial.from_logits(scale_logits, log_library, log_theta),
        ZeroInflatedNegativeBinomial.from_logits(scale_logits, log_library, log_theta, zi_logits),
        Poisson.from_logits(scale_logits, log_library),
    )
    for distribution in made:
        torch.testing.assert_close(distribution.log_prob_sum(x), distribution.log_prob(x).sum(-1), rtol=1e-5, atol=1e-4)


def test_logits_of_added_zeros_are_computed_when_asked_for(torch_rng):
    """Expression needs the scales alone: the head of the zeros is not computed for it."""
    logits, zi = (torch.randn((3, 5), generator=torch_rng) for _ in range(2))
    library, log_theta, x = torch.zeros(3, 1), torch.zeros(5), torch.ones(3, 5)
    asked = []
    px = ZeroInflatedNegativeBinomial.from_logits(logits, library, log_theta, lambda: asked.append(1) or zi)
    px.get_normalized("scale"), px.get_normalized("mu")
    assert not asked
    eager = ZeroInflatedNegativeBinomial.from_logits(logits, library, log_theta, zi)
    assert torch.equal(px.log_prob_sum(x), eager.log_prob_sum(x))
    assert torch.equal(px.zi_probs, eager.zi_probs)
    assert asked == [1]
