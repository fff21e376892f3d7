"""CYTOVI: its prior, likelihoods and panels against plain formulas, its verbs, archives, queries and refusals."""

import logging
import subprocess

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from torch.distributions import Beta, Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

import celbo
from celbo.core import ArgumentError
from celbo.external import CYTOVI, cytovi
from celbo.external.cytovi import CytoVAE
from celbo.external.cytovi.abundance import log_median
from celbo.external.cytovi.imputing import nearest, vote
from celbo.io import ArchiveError
from celbo.model.base import export_archive
from celbo.module.base.priors import labelled_mixture
from celbo.ops.random import private_rng
from celbo.train.callbacks import Callback

SMALL = {"n_hidden": 8, "n_latent": 3}
TRAIN = {"max_epochs": 2, "seed": 0, "verbose": 0, "accelerator": "cpu"}
SETUP = {"layer": "scaled", "batch_key": "batch", "sample_key": "sample"}
LACKED = ["m3", "m6"]


def data(seed: int = 0, n: int = 80, panels: bool = True) -> AnnData:
    """Two batches of two samples each; the second batch lacks two of eight markers."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=n)
    adata = AnnData(rng.gamma(3, np.array([[5.0], [20.0], [60.0]])[kind] * rng.random((3, 8))[kind]).astype(np.float32))
    adata.var_names, adata.obs_names = [f"m{g}" for g in range(8)], [f"cell{n}" for n in range(n)]
    adata.obs["type"] = pd.Categorical([f"type{k}" for k in kind])
    sample = np.arange(n) % 4
    adata.obs["sample"] = pd.Categorical([f"s{s}" for s in sample])
    adata.obs["batch"] = pd.Categorical((sample // 2).astype(str))
    adata.obs["group"] = np.where(sample % 2, "ill", "well")
    adata.obs["depth"] = np.linspace(0, 1, n)
    cytovi.transform_arcsinh(adata, raw_layer_key=None)
    cytovi.scale(adata)
    return cytovi.mask_markers(adata, LACKED) if panels else adata


def made(adata, setup=None, **init):
    CYTOVI.setup_anndata(adata, **(SETUP | (setup or {})))
    return CYTOVI(adata, **(SMALL | init))


def trained(adata, setup=None, **init):
    model = made(adata, setup, **init)
    model.train(**TRAIN)
    return model


@pytest.fixture(scope="module")
def model():
    return trained(data())


# Mathematics.


def test_density_of_a_mixture_is_that_of_torch():
    torch.manual_seed(0)
    logits, means, scales = torch.randn(4), 3 * torch.randn(4, 5), torch.rand(4, 5) * 0.3 + 1e-3
    z, y = torch.randn(6, 7, 5), torch.arange(7) % 4
    components = Independent(Normal(means.double(), scales.double()), 1)
    exact = MixtureSameFamily(Categorical(logits=logits.double()), components).log_prob(z.double())
    torch.testing.assert_close(
        labelled_mixture(logits, means, scales, None).log_prob(z).double(), exact, rtol=1e-6, atol=0
    )
    biased = logits + 5.0 * torch.nn.functional.one_hot(y, 4)
    expanded = Independent(Normal(means.double().expand(7, 4, 5), scales.double().expand(7, 4, 5)), 1)
    exact = MixtureSameFamily(Categorical(logits=biased.double()), expanded).log_prob(z.double())
    of_labels = labelled_mixture(logits, means, scales, y[:, None], weight=5.0)
    torch.testing.assert_close(of_labels.log_prob(z).double(), exact, rtol=1e-6, atol=0)
    assert of_labels.sample((2,)).shape == (2, 7, 5)


def test_gradients_of_the_mixture_are_those_of_torch():
    parameters = [torch.randn(3, dtype=torch.float64), torch.randn(3, 2).double(), torch.rand(3, 2).double() + 0.5]
    z = torch.randn(4, 2).double()
    for one in (*parameters, z):
        one.requires_grad_()
    assert torch.autograd.gradcheck(lambda *p: labelled_mixture(*p[:3], None).log_prob(p[3]), (*parameters, z))


def minibatch(n: int = 30, g: int = 6):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, g, generator=generator).double() * 0.98 + 0.01
    there = torch.ones(n, g).double()
    there[::2, 4:] = 0
    batch, labels = torch.arange(n)[:, None] % 2, torch.arange(n)[:, None] % 3
    return {"X": torch.where(there > 0, x, torch.nan), "nan_layer": there, "batch": batch, "labels": labels}


@pytest.mark.parametrize("likelihood", ["normal", "beta"])
@pytest.mark.parametrize("n_labels", [1, 3])
def test_loss_is_the_plain_formula(likelihood, n_labels):
    tensors, mask = minibatch(), [True] * 4 + [False] * 2
    with private_rng(0):
        options = {"protein_likelihood": likelihood, "encoder_marker_mask": mask, "prior_mixture_k": 5}
        module = CytoVAE(6, n_batch=2, n_labels=n_labels, **SMALL, **options).double()
        module.eval()
        with torch.no_grad():
            for name in ("prior_means", "prior_log_scales", "prior_logits"):
                module.get_parameter(name).normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
        encoded, decoded, out = module(tensors, loss_kwargs={"kl_weight": 0.7})
    hidden = module.decoder.px_decoder(encoded["z"], tensors["batch"])
    first = module.decoder.px_param1_decoder(hidden)
    second = torch.nn.functional.softplus(module.decoder.px_param2_decoder(hidden)) + 1e-6
    plain = Normal(first, second)
    if likelihood == "beta":
        plain = Beta(torch.nn.functional.softplus(first) + 1e-6, second)
    there = tensors["nan_layer"] > 0
    nll_n = -(plain.log_prob(torch.where(there, tensors["X"], 0.5)) * there).sum(1)
    torch.testing.assert_close(out.reconstruction_loss["reconstruction_loss"], nll_n)
    torch.testing.assert_close(decoded["px"].mean, plain.mean)
    assert module.prior_means.shape == ((3, 3) if n_labels == 3 else (5, 3))
    # the divergence, of many draws
    qz = encoded["qz"]
    z = qz.rsample((20_000,))
    logits = module.prior_logits + (
        10.0 * torch.nn.functional.one_hot(tensors["labels"][:, 0], 3) if n_labels > 1 else 0
    )
    scales = module.prior_log_scales.exp() + 1e-4
    log_parts = Normal(module.prior_means, scales).log_prob(z[:, :, None]).sum(-1)
    exact_n = (qz.log_prob(z).sum(-1) - (log_parts + logits.log_softmax(-1)).logsumexp(-1)).mean(0)
    with private_rng(1):
        drawn_n = torch.stack([module._kl(qz, decoded["pz"]) for _ in range(400)]).mean(0)
    torch.testing.assert_close(drawn_n, exact_n, rtol=0.1, atol=0.1)
    kl_n = out.kl_local["kl_divergence_z"]
    torch.testing.assert_close(out.loss, (nll_n + 0.7 * kl_n).mean())


def test_standard_normal_prior_has_its_closed_form():
    module = CytoVAE(6, n_batch=2, prior_mixture=False, **SMALL).eval()
    tensors = {"X": torch.rand(5, 6), "batch": torch.arange(5)[:, None] % 2}
    encoded, _, out = module(tensors)
    torch.testing.assert_close(out.kl_local["kl_divergence_z"], kl_divergence(encoded["qz"], Normal(0.0, 1.0)).sum(-1))
    assert not hasattr(module, "prior_means")


def test_marginal_likelihood_has_the_prior_of_the_model():
    """One latent dimension: the integral on a grid."""
    tensors = {"X": torch.rand(4, 3).double(), "batch": torch.zeros(4, 1).long()}
    with private_rng(0):
        module = CytoVAE(3, n_batch=1, n_hidden=6, n_latent=1, prior_mixture_k=3).double().eval()
        with torch.no_grad():
            module.prior_means.copy_(torch.tensor([[-1.0], [0.0], [1.5]]))
        drawn_n = module.marginal_ll(tensors, 40_000, n_mc_samples_per_pass=1000)
    grid = torch.linspace(-12, 12, 8001).double()[:, None]
    parts = Normal(module.prior_means, module.prior_log_scales.exp() + 1e-4).log_prob(grid[:, None]).sum(-1)
    prior = (parts + module.prior_logits.log_softmax(0)).logsumexp(-1)
    px = module.generative(grid[:, None], torch.zeros(1, 1).long())["px"]
    inside = px.log_prob(tensors["X"]).sum(-1) + prior[:, None]
    exact_n = inside.logsumexp(0) + np.log(float(grid[1, 0] - grid[0, 0]))
    torch.testing.assert_close(drawn_n, exact_n, rtol=0.02, atol=0.02)


def test_beta_is_scipys():
    from scipy import stats

    from celbo.distributions import Beta as Own

    a, b = torch.tensor([0.5, 2.0, 30.0]).double(), torch.tensor([0.5, 5.0, 3.0]).double()
    own = Own(a, b)
    x = torch.tensor([0.2, 0.5, 0.9]).double()
    np.testing.assert_allclose(own.log_prob(x), stats.beta(a, b).logpdf(x))
    drawn = own.sample((40_000,), generator=torch.Generator().manual_seed(0))
    for g in range(3):
        assert stats.kstest(drawn[:, g], stats.beta(a[g], b[g]).cdf).pvalue > 1e-3
    assert own.get_normalized("scale") is own.get_normalized("scale") or torch.equal(own.get_normalized("mu"), own.mean)
    with pytest.raises(ValueError, match="normalized value"):
        own.get_normalized("rate")


def test_the_encoder_reads_the_backbone(model):
    assert model.module.z_encoder.encoder.fc_layers[0][0].weight.shape == (8, 6)
    adata = model.adata.copy()
    adata.layers["scaled"][:, adata.var_names.isin(LACKED)] = 7.0
    np.testing.assert_array_equal(model.get_latent_representation(adata), model.get_latent_representation())
    assert model.module.decoder.px_param1_decoder.weight.shape == (8, 8)


def test_missing_numbers_may_be_anything(model):
    adata = model.adata.copy()
    missing = adata.layers["_nan_mask"] == 0
    adata.layers["scaled"][missing] = np.nan
    again = model.get_elbo(adata, return_mean=False, seed=0)
    torch.testing.assert_close(again, model.get_elbo(return_mean=False, seed=0))
    trained(adata)


# Sizes, adversary, recipes.


def test_latents_by_number_of_markers():
    rng = np.random.default_rng(0)
    for n_markers, n_latent in ((8, 10), (25, 12), (27, 14), (50, 20)):
        adata = AnnData(rng.random((20, n_markers)).astype(np.float32))
        CYTOVI.setup_anndata(adata)
        model = CYTOVI(adata)
        assert (model.module.n_latent, len(model.module.prior_means)) == (n_latent, n_latent)
        assert model.init_params_["non_kwargs"]["prior_mixture_k"] == n_latent


@pytest.mark.parametrize(("panels", "is_there"), [(True, True), (False, False)])
def test_an_adversary_where_panels_differ(panels, is_there):
    model = trained(data(panels=panels))
    assert ("fool_loss_train" in model.history) is is_there
    np.testing.assert_array_equal(model.history["kl_weight"].to_numpy().ravel(), [0, 1])
    model = made(data(panels=panels))
    model.train(**TRAIN, plan_kwargs={"adversarial_classifier": False})
    assert "fool_loss_train" not in model.history


def test_scvi_tools_training_is_there():
    model = made(data())
    model.train(**TRAIN, recipe="classic")
    np.testing.assert_allclose(model.history["kl_weight"].to_numpy().ravel(), [0, 1 / 400])
    assert "fool_loss_train" in model.history


def test_minibatches_and_epochs_follow_the_number_of_cells():
    from celbo.external.cytovi.recipe import _cells_a_batch, _epochs

    assert [_cells_a_batch(n) for n in (100, 10_000, 50_000, 10**6)] == [128, 128, 512, 4096]
    assert _epochs(10**6, 4096) == 10
    assert _epochs(600, 128) == 150


# Verbs.


def test_expression(model):
    every = model.get_normalized_expression(n_samples=3, seed=0)
    parts = [model.get_normalized_expression(transform_batch=b, n_samples=3, seed=0) for b in ("0", "1")]
    np.testing.assert_allclose(every, (parts[0] + parts[1]) / 2, rtol=1e-5, atol=1e-6)
    assert list(every.columns) == list(model.adata.var_names)
    assert np.isfinite(every.to_numpy()).all()
    own = model.get_normalized_expression(transform_batch=None, n_samples=3, seed=0, return_numpy=True)
    of_first = (model.adata.obs["batch"] == "0").to_numpy()
    np.testing.assert_allclose(own[of_first], parts[0].to_numpy()[of_first], rtol=1e-5, atol=1e-6)
    assert list(model.get_normalized_expression(protein_list=["m5", "m1"]).columns) == ["m1", "m5"]
    assert model.get_normalized_expression(n_samples=2, return_mean=False).shape == (2, 80, 8)
    assert model.get_normalized_expression(n_samples_overall=7).shape == (7, 8)
    with pytest.raises(ValueError, match="protein"):
        model.get_normalized_expression(protein_list=["m99"])


def test_predictive_samples(model):
    assert model.posterior_predictive_sample(seed=0).shape == (80, 8)
    drawn = model.posterior_predictive_sample(n_samples=400, indices=range(5), protein_list=["m0", "m3"], seed=0)
    assert drawn.shape == (5, 2, 400)
    parameters = model.get_likelihood_parameters(indices=range(5), n_samples=400, give_mean=True, seed=1)
    np.testing.assert_allclose(drawn.mean(-1), parameters["mean"][:, [0, 3]], atol=0.2)


def test_differential_expression(model):
    table = model.differential_expression(groupby="type", group1="type0", group2="type1", silent=True, seed=0)
    assert len(table) == 8
    assert {"proba_de", "lfc_mean", "is_de_fdr_0.05"} <= set(table)
    assert "raw_mean1" not in table
    assert table["lfc_max"].max() <= np.log2(1 / 1e-6)
    narrow = model.differential_expression(
        groupby="type", group1="type0", group2="type1", clipping_range=(0.3, 0.6), silent=True, seed=0
    )
    assert narrow["lfc_max"].max() <= 1
    unclipped = model.differential_expression(groupby="type", group1="type0", lfc_clipping=False, seed=0)
    assert np.isfinite(unclipped["lfc_mean"]).all()


def test_samples_count_alike():
    from celbo.posterior import Comparison
    from celbo.verbs.outputs import _balanced

    codes = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    compared = _balanced(Comparison(np.arange(5), np.arange(5, 9)), codes)
    counts = np.bincount(codes[compared.cells1])
    np.testing.assert_array_equal(counts, [3, 3])
    np.testing.assert_array_equal(np.sort(compared.cells2), np.arange(5, 9))
    assert set(compared.cells1) == set(range(5))


def test_balancing_takes_a_large_sample_back():
    """One sample of a group has nearly all cells, and other markers than the rest."""
    rng = np.random.default_rng(0)
    large = np.arange(200) < 90
    x = rng.normal(0.5, 0.02, (200, 4))
    x[large, 0] += 0.4
    adata = AnnData(x.astype(np.float32))
    adata.obs["sample"] = np.where(large, "a", np.where(np.arange(200) < 100, "b", "c"))
    adata.obs["group"] = np.where(np.arange(200) < 100, "one", "two")
    CYTOVI.setup_anndata(adata, sample_key="sample")
    model = CYTOVI(adata, n_hidden=16, n_latent=2)
    model.train(250, seed=0, verbose=0, recipe="one_cycle", accelerator="cpu")
    options = {"groupby": "group", "group1": "one", "silent": True, "seed": 0}
    plain = model.differential_expression(balance_samples=False, **options)["scale1"]["0"]
    balanced = model.differential_expression(**options)["scale1"]["0"]
    assert plain > 0.8 > balanced > 0.6  # truth: 0.86 and 0.7


def test_densities_of_samples(model):
    mean, variance = model.get_latent_representation(return_dist=True)
    table = model.get_sample_logprobs()
    assert list(table.columns) == ["s0", "s1", "s2", "s3"]
    cells = (model.adata.obs["sample"] == "s1").to_numpy()
    parts = Independent(Normal(torch.tensor(mean[cells]).double(), torch.tensor(variance[cells]).double().sqrt()), 1)
    exact = MixtureSameFamily(Categorical(torch.ones(len(parts.mean))), parts).log_prob(torch.tensor(mean).double())
    np.testing.assert_allclose(table["s1"], exact, rtol=1e-5, atol=1e-5)
    mixture = model.get_aggregated_posterior(sample="s1", dof=None)
    np.testing.assert_allclose(mixture.log_prob(torch.tensor(mean)), exact, rtol=1e-4, atol=1e-4)
    assert model.get_sample_logprobs(downsample_cells=5, seed=0).shape == (80, 4)
    with pytest.raises(ArgumentError, match="No sample is called 's9'"):
        model.get_aggregated_posterior(sample="s9")
    with pytest.raises(ArgumentError, match="leave one of them out"):
        model.get_aggregated_posterior(sample="s1", indices=[0])


def test_abundance(model):
    densities = model.get_sample_logprobs().to_numpy(float)
    table = model.differential_abundance(groupby="group")
    ill = np.log(np.median(np.exp(densities[:, [1, 3]]), 1)) - np.log(np.median(np.exp(densities[:, [0, 2]]), 1))
    np.testing.assert_allclose(table["DA_ill"], ill, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(table["DA_well"], -ill, rtol=1e-6, atol=1e-9)
    largest = model.differential_abundance(groupby="group", aggregation_fn=np.max)
    np.testing.assert_allclose(largest["DA_ill"], densities[:, [1, 3]].max(1) - densities[:, [0, 2]].max(1))
    assert model.differential_abundance(groupby="group", return_log_probs=True).shape == (80, 4)
    with pytest.raises(ArgumentError, match="cells of several groups"):
        model.differential_abundance(groupby="type")
    with pytest.raises(ArgumentError, match="Did you mean 'group'"):
        model.differential_abundance(groupby="gruop")
    assert log_median(np.array([[-800.0, -801.0, -802.0]])) == pytest.approx(-801)


def test_densities_need_samples():
    model = trained(data(), {"sample_key": None})
    with pytest.raises(ArgumentError, match="sample_key"):
        model.get_sample_logprobs()
    assert len(model.differential_expression(groupby="type", group1="type0", silent=True)) == 8


def test_abundance_finds_what_abounds():
    """A type that only ill samples have."""
    rng = np.random.default_rng(0)
    kind, sample = rng.integers(2, size=400), rng.integers(4, size=400)
    kind = np.where(sample < 2, kind, 0)
    adata = AnnData(rng.normal(np.array([[0.2], [0.8]])[kind], 0.05, (400, 6)).astype(np.float32))
    adata.obs["sample"], adata.obs["group"] = sample.astype(str), np.where(sample < 2, "ill", "well")
    CYTOVI.setup_anndata(adata, sample_key="sample")
    model = CYTOVI(adata, n_hidden=16, n_latent=2)
    model.train(50, seed=0, verbose=0, recipe="one_cycle", accelerator="cpu")
    ill = model.differential_abundance(groupby="group")["DA_ill"]
    assert ill[kind == 1].median() > ill[kind == 0].median() + 1


# Imputation.


def test_neighbours_vote():
    rng = np.random.default_rng(0)
    reference, query = rng.normal(size=(50, 3)), rng.normal(size=(20, 3))
    exact = np.argsort(((query[:, None] - reference) ** 2).sum(-1), 1)[:, :4]
    np.testing.assert_array_equal(nearest(reference, query, 4), exact)
    assert nearest(reference, query, 99).shape == (20, 50)
    chosen, uncertain = vote(np.array([[0, 1, 1, 2], [2, 2, 2, 2]]), 3)
    np.testing.assert_array_equal(chosen, [1, 2])
    np.testing.assert_array_equal(uncertain, [0.5, 0])


def test_categories_of_a_reference(model):
    reference = data()[:40].copy()
    reference.obs["known"] = reference.obs["type"]
    names, uncertainty = model.impute_categories_from_reference(
        reference, "known", n_neighbors=1, return_uncertainty=True
    )
    np.testing.assert_array_equal(names[:40], reference.obs["type"].to_numpy())  # each is its own neighbour
    assert (uncertainty == 0).all()
    reference.obs.loc[reference.obs["type"] == "type1", "known"] = np.nan
    assert "type1" not in set(model.impute_categories_from_reference(reference, "known"))
    with pytest.raises(ArgumentError, match="Did you mean 'known'"):
        model.impute_categories_from_reference(reference, "knwon")
    reference.obsm["own"] = np.zeros((40, 2))
    with pytest.raises(ArgumentError, match=r"entry of obsm \(use_rep\)"):
        model.impute_categories_from_reference(reference, "known", use_rep="own")


def test_rna_of_a_reference(model):
    adata = model.adata
    of_first = (adata.obs["batch"] == "0").to_numpy()
    rng = np.random.default_rng(0)
    rna = AnnData(rng.random((of_first.sum(), 5)).astype(np.float32), obs=adata.obs[of_first].iloc[::-1])
    rna.layers["log"] = rna.X.copy()
    found = model.impute_rna_from_reference("0", rna, "log", n_neighbors=3, compute_uncertainty=True)
    assert found.shape == (80, 5)
    ordered = rna.layers["log"][::-1]
    np.testing.assert_allclose(found.layers["log"][of_first], ordered)
    z = model.get_latent_representation()
    near = nearest(z[of_first], z[~of_first], 3)
    np.testing.assert_allclose(found.X[~of_first], ordered[near].mean(1), rtol=1e-5)
    np.testing.assert_allclose(found.layers["log_sd"][~of_first], ordered[near].std(1), atol=1e-3)
    assert model.impute_rna_from_reference("0", rna, "log", return_query_only=True).n_obs == (~of_first).sum()
    with pytest.raises(ArgumentError, match="lacks 35 of the 40 cells"):
        model.impute_rna_from_reference("0", rna[:5].copy(), "log")
    with pytest.raises(ArgumentError, match="No batch"):
        model.impute_rna_from_reference("2", rna, "log")
    with pytest.raises(ArgumentError, match="No layer of adata_rna"):
        model.impute_rna_from_reference("0", rna, "logs")


# Archives and queries.


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize(
    ("setup", "init"),
    [
        ({"labels_key": "type", "continuous_covariate_keys": ["depth"]}, {"protein_likelihood": "beta"}),
        ({"categorical_covariate_keys": ["group"]}, {"encode_covariates": True, "latent_distribution": "ln"}),
        ({"sample_key": None}, {"prior_mixture": False, "scale_activation": "softplus", "log_variational": True}),
    ],
)
def test_archives(setup, init, tmp_path):
    model = trained(data(), setup, **init)
    z, expression = model.get_latent_representation(seed=0), model.get_normalized_expression(n_samples=2, seed=0)
    assert np.isfinite(float(model.get_marginal_ll(n_mc_samples=5, seed=0)))
    model.save(str(tmp_path / "model"))
    again = CYTOVI.load(str(tmp_path / "model"), data(), accelerator="cpu")
    np.testing.assert_allclose(again.get_latent_representation(seed=0), z, atol=1e-6)
    alone = CYTOVI.load(str(tmp_path / "model"), False, accelerator="cpu")
    np.testing.assert_allclose(alone.get_latent_representation(data(), seed=0), z, atol=1e-6)
    np.testing.assert_allclose(alone.get_normalized_expression(data(), n_samples=2, seed=0), expression, atol=1e-6)


class _Stop(Callback):
    """Ends a training after so many minibatches."""

    def __init__(self, after: int):
        self.left = after

    def on_train_batch_end(self, *args):
        self.left -= 1
        if not self.left:
            raise ZeroDivisionError


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    options = TRAIN | {"max_epochs": 4}
    whole, stopped, resumed = (made(data(n=160)) for _ in range(3))
    whole.train(**options)
    with pytest.raises(ZeroDivisionError):
        stopped.train(**options, checkpoint_every="1 step", checkpoint_dir=tmp_path, callbacks=[_Stop(3)])
    resumed.train(**options, callbacks=[_Stop(0)], resume=tmp_path)
    for name, weights in whole.module.state_dict().items():
        torch.testing.assert_close(resumed.module.state_dict()[name], weights, rtol=0, atol=0, msg=name)


def test_a_query(model):
    query = data(seed=1)
    query.obs["batch"] = "new"
    mapped = CYTOVI.load_query_data(query, model)
    mapped.is_trained_ = True
    np.testing.assert_allclose(mapped.get_latent_representation(data()), model.get_latent_representation(), atol=1e-6)
    mapped.train(**TRAIN)
    assert mapped.get_normalized_expression().shape == (80, 8)
    other = data(seed=1, panels=False)
    other = cytovi.mask_markers(other, ["m0"], masked_batch="0")
    with pytest.raises(ValueError, match=r"measured without m0: leave these cells out"):
        model.get_latent_representation(other)
    whole = data(seed=1, panels=False)
    with pytest.raises(KeyError, match=r"np.ones\(adata.shape\) says that all were measured"):
        model.get_latent_representation(whole)
    whole.layers["_nan_mask"] = np.ones(whole.shape)
    assert model.get_latent_representation(whole).shape == (80, 3)


@pytest.mark.parametrize("case", ["cytovi", "cytovi_beta_labels", "cytovi_missing", "cytovi_standard"])
def test_scvi_tools_archives_answer_as_there(case, check_case):
    asked, compared, faults = check_case(case)
    assert faults == []
    assert compared > asked > 12


def test_scvi_tools_archives_without_their_data(parity2):
    with pytest.raises(ArchiveError, match="does not say which markers the encoder reads: load it with adata="):
        CYTOVI.load(str(parity2 / "cytovi_missing" / "model"), False)
    assert CYTOVI.load(str(parity2 / "cytovi" / "model"), False).module.n_latent == 4


def test_scvi_tools_reads_what_is_exported(tmp_path, peer_python, model):
    model.save(tmp_path / "own")
    data().write_h5ad(tmp_path / "a.h5ad")
    export_archive(tmp_path / "own", tmp_path / "theirs")
    ask = (
        "import anndata, numpy, scvi, sys; folder = sys.argv[1];"
        "model = scvi.external.CYTOVI.load(folder + '/theirs', adata=anndata.read_h5ad(folder + '/a.h5ad'));"
        "numpy.save(folder + '/z.npy', model.get_latent_representation())"
    )
    subprocess.run([peer_python, "-W", "ignore", "-c", ask, str(tmp_path)], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), model.get_latent_representation(), rtol=1e-4, atol=1e-5)


# Bad input.


def test_numbers_that_are_missing_without_a_mask():
    adata = data(panels=False)
    adata.layers["scaled"][[3, 7], 2] = np.nan
    with pytest.raises(ValueError, match=r"2 values of 2 cells \(first in cell 'cell3': nan; markers m2\)") as error:
        CYTOVI.setup_anndata(adata, layer="scaled")
    assert "register_nan_layer" in str(error.value)


def test_numbers_that_are_missing_beside_the_mask():
    adata = data()
    adata.layers["scaled"][3, 2] = np.inf
    with pytest.raises(ValueError, match="says that they were measured: set it to 0 there"):
        CYTOVI.setup_anndata(adata, layer="scaled")


def test_a_mask_of_other_numbers():
    adata = data()
    adata.layers["_nan_mask"][5, 1] = 0.5
    with pytest.raises(ValueError, match="must be 1 where a marker was measured and 0"):
        CYTOVI.setup_anndata(adata, layer="scaled")


def test_values_outside_of_the_support():
    adata = data()
    adata.layers["scaled"][4, 0] = 1.0
    with pytest.raises(
        ValueError, match=r"between 0 and 1, neither included.*cell 'cell4': 1; markers m0.*scale\(adata\)"
    ):
        made(adata, protein_likelihood="beta")
    made(adata)


def test_a_backbone_of_one_marker():
    adata = data(panels=False)
    adata = cytovi.mask_markers(adata, [f"m{g}" for g in range(1, 8)])
    with pytest.raises(ArgumentError, match=r"share 1 of 8 markers \(m0\)"):
        made(adata)


def test_encoders_of_other_markers():
    with pytest.raises(ArgumentError, match="can only read what all cells have"):
        made(data(), encode_backbone_only=False)
    with pytest.raises(ArgumentError, match="names m3, which some panels lack"):
        made(data(), encoder_marker_list=["m0", "m3"])
    with pytest.raises(ArgumentError, match=r"No marker \(encoder_marker_list\) is called 'x0'"):
        made(data(), encoder_marker_list=["x0"])
    chosen = made(data(), encoder_marker_list=["m0", "m5"])
    assert chosen.module.z_encoder.encoder.fc_layers[0][0].weight.shape == (8, 2)


def test_the_mask_is_found_by_its_name(caplog):
    with caplog.at_level(logging.INFO, "celbo"):
        made(data())
    assert "which markers each cell's panel has" in caplog.text


def test_files_are_read_a_block_at_a_time(tmp_path):
    adata = data(panels=False)
    adata.X = adata.layers["scaled"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    opened = celbo.data.open(tmp_path / "a.h5ad")
    CYTOVI.setup_anndata(opened, batch_key="batch")
    model = CYTOVI(opened, **SMALL)
    model.train(**TRAIN)
    plain = data(panels=False)
    plain.X = plain.layers["scaled"]
    np.testing.assert_allclose(model.get_latent_representation(plain), model.get_latent_representation(), atol=1e-6)


def test_stimulation_of_real_cells_is_found_and_the_patient_is_not(shared_dir):
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    path = shared_dir / "data" / "cytometry_pbmc_stim.h5ad"
    if not path.exists():
        pytest.skip("no cytometry_pbmc_stim.h5ad in 'shared/data'")
    adata = anndata.read_h5ad(path)
    adata = adata[::3, adata.var["marker_class"] == "state"].copy()
    adata.layers["raw"] = adata.X.copy()
    cytovi.transform_arcsinh(adata)
    cytovi.scale(adata)
    CYTOVI.setup_anndata(adata, layer="scaled", batch_key="patient_id")
    model = CYTOVI(adata, n_hidden=32)
    model.train(15, seed=0, verbose=0, accelerator="cpu")

    def told(what: str, of_nk: np.ndarray) -> float:
        neighbours = KNeighborsClassifier(15)
        return cross_val_score(neighbours, of_nk, adata.obs[what], cv=5, scoring="balanced_accuracy").mean()

    z_nk, markers_ng = model.get_latent_representation(), adata.layers["transformed"]
    assert told("condition", z_nk) > told("condition", markers_ng) - 0.05  # 0.78 and 0.80, by chance 0.50
    assert told("patient_id", z_nk) < told("patient_id", markers_ng) + 0.01  # 0.37 and 0.39, by chance 0.25
