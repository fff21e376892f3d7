"""AutoZIVAE: the mixture, its divergences, its priors."""

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy import stats as st
from torch.distributions import Beta, Normal, kl_divergence

from celbo.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from celbo.module import AutoZIVAE
from celbo.module.autozivae import kl_between_betas

N, G, B, C = 8, 5, 2, 3
KINDS = {"gene": (G,), "gene-batch": (G, B), "gene-label": (G, C)}


@pytest.fixture
def batch(torch_rng):
    x = torch.poisson(torch.full((N, G), 2.0), generator=torch_rng)
    return {"X": x, "batch": torch.arange(N)[:, None] % B, "labels": torch.arange(N)[:, None] % C}


@pytest.fixture
def made():
    def made(**kwargs):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return AutoZIVAE(G, **({"n_batch": B, "n_labels": C, "n_hidden": 6, "n_latent": 3} | kwargs)).eval()

    return made


@pytest.fixture
def at_the_mean(monkeypatch):
    monkeypatch.setattr(Normal, "rsample", lambda self, sample_shape=None: self.loc)
    monkeypatch.setattr(AutoZIVAE, "sample_from_beta_distribution", lambda self, a, b: a / (a + b))


def test_kl_of_betas_is_the_integral():
    rng = np.random.default_rng(0)
    for a, b, a0, b0 in rng.uniform(0.5, 3, (5, 4)):
        p, q = st.beta(a, b), st.beta(a0, b0)
        expected, _ = integrate.quad(lambda d, p=p, q=q: p.pdf(d) * (p.logpdf(d) - q.logpdf(d)), 0, 1)
        ours = kl_between_betas(*(torch.tensor(v, dtype=torch.float64) for v in (a, b, a0, b0)))
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use_size_factor_key", [False, True])
def test_loss_is_that_of_the_mixture(made, batch, at_the_mean, kind, use_size_factor_key):
    module = made(zero_inflation=kind, alpha_prior=0.3, beta_prior=0.8, use_size_factor_key=use_size_factor_key)
    batch["size_factor"] = torch.linspace(0.5, 2, N)[:, None]
    inference, generative, out = module(batch, loss_kwargs={"kl_weight": 0.4, "n_obs": 100})
    a, b = torch.sigmoid(module.alpha_posterior_logit), torch.sigmoid(module.beta_posterior_logit)
    assert a.shape == KINDS[kind]
    delta = a / (a + b)
    codes = {"gene-batch": batch["batch"], "gene-label": batch["labels"]}.get(kind)
    delta_ng = delta.expand(N, G) if codes is None else torch.stack([delta[:, c] for c in codes[:, 0]])
    px, library = generative["px"], batch["size_factor"].log() if use_size_factor_key else inference["library"]
    _, _, _, dropout = module.decoder("gene", inference["z"], library, batch["batch"])
    lost = (0.01 + 0.99 * dropout.sigmoid()).logit()
    zinb, nb = (
        ZeroInflatedNegativeBinomial(mu=px.mu, theta=px.theta, zi_logits=lost),
        NegativeBinomial(mu=px.mu, theta=px.theta),
    )
    p_ng = delta_ng * nb.log_prob(batch["X"]).exp() + (1 - delta_ng) * zinb.log_prob(batch["X"]).exp()
    nll_n = -p_ng.log().sum(-1)
    torch.testing.assert_close(out.reconstruction_loss["reconstruction_loss"], nll_n)
    torch.testing.assert_close(generative["bernoulli_params"], delta if codes is None else delta_ng)
    kl = kl_divergence(Beta(a, b), Beta(torch.tensor(0.3), torch.tensor(0.8))).sum()
    torch.testing.assert_close(out.kl_global_sum, kl)
    local = (nll_n + 0.4 * out.kl_local["kl_divergence_z"] + out.kl_local["kl_divergence_l"]).mean()
    torch.testing.assert_close(out.loss, 100 * local + kl)


