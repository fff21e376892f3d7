"""VAE: every option runs, closed forms where there are any, and the promises that scvi-tools breaks."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from celbo import ops
from celbo.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from celbo.module import VAE

N, G, K, B, C = 12, 7, 3, 3, 2
DISPERSIONS = ["gene", "gene-batch", "gene-label", "gene-cell"]
LIKELIHOODS = ["zinb", "nb", "poisson", "normal"]
PRIOR = {"library_log_means": np.array([[2.0, 2.5, 3.0]]), "library_log_vars": np.array([[0.1, 0.2, 0.3]])}
COVARIATES = {"n_continuous_cov": 2, "n_cats_per_cov": [2, 4]}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def tensors(torch_rng) -> dict[str, torch.Tensor]:
    return {
        "X": torch.poisson(torch.full((N, G), 3.0), generator=torch_rng),
        "batch": torch.arange(N)[:, None] % B,
        "labels": torch.arange(N)[:, None] % C,
    }


@pytest.fixture
def with_covariates(tensors, torch_rng) -> dict[str, torch.Tensor]:
    return tensors | {
        "extra_categorical_covs": torch.stack([torch.arange(N) % 2, torch.arange(N) % 4], 1),
        "extra_continuous_covs": torch.randn(N, 2, generator=torch_rng),
        "size_factor": torch.rand(N, 1, generator=torch_rng) + 0.5,
    }


def vae(**options) -> VAE:
    sizes = {"n_input": G, "n_batch": B, "n_labels": C, "n_hidden": 8, "n_latent": K}
    return VAE(**{**sizes, **options})


# --- options ----------------------------------------------------------------------------------------------------------


def test_a_size_factor_is_an_observed_library():
    module = vae(use_size_factor_key=True, use_observed_lib_size=False)  # needs no prior of the library
    assert module.use_observed_lib_size
    assert "library_log_means" not in module.state_dict()


@pytest.mark.parametrize(("dispersion", "gene_likelihood"), list(itertools.product(DISPERSIONS, LIKELIHOODS)))
@pytest.mark.parametrize("use_size_factor_key", [False, True])
def test_each_dispersion_and_likelihood_trains(with_covariates, dispersion, gene_likelihood, use_size_factor_key):
    module = vae(
        dispersion=dispersion, gene_likelihood=gene_likelihood, use_size_factor_key=use_size_factor_key, **COVARIATES
    )
    inference, generative, loss = module(with_covariates)
    assert set(inference) == {"z", "qz", "ql", "library"}
    assert set(generative) == {"px", "pl", "pz"}
    assert set(loss.kl_local) == {"kl_divergence_l", "kl_divergence_z"}
    assert loss.reconstruction_loss["reconstruction_loss"].shape == (N,)
    loss.loss.backward()
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert module.z_encoder.mean_encoder.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "options",
    [
        {"encode_covariates": True, "n_layers": 2},
        {"encode_covariates": True, "n_layers": 2, "deeply_inject_covariates": False},
        {"encode_covariates": True, "batch_representation": "embedding"},
        {"batch_representation": "embedding", "batch_embedding_kwargs": {"embedding_dim": 4}},
        {"latent_distribution": "ln", "use_observed_lib_size": False, **PRIOR},
        {"use_batch_norm": "none", "use_layer_norm": "both"},
        {"var_activation": F.softplus, "log_variational": False},
    ],
)
def test_each_architecture_trains_with_and_without_samples(with_covariates, options):
    module = vae(**COVARIATES, **options)
    loss = module(with_covariates)[2].loss
    loss.backward()
    assert torch.isfinite(loss)
    inference, generative = module.eval()(with_covariates, inference_kwargs={"n_samples": 4}, compute_loss=False)
    assert inference["z"].shape == (4, N, K)
    assert inference["library"].shape == (4, N, 1)
    assert generative["px"].mean.shape == (4, N, G)


def test_embedding_takes_the_place_of_codes(with_covariates):
    module = vae(batch_representation="embedding", encode_covariates=True, **COVARIATES).eval()
    names = list(module.state_dict())
    assert names[:2] == ["px_r", "_embeddings_dict.batch.weight"]
    assert module.decoder.px_decoder.n_cat_list == [2, 4]
    before = module(with_covariates, compute_loss=False)[0]["qz"].loc
    with torch.no_grad():
        module.get_embedding("batch").weight[:] = 0
    assert (module(with_covariates, compute_loss=False)[0]["qz"].loc - before).abs().max() > 1e-4


def test_extra_arguments_reach_encoder_and_decoder():
    module = vae(
        extra_encoder_kwargs={"activation_fn": torch.nn.Tanh}, extra_decoder_kwargs={"activation_fn": torch.nn.SiLU}
    )
    assert isinstance(module.z_encoder.encoder.fc_layers[0][3], torch.nn.Tanh)
    assert isinstance(module.l_encoder.encoder.fc_layers[0][3], torch.nn.Tanh)
    assert isinstance(module.decoder.px_decoder.fc_layers[0][3], torch.nn.SiLU)


@pytest.mark.parametrize("where", ["encoder", "decoder", "none", "both"])
def test_norms_stand_where_they_are_asked_for(where):
    module = vae(use_batch_norm=where, use_layer_norm=where)
    for network, names in ((module.z_encoder.encoder, "encoder"), (module.decoder.px_decoder, "decoder")):
        block = network.fc_layers[0]
        assert [step is not None for step in (block[1], block[2])] == [where in (names, "both")] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dispersion": "gene-cel"}, "dispersion must be .* got 'gene-cel'. Did you mean 'gene-cell'"),
        ({"gene_likelihood": "znb"}, "Did you mean 'zinb'"),
        ({"latent_distribution": "lognormal"}, "must be 'normal' or 'ln'"),
        ({"use_batch_norm": "everywhere"}, "use_batch_norm must be"),
        ({"dispersion": "gene-label", "n_labels": 0}, "needs n_labels of at least 1"),
        ({"dispersion": "gene-batch", "n_batch": 0}, "needs n_batch of at least 1"),
        ({"use_observed_lib_size": False}, "library_log_means and library_log_vars"),
    ],
)
def test_nonsense_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        vae(**options)


def test_what_generative_lacks_is_named(tensors):
    with pytest.raises(ValueError, match="`size_factor`"):
        vae(use_size_factor_key=True)(tensors)
    with pytest.raises(ValueError, match="`y`"):
        vae(dispersion="gene-label")({key: value for key, value in tensors.items() if key != "labels"})


FULLY_CONNECTED = [
    "0.weight",
    "0.bias",
    *(f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
]


def test_state_dict_of_the_default():
    def encoder(name):
        layers = [f"{name}.encoder.fc_layers.Layer 0.{child}" for child in FULLY_CONNECTED]
        return layers + [
            f"{name}.{head}.{kind}" for head in ("mean_encoder", "var_encoder") for kind in ("weight", "bias")
        ]

    decoder = [f"decoder.px_decoder.fc_layers.Layer 0.{child}" for child in FULLY_CONNECTED]
    heads = ("px_scale_decoder.0", "px_r_decoder", "px_dropout_decoder")
    decoder += [f"decoder.{head}.{kind}" for head in heads for kind in ("weight", "bias")]
    state = vae().state_dict()
    assert list(state) == ["px_r", *encoder("z_encoder"), *encoder("l_encoder"), *decoder]
    assert state["decoder.px_decoder.fc_layers.Layer 0.0.weight"].shape == (8, K + B)
    assert state["z_encoder.encoder.fc_layers.Layer 0.0.weight"].shape == (8, G)


@pytest.mark.parametrize(
    ("dispersion", "shape"), [("gene", (G,)), ("gene-batch", (G, B)), ("gene-label", (G, C)), ("gene-cell", None)]
)
def test_shape_of_the_dispersion(dispersion, shape):
    state = vae(dispersion=dispersion).state_dict()
    assert ("px_r" in state) == (shape is not None)
    assert shape is None or state["px_r"].shape == shape


# --- maths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dispersion", "key"), [("gene-batch", "batch"), ("gene-label", "labels")])
def test_the_dispersion_is_that_of_the_group(tensors, dispersion, key):
    module = vae(dispersion=dispersion).eval()
    theta = module(tensors, compute_loss=False)[1]["px"].theta
    n_groups = module.px_r.shape[1]
    hot = F.one_hot(tensors[key][:, 0], n_groups).float()
    torch.testing.assert_close(theta, F.linear(hot, module.px_r).exp())


@pytest.mark.parametrize("gene_likelihood", ["zinb", "nb", "poisson"])
@pytest.mark.parametrize("dispersion", ["gene", "gene-batch", "gene-cell"])
def test_the_fused_loss_is_the_reference_loss(tensors, gene_likelihood, dispersion):
    module = vae(gene_likelihood=gene_likelihood, dispersion=dispersion).eval()
    figures = []
    for backend in (None, "reference"):
        module.zero_grad()
        with torch.random.fork_rng(devices=[]), ops.use_backend(backend) if backend else torch.enable_grad():
            loss = module(tensors)[2].loss
        loss.backward()
        grads = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        figures.append((loss.detach(), grads))
    assert ops.backend_for(tensors["X"]) == "fused_cpu"
    torch.testing.assert_close(figures[0], figures[1], rtol=2e-5, atol=1e-5)


def test_the_loss_is_the_negative_elbo(tensors):
    module = vae(use_observed_lib_size=False, **PRIOR)
    inference, generative, loss = module(tensors, loss_kwargs={"kl_weight": 0.3})
    nll_n = -generative["px"].log_prob(tensors["X"]).sum(-1)
    kl_z_n = kl_divergence(inference["qz"], Normal(torch.zeros(N, K), 1.0)).sum(-1)
    batch = tensors["batch"][:, 0]
    mean, var = (torch.as_tensor(PRIOR[f"library_log_{what}"], dtype=torch.float32) for what in ("means", "vars"))
    pl = Normal(mean[0, batch][:, None], var[0, batch][:, None].sqrt())
    kl_l_n = kl_divergence(inference["ql"], pl).sum(-1)
    torch.testing.assert_close(loss.loss, (nll_n + 0.3 * kl_z_n + kl_l_n).mean())
    torch.testing.assert_close(loss.kl_local["kl_divergence_l"], kl_l_n)
    torch.testing.assert_close(loss.kl_local["kl_divergence_z"], kl_z_n)


def test_the_mean_is_library_times_scale(tensors, torch_rng):
    px = vae()(tensors, compute_loss=False)[1]["px"]
    torch.testing.assert_close(px.mu, tensors["X"].sum(1, keepdim=True) * px.scale)
    torch.testing.assert_close(px.scale.sum(-1), torch.ones(N))
    size_factor = torch.rand(N, 1, generator=torch_rng)
    px = vae(use_size_factor_key=True)(tensors | {"size_factor": size_factor}, compute_loss=False)[1]["px"]
    torch.testing.assert_close(px.mu, size_factor * px.scale)


def test_transform_batch_decodes_all_cells_as_one_batch(tensors):
    module = vae(dispersion="gene-batch").eval()
    as_third = {**tensors, "batch": torch.full((N, 1), 2)}
    inference, _ = module(tensors, compute_loss=False)
    wanted = module.generative(**module._get_generative_input(as_third, inference))["px"]
    for third in (2, torch.full((N, 1), 2)):
        given = module._get_generative_input(tensors, inference, transform_batch=third)
        px = module.generative(**given)["px"]
        torch.testing.assert_close(px.mu, wanted.mu)
        torch.testing.assert_close(px.theta, wanted.theta)


def test_the_dropout_head_is_not_run_where_it_is_not_needed(tensors):
    ran = []
    for gene_likelihood in LIKELIHOODS:
        module = vae(gene_likelihood=gene_likelihood)
        module.decoder.px_dropout_decoder.register_forward_hook(lambda *_, name=gene_likelihood: ran.append(name))
        module(tensors)
    assert ran == ["zinb"]


@pytest.mark.parametrize("gene_likelihood", LIKELIHOODS)
@pytest.mark.parametrize("dispersion", ["gene", "gene-cell"])
def test_empty_cells_and_genes_do_no_harm(tensors, gene_likelihood, dispersion):
    x = tensors["X"].clone()
    x[0], x[:, 0] = 0, 0
    module = vae(gene_likelihood=gene_likelihood, dispersion=dispersion)
    inference, generative, loss = module({**tensors, "X": x})
    loss.loss.backward()
    assert inference["library"][0] == -math.inf
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
    if gene_likelihood != "normal":
        assert loss.reconstruction_loss["reconstruction_loss"][0].item() == pytest.approx(0.0, abs=1e-6)
    assert (generative["px"].mean[0] == 0).all()


def test_extra_payload(tensors):
    inference, _, loss = vae(extra_payload_autotune=True)(tensors)
    assert set(loss.extra_metrics) == {"z", "batch", "labels"}
    assert loss.extra_metrics["z"] is inference["z"]
    assert vae()(tensors)[2].extra_metrics == {}


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gene_likelihood", LIKELIHOODS)
def test_sample(tensors, gene_likelihood):
    module = vae(gene_likelihood=gene_likelihood).eval()
    assert module.sample(tensors).shape == (N, G)
    x = module.sample(tensors, n_samples=3)
    assert x.shape == (N, G, 3)
    assert not x.requires_grad
    assert gene_likelihood == "normal" or (x == x.round()).all()


def test_sample_bounds_poisson_rates(tensors):
    module = vae(gene_likelihood="poisson").eval()
    assert module.sample(tensors, n_samples=50, max_poisson_rate=0.01).mean() < 0.03
    assert module.sample(tensors, generative_kwargs={"transform_batch": 1}).mean() > 1


def set_to_prior(module: VAE) -> None:
    """Make q(z) the prior and px independent of z, so that the marginal likelihood is known."""
    with torch.no_grad():
        for head in (module.z_encoder.mean_encoder, module.z_encoder.var_encoder):
            head.weight.zero_()
            head.bias.zero_()
        module.decoder.px_decoder.fc_layers[0][0].weight.zero_()
    module.z_encoder.var_eps = 0.0


@pytest.mark.parametrize("per_pass", [1, 3, 10])
def test_marginal_ll_where_it_is_known(tensors, per_pass):
    module = vae(gene_likelihood="nb").eval()
    set_to_prior(module)
    px = module(tensors, compute_loss=False)[1]["px"]
    exact_n = px.log_prob(tensors["X"]).sum(-1).detach()
    ll_n = module.marginal_ll(tensors, n_mc_samples=10, n_mc_samples_per_pass=per_pass)
    torch.testing.assert_close(ll_n, exact_n, rtol=1e-5, atol=1e-5)
    mean = module.marginal_ll(tensors, 10, return_mean=True, n_mc_samples_per_pass=per_pass)
    assert mean == pytest.approx(exact_n.mean().item(), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"latent_distribution": "ln"}, {"use_observed_lib_size": False, **PRIOR}])
def test_marginal_ll_is_seeded_by_its_generator(tensors, options):
    module = vae(**options).eval()
    first, again, other = (
        module.marginal_ll(tensors, 7, n_mc_samples_per_pass=3, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    torch.testing.assert_close(first, again)
    assert (first - other).abs().max() > 1e-4


def test_marginal_ll_does_not_depend_on_the_pass(tensors, torch_rng, monkeypatch):
    module = vae().eval()
    noise = torch.randn(7, N, K, generator=torch_rng)

    def estimate(per_pass):
        rows = iter(noise)

        def draw(q, n_samples, generator):
            return q.loc + q.scale * torch.stack([next(rows) for _ in range(n_samples)])

        monkeypatch.setattr("celbo.module.marginal._draw", draw)
        return module.marginal_ll(tensors, 7, n_mc_samples_per_pass=per_pass)

    for per_pass in (1, 3, 100):
        torch.testing.assert_close(estimate(per_pass), estimate(7), rtol=1e-5, atol=1e-5)


def test_marginal_ll_approaches_the_integral(tensors):
    """One latent dimension: numerical integration over z and the log library says what the estimate must be."""
    module = vae(n_latent=1, use_observed_lib_size=False, **PRIOR).eval()
    module = module.double()
    torch.nn.init.constant_(module.l_encoder.mean_encoder.bias, 2.8)  # near the posterior, or few samples would count
    tensors = {**tensors, "X": tensors["X"].double()}
    generator = torch.Generator().manual_seed(0)
    estimate = module.marginal_ll(tensors, 20000, n_mc_samples_per_pass=500, generator=generator)
    z, library = (
        grid.flatten() for grid in torch.meshgrid(torch.linspace(-6, 6, 81), torch.linspace(0, 6, 81), indexing="ij")
    )
    z, library = (grid.double()[:, None, None].expand(-1, N, 1) for grid in (z, library))
    with torch.no_grad():
        out = module.generative(z=z, library=library, batch_index=tensors["batch"])
        log_joint = out["px"].log_prob(tensors["X"]).sum(-1)
        log_joint += (out["pz"].log_prob(z) + out["pl"].log_prob(library)).sum(-1)
    integral = log_joint.logsumexp(0) + math.log(12 / 80) + math.log(6 / 80)
    torch.testing.assert_close(estimate, integral, rtol=0, atol=0.05)


def test_families(tensors):
    families = {"zinb": ZeroInflatedNegativeBinomial, "nb": NegativeBinomial, "poisson": Poisson}
    for name, family in families.items():
        px = vae(gene_likelihood=name)(tensors, compute_loss=False)[1]["px"]
        assert type(px) is family
        assert px.get_normalized("scale").shape == px.get_normalized("mu").shape == (N, G)
