"""Every module is one row: how to make it, a minibatch, and what its options leave unused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from celbo.external.cytovi import CytoVAE
from celbo.external.decipher import DecipherModule
from celbo.external.drvi import DRVIModule
from celbo.external.jointembedding import JointEmbeddingVAE
from celbo.external.methylvi import METHYLANVAE, METHYLVAE
from celbo.external.mrvi import TorchMRVAE
from celbo.external.scbasset import ScBassetModule
from celbo.external.scviva import nicheVAE
from celbo.external.sysvi import SysVAE
from celbo.module import LDVAE, PEAKVAE, VAE, AmortizedLDAModule, AutoZIVAE
from celbo.module.base import BaseModuleClass, LossOutput
from celbo.testing import check_module

N, G = 9, 12


def minibatch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "X": torch.poisson(torch.full((N, G), 3.0), generator=generator),
        "batch": torch.arange(N)[:, None] % 2,
        "labels": torch.arange(N)[:, None] % 3,
        "sample": torch.arange(N)[:, None] % 3,
        "niche_composition": torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])[torch.arange(N) % 2],
        "latent_mean_ct_key": torch.randn(N, 6, generator=generator),
        "dna_code": torch.randint(0, 5, (N, 48), generator=generator),
    }


def covariates() -> dict[str, torch.Tensor]:
    return {
        "extra_categorical_covs": torch.arange(N)[:, None] % 4,
        "extra_continuous_covs": torch.arange(2 * N).reshape(N, 2) / N,
    }


LIBRARY, NO_DROPOUT, OWN_THETA = "l_encoder", "decoder.px_dropout_decoder", "decoder.px_r_decoder"
SIZES = {"n_input": G, "n_batch": 2, "n_labels": 3, "n_hidden": 6, "n_latent": 3}
PRIOR = {"library_log_means": torch.full((1, 2), 3.0).numpy(), "library_log_vars": torch.ones(1, 2).numpy()}


def peaks(n_input, n_labels, **options):
    return PEAKVAE(n_input, **options)


def samples(n_input, n_batch, n_labels, n_hidden, n_latent, **options):
    return TorchMRVAE(n_input, 3, n_batch, n_labels, n_latent, n_latent, n_hidden, **options)


def niches(n_input, **options):
    return nicheVAE(n_input, 2, **options)


def sequences(**_):
    return ScBassetModule(
        G, np.arange(G) % 2, 4, 2, n_filters_pre_bottleneck=3, n_bottleneck_layer=3, sequence_length=48
    )


COVARIATES = {"n_cats_per_cov": [4], "n_continuous_cov": 2}
ROWS = {
    "zinb": (VAE, {}, [LIBRARY, OWN_THETA]),
    "nb": (VAE, {"gene_likelihood": "nb"}, [LIBRARY, OWN_THETA, NO_DROPOUT]),
    "poisson": (VAE, {"gene_likelihood": "poisson"}, [LIBRARY, OWN_THETA, NO_DROPOUT, "px_r"]),
    "normal": (VAE, {"gene_likelihood": "normal"}, [LIBRARY, OWN_THETA, NO_DROPOUT]),
    "gene_batch": (VAE, {"dispersion": "gene-batch"}, [LIBRARY, OWN_THETA]),
    "gene_label": (VAE, {"dispersion": "gene-label"}, [LIBRARY, OWN_THETA]),
    "gene_cell": (VAE, {"dispersion": "gene-cell"}, [LIBRARY]),
    "latent_library": (VAE, {"use_observed_lib_size": False, **PRIOR}, [OWN_THETA]),
    "covariates": (VAE, {"encode_covariates": True, **COVARIATES}, [LIBRARY, OWN_THETA]),
    "deep": (VAE, {"n_layers": 2, "latent_distribution": "ln"}, [LIBRARY, OWN_THETA]),
    "embedding": (VAE, {"batch_representation": "embedding"}, [LIBRARY, OWN_THETA]),
    **{
        f"autozi_{kind}": (AutoZIVAE, {"zero_inflation": kind, "n_latent": 2}, [LIBRARY, OWN_THETA])
        for kind in ("gene", "gene-batch", "gene-label", "gene-cell")
    },
    "topics": (lambda **_: AmortizedLDAModule(G, n_topics=3, n_hidden=6), {}, []),
    "peaks": (peaks, {}, []),
    "peaks_covariates": (peaks, {"encode_covariates": True, **COVARIATES}, []),
    "peaks_plain": (peaks, {"model_depth": False, "region_factors": False}, []),
    "samples": (samples, {}, [f"{name}.attention_block.k_proj.bias" for name in ("px", "qz")]),  # as in any softmax
    "samples_of_1_4_2": (samples, {"layout": "1.4.2", "learn_z_u_prior_scale": True}, []),
    "niches": (niches, {}, [LIBRARY, OWN_THETA, NO_DROPOUT, "px_r", "composition_decoder.var_decoder"]),
    "niches_mixture": (
        niches,
        {"prior_mixture": True, "gene_likelihood": "nb", "linear_classifier": False},
        [LIBRARY, OWN_THETA, NO_DROPOUT, "composition_decoder.var_decoder"],
    ),
    "systems": (lambda **_: SysVAE(G, n_batch=2, n_hidden=6, n_latent=3), {}, []),
    "stacked": (lambda **_: DecipherModule(G, dim_z=3, layers_v_to_z=[6]), {}, []),
    "sequences": (sequences, {}, []),
    "two_views": (JointEmbeddingVAE, {}, [LIBRARY, OWN_THETA]),
    "markers": (CytoVAE, COVARIATES, []),
    "markers_plain": (CytoVAE, {"prior_mixture": False, "latent_distribution": "ln"}, []),
    "splits": (DRVIModule, {}, [LIBRARY, OWN_THETA, NO_DROPOUT]),
    "splits_summed": (
        DRVIModule,
        {"split_aggregation": "sum", "split_method": "split_mask", "gene_likelihood": "zinb", **COVARIATES},
        [LIBRARY, OWN_THETA],
    ),
    "linear": (LDVAE, {**PRIOR, "gene_likelihood": "nb"}, [NO_DROPOUT]),
}


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize("row", ROWS)
def test_contract(row):
    cls, options, unused = ROWS[row]
    batch = minibatch() | (covariates() if "n_cats_per_cov" in options else {})
    check_module(lambda: cls(**(SIZES | options)), batch, unused=unused)


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize(
    ("cls", "options", "unused"),
    [
        (METHYLVAE, {}, ["px_gamma_decoder"]),
        (METHYLVAE, {"dispersion": "region-cell", "n_cats_per_cov": [4]}, []),
        (METHYLVAE, {"likelihood": "binomial"}, ["px_gamma_decoder", "px_gamma"]),
        (METHYLANVAE, {"n_labels": 3}, ["px_gamma_decoder", "classifier"]),
    ],
    ids=["methylation", "methylation_covariates", "methylation_binomial", "methylation_labels"],
)
def test_contract_of_reads(cls, options, unused):
    """Of two contexts, in each of which a cell may have no read."""
    generator = torch.Generator().manual_seed(0)
    batch = {"batch": torch.arange(N)[:, None] % 2, "labels": torch.arange(N)[:, None] % 3}
    batch |= {"extra_categorical_covs": torch.arange(N)[:, None] % 4} if "n_cats_per_cov" in options else {}
    for context in "ab":
        reads = torch.poisson(torch.full((N, G), 2.0), generator=generator)
        batch |= {f"{context}_cov": reads, f"{context}_mc": (reads / 2).floor()}
    keys = [f"{context}_{of}" for context in "ab" for of in ("mc", "cov")]
    never = [f"decoders.{context}.{name}" for context in "ab" for name in unused] + unused
    sizes = {"n_input": 2 * G, "contexts": ["a", "b"], "num_features_per_context": [G, G], "n_batch": 2}
    make = {**sizes, "n_hidden": 6, "n_latent": 3, **options}
    check_module(lambda: cls(**make), batch, unused=never, count_keys=keys)


class Sound(BaseModuleClass):
    """The smallest module that keeps the contract; each broken one departs from it in one point."""

    def __init__(self):
        super().__init__()
        self.norm, self.encoder, self.decoder = nn.BatchNorm1d(G), nn.Linear(G, 4), nn.Linear(2, G)

    def inference(self, x):
        mean_nk, scale_nk = self.encoder(self.norm(torch.log1p(x))).chunk(2, -1)
        qz = Normal(mean_nk, scale_nk.exp())
        return {"qz": qz, "z": qz.rsample()}

    def generative(self, z):
        return {"rate": self.decoder(z).exp()}

    def loss(self, tensors, inference_outputs, generative_outputs, kl_weight: float = 1.0):
        rate_ng = generative_outputs["rate"]
        nll_n = (rate_ng - tensors["X"] * rate_ng.log()).sum(-1)
        kl_n = kl_divergence(inference_outputs["qz"], Normal(0.0, 1.0)).sum(-1)
        return self.record(nll_n, kl_n, kl_weight)

    def record(self, nll_n, kl_n, kl_weight):
        return LossOutput(loss=(nll_n + kl_weight * kl_n).mean(), reconstruction_loss=nll_n, kl_local=kl_n)


class Unbound(Sound):
    def inference(self, x, protein):
        return super().inference(x)


class Summed(Sound):
    def record(self, nll_n, kl_n, kl_weight):
        return LossOutput(loss=nll_n.mean(), reconstruction_loss=nll_n.sum(), kl_local=kl_n, n_obs_minibatch=len(nll_n))


class NoRecord(Sound):
    def record(self, nll_n, kl_n, kl_weight):
        return nll_n.mean()


class Forgotten(Sound):
    def __init__(self):
        super().__init__()
        self.never = nn.Linear(2, 2)


class WeighedTwice(Sound):
    def record(self, nll_n, kl_n, kl_weight):
        return super().record(nll_n, kl_weight * kl_n, 1.0)


class NotWeighed(Sound):
    def record(self, nll_n, kl_n, kl_weight):
        return super().record(nll_n, kl_n, 1.0)


class DividesByTheLibrary(Sound):
    def inference(self, x):
        return super().inference(x / x.sum(-1, keepdim=True))


class LooksAtTheCompany(Sound):
    def inference(self, x):
        return super().inference(x / (1 + x.mean(0)))


class Counts(Sound):
    """Its number of evaluations is part of its state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("n_calls", torch.zeros(()))

    def inference(self, x):
        self.n_calls += 1
        return super().inference(x)