@pytest.mark.parametrize("given", [(0.3, 0.8), (0.3, None), (None, 0.8)])
@pytest.mark.parametrize("kind", [*KINDS, "gene-cell"])
def test_the_prior_is_the_one_given(made, given, kind):
    """scvi-tools 1.4.2 takes alpha for beta where delta belongs to the gene."""
    found = made(zero_inflation=kind, alpha_prior=given[0], beta_prior=given[1]).get_alphas_betas()
    alpha = 1 - given[1] if given[0] is None else given[0]
    beta = 1 - given[0] if given[1] is None else given[1]
    np.testing.assert_allclose([found["alpha_prior"][0], found["beta_prior"][0]], [alpha, beta], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_priors_are_learned_where_none_is_given(made, batch, kind):
    """scvi-tools 1.4.2 has that for "gene" only, and raises a TypeError for batches and labels."""
    module = made(zero_inflation=kind, alpha_prior=None, beta_prior=None)
    with torch.random.fork_rng(devices=[]):
        module(batch)[2].loss.backward()
    assert module.alpha_prior_logit.grad.abs() > 0
    assert module.beta_prior_logit.grad.abs() > 0


def test_each_count_with_a_delta_of_its_own_is_integrated_out(made, batch, at_the_mean):
    """Quadrature over delta of one count, of the density of its Beta prior."""
    module = made(zero_inflation="gene-cell", alpha_prior=0.6, beta_prior=0.9, minimal_dropout=0.0).double()
    x = batch["X"].double()
    px = module({**batch, "X": x})[1]["px"]
    likelihood, prior = {}, st.beta(0.6, 0.9)
    for delta in (0.0, 1.0):
        z = module.z_encoder(x.log1p())[0].loc
        d = torch.tensor([delta], dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
        parts = module.generative(z, x.sum(-1, keepdim=True).log(), batch["batch"], delta=d)
        likelihood[delta] = parts["px"].log_prob(x).exp().detach().numpy()[0, 0]
    mixed = lambda d: d * likelihood[1.0] + (1 - d) * likelihood[0.0]  # noqa: E731
    expected = prior.expect(mixed)
    np.testing.assert_allclose(px.log_prob(x).exp().detach().numpy()[0, 0], expected, rtol=1e-6)
    r = module.nb_responsibility(x, px, module.sample_bernoulli_params())[0, 0]
    np.testing.assert_allclose(r.detach(), 0.4 * likelihood[1.0] / expected, rtol=1e-6)


def test_several_draws_of_delta(made, batch):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for kind, shape in (("gene", (4, G)), ("gene-batch", (4, N, G))):
            module = made(zero_inflation=kind)
            encoded = module.inference(**module._get_inference_input(batch))
            decoded = module.generative(encoded["z"], encoded["library"], batch["batch"], n_samples=4)
            assert decoded["bernoulli_params"].shape == shape
            assert decoded["px"].log_prob_sum(batch["X"]).shape == (4, N)


def test_rescaled_dropout_has_a_floor(made):
    logits = torch.tensor([-200.0, -5.0, 0.0, 3.0, 30.0, 200.0], dtype=torch.float64)
    rescaled = made(minimal_dropout=0.1).rescale_dropout(logits)
    np.testing.assert_allclose(rescaled.sigmoid(), 0.1 + 0.9 * logits.sigmoid(), rtol=1e-12)
    assert torch.isfinite(rescaled).all()
    torch.testing.assert_close(made(minimal_dropout=0.0).rescale_dropout(logits), logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zero_inflation": "genes"}, "gene-batch"),
        ({"alpha_prior": 1.0}, "alpha_prior"),
        ({"alpha_prior": None, "beta_prior": 0.0}, "beta_prior"),
        ({"minimal_dropout": 1.0}, "minimal_dropout"),
        ({"gene_likelihood": "nb"}, "zinb"),
    ],
)
def test_wrong_options_are_named(made, options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


def test_missing_codes_are_named(made):
    with pytest.raises(ValueError, match="`y` is needed"):
        made(zero_inflation="gene-label").sample_bernoulli_params()


@pytest.mark.parametrize("zero_inflation", ["gene", "gene-batch", "gene-label"])
def test_all_genes_begin_with_the_same_posterior(zero_inflation):
    module = AutoZIVAE(5, zero_inflation=zero_inflation, n_batch=2, n_labels=3)
    found = module.get_alphas_betas()
    for name in ("alpha_posterior", "beta_posterior"):
        np.testing.assert_array_equal(found[name], 0.5)
