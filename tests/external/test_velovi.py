"""VELOVI: paths against an integrator, the loss by its formula, figures, uncertainties, archives, faults."""

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import solve_ivp
from torch.distributions import Categorical, Dirichlet, MixtureSameFamily, Normal, kl_divergence

from celbo.core import ArgumentError
from celbo.external import VELOVI
from celbo.external.velovi import VELOVAE, moments, preprocess_data
from celbo.external.velovi.states import OfStates
from celbo.model.base import convert_archive, export_archive
from celbo.module.kinetics import Kinetics
from celbo.verbs.directions import directional_statistics, permuted_within, t_statistics, transitions

QUICK = {"verbose": 0, "seed": 0, "accelerator": "cpu"}
LAYERS = {"spliced_layer": "Ms", "unspliced_layer": "Mu"}


def kinetics(beta: float = 0.5, gamma: float = 0.3, *, varies: bool = False, pole: float = 0.0) -> Kinetics:
    numbers = (2.0, beta, gamma, 3.0, 0.2, 6.0)
    return Kinetics(*(torch.tensor([one], dtype=torch.float64) for one in numbers), 20.0, varies, pole)


@pytest.mark.parametrize("varies", [False, True])
@pytest.mark.parametrize(("beta", "gamma"), [(0.5, 0.3), (0.3, 0.5), (0.4, 0.4)])
def test_paths_are_those_of_an_integrator(beta, gamma, varies):
    path = kinetics(beta, gamma, varies=varies)

    def flow(t, rna, on):
        alpha = (3 - (3 - 2) * np.exp(-0.2 * t) if varies else 2.0) if on else 0.0
        return [alpha - beta * rna[0], beta * rna[0] - gamma * rna[1]]

    t = np.linspace(0, 6, 13)
    up = solve_ivp(flow, (0, 6), [0, 0], t_eval=t, args=(True,), rtol=1e-9, atol=1e-11).y
    down = solve_ivp(flow, (0, 6), up[:, -1], t_eval=t, args=(False,), rtol=1e-9, atol=1e-11).y
    times = torch.from_numpy(t)[:, None]
    for exact, found in ((up, path.induction(times)), (down, path.repression(times))):
        for kind in (0, 1):
            np.testing.assert_allclose(found[kind][:, 0], exact[kind], rtol=1e-6, atol=1e-8)


