"""The contract of MRDeconv; simulated spots; the density of its prior."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from celbo.module import VAEC, MRDeconv
from celbo.testing import check_module

N, G = 8, 12


def batch():
    generator = torch.Generator().manual_seed(0)
    x_ng = torch.poisson(torch.full((N, G), 9.0), generator=generator)
    return {"X": x_ng, "batch": torch.arange(N)[:, None] % 2, "ind_x": torch.arange(N).flip(0)[:, None]}


def prior():
    generator = torch.Generator().manual_seed(1)
    return {
        "mean_vprior": torch.randn(3, 2, 4, generator=generator),
        "var_vprior": torch.rand(3, 2, 4, generator=generator) + 0.1,
        "mp_vprior": torch.full((3, 2), 0.5),
    }


def mrdeconv(**options):
    sc = VAEC(G, n_batch=2, n_labels=3, n_hidden=6, n_latent=4)
    sizes = {"n_spots": N, "n_labels": 3, "n_batch": 2, "n_hidden": 6, "n_layers": 2, "n_latent": 4, "n_genes": G}
    weights = {"px_r": sc.px_r, "per_ct_bias": sc.per_ct_bias, "dropout_decoder": 0.05}
    states = {"decoder_state_dict": sc.decoder.state_dict(), "px_decoder_state_dict": sc.px_decoder.state_dict()}
    return MRDeconv(**(sizes | weights | states | options))


ROWS = {
    "default": (prior(), ["V", "gamma"]),
    "no_prior": ({"prior_mode": "normal"}, ["V", "gamma"]),
    "none": (prior() | {"prior_mode": "normal", "amortization": "none"}, ["V_encoder", "gamma_encoder"]),
    "latent": (prior() | {"amortization": "latent"}, ["V_encoder", "gamma"]),
    "proportion": (prior() | {"prior_mode": "normal", "amortization": "proportion"}, ["V", "gamma_encoder"]),
    "no_extra_type": (prior() | {"add_celltypes": 0}, ["V", "gamma", "eta"]),
}


@pytest.mark.parametrize("row", ROWS)
def test_contract(row):
    options, unused = ROWS[row]
    check_module(lambda: mrdeconv(**options), batch(), unused=unused)


@pytest.mark.parametrize("prior_mode", ["mog", "normal"])
def test_states_of_a_spot_do_not_depend_on_the_others(prior_mode):
    module = mrdeconv(prior_mode=prior_mode, **prior()).eval()
    whole = module(batch(), compute_loss=False)[1]["gamma"]
    alone = module({key: value[3:4] for key, value in batch().items()}, compute_loss=False)[1]["gamma"]
    torch.testing.assert_close(alone, whole[..., 3:4])


def test_density_of_the_prior():
    options = prior()
    module = mrdeconv(prior_mode="normal", **options).eval()
    _, generated, out = module(batch())
    component = Independent(Normal(options["mean_vprior"], options["var_vprior"].sqrt()), 1)
    mixture = MixtureSameFamily(Categorical(options["mp_vprior"]), component)
    gamma_nck = generated["gamma"][0, 0].permute(2, 1, 0)
    torch.testing.assert_close(out.kl_local["kl_local"], -mixture.log_prob(gamma_nck).sum(-1), rtol=5e-3, atol=0)


def test_simulated_spots():
    module = mrdeconv(n_samples_augmentation=3, **prior()).train()
    inputs = module._get_inference_input(batch())
    assert inputs["x_augmented"].shape == (4, N, G)
    torch.testing.assert_close(inputs["x_augmented"][0], batch()["X"])
    ratio_an1 = inputs["ratio_augmentation"]
    assert ratio_an1[0].max() == 0
    assert ratio_an1[1].min() == 1
    torch.testing.assert_close(inputs["ratios_ct_augmentation"][1:].sum(-1), torch.ones(3, N))
    assert (inputs["x_augmented"][1] == inputs["x_augmented"][1].round()).all()
    assert "prior_sampled" not in module.eval()._get_inference_input(batch())


def test_unknown_options():
    with pytest.raises(ValueError, match="proportion"):
        mrdeconv(amortization="proportions")
    with pytest.raises(ValueError, match="mog"):
        mrdeconv(prior_mode="mogg")