class Unsaved(Sound):
    def __init__(self):
        super().__init__()
        self.offset = torch.rand(())

    def record(self, nll_n, kl_n, kl_weight):
        return super().record(nll_n + self.offset, kl_n, kl_weight)


@pytest.mark.usefixtures("global_rng_untouched")
def test_a_sound_module_passes():
    check_module(Sound, {"X": minibatch()["X"]})


@pytest.mark.parametrize(
    ("broken", "error", "complaint"),
    [
        (Unbound, KeyError, "needs 'protein'"),
        (Summed, AssertionError, r"reconstruction_loss 'reconstruction_loss' is \(9,\), one value a cell, got \(\)"),
        (NoRecord, AssertionError, "LossOutput, got a Tensor"),
        (Forgotten, AssertionError, r"not never\.weight, never\.bias"),
        (WeighedTwice, AssertionError, "kl_local_sum changes with kl_weight"),
        (NotWeighed, AssertionError, "give different losses"),
        (DividesByTheLibrary, AssertionError, "the loss with a cell without counts is finite"),
        (LooksAtTheCompany, AssertionError, "does not depend on the others"),
        (Counts, AssertionError, "n_calls did"),
        (Unsaved, AssertionError, "same state_dict gives the same loss"),
    ],
)
def test_contract_finds_a_breach(broken, error, complaint):
    with pytest.raises(error, match=complaint):
        check_module(broken, {"X": minibatch()["X"]})


def test_too_few_cells():
    with pytest.raises(ValueError, match="at least 4 cells, got 3"):
        check_module(Sound, {"X": minibatch()["X"][:3]})