def test_density_of_the_states_and_its_gradients_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    value, weight = (torch.randn(5, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    sizes = [(5, 3, 4), (5, 3, 4), (3, 4)]  # shares, means, spreads
    moments = [(torch.rand(*n, dtype=torch.float64, generator=generator) + 0.1).requires_grad_() for n in sizes]
    found = []
    for mixture in (OfStates, MixtureSameFamily):
        density = mixture(Categorical(probs=moments[0]), Normal(*moments[1:])).log_prob(value)
        found.append([density, *torch.autograd.grad(density, moments, weight)])
    for own, torchs in zip(*found, strict=True):
        torch.testing.assert_close(own, torchs, rtol=1e-10, atol=1e-12)


def test_velocities_are_the_slopes_of_the_paths():
    path = kinetics(varies=True)
    t = torch.linspace(0.1, 6, 20, dtype=torch.float64)[:, None].requires_grad_()
    for part, at in ((path.induction, t), (path.repression, None)):
        unspliced, spliced = rna = part(t)
        (slope_u,) = torch.autograd.grad(unspliced.sum(), t, retain_graph=True)
        (slope_s,) = torch.autograd.grad(spliced.sum(), t)
        torch.testing.assert_close(path.change_of_spliced(rna, at), slope_s)
        torch.testing.assert_close(path.change_of_unspliced(rna, at), slope_u)


def test_equal_rates_have_gradients():
    rate = torch.tensor([0.4], requires_grad=True)
    one = torch.ones(1)
    path = Kinetics(one, rate, rate.clone(), one, one, 6 * one, 20.0)
    path.repression(torch.tensor([[0.0], [3.0]]))[1].sum().backward()
    assert torch.isfinite(rate.grad).all()


def test_the_loss_is_its_formula():
    module = VELOVAE(3, n_hidden=8, n_latent=2, switch_spliced=np.ones(3), switch_unspliced=np.full(3, 0.5)).eval()
    generator = torch.Generator().manual_seed(0)
    tensors = {"X": torch.rand(6, 3, generator=generator), "U": torch.rand(6, 3, generator=generator)}
    encoded, decoded, record = module(tensors, loss_kwargs={"kl_weight": 0.25})
    path = module.kinetics()
    up = path.induction(path.switch_time * decoded["px_rho"])
    down = path.repression((20 - path.switch_time) * decoded["px_tau"])
    spread = torch.nn.functional.softplus(module.scale_unconstr[:, 0]).sqrt().split(3)
    pi = decoded["px_pi"].clamp(1e-7).log()
    nll_n = 0
    for kind, key, rate in ((0, "U", path.beta), (1, "X", path.gamma)):
        parts = [
            (up[kind], 1),
            ((path.alpha / rate).expand(6, 3), 1),
            (down[kind], 1),
            (torch.zeros(6, 3), 0.1),
        ]
        logs = [Normal(mean, spread[kind] * times).log_prob(tensors[key]) for mean, times in parts]
        nll_n = nll_n - torch.logsumexp(torch.stack(logs, -1) + pi, -1).sum(1)
    kl_z_n = kl_divergence(encoded["qz"], Normal(0.0, 1.0)).sum(1)
    concentration = decoded["p_pi"].concentration
    kl_pi_n = kl_divergence(Dirichlet(concentration), Dirichlet(torch.full_like(concentration, 0.25))).sum(1)
    u_0, s_0 = path.induction(path.switch_time)
    penalty = ((u_0 - 0.5) ** 2 + (s_0 - 1) ** 2).sum()
    torch.testing.assert_close(record.reconstruction_loss["reconstruction_loss"], nll_n)
    torch.testing.assert_close(record.kl_local["kl_local"], kl_z_n + kl_pi_n)
    torch.testing.assert_close(record.loss, (nll_n + 0.25 * kl_z_n + kl_pi_n).mean() + 0.2 * 0.75 * penalty)


def simulated(n: int = 120, n_genes: int = 12, seed: int = 0):
    """Cells along one time, with the paths of :func:`kinetics` at rates of their own; smoothed, and true velocities."""
    rng = np.random.default_rng(seed)
    rates = [rng.uniform(low, high, n_genes) for low, high in ((1, 3), (0.4, 0.8), (0.2, 0.6))]
    switch = rng.uniform(4, 12, n_genes)
    path = Kinetics(*map(torch.from_numpy, (*rates, rates[0], rates[1], switch)), 20.0)
    t = torch.from_numpy(np.sort(rng.uniform(0, 20, n)))[:, None].expand(n, n_genes)
    on = (t < path.switch_time).numpy()
    up, down = path.induction(torch.minimum(t, path.switch_time)), path.repression((t - path.switch_time).clamp(min=0))
    layers = [np.where(on, a, b) + rng.normal(0, 0.02, (n, n_genes)) for a, b in zip(up, down, strict=True)]
    slope = np.where(on, path.change_of_spliced(up, None), path.change_of_spliced(down, None))
    adata = ad.AnnData(np.maximum(layers[1], 0).astype(np.float32))
    adata.layers["Mu"], adata.layers["Ms"] = (np.maximum(x, 0).astype(np.float32) for x in layers)
    adata.obs["part"] = np.where(np.arange(n) < n // 2, "early", "late")
    scale = np.ptp(adata.layers["Ms"], axis=0)
    return preprocess_data(adata, filter_on_r2=False), slope / scale


def made(adata=None, **init):
    adata = simulated()[0] if adata is None else adata
    VELOVI.setup_anndata(adata, **LAYERS)
    return VELOVI(adata, **({"n_hidden": 16, "n_latent": 3} | init))


@pytest.fixture(scope="module")
def model():
    model = made()
    model.train(max_epochs=3, **QUICK)
    return model


def test_switches_are_where_unspliced_rna_is_most():
    adata, _ = simulated()
    module = made(adata, gamma_init_data=True).module
    rows = np.argsort(adata.layers["Mu"], axis=0)[int(0.99 * adata.n_obs) :]
    u = np.median(np.take_along_axis(adata.layers["Mu"], rows, 0), axis=0)
    s = np.median(np.take_along_axis(adata.layers["Ms"], rows, 0), axis=0)
    np.testing.assert_allclose(module.switch_unspliced, u, rtol=1e-5)
    np.testing.assert_allclose(module.switch_spliced, s, rtol=1e-5)
    rates = module.kinetics()
    np.testing.assert_allclose(rates.alpha.detach(), u, rtol=1e-4)
    np.testing.assert_allclose(rates.gamma.detach(), u / s, rtol=1e-4)


@pytest.mark.usefixtures("global_rng_untouched")
def test_figures_have_names_and_bounds(model):
    n, g = model.adata.shape
    times = model.get_latent_time(n_samples=3, seed=1)
    assert list(times.index) == list(model.adata.obs_names)
    assert list(times.columns) == list(model.adata.var_names)
    assert times.to_numpy().min() >= 0
    assert times.to_numpy().max() <= 20
    states, names = model.get_state_assignment(n_samples=2, hard_assignment=True, return_mean=False)
    assert states.shape == (2, n, g, 4)
    assert len(names) == 4
    np.testing.assert_array_equal(states.sum(-1), 1)
    draws = model.get_velocity(n_samples=4, return_mean=False, gene_list=list(model.adata.var_names[[3, 1]]), seed=2)
    assert draws.shape == (4, n, 2)
    mean = model.get_velocity(n_samples=4, gene_list=list(model.adata.var_names[[3, 1]]), seed=2)
    np.testing.assert_allclose(mean, draws.mean(0), rtol=1e-5)
    assert (model.get_velocity(return_numpy=True) >= -model.adata.layers["Ms"] - 1e-6).all()
    some = model.get_latent_time(n_samples_overall=7, seed=0)
    assert len(some) == 7
    mask = np.arange(n) < 3
    assert set(model.get_latent_time(indices=mask, n_samples_overall=7, seed=0).index) <= set(times.index[:3])
    spliced, unspliced = model.get_expression_fit(indices=[5, 2], restrict_to_latent_dim=0)
    assert spliced.shape == unspliced.shape == (2, g)
    assert model.get_gene_likelihood(return_numpy=True).shape == (n, g)
    with pytest.raises(ValueError, match="velo_statistic"):
        model.get_velocity(velo_statistic="median")


def test_velocities_of_simulated_cells():
    adata, slope = simulated()
    model = made(adata)
    model.train(max_epochs=300, early_stopping=False, **QUICK)
    found = model.get_velocity(n_samples=10, return_numpy=True, seed=0)
    cosine = (found * slope).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(slope, axis=1)
    assert np.median(cosine) > 0.5


def test_switch_times_end_with_time_but_in_figures_of_scvi_tools():
    for kept in (False, True):
        module = VELOVAE(2, true_time_switch=np.array([30.0, 5.0]), scvi_tools_figures=kept)
        assert float(module.kinetics().switch_time[0]) == 20
        assert float(module.kinetics(of_figures=True).switch_time[0]) == pytest.approx(30 if kept else 20)


def test_directional_statistics_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    vectors = rng.normal(1, 1, (6, 4, 5)) * np.arange(1, 6)
    table, cosines = directional_statistics(vectors, list("abcd"))
    for cell in range(4):
        mean = vectors[:, cell].mean(0)
        by_hand = np.array([np.corrcoef(draw, mean)[0, 1] for draw in vectors[:, cell]])
        np.testing.assert_allclose(cosines[cell], by_hand)
        angles = np.arccos(by_hand)
        expected = [angles.var(), np.ptp(np.percentile(angles, [5, 95])), by_hand.var()]
        np.testing.assert_allclose(table.iloc[cell, :3], expected)
        assert table["directional_cosine_sim_mean"].iloc[cell] == pytest.approx(by_hand.mean())


def test_steps_go_where_velocities_point():
    x = np.stack([np.arange(30.0), np.zeros(30)], 1)
    ahead = np.tile([1.0, 0.0], (2, 30, 1))
    steps = transitions(x, ahead * np.array([1, -1])[:, None, None], 4)
    assert (steps[0, 2:-2, 0] > 0.5).all()
    np.testing.assert_allclose(steps[0, 2:-2], -steps[1, 2:-2])


def test_permutations_stay_within_types_and_scores_are_ts():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 3)), np.repeat(["a", "b"], 20)
    permuted = permuted_within(x, labels, rng)
    for label in "ab":
        np.testing.assert_array_equal(np.sort(permuted[labels == label], 0), np.sort(x[labels == label], 0))
    assert (permuted != x).any()
    by_gene = [stats.ttest_ind(x[:20, g], permuted[20:, g]).statistic for g in range(3)]
    np.testing.assert_allclose(t_statistics(x[:20], permuted[20:]), by_gene)
    assert np.isnan(t_statistics(x[:1], x)).all()


def test_uncertainties_and_permutation_scores(model):
    before = {name: model.adata.layers[name].copy() for name in model.adata.layers}
    for table, cosines in (
        model.get_directional_uncertainty(n_samples=5, seed=0),
        model.get_extrinsic_uncertainty(n_samples=5, n_neighbors=8, seed=0),
    ):
        assert list(table.index) == list(model.adata.obs_names)
        assert cosines.shape == (model.adata.n_obs, 5)
        assert np.isfinite(table.to_numpy()).all()
    scores, permuted = model.get_permutation_scores("part", seed=0)
    assert list(scores.columns) == ["early", "late"]
    assert np.isfinite(scores.to_numpy()).all()
    assert (permuted.layers["Ms"] != model.adata.layers["Ms"]).any()
    for name, layer in before.items():
        np.testing.assert_array_equal(model.adata.layers[name], layer)
    with pytest.raises(KeyError, match="labels_key"):
        model.get_permutation_scores("parts")


@pytest.mark.usefixtures("global_rng_untouched")
def test_archives(model, tmp_path):
    times = model.get_latent_time(n_samples=2, seed=3)
    model.save(str(tmp_path / "m"))
    np.testing.assert_allclose(
        VELOVI.load(str(tmp_path / "m"), model.adata.copy(), accelerator="cpu").get_latent_time(n_samples=2, seed=3),
        times,
        rtol=1e-5,
    )
    export_archive(tmp_path / "m", tmp_path / "peer")
    convert_archive(tmp_path / "peer", tmp_path / "back")
    kept = VELOVI.load(str(tmp_path / "back"), model.adata.copy(), accelerator="cpu")
    assert kept.module.scvi_tools_figures
    kept.train(max_epochs=1, **QUICK)
    assert np.isfinite(kept.get_velocity().to_numpy()).all()


def test_rates_that_depend_on_time_are_learned():
    model = made(time_dep_transcription_rate=True, linear_decoder=True)
    before = model.module.lambda_alpha_unconstr.detach().clone()
    model.train(max_epochs=1, **QUICK)
    assert (model.module.lambda_alpha_unconstr != before).all()
    assert model.module.get_loadings().shape == (12, 3)
    with pytest.raises(ValueError, match="linear_decoder=True"):
        made().module.get_loadings()


def counted(n: int = 60):
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, n)
    mean = np.array([[2, 8, 5, 5, 1], [8, 2, 5, 1, 5]])[kind]
    adata = ad.AnnData(rng.poisson(mean).astype(np.float32))
    adata.layers["unspliced"] = rng.poisson(mean / 4).astype(np.float32)
    return adata


