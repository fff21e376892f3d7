"""Decipher: its loss and marginal likelihood against integrals, its trajectories, its archives, and real lineages."""

import subprocess

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch.distributions import NegativeBinomial, Normal

import celbo
from celbo import io
from celbo.core import ArgumentError
from celbo.external import Decipher
from celbo.external.decipher import DecipherModule, perturbation_shifts
from celbo.external.decipher.plots import plot_gene_patterns, plot_shifts, plot_trajectories
from celbo.external.decipher.utils import Trajectory, rotate_decipher_components
from celbo.ops.random import private_rng
from celbo.train.method import without_pyro

TRAIN = {"max_epochs": 2, "seed": 0, "verbose": 0, "accelerator": "cpu"}
PATHS = {
    "Ery": ["7MEP", "6Ery", "5Ery", "4Ery", "3Ery", "2Ery", "1Ery"],
    "Baso": ["9GMP", "10GMP", "12Baso", "13Baso"],
    "Mo": ["9GMP", "10GMP", "15Mo", "14Mo"],
    "Neu": ["9GMP", "10GMP", "17Neu", "16Neu"],
}


def trained(**init):
    adata = celbo.data.synthetic_iid(batch_size=40, n_genes=20, seed=0)
    Decipher.setup_anndata(adata)
    model = Decipher(adata, **init)
    model.train(**TRAIN)
    return model


@pytest.fixture(scope="module")
def fitted():
    return trained()


def module_of(**init) -> DecipherModule:
    with private_rng(3):
        module = DecipherModule(5, **init).double().eval()
        with torch.no_grad():
            module.px_r.copy_(torch.linspace(-1, 1, 5))
    return module


def counts(n: int = 6) -> torch.Tensor:
    return torch.poisson(torch.full((n, 5), 3.0), generator=torch.Generator().manual_seed(0)).double()


