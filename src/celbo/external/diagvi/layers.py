r"""The networks of DIAGVI but its encoders: features from their graph, and data from cells and features.

.. math::

    q(v) &= N(\mu(h), \mathrm{softplus}(s(h))^2), \qquad h = \hat A\,W u + c, \qquad
    \hat A_{ij} = \sigma_{ij} w_{ij} / \sqrt{d_i d_j} \\
    \eta_{ng} &= \mathrm{softplus}(a_{b_n g})\, z_n^\top v_g + \beta_{b_n g}

with free vectors :math:`u` of the features. Counts take the softmax of :math:`\eta`, measured values :math:`\eta`
itself.

Dims: n cells, g features of a modality, v features of both, e edges, k latents, b batches.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions import Normal as Posterior

from ...distributions import (
    Log1pNormal,
    NegativeBinomialMixture,
    Normal,
    ZeroInflatedGamma,
    ZeroInflatedLogNormal,
)
from ...module.likelihoods import LIKELIHOODS
from ...nn.fc_layers import Linear
from ...ops.draws import randn, uniform
from .graph import GuidanceGraph
from .start import COUNTS, Start, unsoftplus

__all__ = [
    "DecoderDualPathway",
    "DecoderSinglePathway",
    "GraphEncoder",
    "Likelihood",
    "decoder_for",
    "has_library",
]

Likelihood = Literal["nb", "zinb", "nbmixture", "normal", "log1pnormal", "ziln", "zig"]

_LEAST = 1e-6
_LOG_SPREAD = -3.0


def has_library(likelihood: str, normalize_lib: bool) -> bool:
    """Whether the data of a cell are shares of its total: counts, and a normal likelihood that is asked to."""
    return likelihood in COUNTS or (likelihood == "normal" and normalize_lib)


class _GraphConvolution(nn.Module):
    """Each feature's sum over those it has edges with, in a matrix of its own."""

    def __init__(self, n_latent: int) -> None:
        super().__init__()
        self.lin = Linear(n_latent, n_latent, bias=False)
        bound = math.sqrt(3 / n_latent)
        self.lin.weight = nn.Parameter(uniform(-bound, bound, n_latent, n_latent))
        self.bias = nn.Parameter(torch.zeros(n_latent))

    def forward(self, u_vk: Tensor, propagation_vv: Tensor) -> Tensor:
        return torch.sparse.mm(propagation_vv, self.lin(u_vk)) + self.bias


class GraphEncoder(nn.Module):
    """Posterior of the vectors of all features, by one convolution over their graph.

    Parameters
    ----------
    graph
        The graph.
    n_latent
        Size of the vectors.
    """

    source_target: Tensor
    weight: Tensor

    def __init__(self, graph: GuidanceGraph, n_latent: int) -> None:
        super().__init__()
        self.vrepr = nn.Parameter(torch.zeros(graph.n_nodes, n_latent))
        self.conv = _GraphConvolution(n_latent)
        self.loc, self.std_lin = Linear(n_latent, n_latent), Linear(n_latent, n_latent)
        self.register_buffer("source_target", torch.as_tensor(graph.edge_index), persistent=False)
        self.register_buffer("weight", torch.as_tensor(graph.propagation()), persistent=False)

    @torch.no_grad()
    def start_from(self, vectors_vk: Tensor) -> None:
        """Begin with means next to these vectors, and little spread."""
        self.vrepr.copy_(vectors_vk)
        for layer in (self.conv.lin, self.loc):
            nn.init.eye_(layer.weight)
        nn.init.zeros_(self.loc.bias)
        nn.init.zeros_(self.std_lin.weight)
        nn.init.constant_(self.std_lin.bias, _LOG_SPREAD)

    def forward(self) -> Posterior:
        """``(v, k)``."""
        n = len(self.vrepr)
        target_source = self.source_target.flip(0)
        weight = self.weight.to(self.vrepr)
        propagation_vv = torch.sparse_coo_tensor(target_source, weight, (n, n), check_invariants=False)
        h_vk = self.conv(self.vrepr, propagation_vv)
        return Posterior(self.loc(h_vk), F.softplus(self.std_lin(h_vk)) + _LEAST, validate_args=False)