def test_moments_are_means_over_neighbours():
    adata = moments(counted(), n_neighbors=10, spliced_layer="X")
    raw = adata.X / adata.X.sum(1, keepdims=True)
    assert (adata.layers["Ms"].std(0) < raw.std(0) * np.median(adata.X.sum(1))).all()
    np.testing.assert_allclose(moments(counted(), n_neighbors=59, spliced_layer="X").layers["Ms"].std(0), 0, atol=1e-4)
    kept = preprocess_data(adata)
    assert 0 < kept.n_vars <= 5
    for name in ("Ms", "Mu"):
        assert kept.layers[name].min() == 0
        assert kept.layers[name].max() == 1


def test_layers_that_cannot_be():
    adata = counted()
    adata.layers["spliced"] = adata.X
    with pytest.raises(ArgumentError, match=r"has no 'Mu'; there are: 'unspliced', 'spliced'\. VELOVI takes smoothed"):
        VELOVI.setup_anndata(adata, spliced_layer="Mu", unspliced_layer="unspliced")
    with pytest.raises(ArgumentError, match=r"'spliced'\] holds counts that were not smoothed"):
        VELOVI.setup_anndata(adata, spliced_layer="spliced", unspliced_layer="unspliced")
    with pytest.raises(ArgumentError, match="has no 'nascent'"):
        moments(adata, unspliced_layer="nascent")
    adata.layers["Ms"], adata.layers["Mu"] = adata.X, -adata.X
    with pytest.raises(ArgumentError, match="No gene's unspliced RNA goes with"):
        preprocess_data(adata, min_max_scale=False)


def test_real_cells(shared_dir):
    path = shared_dir / "data" / "velocity_dentategyrus_100.h5ad"
    if not path.is_file():
        pytest.skip("no velocity_dentategyrus_100.h5ad in 'shared/data'")
    adata = ad.read_h5ad(path)
    adata = preprocess_data(moments(adata[:, np.asarray(adata.X.sum(0)).ravel() > 60].copy(), spliced_layer="X"))
    model = made(adata)
    model.train(max_epochs=2, **QUICK)
    assert np.isfinite(model.get_velocity(n_samples=2).to_numpy()).all()


@pytest.mark.parametrize("case", ["velovi", "velovi_data_init"])
def test_answers_are_those_of_scvi_tools(case, check_case):
    asked, compared, faults = check_case(case)
    assert faults == []
    assert compared > asked > 15


def test_latents_of_a_logistic_normal_lie_on_the_simplex():
    model = made(latent_distribution="ln")
    model.train(max_epochs=0, **{name: value for name, value in QUICK.items() if name != "max_epochs"})
    z_nk = model.get_latent_representation()
    np.testing.assert_allclose(z_nk.sum(1), 1, rtol=1e-5)
    assert z_nk.min() > 0
