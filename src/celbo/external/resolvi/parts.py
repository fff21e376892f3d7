"""What a cell's expected counts are made of, their likelihood, and the prior of what all cells share.

Dims: n cells, m neighbours, g genes, b batches.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Dirichlet, Distribution, Gamma

from ...distributions import NegativeBinomial, Poisson
from .learned import Learned

__all__ = ["SHARES", "Parts", "counted", "keep_priors", "named_part", "shared_log_prior"]

SHARES = ("true_proportion", "diffusion_proportion", "background_proportion")
"""What a cell's counts are made of, in the order of its shares."""

_BACKGROUND = 5.0


class Parts(NamedTuple):
    """What a cell's expected counts are made of.

    Attributes
    ----------
    own
        Counts of a cell that lost and gained nothing, ``(n, g)``.
    neighbors
        The same of each neighbour, at the cell's total, ``(n, m, g)``.
    shares
        Of own, diffused and background counts, ``(n, 3)``.
    weights, concentration
        Of the neighbours among those diffused, ``(n, m)``, and the concentrations of their prior.
    background
        Background counts, ``(n, g)``.
    """

    own: Tensor
    neighbors: Tensor
    shares: Tensor
    weights: Tensor
    concentration: Tensor
    background: Tensor

    @property
    def diffused(self) -> Tensor:
        """Diffused counts, ``(n, g)``."""
        return torch.einsum("nm,nmg->ng", self.shares[:, 1:2] * self.weights, self.neighbors)

    @property
    def mean(self) -> Tensor:
        """Expected counts, ``(n, g)``."""
        return self.shares[:, :1] * self.own + self.diffused + self.background


def counted(parts: Parts, log_theta: Tensor | None) -> Distribution:
    """Distribution of the counts, ``(n, g)``.

    Parameters
    ----------
    parts
        What they are made of.
    log_theta
        Log inverse dispersion of own and diffused counts, ``(g,)`` or ``(n, g)``; None: a Poisson.
    """
    mean = parts.mean + 1e-9
    if log_theta is None:
        return Poisson(mean, validate_args=False)
    noisy = (parts.mean - parts.background).clamp(min=1e-9)
    return NegativeBinomial(mu=mean, theta=log_theta.exp() * (mean / noisy).square())


def shared_log_prior(learned: Learned, buffer: Callable[[str], Tensor]) -> Tensor:
    """Log-prior of sparsity, concentrations, background and the scale of diffusion, ``()`` in nats.

    Parameters
    ----------
    learned
        Their values.
    buffer
        Gives a figure of the prior by name.
    """
    rate, sparsity = buffer("prior_proportions_rate"), learned.value("sparsity_diffusion_est")
    log_prior = Gamma(rate, rate / buffer("sparsity_diffusion"), validate_args=False).log_prob(sparsity)
    amounts = buffer("prior_proportions").split(1)
    for name, amount in zip(SHARES, amounts, strict=True):
        prior = Gamma(rate, rate / (amount * sparsity), validate_args=False)
        log_prior = log_prior + prior.log_prob(learned.value(f"{name}_est"))
    profile_bg = learned.value("background_concentration").softmax(-1).clamp(min=1e-30)
    flat = Dirichlet(_BACKGROUND * buffer("gene_dummy"), validate_args=False)
    return log_prior.sum() + flat.log_prob(profile_bg).sum() - learned.value("diffuse_scale_est").sum()


def named_part(z_encoder: nn.Module, n_batch: int, n_genes: int, shape: tuple[int, ...]) -> nn.Module:
    """One of the two parts that scvi-tools' archives name, with what both have.

    Parameters
    ----------
    z_encoder
        The encoder that both share.
    n_batch, n_genes
        Numbers of batches and genes.
    shape
        Of the dispersions.
    """
    part = nn.Module()
    part.register_buffer("gene_dummy", torch.ones(n_batch, n_genes))
    part.register_buffer("px_r", torch.full(shape, 0.01))
    part.z_encoder = z_encoder
    return part


def keep_priors(part: nn.Module, amounts: Tensor, rate: float, median_distance: float, sparsity: float) -> None:
    """Put the figures of priors on the generative part as buffers; see :class:`celbo.external.resolvi.RESOLVAE`."""
    figures = {"median_distance": float(median_distance), "sparsity_diffusion": float(sparsity)}
    for name, value in figures.items():
        part.register_buffer(name, torch.tensor(value))
    part.register_buffer("diffusion_scale", torch.tensor([1]))
    part.register_buffer("prior_proportions", amounts)
    part.register_buffer("prior_proportions_rate", torch.tensor([float(rate)]))