class _Decoder(nn.Module):
    """Linear in cells and in features, with a scale, biases and a dispersion of each batch.

    Parameters
    ----------
    n_output, n_batch
        Number of features and of batches.
    likelihood
        Name of the likelihood.
    normalize_lib
        Whether a normal likelihood is of shares of the cell's total.
    """

    def __init__(self, n_output: int, n_batch: int, likelihood: Likelihood, normalize_lib: bool) -> None:
        super().__init__()
        self.likelihood, self.has_library = likelihood, has_library(likelihood, normalize_lib)
        self.scale_lin = nn.Parameter(torch.zeros(n_batch, n_output))
        self.log_theta = nn.Parameter(torch.zeros(n_batch, n_output))

    @torch.no_grad()
    def start_from(self, start: Start) -> None:
        """Begin with the levels, spreads and noise of the features."""
        self.scale_lin.copy_(torch.as_tensor(unsoftplus(start.spread)))
        self.log_theta.copy_(torch.as_tensor(start.log_theta))
        self._start_levels(torch.as_tensor(start.level))
        if start.zi_logits is not None:
            self.get_parameter("px_dropout_param").copy_(torch.as_tensor(start.zi_logits))

    def _start_levels(self, level_g: Tensor) -> None:
        raise NotImplementedError

    def _logits(self, z: Tensor, v: Tensor, batch_index: Tensor, *biases_bg: Tensor) -> list[Tensor]:
        scaled_ng = F.softplus(_of_batch(self.scale_lin, batch_index)) * (z @ v.T)
        return [scaled_ng + _of_batch(bias_bg, batch_index) for bias_bg in biases_bg]


class DecoderSinglePathway(_Decoder):
    """Decoder of likelihoods with one mean; see :class:`_Decoder`."""

    def __init__(self, n_output: int, n_batch: int, likelihood: Likelihood, normalize_lib: bool) -> None:
        super().__init__(n_output, n_batch, likelihood, normalize_lib)
        self.bias = nn.Parameter(torch.zeros(n_batch, n_output))
        self.px_dropout_param = nn.Parameter(randn(n_output) * 0.01)

    def _start_levels(self, level_g: Tensor) -> None:
        self.bias.copy_(level_g)

    def forward(self, z: Tensor, v: Tensor, library: Tensor, batch_index: Tensor) -> Distribution:
        """Distribution of the data.

        Parameters
        ----------
        z
            Latents, ``(n, k)``.
        v
            Vectors of the features of this modality, ``(g, k)``.
        library
            Natural log of the totals, ``(n, 1)``.
        batch_index
            Codes, ``(n, 1)``.
        """
        (eta_ng,) = self._logits(z, v, batch_index, self.bias)
        log_theta = _of_batch(self.log_theta, batch_index)
        if self.has_library:
            return LIKELIHOODS[self.likelihood](eta_ng, library, log_theta, self.px_dropout_param, _softmax, True)
        return _continuous(self.likelihood, eta_ng, F.softplus(log_theta) + _LEAST, self.px_dropout_param)


class DecoderDualPathway(_Decoder):
    """Decoder of a mixture of two negative binomials, whose means differ by their biases; see :class:`_Decoder`."""

    def __init__(self, n_output: int, n_batch: int, likelihood: Likelihood, normalize_lib: bool) -> None:
        super().__init__(n_output, n_batch, likelihood, normalize_lib)
        self.bias1 = nn.Parameter(torch.zeros(n_batch, n_output))
        self.bias2 = nn.Parameter(torch.zeros(n_batch, n_output))

    def _start_levels(self, level_g: Tensor) -> None:
        self.bias1.copy_(level_g)
        self.bias2.copy_(level_g - 1)

    def forward(self, z: Tensor, v: Tensor, library: Tensor, batch_index: Tensor) -> Distribution:
        """Distribution of the data; arguments as of :class:`DecoderSinglePathway`."""
        first_ng, second_ng = self._logits(z, v, batch_index, self.bias1, self.bias2)
        mu1, mu2 = (library.exp() * logits_ng.softmax(-1) for logits_ng in (first_ng, second_ng))
        theta = _of_batch(self.log_theta, batch_index).exp()
        return NegativeBinomialMixture(mu1, mu2, theta, mixture_logits=first_ng - second_ng)


def decoder_for(n_output: int, n_batch: int, likelihood: Likelihood, normalize_lib: bool) -> nn.Module:
    """The decoder that a likelihood needs."""
    kind = DecoderDualPathway if likelihood == "nbmixture" else DecoderSinglePathway
    return kind(n_output, n_batch, likelihood, normalize_lib)


def _of_batch(table_bg: Tensor, batch_index: Tensor) -> Tensor:
    """The row of each cell's batch; the only one for all cells."""
    return table_bg if len(table_bg) == 1 else F.embedding(batch_index.reshape(-1).long(), table_bg)


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


def _continuous(likelihood: str, eta_ng: Tensor, sd: Tensor, zi_logits: Tensor) -> Distribution:
    """A likelihood of measured values; ``sd`` is the rate of the gamma distribution."""
    if likelihood == "normal":
        return Normal(eta_ng, sd, validate_args=False, normal_mu=eta_ng)
    if likelihood == "log1pnormal":
        return Log1pNormal(eta_ng, sd, scale=eta_ng)
    if likelihood == "ziln":
        return ZeroInflatedLogNormal(eta_ng, sd, zi_logits, normal_mu=eta_ng)
    mean_ng = F.softplus(eta_ng) + _LEAST
    return ZeroInflatedGamma(mean_ng * sd, sd, zi_logits, scale=mean_ng)
