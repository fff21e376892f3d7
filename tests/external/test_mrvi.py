"""MRVI: attention and loss against plain formulas, its verbs against numpy and scipy, archives of both layouts."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import chi2, norm
from torch import nn
from torch.distributions import Normal

import celbo
from celbo.core import ArgumentError, UnknownArgumentError
from celbo.external import MRVI, TorchMRVI
from celbo.external.mrvi import TorchMRVAE, abundance, samples
from celbo.external.mrvi.blocks import LAYOUTS
from celbo.external.mrvi.differential import false_discovery_rates
from celbo.external.mrvi.layers import Attention
from celbo.external.mrvi.plan import SettlingPlan
from celbo.io import ArchiveError
from celbo.model.base import convert_archive, export_archive
from celbo.ops.random import private_rng
from celbo.train.plans.schedules import one_cycle

SMALL = {"encoder_n_hidden": 8, "n_latent": 4, "n_latent_u": 3}
TRAIN = {"max_epochs": 2, "seed": 0, "verbose": 0, "accelerator": "cpu"}
DONORS = ["d", "a", "c", "b"]


def data(n: int = 60):
    adata = celbo.data.synthetic_iid(batch_size=n // 2, n_genes=20, seed=0)
    adata.obs["donor"] = pd.Categorical(np.resize(DONORS, n))
    adata.obs["state"] = adata.obs["donor"].map({"a": "ill", "b": "ill", "c": "well", "d": "well"}).astype(str)
    adata.obs["age"] = adata.obs["donor"].map({"a": 20.0, "b": 50.0, "c": 30.0, "d": 60.0}).astype(float)
    return adata


def trained(cls=MRVI, setup=None, **init):
    adata = data()
    cls.setup_anndata(adata, **({"sample_key": "donor", "batch_key": "batch"} | (setup or {})))
    model = cls(adata, **(SMALL | init))
    model.train(**TRAIN, plan_kwargs={"settles_at": 1.0})  # two epochs of the first part: effects of samples differ
    return model


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.fixture
def tables():
    return pytest.importorskip("xarray", reason="xarray is not installed")


def sharp(model):
    """The model with posteriors of u that are points, so that draws are means."""
    scale = model.module.qu.output_nn.fc_scale[0]
    with torch.no_grad():
        scale.weight.zero_()
        scale.bias.fill_(-50.0)
    return model


# The network.


def test_attention_is_that_of_torch():
    with private_rng(0):
        block = Attention(3, 5, 2, LAYOUTS["1.4.2"]).double().eval()
        nn.init.normal_(block.attention.in_proj_bias)
    torchs = nn.MultiheadAttention(8, 2, batch_first=True).double()
    torchs.load_state_dict(block.attention.state_dict())
    a, b = torch.randn(6, 16, dtype=torch.double), torch.randn(6, 16, dtype=torch.double)
    query, key = block.embed_dim_proj_query(a[..., None]), block.embed_dim_proj_kv(b[..., None])
    expected = torchs(query, key, key)[0]
    torch.testing.assert_close(block.attention.out_proj(block._attended(a, b)), expected)


def test_attention_of_1_4_3_is_scaled_dot_products():
    with private_rng(0):
        block = Attention(3, 5, 2, LAYOUTS["1.4.3"]).double().eval()
    a, b = torch.randn(6, 16, dtype=torch.double), torch.randn(6, 16, dtype=torch.double)
    heads = [
        layer(x[..., None]).unflatten(-1, (2, 4)).transpose(-3, -2)
        for layer, x in ((block.q_proj, a), (block.k_proj, b), (block.v_proj, b))
    ]
    expected = nn.functional.scaled_dot_product_attention(*heads).transpose(-3, -2).flatten(-2)
    torch.testing.assert_close(block._attended(a, b), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_samples_at_once_are_each_by_itself(layout):
    with private_rng(0):
        module = TorchMRVAE(6, 4, 2, layout=layout, **SMALL).eval()
    u = torch.randn(5, 3)
    together = module.move(u[:, None], torch.arange(4))["z"]
    alone = [module.move(u, torch.full((5,), s))["z"] for s in range(4)]
    torch.testing.assert_close(together, torch.stack(alone, 1))


def minibatch(n: int = 12):
    x = torch.poisson(torch.full((n, 6), 3.0), generator=torch.Generator().manual_seed(0)).double()
    return {"X": x, **{key: torch.arange(n)[:, None] % m for key, m in (("sample", 4), ("batch", 2), ("labels", 3))}}


@pytest.mark.parametrize("scvi_tools_figures", [False, True])
def test_loss_is_the_plain_formula(scvi_tools_figures):
    tensors = minibatch()
    with private_rng(0):
        module = TorchMRVAE(6, 4, 2, 3, scvi_tools_figures=scvi_tools_figures, **SMALL).double().eval()
        nn.init.normal_(module.u_prior_scales)
        encoded, decoded, out = module(tensors, loss_kwargs={"kl_weight": 0.7, "z_kl_weight": 0.4})
    nll_n = -decoded["px"].log_prob(tensors["X"]).sum(-1)
    u, qu, eps = (encoded[name] for name in ("u", "qu", "eps"))
    parts = Normal(module.u_prior_means, module.u_prior_scales.exp()).log_prob(u[:, None]).sum(-1)
    logits = module.u_prior_logits + 10 * torch.eye(3, dtype=torch.double)  # a row for each label
    log_p_ny = torch.logsumexp(logits.log_softmax(-1) + parts[:, None], -1)
    label_n = tensors["labels"].flatten()
    log_q_n = qu.log_prob(u).sum(-1)
    kl_z_n = -Normal(0.0, 1.0).log_prob(eps).sum(-1)
    own_n = log_q_n - log_p_ny[torch.arange(12), label_n] + kl_z_n
    every_n = log_q_n - log_p_ny[:, label_n].mean(1) + kl_z_n
    weight_n = 0.7 * ((every_n if scvi_tools_figures else own_n) - 0.6 * kl_z_n)
    torch.testing.assert_close(out.kl_local["kl_local"], own_n)
    torch.testing.assert_close(out.loss, (nll_n + weight_n).mean())


@pytest.mark.parametrize("use_map", [True, False])
def test_differences_between_effects_are_those_of_samples_of_other_cells(use_map):
    tensors = minibatch()
    with private_rng(0):
        module = TorchMRVAE(6, 4, 2, qz_kwargs={"use_map": use_map}, **SMALL).double().eval()
        options = {"inference_kwargs": {"n_others": 2}, "loss_kwargs": {"difference_weight": 0.7}}
        encoded, _, out = module(tensors, **options)
    code_n, u = tensors["sample"].flatten(), encoded["u"]

    def effect(code):
        moved = module.move(u, code, use_mean=True)
        return moved["eps"]

    own = effect(code_n)
    others = [effect(code_n[(np.arange(12) - k) % 12]) for k in (1, 2)]
    expected_n = sum(0.15 * ((own - other).norm(dim=-1) / 0.15).square().add(1).log() for other in others) / 2
    torch.testing.assert_close(encoded["differences"], expected_n)
    each_n = out.reconstruction_loss["reconstruction_loss"] + out.kl_local["kl_local"]
    torch.testing.assert_close(out.loss, (each_n + 0.7 * expected_n).mean())
    out.loss.backward()
    assert all(weight.grad is None for weight in module.qu.parameters())
    assert module.qz.embedding.weight.grad.abs().sum() > 0


def test_u_stays_as_it_is_once_effects_settle():
    adata = data()
    MRVI.setup_anndata(adata, sample_key="donor", batch_key="batch")

    def moved(settles_at):
        model = MRVI(adata, **SMALL)
        before = {name: weight.clone() for name, weight in model.module.state_dict().items()}
        model.train(**TRAIN, plan_kwargs={"settles_at": settles_at})
        return {
            name.partition(".")[0]
            for name, weight in model.module.state_dict().items()
            if (weight != before[name]).any()
        }

    assert {"qu", "qz", "px"} <= moved(1.0)
    assert moved(0.0) >= {"qz", "px"}
    assert "qu" not in moved(0.0)


def test_each_part_of_a_training_has_a_cycle_of_its_own():
    with private_rng(0):
        plan = SettlingPlan(TorchMRVAE(6, 4, 2, **SMALL), settles_at=0.5, lr_warmup_fraction=0.1)
    cycle = [one_cycle(step, 100, 0.1) for step in range(100)]
    assert [plan.rate_at(step, 200) for step in range(200)] == [*cycle, *(rate / 2 for rate in cycle)]


def test_samples_weigh_the_same_where_asked():
    tensors, cells = minibatch(), torch.tensor([3, 6, 1, 2])
    with private_rng(0):
        module = TorchMRVAE(6, 4, 2, scale_observations=True, n_obs_per_sample=cells, **SMALL).double().eval()
        out = module(tensors)[2]
    each_n = out.reconstruction_loss["reconstruction_loss"] + out.kl_local["kl_local"]
    torch.testing.assert_close(out.loss, (each_n / cells[tensors["sample"].flatten()]).mean())


@pytest.mark.parametrize("case", ["mrvi", "mrvi_labels", "mrvi_sampled_z"])
def test_archives_of_scvi_tools(tables, check_case, case):
    asked, compared, faults = check_case(case)
    assert not faults
    assert asked >= 18
    assert compared >= 32


# Archives.


def names_of(path):
    return set(torch.load(path / "model.pt", weights_only=False)["model_state_dict"])


@pytest.mark.parametrize(("cls", "version"), [(MRVI, "1.4.3"), (TorchMRVI, "1.4.2")])
def test_archives_have_the_layout_that_their_version_reads(tmp_path, cls, version):
    model = trained(cls)
    model.save(tmp_path / "own")
    export_archive(tmp_path / "own", tmp_path / "theirs")
    content = torch.load(tmp_path / "theirs" / "model.pt", weights_only=False)["attr_dict"]
    assert content["registry_"]["scvi_version"] == version
    assert content["registry_"]["model_name"] == "TorchMRVI"
    assert content["init_params_"]["kwargs"]["model_kwargs"] == SMALL
    names = names_of(tmp_path / "theirs")
    assert ("qz.attention_block.q_proj.weight" in names) == ("pz_scale" in names) == (version == "1.4.3")
    assert ("qz.attention_block.attention.in_proj_weight" in names) == (version == "1.4.2")
    convert_archive(tmp_path / "theirs", tmp_path / "back")
    for folder in ("own", "theirs", "back"):
        for reader in (MRVI, TorchMRVI):
            for adata in (model.adata, False):
                again = reader.load(tmp_path / folder, adata, accelerator="cpu")
                assert again.module.layout == version
                assert again.module.takes_every_label == (folder != "own")
                again.save(tmp_path / "again", overwrite=True)
                twice = TorchMRVI.load(tmp_path / "again", model.adata, accelerator="cpu")
                assert twice.module.takes_every_label == (folder != "own")
                np.testing.assert_allclose(
                    twice.get_latent_representation(give_z=True), model.get_latent_representation(give_z=True)
                )


def test_exports_name_the_version(tmp_path):
    for cls, folder in ((MRVI, "new"), (TorchMRVI, "old")):
        trained(cls).save(tmp_path / folder)
    for version, name in (("1.4.4", "TorchMRVI"), ("1.5.1", "MRVI")):
        export_archive(tmp_path / "new", tmp_path / version, version=version)
        registry = torch.load(tmp_path / version / "model.pt", weights_only=False)["attr_dict"]["registry_"]
        assert (registry["scvi_version"], registry["model_name"]) == (version, name)
        assert MRVI.load(tmp_path / version, False).module.layout == "1.4.3"
    with pytest.raises(ArchiveError, match="train a TorchMRVI"):
        export_archive(tmp_path / "new", tmp_path / "x", version="1.4.2")
    with pytest.raises(ArchiveError, match="train a MRVI"):
        export_archive(tmp_path / "old", tmp_path / "x", version="1.5")


# Queries.


def query_of(donor="new", batch="batch_0"):
    query = data()
    query.obs["donor"], query.obs["batch"] = donor, batch
    return query


@pytest.mark.parametrize(("cls", "recipe"), [(MRVI, "one_cycle"), (TorchMRVI, "classic")])
def test_a_query_of_a_new_sample_moves_its_rows_alone(tables, tmp_path, cls, recipe):
    reference = trained(cls)
    before = reference.get_latent_representation(give_z=True)
    distances = reference.get_local_sample_distances()["cell"].values
    query = query_of()
    model = cls.load_query_data(query, reference)
    np.testing.assert_array_equal(model.sample_order, [*sorted(DONORS), "new"])
    model.save(tmp_path / "untrained")
    model = cls.load(tmp_path / "untrained", query, accelerator="cpu")
    started = {name: weight.clone() for name, weight in model.module.state_dict().items()}
    mean = reference.module.qz.embedding.weight.mean(0)
    torch.testing.assert_close(started["qz.embedding.weight"][-1], mean.detach())
    model.train(**TRAIN, recipe=recipe)
    moved = {
        name: (weight != started[name]).reshape(len(weight), -1).any(1)
        for name, weight in model.module.state_dict().items()
    }
    rows = torch.arange(5) == 4
    norms = ("conditional_norm1", "conditional_norm2")
    own = {f"qu.{norm}.{which}_embedding.weight" for norm in norms for which in ("gamma", "beta")}
    own |= {"qu.sample_embed.weight", "qz.embedding.weight"}
    assert {name for name, rows_moved in moved.items() if rows_moved.any()} == own
    assert all(torch.equal(moved[name], rows) for name in own)
    np.testing.assert_array_equal(model.get_latent_representation(data(), give_z=True), before)
    again = model.get_local_sample_distances(data())["cell"].values
    np.testing.assert_allclose(again[:, :4, :4], distances, atol=1e-6)
    assert again.shape == (60, 5, 5)


def test_a_query_knows_the_samples_of_its_reference(tables, model):
    query = query_of()
    query.obs["state"], query.obs["age"] = "ill", 33.0
    mapped = MRVI.load_query_data(query, model)
    assert mapped.sample_info["age"].tolist() == [20.0, 50.0, 30.0, 60.0, 33.0]
    mapped.train(**TRAIN)
    found = mapped.differential_expression(sample_cov_keys=["age"], mc_samples=2, seed=0)
    assert found["pvalue"].shape == (60, 1)


def test_a_new_batch_wants_a_reference_of_several():
    reference = trained(setup={"batch_key": None})
    MRVI.load_query_data(query_of(), reference)
    adata = data()
    adata.obs["batch"] = "batch_0"
    MRVI.setup_anndata(adata, sample_key="donor", batch_key="batch")
    reference = MRVI(adata, **SMALL)
    with pytest.raises(ArgumentError, match="give the query's cells the reference's batch"):
        MRVI.load_query_data(query_of(batch="other"), reference)


def test_scvi_tools_reads_what_is_exported(tmp_path, peer_python):
    model = trained(TorchMRVI)
    model.adata.write_h5ad(tmp_path / "a.h5ad")
    model.save(tmp_path / "own")
    export_archive(tmp_path / "own", tmp_path / "theirs")
    ask = (
        "import anndata, numpy, scvi, sys; folder = sys.argv[1];"
        "model = scvi.external.MRVI.load(folder + '/theirs', adata=anndata.read_h5ad(folder + '/a.h5ad'));"
        "numpy.save(folder + '/z.npy', model.get_latent_representation(give_z=True))"
    )
    subprocess.run([peer_python, "-W", "ignore", "-c", ask, str(tmp_path)], check=True, capture_output=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "z.npy"), model.get_latent_representation(give_z=True), rtol=1e-4, atol=1e-5
    )


# Verbs.


def test_z_of_the_own_sample_is_z(tables, model):
    z = model.get_local_sample_representation()
    own = z.values[np.arange(60), model.adata.obs["donor"].cat.codes]
    np.testing.assert_allclose(own, model.get_latent_representation(give_z=True), rtol=1e-4, atol=1e-5)
    assert list(z.sample.values) == sorted(DONORS)
    drawn = model.get_local_sample_representation(indices=[3, 1], use_mean=False, mc_samples=5, seed=1)
    assert drawn.dims == ("cell_name", "mc_sample", "sample", "latent_dim")
    assert drawn.shape == (2, 5, 4, 4)


@pytest.mark.parametrize(("name", "order"), [("l1", 1), ("l2", 2), ("linf", np.inf)])
def test_distances_are_those_of_representations(tables, model, name, order, tmp_path):
    z = model.get_local_sample_representation().values
    expected = np.linalg.norm(z[:, :, None] - z[:, None], order, axis=-1)
    found = model.get_local_sample_distances(norm=name, groupby=["labels", "state"], batch_size=7)
    np.testing.assert_allclose(found["cell"], expected, rtol=1e-4, atol=1e-5)
    for key in ("labels", "state"):
        for group in model.adata.obs[key].unique():
            mean = expected[(model.adata.obs[key] == group).to_numpy()].mean(0)
            np.testing.assert_allclose(found[key].sel({f"{key}_name": group}), mean, rtol=1e-4, atol=1e-5)
    written = model.get_local_sample_distances(norm=name, out=str(tmp_path / "d.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), written["cell"])
    # Representations of order 1 round at 1e-7 in each of four dimensions; the two calls have minibatches of two sizes.
    np.testing.assert_allclose(written["cell"], found["cell"], rtol=1e-5, atol=1e-5)
    assert "cell" not in model.get_local_sample_distances(groupby="state", keep_cell=False)


def test_normalized_distances_count_standard_deviations_of_noise(tables, model):
    found = model.get_local_sample_distances(normalize_distances=True, mc_samples=400, seed=0)["cell"].values
    z = torch.tensor(model.get_local_sample_representation(use_mean=False, mc_samples=400, seed=1).values.copy())
    own = z[torch.arange(60), :, torch.tensor(model.adata.obs["donor"].cat.codes.tolist())]
    noise = (own[:, :200] - own[:, 200:]).norm(dim=-1)
    np.testing.assert_allclose(found[:, 0, 0], -noise.mean(1) / noise.std(1), rtol=0.25)


def test_abundance_is_the_density_of_samples(tables, model):
    found = model.differential_abundance(sample_cov_keys=["state"], compute_log_enrichment=True)
    q = model.get_aggregated_posterior().component_distribution.base_dist
    density = norm.logpdf(q.loc[:, None], q.loc[None], q.scale[None]).sum(-1)
    donor, state = (model.adata.obs[key].to_numpy() for key in ("donor", "state"))
    assert list(found.sample.values) == DONORS
    for name in DONORS:
        expected = logsumexp(density[:, donor == name], axis=1) - np.log((donor == name).sum())
        np.testing.assert_allclose(found.log_probs.sel(sample=name), expected, rtol=1e-4, atol=1e-4)
        of_one = model.get_aggregated_posterior(sample=name)
        np.testing.assert_allclose(of_one.log_prob(q.loc), expected, rtol=1e-4, atol=1e-4)
    each = {name: np.exp(found.log_probs.sel(sample=name).values) for name in DONORS}
    for group, names in (("ill", "ab"), ("well", "cd")):
        mean = np.mean([np.where(donor == name, np.nan, each[name]) for name in names], 0)
        alone = np.array([np.nanmean([each[n][i] for n in names if n != donor[i]]) for i in range(60)])
        expected = np.where(np.isnan(mean), alone, mean)
        np.testing.assert_allclose(np.exp(found.state_log_probs.sel(state=group)), expected, rtol=1e-3)
    assert set(state) == set(found.state.values)
    np.testing.assert_allclose(
        found.state_log_enrichs.sum("state"), 0, atol=1e-5
    )  # two groups: one is the other's rest


def test_pairs_are_admitted_near_a_cell_of_the_sample(tables, model):
    found = model.get_outlier_cell_sample_pairs(quantile_threshold=0.3, admissibility_threshold=0.1)
    q = model.get_aggregated_posterior().component_distribution.base_dist
    density = norm.logpdf(q.loc[:, None], q.loc[None], q.scale[None]).sum(-1)
    donor = model.adata.obs["donor"].to_numpy()
    others = np.where(np.eye(60, dtype=bool), -np.inf, density)
    own = [others[i, donor == donor[i]].max() for i in range(60)]
    for name in DONORS:
        nearest = density[:, donor == name].max(1)
        np.testing.assert_allclose(found.log_probs.sel(sample=name), nearest, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.log_ratios.sel(sample=name), nearest - np.quantile(own, 0.3), atol=1e-3)
    np.testing.assert_array_equal(found.is_admissible, found.log_ratios > 0.1)


def test_samples_of_one_cell_have_no_neighbour():
    u, variance = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    with pytest.raises(ArgumentError, match="one cell"):
        abundance.outliers(u, variance, [np.array([0]), np.array([1])], 0.05)


def regressed(model, x):
    """Least squares of standardized effects of samples; their mean and standard deviation, and z without them."""
    z = model.get_local_sample_representation().values.astype(float)
    base = model.module.qz(torch.as_tensor(model.get_latent_representation()), torch.zeros(60).long())[0]
    base = base.detach().numpy()
    effect = z - base[:, None] if type(model) is MRVI else z
    mean, sd = effect.mean(1, keepdims=True), effect.std(1, ddof=1, keepdims=True)
    beta = np.stack([np.linalg.lstsq(x, one, rcond=None)[0] for one in (effect - mean) / (sd + 1e-6)])
    return beta, mean, sd, base


@pytest.mark.parametrize("cls", [MRVI, TorchMRVI])
def test_regression_is_that_of_least_squares(tables, cls):
    model = sharp(trained(cls))
    found = model.differential_expression(
        sample_cov_keys=["state", "age"], mc_samples=2, store_lfc=True, store_baseline=True, seed=0
    )
    assert list(found.covariate.values) == ["state_well", "age"]
    x = np.array([[0, 0.0], [0, 0.75], [1, 0.25], [1, 1.0]])
    beta, mean, sd, base = regressed(model, x)
    np.testing.assert_allclose(found.beta, beta * sd, rtol=2e-2, atol=1e-3)
    values, vectors = np.linalg.eigh(x.T @ x)
    size = np.square(np.einsum("pq,nqk->npk", vectors * np.sqrt(values) @ vectors.T, beta)).sum(-1)
    np.testing.assert_allclose(found.effect_size, size, rtol=2e-2, atol=1e-3)
    np.testing.assert_allclose(found.pvalue, chi2.sf(size, 4), atol=1e-2)
    start = torch.as_tensor(base + mean[:, 0]).float()

    def profile(z, batch):
        return model.module.px(z, torch.full((60,), batch)).softmax(-1).detach().numpy()

    moved = start + torch.as_tensor((beta * sd)[:, 1]).float()
    lfc = np.mean([np.log2(profile(moved, b) + 1e-4) - np.log2(profile(start, b) + 1e-4) for b in (0, 1)], 0)
    np.testing.assert_allclose(found.lfc.sel(covariate="age"), lfc, atol=1e-2)
    np.testing.assert_allclose(found.baseline_expression, np.mean([profile(start, b) for b in (0, 1)], 0), atol=1e-3)


def test_offsets_of_batches_take_what_batches_explain(tables):
    model = sharp(trained())
    options = {"mc_samples": 3, "seed": 0, "store_lfc": True, "add_batch_specific_offsets": True}
    model.sample_info = model.sample_info.assign(_scvi_batch=[0, 1, 0, 1])  # of a to d; state is ill, ill, well, well
    found = model.differential_expression(sample_cov_keys=["state"], **options)
    assert list(found.covariate.values) == ["offset_batch_0", "offset_batch_1", "state_well"]
    assert list(found.covariate_sub.values) == ["state_well"]
    assert found.lfc.shape == (60, 1, 20)
    beta, _, sd, _ = regressed(model, np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 1.0]]))
    np.testing.assert_allclose(found.beta, beta * sd, rtol=2e-2, atol=1e-3)


def test_inadmissible_samples_have_no_part(tables, model):
    options = {"sample_cov_keys": ["age"], "mc_samples": 2, "seed": 0}
    every = model.differential_expression(**options)
    with pytest.raises(UnknownArgumentError, match="Did you mean 'quantile_threshold'"):
        model.differential_expression(**options, quantile_treshold=0.5)
    none_out = model.differential_expression(**options, filter_inadmissible_samples=True, admissibility_threshold=-1e6)
    np.testing.assert_allclose(none_out.beta, every.beta, rtol=1e-4, atol=1e-5)
    some = model.differential_expression(**options, filter_inadmissible_samples=True, quantile_threshold=0.5)
    assert np.isfinite(some.effect_size).all()
    assert not np.allclose(some.beta, every.beta)


def test_subsets_and_other_tables_of_samples(tables, model):
    found = model.differential_abundance(sample_subset=["a", "d"])
    assert list(found.sample.values) == ["d", "a"]
    other = model.adata.copy()
    other.obs["dose"] = other.obs["donor"].cat.codes.astype(float)
    model.update_sample_info(other)
    assert list(model.differential_expression(other, ["dose"], mc_samples=1).covariate.values) == ["dose"]
    model.update_sample_info(model.adata)


def test_rates_are_those_of_benjamini_and_hochberg():
    p = np.array([[0.01, 0.04], [0.03, 0.5]], np.float32)
    np.testing.assert_allclose(false_discovery_rates(p), [[0.04, 0.16 / 3], [0.16 / 3, 0.5]], rtol=1e-6)


def test_designs_compare_with_the_first_category():
    columns = {"kind": pd.Series(["b", "a", "c"]), "age": pd.Series([10, 30, 20])}
    design = samples.design_of(columns, None, normalize=True)
    assert design.names == ["kind_b", "kind_c", "age"]
    np.testing.assert_array_equal(design.matrix_sq, [[1, 0, 0], [0, 0, 1], [0, 1, 0.5]])
    np.testing.assert_array_equal(samples.design_of(columns, None, normalize=False).matrix_sq[:, 2], [10, 30, 20])


def test_a_covariate_that_varies_within_samples_is_summed_up():
    obs = pd.DataFrame({"age": [1.0, 3.0, 5.0, 5.0], "kind": pd.Categorical(["x", "y", "y", "x"])})
    obs = pd.concat([obs, pd.DataFrame({"age": [3.0], "kind": ["y"]})], ignore_index=True).astype({"kind": "category"})
    codes = np.array([0, 0, 1, 1, 0])
    info = samples.sample_table(obs, codes)
    with pytest.warns(UserWarning, match=r"'age' varies within 1 samples.*the mean is taken"):
        np.testing.assert_allclose(samples.covariate(info, obs, codes, "age"), [7 / 3, 5])
    with pytest.warns(UserWarning, match=r"'kind' varies within 2 samples.*the commonest value"):
        assert list(samples.covariate(info, obs, codes, "kind")) == ["y", "x"]


def test_the_backend_says_nothing_of_the_data():
    adata = data()
    MRVI.setup_anndata(adata, sample_key="donor", backend="torch")
    assert "backend" not in MRVI(adata, **SMALL).registry_["setup_args"]
    with pytest.raises(ArgumentError, match="'torch'"):
        MRVI.setup_anndata(adata, sample_key="donor", backend="jax")


# Refusals.


def test_one_sample_is_refused():
    adata = data()
    MRVI.setup_anndata(adata)
    with pytest.raises(ArgumentError, match="only one: name a sample_key"):
        MRVI(adata)


def test_samples_of_one_cell_are_refused():
    adata = data()
    adata.obs["donor"] = adata.obs["donor"].cat.add_categories(["lone"])
    adata.obs.loc[adata.obs_names[7], "donor"] = "lone"
    with pytest.warns(UserWarning, match="fewer than 3 cells"):
        MRVI.setup_anndata(adata, sample_key="donor")
    model = MRVI(adata, **SMALL)
    with pytest.raises(ArgumentError, match=r"one cell each: 1 \(lone\).*leave their cells out"):
        model.train(**TRAIN)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (None, "name columns of adata.obs"),
        (["stat"], "Did you mean 'state'"),
        (["same"], "the same in all samples"),
        (["some"], "missing in some samples"),
    ],
)
def test_covariates_that_are_none_are_refused(tables, keys, said):
    adata = data()
    adata.obs["same"], adata.obs["some"] = "one", adata.obs["state"].where(adata.obs["donor"] != "a")
    MRVI.setup_anndata(adata, sample_key="donor")
    model = MRVI(adata, **SMALL)
    model.train(**TRAIN)
    with pytest.raises(ArgumentError, match=said):
        model.differential_expression(sample_cov_keys=keys, mc_samples=1)


def test_unknown_samples_and_columns_are_named(tables, model):
    with pytest.raises(ArgumentError, match=r"sample.*'e'"):
        model.differential_abundance(sample_subset=["a", "e"])
    with pytest.raises(ArgumentError, match="samples are compared"):
        model.differential_abundance(sample_subset=["a"])
    with pytest.raises(ArgumentError, match="Did you mean 'state'"):
        model.get_local_sample_distances(groupby="stat")
    with pytest.raises(ArgumentError, match="'z'"):
        model.get_aggregated_posterior(sample="z")


def test_xarray_is_asked_for_by_name(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ModuleNotFoundError, match="needs the package 'xarray'"):
        model.get_local_sample_representation()