def log_px(module: DecipherModule, x_ng: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    mu = x_ng.sum(-1, keepdim=True) * module.decoder_z_to_x(z).softmax(-1)
    theta_g = module.px_r.exp()
    return NegativeBinomial(theta_g, logits=mu.log() - theta_g.log()).log_prob(x_ng).sum(-1)


def test_loss_is_the_plain_formula():
    module, x_ng = module_of(beta=0.3), counts()
    with private_rng(0):
        encoded, _, out = module({"X": x_ng}, loss_kwargs={"kl_weight": 0.7})
    z, v, qz, qv = (encoded[name] for name in ("z", "v", "qz", "qv"))
    loc, scale = module.decoder_v_to_z(v).chunk(2, -1)
    pz = Normal(loc, torch.nn.functional.softplus(scale))
    kl_z_n = (qz.log_prob(z) - pz.log_prob(z)).sum(-1)
    kl_v_n = 0.5 * (qv.loc**2 + qv.scale**2 - 1 - 2 * qv.scale.log()).sum(-1)
    nll_n = -log_px(module, x_ng, z)
    torch.testing.assert_close(out.reconstruction_loss["reconstruction_loss"], nll_n)
    torch.testing.assert_close(out.kl_local["kl_divergence_z"], kl_z_n)
    torch.testing.assert_close(out.kl_local["kl_divergence_v"], 0.3 * kl_v_n)
    torch.testing.assert_close(out.loss, (nll_n + 0.7 * (kl_z_n + 0.3 * kl_v_n)).mean())


@torch.no_grad()
def test_marginal_likelihood_is_the_integral_over_both_latents():
    module, x_ng = module_of(dim_v=1, dim_z=1), counts()
    with private_rng(0):
        drawn_n = module.marginal_ll({"X": x_ng}, 30_000, n_mc_samples_per_pass=10_000)
    axis = torch.linspace(-9, 9, 901).double()
    step = axis[1] - axis[0]
    pz = module.decoder_v_to_z.normal(axis[:, None])
    prior_z = (pz.log_prob(axis[None]) + Normal(0.0, 1.0).log_prob(axis)[:, None]).exp().sum(0) * step  # p(z)
    for x_g, found in zip(x_ng, drawn_n, strict=True):
        exact = (log_px(module, x_g, axis[:, None]).exp() * prior_z).sum() * step
        torch.testing.assert_close(found, exact.log(), rtol=0, atol=0.03)


def test_trajectory():
    way = Trajectory("v", [[0, 0], [1, 0], [1, 2]], ["a", "b", "c"], point_density=5)
    assert way.n_points == 15
    np.testing.assert_allclose(way.cumulative_length, [1, 3])
    steps = np.linalg.norm(np.diff(way.trajectory_latent, axis=0), axis=1)
    assert (steps <= 3 / 14 + 1e-6).all()  # shorter where the corner is cut
    np.testing.assert_allclose(way.at_time(1.2), [1, 0.2])
    np.testing.assert_allclose(way.at_time(5.0), [1, 2])
    again = Trajectory.from_dict(way.to_dict())
    np.testing.assert_array_equal(again.trajectory_latent, way.trajectory_latent)
    assert again.to_dict()["density"] == 5


@pytest.mark.parametrize(
    ("points", "names", "said"),
    [
        ([[0, 0]], ["a"], "two at least"),
        ([[0, 0], [1, 1]], ["a"], "one row for each of the 1 cluster_ids"),
        ([[0, 0], [0, 0], [1, 1]], ["a", "b", "c"], "The cluster after 'a' lies where it does"),
        ([[0, 0], [np.nan, 1]], ["a", "b"], "not finite"),
    ],
)
def test_trajectories_that_are_none(points, names, said):
    with pytest.raises(ArgumentError, match=said):
        Trajectory("v", points, names)


def cells_in_a_plane(angle: float):
    """Cells whose stage goes along one turned axis, and whose condition along the other."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(400, 2)) * [2.0, 1.0]
    adata = ad.AnnData(np.zeros((400, 1), dtype=np.float32))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    adata.obsm["v"] = axes @ turn
    adata.obsm["z"] = np.column_stack([-axes[:, 0], axes[:, 0] + axes[:, 1]])
    adata.obs["stage"] = np.array(["early", "middle", "late"])[np.digitize(axes[:, 0], [-1, 1])]
    adata.obs["dose"] = axes[:, 1]
    return adata, axes


@pytest.mark.parametrize("angle", [0.4, 2.0, 4.5])
def test_rotation_finds_the_axes(angle):
    adata, axes = cells_in_a_plane(angle)
    options = {"v1_obs_col": "stage", "v1_order": ["early", "middle", "late"], "v2_obs_col": "dose"}
    v, z, rotation = rotate_decipher_components(adata, "v", "z", **options)
    np.testing.assert_allclose(v, adata.obsm["v"] @ rotation)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(2), atol=1e-12)
    for axis in (0, 1):
        assert np.corrcoef(v[:, axis], axes[:, axis])[0, 1] > 0.995
    np.testing.assert_allclose(z, adata.obsm["z"] * [-1, 1])
    backwards = rotate_decipher_components(adata, "v", "z", **(options | {"v1_order": ["late", "middle", "early"]}))[0]
    assert np.corrcoef(backwards[:, 0], axes[:, 0])[0, 1] < -0.995
    plain = rotate_decipher_components(adata, "v", "z", v2_obs_col="dose", auto_flip_decipher_z=False)
    np.testing.assert_array_equal(plain[1], adata.obsm["z"])
    assert abs(np.corrcoef(plain[0][:, 0], adata.obs["dose"])[0, 1]) < 0.01


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Give v1_obs_col or v2_obs_col"),
        ({"v1_obs_col": "stage"}, "not numeric: give the order"),
        ({"v1_obs_col": "stag"}, "'stage'"),
        ({"v1_obs_col": "dose", "v_obsm_key": "x"}, "key of adata.obsm"),
        ({"v1_obs_col": "dose", "v_obsm_key": "three"}, "must have two columns"),
    ],
)
def test_rotations_that_cannot_be(options, said):
    adata, _ = cells_in_a_plane(1.0)
    adata.obsm["three"] = np.zeros((400, 3))
    with pytest.raises(ArgumentError, match=said):
        rotate_decipher_components(adata, **({"v_obsm_key": "v", "z_obsm_key": "z"} | options))


def test_time_is_that_of_the_nearest_points():
    adata, _ = cells_in_a_plane(0.0)
    way = Trajectory("v", [[-3, 0], [3, 1]], ["early", "late"])
    time_n = Decipher.compute_decipher_time(adata, "stage", way, n_neighbors=4)
    middle = (adata.obs["stage"] == "middle").to_numpy()
    assert np.isnan(time_n[middle]).all()
    cell = int(np.flatnonzero(~middle)[5])
    far_p = np.linalg.norm(way.trajectory_latent - adata.obsm["v"][cell], axis=1)
    np.testing.assert_allclose(time_n[cell], way.trajectory_time[np.argsort(far_p)[:4]].mean())
    with pytest.raises(ArgumentError, match="cluster in 'stage'"):
        Decipher.compute_decipher_time(adata, "stage", Trajectory("v", [[0, 0], [1, 1]], ["early", "lat"]))


def test_covariances_are_those_of_numpy(fitted):
    adata = fitted.adata
    adata.obsm["v"] = fitted.get_latent_representation()
    rows = [5, 3, 70, 71]
    x, with_v, with_z = fitted.compute_imputed_gene_expression(indices=rows, compute_covariances=True, v_obsm_key="v")
    np.testing.assert_allclose(x.sum(1), adata.X[rows].sum(1), rtol=1e-4)
    exact = np.cov(x.T, adata.obsm["v"][rows].T)[:20, 20:]
    np.testing.assert_allclose(with_v, exact, rtol=1e-3, atol=1e-4)
    assert with_z.shape == (20, 10)


def test_patterns_are_drawn_from_z_given_v(fitted):
    v = fitted.get_latent_representation()
    way = Trajectory("v", [v[0], v[1] + 1], ["a", "b"])
    found = fitted.compute_gene_patterns(fitted.adata, way, l_scale=100, n_samples=400, seed=0)
    np.testing.assert_allclose(found["mean"].sum(1), 100, rtol=1e-4)
    assert ((found["q25"] <= found["q75"]).all(), len(found["times"])) == (True, way.n_points)
    inside = (found["q25"] < found["mean"]) & (found["mean"] < found["q75"])
    assert inside.mean() > 0.9
    assert len(plot_gene_patterns(found, fitted.get_var_names(), ["gene_0", "gene_3"]).axes[0].lines) == 2
    fitted.adata.obsm["v"] = v
    assert len(plot_trajectories(fitted.adata, way, color="labels").axes[0].lines) == 2
    with pytest.raises(ArgumentError, match="goes through 3 dimensions, v has 2"):
        fitted.compute_gene_patterns(fitted.adata, Trajectory("v", np.eye(3), ["a", "b", "c"]))


def test_more_verbs(fitted):
    assert float(fitted.get_marginal_ll(n_mc_samples=20, seed=0)) > float(fitted.get_elbo(seed=0)) - 20
    assert {"kl_divergence_z_train", "elbo_validation"} & set(fitted.history)
    with pytest.raises(TypeError, match="Decipher is trained without Pyro"):
        fitted.train(**TRAIN, training_plan=object())


@pytest.mark.parametrize("case", ["decipher", "decipher_deep"])
def test_scvi_tools_archives_answer_as_there(case, check_case):
    assert check_case(case)[2] == []


def exported(model, tmp_path):
    model.save(str(tmp_path / "own"))
    celbo.model.base.archives.export_archive(tmp_path / "own", tmp_path / "theirs")
    return tmp_path / "theirs"


def test_theta_lies_in_pyros_store_of_archives(fitted, tmp_path):
    archive = io.read_scvi_archive(exported(fitted, tmp_path))
    store = archive.pyro_params
    theta_g = fitted.module.px_r.detach()
    assert "px_r" not in archive.state_dict
    torch.testing.assert_close(store["params"]["theta"], theta_g)
    assert store["constraints"]["theta"] == io.Constraint("_GreaterThan", {"lower_bound": 0.0})
    for name, weight in fitted.module.named_parameters():
        if name != "px_r":
            torch.testing.assert_close(store["params"][f"decipher$$${name}"], weight.detach())
    again = Decipher.load(str(tmp_path / "theirs"), fitted.adata, accelerator="cpu")
    torch.testing.assert_close(again.module.px_r.detach(), theta_g)
    celbo.model.base.archives.convert_archive(tmp_path / "theirs", tmp_path / "converted")
    converted = Decipher.load(str(tmp_path / "converted"), fitted.adata, accelerator="cpu")
    torch.testing.assert_close(converted.module.px_r.detach(), theta_g)
    converted.train(**TRAIN)  # and goes on


ASK = """
import sys, anndata, numpy, pyro, scvi
folder = sys.argv[1]
adata = anndata.read_h5ad(folder + "/a.h5ad")
model = scvi.external.Decipher.load(folder + "/theirs", adata=adata, accelerator="cpu")
theta = pyro.get_param_store()["theta"].detach().numpy()
numpy.savez(folder + "/out.npz", v=model.get_latent_representation(), theta=theta)
"""


def test_scvi_tools_reads_what_is_exported(fitted, tmp_path, peer_python):
    exported(fitted, tmp_path)
    fitted.adata.write_h5ad(tmp_path / "a.h5ad")
    done = subprocess.run([peer_python, "-W", "ignore", "-c", ASK, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(theirs["v"], fitted.get_latent_representation(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(theirs["theta"], fitted.module.px_r.detach().exp(), rtol=1e-5)


@pytest.mark.parametrize(("n_cells", "epochs"), [(300, 1000), (40_000, 500)])
def test_classic_takes_the_epochs_of_scvi_tools(n_cells, epochs):
    """There models of Pyro train for up to 1,000 epochs, others for 400."""
    model = Decipher.__new__(Decipher)
    model._adata = ad.AnnData(np.zeros((n_cells, 0), np.float32))
    options = {"training_plan": None, "recipe": "classic", "max_epochs": None}
    for given, expected in (({}, epochs), ({"max_epochs": 3}, 3), ({"recipe": None}, None)):
        assert without_pyro(model, options | given)["max_epochs"] == expected


def test_time_follows_the_order_of_real_clusters(shared_dir):
    """Erythrocytes, basophils, monocytes and neutrophils of mouse bone marrow, each from its progenitors."""
    path = shared_dir / "data" / "trajectory_paul15.h5ad"
    if not path.exists():
        pytest.skip("no trajectory_paul15.h5ad in 'shared/data'")
    adata = ad.read_h5ad(path)
    x = adata.X.toarray()
    varied = np.argsort(-x.var(0) / np.maximum(x.mean(0), 1e-9))[:500]
    adata = adata[:, np.sort(varied)].copy()
    Decipher.setup_anndata(adata)
    model = Decipher(adata)
    model.train(recipe="one_cycle", max_epochs=25, verbose=0, seed=0, accelerator="cpu")  # the shorter of the two
    v = adata.obsm["v"] = model.get_latent_representation()
    clusters = adata.obs["paul15_clusters"].astype(str)
    for clusters_in_order in PATHS.values():
        means = np.stack([v[(clusters == name).to_numpy()].mean(0) for name in clusters_in_order])
        time_n = Decipher.compute_decipher_time(adata, "paul15_clusters", Trajectory("v", means, clusters_in_order))
        on_the_way = np.isfinite(time_n)
        place_n = [clusters_in_order.index(name) for name in clusters[on_the_way]]
        assert spearmanr(time_n[on_the_way], place_n)[0] > 0.6


def moved_cells():
    """200 cells of two types, under a drug or none, which moves the first type by (2, 0)."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"type": ["a", "b"] * 100, "drug": ["none"] * 100 + ["x"] * 100}, [f"c{i}" for i in range(200)])
    v = rng.normal(size=(200, 2)) + np.outer((obs["type"] == "a") & (obs["drug"] == "x"), [2.0, 0.0])
    return ad.AnnData(np.ones((200, 1), np.float32), obs, obsm={"v": v})


def test_shifts_are_those_that_were_made():
    adata = moved_cells()
    before = np.random.get_state()[1].copy()
    found = perturbation_shifts(adata, "v", "drug", "none", "type", seed=1).set_index("group")
    assert (np.random.get_state()[1] == before).all()
    first, second = (
        adata.obsm["v"][((adata.obs["type"] == "a") & (adata.obs["drug"] == drug))] for drug in ("x", "none")
    )
    np.testing.assert_allclose(found.loc["a", ["shift_0", "shift_1"]].astype(float), first.mean(0) - second.mean(0))
    spread = np.sqrt(
        (((first - first.mean(0)) ** 2).sum(1).mean() + ((second - second.mean(0)) ** 2).sum(1).mean()) / 2
    )
    np.testing.assert_allclose(found.loc["a", "in_spreads"] * spread, found.loc["a", "length"])
    assert found.loc["a", "p_value"] == pytest.approx(1 / 1001)
    assert found.loc["b", "p_value"] > 0.05
    again = perturbation_shifts(adata, "v", "drug", "none", "type", seed=1).set_index("group")
    pd.testing.assert_frame_equal(found, again)
    arrows = plot_shifts(adata, "v", found.reset_index(), color="type").axes[0].texts
    assert [text.get_text() for text in arrows] == ["", "a, x", "", "b, x"]


def test_shifts_that_cannot_be():
    adata = moved_cells()
    for given, said in (
        (("w", "drug", "none"), r"No key of adata\.obsm is called 'w'"),
        (("v", "drugs", "none"), "Did you mean 'drug'"),
        (("v", "drug", "nine"), "Did you mean 'none'"),
        (("v", "drug", "none", "drug"), "No group has 2 cells under 'none' and 2 under another value"),
    ):
        with pytest.raises(ArgumentError, match=said):
            perturbation_shifts(adata, *given)
    adata.obsm["v"][3, 0] = np.nan
    with pytest.raises(ArgumentError, match="not finite: leave those cells out"):
        perturbation_shifts(adata, "v", "drug", "none")
    with pytest.raises(ArgumentError, match=r"No key of adata\.obsm"):
        plot_shifts(adata, "w", pd.DataFrame())
