"""SysVI: its prior and loss against plain formulas, its archives, queries and refusals."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import celbo
from celbo.core import ArgumentError
from celbo.external import SysVI
from celbo.external.sysvi import SysVAE
from celbo.external.sysvi.module import _GaussianNll
from celbo.module.base.priors import GaussianPrior, VampPrior
from celbo.ops.random import private_rng

SMALL = {"n_hidden": 8, "n_latent": 3}
TRAIN = {"max_epochs": 2, "seed": 0, "verbose": 0, "accelerator": "cpu"}


def data(seed: int = 0, n: int = 40):
    adata = celbo.data.synthetic_iid(batch_size=n, n_genes=20, seed=seed)
    adata.X = np.log1p(adata.X)
    adata.obs["donor"] = np.arange(adata.n_obs) % 3
    adata.obs["depth"] = np.linspace(0, 1, adata.n_obs)
    adata.obs["donor"] = adata.obs["donor"].astype(str)
    return adata


def trained(adata, setup=None, **init):
    SysVI.setup_anndata(adata, **({"batch_key": "batch"} | (setup or {})))
    model = SysVI(adata, **(SMALL | init))
    model.train(**TRAIN)
    return model


class Posterior(torch.nn.Module):
    """A posterior that can be worked out by hand."""

    def forward(self, x, *codes, cont=None):
        shift = sum(code_n1.double() for code_n1 in codes) if codes else 0.0
        return Normal(2 * x + shift, 0.5 + x.square())


def vamp(n: int = 3, **kwargs) -> VampPrior:
    x_mk = torch.linspace(-1, 1, 2 * n).reshape(n, 2)
    prior = VampPrior(n, Posterior(), x_mk, **kwargs).double()
    with torch.no_grad():
        prior.w.copy_(torch.linspace(0, 1, n).reshape(n, 1, 1))
    return prior


def test_kl_from_one_component_is_that_of_normals():
    prior = vamp(1)
    qz = Normal(torch.tensor([[0.3, -0.2]]).double(), torch.tensor([[0.7, 1.1]]).double())
    exact = torch.distributions.kl_divergence(qz, prior.components()).sum(-1)
    with private_rng(0):
        many = Normal(qz.loc.expand(200_000, 2), qz.scale.expand(200_000, 2))
        drawn = prior.kl(many).mean()
    torch.testing.assert_close(drawn, exact[0], rtol=0.01, atol=0.01)


def test_kl_from_a_mixture_is_its_integral():
    prior = vamp()
    qz = Normal(torch.tensor([0.2, -0.4]).double(), torch.tensor([0.6, 0.9]).double())
    axis = torch.linspace(-8, 8, 801).double()
    grid = torch.cartesian_prod(axis, axis)
    q_log = qz.log_prob(grid).sum(-1)
    parts = prior.components()
    log_parts = Normal(parts.loc[:, None], parts.scale[:, None]).log_prob(grid).sum(-1)
    p_log = torch.logsumexp(prior.w.flatten().log_softmax(0)[:, None] + log_parts, 0)
    exact = (q_log.exp() * (q_log - p_log)).sum() * (axis[1] - axis[0]) ** 2
    with private_rng(0):
        drawn = prior.kl(Normal(qz.loc.expand(200_000, 2), qz.scale.expand(200_000, 2))).mean()
    torch.testing.assert_close(drawn, exact, rtol=0.01, atol=0.01)


def test_pseudo_inputs_have_categories_and_numbers_of_their_own():
    codes = torch.tensor([[0], [2], [1]])
    prior = vamp(n_cat_list=[3], cat_list=[codes], cont=torch.ones(3, 1))
    torch.testing.assert_close(prior.components().loc, 2 * prior.u + codes)
    assert {name for name, _ in prior.named_parameters()} == {"u", "u_cont", "w"}
    assert not vamp(trainable_priors=False).u.requires_grad
    with pytest.raises(ValueError, match="3 pseudo-inputs for 4 components"):
        VampPrior(4, Posterior(), torch.zeros(3, 2))


def test_the_prior_leaves_the_encoder_in_its_mode():
    module = SysVAE(6, n_batch=2, **SMALL).train()
    before = module.encoder.decoder_y.fc_layers[0][1].running_mean.clone()
    module.prior.get_prior()
    assert all(part.training for part in module.encoder.modules())
    torch.testing.assert_close(module.encoder.decoder_y.fc_layers[0][1].running_mean, before)


def minibatch(n: int = 30):
    generator = torch.Generator().manual_seed(0)
    return {"X": torch.rand(n, 6, generator=generator), "batch": torch.arange(n)[:, None] % 2}


@pytest.mark.parametrize(
    ("decode_as_other", "of_draws", "normal_weight"), [(False, False, 0.0), (True, False, 0.0), (True, True, 2.0)]
)
def test_loss_is_the_plain_formula(decode_as_other, of_draws, normal_weight):
    tensors = minibatch()
    with private_rng(0):
        module = SysVAE(6, n_batch=2, **SMALL).double().eval()
        tensors["X"] = tensors["X"].double()
        weights = {"kl_weight": 0.7, "reconstruction_weight": 0.5, "z_distance_cycle_weight": 3.0}
        weights |= {"standard_normal_weight": normal_weight, "in_units_of_draws": of_draws}
        encoded, decoded, out = module(tensors, loss_kwargs=weights | {"decode_as_other": decode_as_other})
    z_nk, px, qz = encoded["z"], decoded["px"], encoded["qz"]
    spread_ng = px.scale
    nll_n = (0.5 * (spread_ng.log() + (tensors["X"] - px.loc) ** 2 / spread_ng)).sum(1)
    parts = module.prior.components()
    log_parts_nkm = Normal(parts.loc.T, parts.scale.T.sqrt()).log_prob(z_nk[:, :, None])
    log_p_n = torch.logsumexp(log_parts_nkm + module.prior.w.flatten().log_softmax(0), -1).sum(1)
    kl_n = qz.log_prob(z_nk).sum(1) - log_p_n
    other = 1 - tensors["batch"]
    profile = module.decoder(z_nk, other).loc if decode_as_other else px.loc
    q_again = module.encoder(profile, other)
    again = q_again.loc
    both = torch.cat([qz.loc, again])
    mean_k, sd_k = both.mean(0), both.std(0)
    if of_draws:
        sd_k = (both.var(0) + (torch.cat([qz.scale, q_again.scale]) ** 2).mean(0)).sqrt()
    cycle_n = (((qz.loc - mean_k) / sd_k - (again - mean_k) / sd_k) ** 2).sum(1)
    torch.testing.assert_close(out.reconstruction_loss["reconstruction_loss"], nll_n)
    torch.testing.assert_close(out.kl_local["kl_local"], kl_n)
    torch.testing.assert_close(out.extra_metrics["cycle_loss"], cycle_n.mean())
    normal_n = (0.5 * (qz.scale**2 + qz.loc**2 - 1) - qz.scale.log()).sum(1)
    both_n = kl_n + normal_weight * normal_n
    torch.testing.assert_close(out.loss, (0.5 * nll_n + 0.7 * both_n + 3 * cycle_n).mean())


def test_a_cycle_without_weight_is_left_out():
    out = SysVAE(6, n_batch=1, **SMALL)(
        minibatch() | {"batch": torch.zeros(30, 1).long()}, loss_kwargs={"compute_cycle": False}
    )[2]
    assert out.extra_metrics["cycle_loss"] == 0


def test_another_batch_is_drawn_evenly():
    module = SysVAE(6, n_batch=4, prior="standard_normal", **SMALL)
    assert isinstance(module.prior, GaussianPrior)
    batch = torch.arange(4000)[:, None] % 4
    with private_rng(0):
        other = module.random_select_batch(batch)
    assert not (other == batch).any()
    steps = torch.bincount(((other - batch) % 4).flatten(), minlength=4)
    assert (steps[1:] - 1333).abs().max() < 120


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize(
    ("setup", "init"),
    [
        ({"categorical_covariate_keys": ["donor"], "continuous_covariate_keys": ["depth"]}, {}),
        ({"categorical_covariate_keys": ["donor"]}, {"embed_categorical_covariates": True}),
        ({"weight_batches": True}, {"prior": "standard_normal", "out_var_mode": "sample_feature"}),
    ],
)
def test_covariates_archives_and_verbs(setup, init, tmp_path):
    model = trained(data(), setup, **init)
    model.save(str(tmp_path / "model"))
    again = SysVI.load(str(tmp_path / "model"), data(), accelerator="cpu")
    np.testing.assert_allclose(again.get_latent_representation(), model.get_latent_representation(), atol=1e-6)
    expression = model.get_normalized_expression(transform_batch="batch_0", n_samples=2, indices=range(5))
    assert expression.shape == (5, 20)
    assert np.isfinite(expression.to_numpy()).all()
    assert np.isfinite(float(model.get_elbo()))
    table = model.differential_expression(groupby="labels", group1="label_0", group2="label_1", silent=True)
    assert len(table) == 20
    assert "cycle_loss_train" in model.history


def test_pseudo_inputs():
    adata = data()
    SysVI.setup_anndata(adata, batch_key="batch")
    rows = np.array([3, 70])
    model = SysVI(adata, n_prior_components=2, pseudoinputs_data_indices=rows, **SMALL)
    np.testing.assert_allclose(model.module.prior.u.detach().numpy(), adata.X[rows])
    np.testing.assert_array_equal(model.module.prior.u_cat.get_buffer("0").argmax(1), [0, 1])
    drawn = [SysVI(adata, **SMALL).module.prior.u for _ in range(2)]
    torch.testing.assert_close(*drawn)
    for wrong in (rows[:1], np.array([3, 80]), np.array([0.5, 1.0])):
        with pytest.raises(ArgumentError, match=r"2 row numbers \(n_prior_components\) below 80"):
            SysVI(adata, n_prior_components=2, pseudoinputs_data_indices=wrong, **SMALL)


def test_one_batch_is_refused():
    adata = data()
    adata.obs["batch"] = "one"
    SysVI.setup_anndata(adata, batch_key="batch")
    with pytest.raises(ArgumentError, match="there is only one"):
        SysVI(adata)
    with pytest.raises(ValueError, match="z_distance_cycle_weight"):
        SysVAE(6, n_batch=1, **SMALL).random_select_batch(torch.zeros(3, 1).long())


@pytest.mark.parametrize(
    ("prior", "recipe", "weight"),
    [("vamp", None, 2.0), ("vamp", "one_cycle", 2.0), ("vamp", "classic", 0.0), ("standard_normal", None, 0.0)],
)
def test_a_standard_normal_stands_beside_a_vamp_prior_but_under_classic(prior, recipe, weight):
    adata = data()
    SysVI.setup_anndata(adata, batch_key="batch")
    model = SysVI(adata, prior=prior, **SMALL)
    model.train(**TRAIN, recipe=recipe, train_size=0.9, plan_kwargs={"max_kl_weight": 2.0})
    assert model.trainer.plan.loss_kwargs["standard_normal_weight"] == weight
    assert model.recipe_ == (recipe or "brief_cycle")


def test_there_is_no_warmup():
    adata = data()
    SysVI.setup_anndata(adata, batch_key="batch")
    model = SysVI(adata, **SMALL)
    with pytest.warns(UserWarning, match="KL weight warmup is not recommended"):
        model.train(**TRAIN, plan_kwargs={"n_epochs_kl_warmup": 5})
    with pytest.raises(TypeError, match="z_distance_cycle_weight"):
        model.train(**TRAIN, plan_kwargs={"z_distance_cycle_weigth": 5})


def test_a_query_of_a_new_system():
    reference = trained(data(), {"categorical_covariate_keys": ["donor"]})
    query = data(seed=1)
    query.obs["batch"] = "new"
    query.obs["donor"] = "d"
    model = SysVI.load_query_data(query, reference)
    same = data()
    before = reference.get_latent_representation(same)
    np.testing.assert_array_equal(model.module.prior.u.detach(), reference.module.prior.u.detach())
    codes = model.module.prior.u_cat.get_buffer("0")
    assert codes.shape == (5, 3)
    assert not codes[:, 2].any()
    model.is_trained_ = True  # as the reference is: before any step
    np.testing.assert_allclose(model.get_latent_representation(data()), before, atol=1e-6)
    started = model.get_latent_representation()
    model.train(**TRAIN)
    np.testing.assert_allclose(model.get_latent_representation(data()), before, atol=1e-6)
    assert np.abs(model.get_latent_representation() - started).max() > 1e-4


@pytest.mark.parametrize("case", ["sysvi", "sysvi_standard", "sysvi_weighted_embedding"])
def test_scvi_tools_archives_answer_as_there(case, check_case):
    asked, compared, faults = check_case(case)
    assert faults == []
    assert compared > asked > 8


@pytest.mark.parametrize("rows", [1, 6])
def test_the_likelihood_and_its_gradients_are_torchs(rows):
    """Also of a variance below the smallest, which counts as that one."""
    generator = torch.Generator().manual_seed(0)
    x, mean = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    variance = torch.rand(rows, 5, generator=generator, dtype=torch.float64) + 0.1
    variance[0, 0] = 1e-9
    weights_n, found, wanted = torch.arange(1.0, 7, dtype=torch.float64), [], []
    for gradients, of_torch in ((found, False), (wanted, True)):
        given = [one.clone().requires_grad_() for one in (mean, variance)]
        if of_torch:
            spread = given[1].expand(6, 5)
            nll_n = torch.nn.functional.gaussian_nll_loss(given[0], x, spread, reduction="none").sum(-1)
        else:
            nll_n = _GaussianNll.apply(given[0], x, given[1])
        (nll_n * weights_n).sum().backward()
        gradients += [nll_n.detach(), *(one.grad for one in given)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
