"""SCAR: the loss by torch's own binomial, profiles of known droplets, simulated ambient counts, archives, faults."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import multinomial
from torch.distributions import Binomial as TorchBinomial

from celbo.external import SCAR
from celbo.external.scar.ambient import empty_droplet_profile
from celbo.external.scar.module import SCAR_VAE, Binomial, NativeScale
from celbo.posterior import denoised_counts
from celbo.testing import check_module

N, G = 8, 6
QUICK = {"verbose": 0, "seed": 0, "accelerator": "cpu"}


@pytest.fixture
def batch(torch_rng):
    x = torch.poisson(torch.full((N, G), 3.0), generator=torch_rng)
    return {"X": x, "batch": torch.zeros(N, 1, dtype=torch.int64), "labels": torch.zeros(N, 1, dtype=torch.int64)}


def soup(share, n=400, g=80, k=4, seed=0):
    """Counts native and ambient: each type has marker genes that no other expresses."""
    rng = np.random.default_rng(seed)
    profile_kg = np.tile(rng.gamma(0.6, 1, g) + 0.01, (k, 1)) * np.exp(rng.normal(0, 0.7, (k, g)))
    profile_kg[:, : 8 * k] = np.kron(np.eye(k), rng.gamma(2, 1, 8) + 0.5) + 1e-4
    profile_kg /= profile_kg.sum(1, keepdims=True)
    type_n, ambient_g = rng.integers(k, size=n), profile_kg.mean(0)
    total_n = rng.lognormal(np.log(1500), 0.4, n).astype(int)
    soup_n = rng.binomial(total_n, share)
    native = [rng.multinomial(a, profile_kg[t]) for a, t in zip(total_n - soup_n, type_n, strict=True)]
    return np.stack(native), np.stack([rng.multinomial(a, ambient_g) for a in soup_n]), ambient_g


@pytest.mark.parametrize("likelihood", ["b", "poisson", "nb", "zinb"])
def test_contract_of_the_module(likelihood, batch):
    unused = ["l_encoder"]
    unused += [] if likelihood in ("nb", "zinb") else ["px_r"]
    unused += [] if likelihood == "zinb" else ["decoder.px_dropout_decoder"]
    check_module(
        lambda: SCAR_VAE(torch.full((G,), 1 / G), G, n_batch=1, gene_likelihood=likelihood), batch, unused=unused
    )


class TestBinomial:
    def test_is_torchs(self):
        total, x = torch.tensor([[20.0], [300.0]]), torch.tensor([[0.0, 5.0, 20.0], [7.0, 100.0, 300.0]])
        p = torch.tensor([[0.1, 0.4, 0.9], [0.0, 0.3, 1.0]])
        wanted = TorchBinomial(total.double(), probs=p.double().clamp(2**-23, 1 - 2**-23)).log_prob(x.double())
        torch.testing.assert_close(Binomial(total, p).log_prob(x).double(), wanted, rtol=1e-5, atol=3e-4)
        torch.testing.assert_close(Binomial(total, p).log_prob_sum(x).double(), wanted.sum(-1), rtol=1e-5, atol=1e-3)

    @pytest.mark.parametrize("share_of_zeros", [0.0, 0.7, 1.0])
    def test_gradients_of_the_sum_are_those_of_the_table(self, share_of_zeros):
        """Also where a probability is 0 or 1, which count as the nearest number and get none."""
        generator = torch.Generator().manual_seed(0)
        p = torch.rand(5, 7, generator=generator, dtype=torch.float64) / 3
        p[0, :2] = torch.tensor([0.0, 1.0])
        x = torch.poisson(torch.full((5, 7), 4.0, dtype=torch.float64), generator=generator)
        x[torch.rand(5, 7, generator=generator) < share_of_zeros] = 0
        weights_n, total = torch.arange(1.0, 6, dtype=torch.float64), x.sum(1, keepdim=True) + 3
        found, wanted = (p.clone().requires_grad_() for _ in range(2))
        of_sum = Binomial(total, found).log_prob_sum(x)
        of_table = Binomial(total, wanted).log_prob(x).sum(-1)
        torch.testing.assert_close(of_sum, of_table)
        (of_sum * weights_n).sum().backward()
        (of_table * weights_n).sum().backward()
        torch.testing.assert_close(found.grad, wanted.grad)

    def test_no_total_loses_a_count(self):
        """Of 1 to 20,000 near half come out one too small where exp(log(n)) is cut off."""
        module = SCAR_VAE(torch.ones(1), 1)
        x = torch.arange(1.0, 20001.0)[:, None]
        z = torch.zeros(len(x), 15)
        px = module.eval().generative(z, x.log(), torch.zeros(len(x), 1, dtype=torch.int64))["px"]
        assert torch.equal(px.total_count.expand_as(x), x)
        assert px.log_prob(x).isfinite().all()

    def test_draws_have_the_mean(self, torch_rng):
        px = Binomial(torch.tensor([[50.0]]), torch.tensor([[0.2, 0.7]]))
        drawn = px.sample((4000,), generator=torch_rng).mean(0)
        torch.testing.assert_close(drawn, px.mean, rtol=0.02, atol=0)


class TestNativeScale:
    def test_formula(self):
        logits = torch.tensor([[-3.0, -1.0, 0.0, 2.0]])
        cut = np.log1p(np.exp(-1.0))
        kept = np.maximum(np.log1p(np.exp(logits.numpy())) - cut, 0)
        torch.testing.assert_close(
            NativeScale("softplus_sp", 0.9).eval()(logits), torch.tensor(kept / (kept.sum() + 1e-5)).float()
        )

    def test_training_gives_the_same_and_lets_genes_come_back(self):
        logits = torch.tensor([[-3.0, 1.0]], requires_grad=True)
        scale = NativeScale("softplus_sp", 0.9)
        torch.testing.assert_close(scale(logits), scale.eval()(logits))
        scale.train()(logits)[0, 0].backward()
        assert logits.grad[0, 0] > 0

    def test_unknown(self):
        with pytest.raises(ValueError, match="softplus"):
            NativeScale("softpluss", 0.9)


def test_ambient_counts_are_taken_away():
    """On 600 cells at 10, 30, 50%: 10, 29, 50%. scvi-tools 1.4.2, on other cells, took 39% away where 30% were."""
    native, ambient, profile_g = soup(0.4)
    adata = ad.AnnData((native + ambient).astype(np.float32))
    SCAR.setup_anndata(adata)
    model = SCAR(adata, ambient_profile=profile_g)
    model.train(**QUICK)
    assert model.recipe_ == "brief_cycle"
    found = model.get_denoised_counts(seed=0)
    assert 1 - found.sum() / adata.X.sum() == pytest.approx(0.4, abs=0.03)
    raw = np.corrcoef(adata.X.ravel(), native.ravel())[0, 1]
    assert np.corrcoef(found.ravel(), native.ravel())[0, 1] > raw + 0.01
    assert np.array_equal(found, model.get_denoised_counts(seed=0))


@pytest.mark.parametrize("activation", ["softplus_sp", "softplus", "softmax"])
@pytest.mark.parametrize("likelihood", ["b", "nb"])
def test_native_profiles_begin_as_the_mean_of_the_cells(activation, likelihood, torch_rng):
    share = torch.tensor([0.001, 0.009, 0.04, 0.15, 0.3, 0.5])
    x = (share * 1000).expand(20, G)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = SCAR_VAE(torch.full((G,), 1 / G), G, scale_activation=activation, gene_likelihood=likelihood).eval()
    assert module.start_from_counts(x)
    with torch.no_grad():
        native, noise, _ = module.decoder(torch.zeros(1, 15), False)
        of_hidden = module.decoder.px_scale_decoder[0](torch.randn(200, 150, generator=torch_rng))
    torch.testing.assert_close(noise, torch.full((1, 1), 1 / (1 + np.e)), rtol=1e-3, atol=0)  # (1 + tanh(-1/2)) / 2
    assert np.corrcoef(native[0], share)[0, 1] > 0.99
    spread = of_hidden.std(0) / share
    assert spread.max() < 2 * spread.min()  # all genes vary alike in proportion
    assert not module.start_from_counts(torch.zeros(5, G))


@pytest.mark.parametrize("activation", ["softplus_sp", "softplus", "softmax"])
def test_a_gene_of_a_tenth_of_the_counts_among_many(activation):
    """Whose native scale begins far beyond the largest exponent of float32."""
    share = torch.full((20_000,), 0.9 / 19_999)
    share[7] = 0.1
    module = SCAR_VAE(share.clone(), 20_000, n_hidden=8, scale_activation=activation).eval()
    assert module.start_from_counts((share * 1e5).expand(4, -1))
    with torch.no_grad():
        assert module.decoder(torch.zeros(1, 15), False)[0].isfinite().all()
        module.decoder.px_scale_decoder[0].weight.zero_()  # what varies with the latents
        native, *_ = module.decoder(torch.zeros(1, 15), False)
    torch.testing.assert_close(native[0], share, rtol=0.02, atol=0)


def test_each_batch_has_its_soup():
    """Two batches of the same cells in soups of their own: with one profile for both, less is found."""
    native, _, _ = soup(0.4, n=500)
    rng = np.random.default_rng(5)
    batch = np.repeat(["a", "b"], 250)
    profile_bg = rng.dirichlet(np.full(80, 0.3), 2)
    taken = native.sum(1) * 2 // 3
    ambient = np.stack([rng.multinomial(t, profile_bg[int(b == "b")]) for t, b in zip(taken, batch, strict=True)])
    adata = ad.AnnData(
        (native + ambient).astype(np.float32), obs=pd.DataFrame({"lane": batch}, index=map(str, range(500)))
    )
    SCAR.setup_anndata(adata, batch_key="lane")
    of_each = pd.DataFrame({"b": profile_bg[1], "a": profile_bg[0]}, index=adata.var_names)
    near = {}
    for name, profile in (("own", of_each), ("one", profile_bg.mean(0))):
        model = SCAR(adata, ambient_profile=profile)
        model.train(max_epochs=100, **QUICK)
        found = model.get_denoised_counts(seed=0)
        near[name] = np.corrcoef(np.log1p(found).ravel(), np.log1p(native).ravel())[0, 1]
        removed = 1 - found.sum() / adata.X.sum()
        assert name == "one" or removed == pytest.approx(ambient.sum() / adata.X.sum(), abs=0.05)
    raw = np.corrcoef(np.log1p(adata.X).ravel(), np.log1p(native).ravel())[0, 1]
    assert near["own"] > max(near["one"], raw) + 0.05


def test_denoised_counts_keep_the_expectation(batch):
    module = SCAR_VAE(torch.full((G,), 1 / G), G, n_batch=1).eval()
    drawn = np.mean([denoised_counts(module, [batch], seed=seed) for seed in range(400)], 0)
    _, outputs = module(batch, compute_loss=False)
    share = outputs["px"].scale.sum(-1)
    np.testing.assert_allclose(drawn.sum(1), (batch["X"].sum(-1) * share).detach(), rtol=0.1)


class TestProfile:
    def test_of_droplets_without_a_cell(self):
        rng = np.random.default_rng(0)
        ambient_g, cell_g = rng.dirichlet(np.ones(30)), rng.dirichlet(np.ones(30))
        x = np.concatenate([rng.multinomial(20, ambient_g, 500), rng.multinomial(400, cell_g, 40)])
        found = empty_droplet_profile(sp.csr_matrix(x), 0.3, 2, 3, 50000, rng)
        np.testing.assert_allclose(found, x[:500].sum(0) / x[:500].sum(), atol=1e-12)

    def test_threshold_is_the_multinomials(self):
        rng = np.random.default_rng(1)
        x = rng.poisson(1.0, (200, 8))
        found = empty_droplet_profile(sp.csr_matrix(x), 0.3, 0, 1, 50000, rng)
        log_prob = multinomial.logpmf(x, x.sum(1), x.sum(0) / x.sum())
        empty = x[log_prob >= np.log(0.3) * 8]
        np.testing.assert_allclose(found, empty.sum(0) / empty.sum())

    def test_of_each_batch(self, tmp_path):
        rng = np.random.default_rng(0)
        profile_bg = rng.dirichlet(np.ones(30), 2)
        droplets = ad.AnnData(np.concatenate([rng.multinomial(20, one, 300) for one in profile_bg]).astype(np.float32))
        droplets.obs["lane"] = np.repeat(["x", "y"], 300)
        cells = ad.AnnData(
            np.ones((9, 30), np.float32), obs=pd.DataFrame({"lane": list("xyxyxyxyx")}, list("abcdefghi"))
        )
        SCAR.get_ambient_profile(cells, droplets, prob=0.2, batch_key="lane", seed=0)
        table = cells.varm["ambient_profile"]
        assert list(table) == ["x", "y"]
        np.testing.assert_allclose(table.to_numpy().T, droplets.X.reshape(2, 300, 30).sum(1) / 6000, atol=1e-6)
        SCAR.setup_anndata(cells, batch_key="lane")
        model = SCAR(cells, "ambient_profile", n_hidden=4, n_latent=2)
        model.save(str(tmp_path / "m"))
        loaded = SCAR.load(str(tmp_path / "m"), cells)
        torch.testing.assert_close(loaded.module.ambient_profile, torch.tensor(table.to_numpy().T).float())
        with pytest.raises(ValueError, match="none for batch 'y'"):
            SCAR(cells, table.rename(columns={"y": "z"}))
        with pytest.raises(KeyError, match=r"column of adata.obs \(batch_key\)"):
            SCAR.get_ambient_profile(cells, droplets, batch_key="lanes")

    def test_genes_are_found_by_name(self):
        rng = np.random.default_rng(0)
        cells = ad.AnnData(np.ones((3, 2), np.float32), var=pd.DataFrame(index=["a", "b"]))
        raw = ad.AnnData(sp.csr_matrix(rng.poisson([1, 2, 3.0], (90, 3))), var=pd.DataFrame(index=["b", "c", "a"]))
        SCAR.get_ambient_profile(cells, raw, prob=1e-9)
        assert cells.varm["ambient_profile"].shape == (2, 1)
        assert cells.varm["ambient_profile"][0] > 2 * cells.varm["ambient_profile"][1]
        with pytest.raises(ValueError, match="raw_adata lacks 1"):
            SCAR.get_ambient_profile(cells, raw[:, ["b", "c"]])

    def test_too_few_droplets(self):
        cells = ad.AnnData(np.ones((3, 2), np.float32))
        with pytest.raises(ValueError, match=r"raw_adata has 3 droplets.*unfiltered"):
            SCAR.get_ambient_profile(cells, cells.copy())

    @pytest.mark.parametrize(
        ("given", "error", "said"),
        [
            (np.ones(5), ValueError, "ambient_profile has 5 numbers, and adata 6 genes"),
            (-np.ones(6), ValueError, "ambient_profile must be shares"),
            ("ambient", KeyError, "ambient_profile"),
            (pd.DataFrame({"p": np.ones(6)}, index=list("uvwxyz")), ValueError, "ambient_profile lacks 6"),
        ],
    )
    def test_of_other_genes(self, given, error, said):
        adata = ad.AnnData(np.ones((9, 6), np.float32))
        SCAR.setup_anndata(adata)
        with pytest.raises(error, match=said):
            SCAR(adata, ambient_profile=given)

    def test_none_is_that_of_the_cells(self, caplog, monkeypatch):
        monkeypatch.setattr(logging.getLogger("celbo"), "propagate", True)
        adata = ad.AnnData(np.zeros((3, 2), np.float32), layers={"counts": sp.csr_matrix([[1.0, 0], [0, 4], [2, 1]])})
        SCAR.setup_anndata(adata, layer="counts")
        model = SCAR(adata)
        torch.testing.assert_close(model.module.ambient_profile, torch.tensor([[3 / 8, 5 / 8]]))
        assert "ambient_profile" in caplog.text

    def test_is_in_the_archive(self, tmp_path):
        adata = ad.AnnData(np.ones((9, 6), np.float32), varm={"soup": np.arange(6.0)[:, None]})
        SCAR.setup_anndata(adata)
        model = SCAR(adata, ambient_profile="soup", n_hidden=4, n_latent=2)
        model.save(str(tmp_path / "m"))
        del adata.varm["soup"]
        loaded = SCAR.load(str(tmp_path / "m"), adata)
        assert "ambient_profile" not in loaded.module.state_dict()
        torch.testing.assert_close(loaded.module.ambient_profile, torch.arange(6.0)[None] / 15)


def test_size_factors_are_no_totals():
    adata = ad.AnnData(np.ones((9, 6), np.float32), obs=pd.DataFrame({"f": np.ones(9)}, index=list("abcdefghi")))
    SCAR.setup_anndata(adata, size_factor_key="f")
    with pytest.raises(ValueError, match=r"gene_likelihood.*size_factor_key"):
        SCAR(adata, ambient_profile=np.ones(6))
    assert SCAR(adata, ambient_profile=np.ones(6), gene_likelihood="nb").module.use_size_factor_key


@pytest.mark.parametrize("case", ["scar", "scar_nb", "scar_poisson", "scar_zinb"])
def test_answers_are_those_of_scvi_tools(case, check_case):
    asked, compared, faults = check_case(case)
    assert faults == []
    assert compared > asked > 10


def test_the_profile_of_real_droplets_is_the_mean_of_those_without_a_cell(shared_dir):
    path = shared_dir / "data" / "droplets_raw_pbmc_toy.h5ad"
    if not path.exists():
        pytest.skip("no droplets_raw_pbmc_toy.h5ad in 'shared/data'")
    droplets = ad.read_h5ad(path)
    is_cell = droplets.obs["is_cell"].astype(bool).to_numpy()
    cells = droplets[is_cell].copy()
    SCAR.get_ambient_profile(cells, droplets, prob=0.3)
    found_g, (soup_g, own_g) = (
        np.asarray(cells.varm["ambient_profile"]).ravel(),
        (np.asarray(droplets[rows].X.sum(0)).ravel() for rows in (~is_cell, is_cell)),
    )
    assert np.abs(found_g - soup_g / soup_g.sum()).sum() / 2 < 0.02  # of cells: 0.56
    assert np.abs(own_g / own_g.sum() - soup_g / soup_g.sum()).sum() / 2 > 0.5


def test_the_decoder_has_batch_normalization_whatever_the_encoder_has():
    module = SCAR_VAE(torch.full((6,), 1 / 6), 6, n_hidden=4, n_latent=2, use_batch_norm="none", use_layer_norm="both")
    normalized = {name.partition(".")[0] for name in module.state_dict() if name.endswith("running_mean")}
    assert normalized == {"decoder"}
