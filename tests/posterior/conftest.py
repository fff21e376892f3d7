"""Modules whose answers are known, and minibatches of made-up cells."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal

from celbo.module import VAE
from celbo.module.base import BaseModuleClass, LossOutput
from celbo.ops.random import private_rng

N, G, K, B = 23, 12, 3, 3


class Loader:
    """Rows of tables in the order asked, ``size`` at a time."""

    def __init__(self, tables, rows=None, size=7):
        self.tables, self.size = tables, size
        self.rows = np.arange(len(tables["X"])) if rows is None else np.asarray(rows)

    def __iter__(self):
        for start in range(0, len(self.rows), self.size):
            rows = torch.from_numpy(self.rows[start : start + self.size])
            yield {key: table[rows] for key, table in self.tables.items()}

    def of(self, rows):
        return Loader(self.tables, rows, self.size)


def make_loader(n=N, g=G, size=7, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.negative_binomial(2, 0.2, (n, g)).astype(np.float32)
    return Loader(
        {
            "X": torch.from_numpy(counts),
            "batch": torch.from_numpy(rng.integers(0, B, (n, 1))),
            "labels": torch.zeros((n, 1), dtype=torch.int64),
        },
        size=size,
    )


def make_vae(seed=0, **kwargs):
    """A VAE with weights of its own, batch effects that are far from nothing, and running statistics to go with."""
    with private_rng(seed):
        module = VAE(**({"n_input": G, "n_batch": B, "n_latent": K, "n_hidden": 16} | kwargs))
        for parameter in module.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


class _Unchanged(nn.Module):
    def z_transformation(self, z):
        return z


class LinearGaussian(BaseModuleClass):
    r"""``x = W z + b + noise``: everything is known in closed form.

    The columns of ``W`` are orthogonal, so the exact posterior has a diagonal covariance; ``widen`` multiplies its
    standard deviation, to be wrong on purpose.
    """

    def __init__(self, g=6, k=2, sigma=0.7, widen=1.0, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        basis, _ = np.linalg.qr(rng.normal(size=(g, k)))
        self.register_buffer("w_gk", torch.from_numpy(basis * np.linspace(1.0, 2.0, k)))
        self.register_buffer("b_g", torch.from_numpy(rng.normal(size=g)))
        self.sigma, self.widen = sigma, widen
        self.z_encoder = _Unchanged()

    def posterior_of(self, x):
        precision_k = 1 + self.w_gk.square().sum(0) / self.sigma**2
        mean_nk = (x.double() - self.b_g) @ self.w_gk / self.sigma**2 / precision_k
        return Normal(mean_nk, self.widen * precision_k.rsqrt().expand_as(mean_nk))

    def inference(self, x, n_samples: int = 1):
        qz = self.posterior_of(x)
        z = qz.sample((n_samples,)) if n_samples > 1 else qz.sample()
        return {"qz": qz, "z": z, "ql": None, "library": x.sum(-1, keepdim=True)}

    def generative(self, z, library):
        px = Normal(z @ self.w_gk.T + self.b_g, self.sigma)
        return {"px": px, "pz": Normal(torch.zeros_like(z), 1.0)}

    def loss(self, tensors, inference_outputs, generative_outputs):
        nll_n = -generative_outputs["px"].log_prob(tensors["X"].double()).sum(-1)
        qz = inference_outputs["qz"]
        kl_n = torch.distributions.kl_divergence(qz, Normal(torch.zeros_like(qz.loc), 1.0)).sum(-1)
        return LossOutput(loss=(nll_n + kl_n).mean(), reconstruction_loss=nll_n, kl_local=kl_n)

    def marginal_ll(self, tensors, n_mc_samples, return_mean=False, n_mc_samples_per_pass=1):
        from celbo.module.marginal import marginal_log_likelihood

        doubled = {**tensors, "X": tensors["X"].double()}
        return marginal_log_likelihood(
            self, self.z_encoder.z_transformation, doubled, n_mc_samples, n_mc_samples_per_pass
        )

    def exact_marginal(self, x):
        """``(n,)`` log-density of ``N(b, W W^T + sigma^2 I)``."""
        covariance = self.w_gk @ self.w_gk.T + self.sigma**2 * torch.eye(len(self.b_g), dtype=torch.float64)
        return torch.distributions.MultivariateNormal(self.b_g, covariance).log_prob(x.double())


@pytest.fixture
def loader():
    return make_loader()


@pytest.fixture
def vae():
    return make_vae()


@pytest.fixture
def gaussian_cells():
    rng = np.random.default_rng(3)
    return Loader({"X": torch.from_numpy(rng.normal(size=(17, 6)))}, size=5)


@pytest.fixture
def linear_gaussian():
    return LinearGaussian


@pytest.fixture
def make():
    """Makers of modules and loaders with other options."""

    class Make:
        vae = staticmethod(make_vae)
        loader = staticmethod(make_loader)

    return Make


LOG2PI = math.log(2 * math.pi)
