r"""Proportions and states of cell types in spots; the prior of the states is a mixture of normals for each type.

.. math:: \gamma_c \sim \sum_p w_{cp}\, N(\mu_{cp}, \sigma^2_{cp})

Dims: n spots, k latents, c cell types, m states of a type in a spot, p prior components, a augmentations.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.distributions import Normal

from ...core import unknown_name
from ...ops.draws import sample
from ..base.priors import normal_mixture

__all__ = ["StatesPrior", "check_amortization", "divergence", "entropy"]

_AMORTIZATIONS = ("none", "latent", "proportion", "both")
_PRIOR_MODES = ("mog", "normal")
_WEIGHT_EPS = {"mog": 1e-7, "normal": 1e-3}  # added to the weights of the components, as in scvi-tools
_SCALE_EPS = {"mog": 0.0, "normal": 1e-4}
_TINIEST_SHARE = 1e-7
_TINY = 1e-20


@dataclass(frozen=True)
class StatesPrior:
    """The prior.

    Attributes
    ----------
    mean_cpk, scale_cpk, weight_cp
        Of its components.
    weight_eps
        Added to the weights in the density.
    """

    mean_cpk: Tensor
    scale_cpk: Tensor
    weight_cp: Tensor
    weight_eps: float

    @classmethod
    def of(cls, mean: Tensor | None, variance: Tensor | None, weight: Tensor | None, mode: str, like: Tensor) -> Self:
        """From means, variances and weights, or, where there are none, N(0, I) for each type of ``like`` ``(c, k)``."""
        if mean is None or variance is None or weight is None:
            mean_cpk = torch.zeros_like(like).unsqueeze(1)
            return cls(mean_cpk, torch.ones_like(mean_cpk), torch.ones_like(mean_cpk[..., 0]), 0.0)
        return cls(mean, variance.sqrt() + _SCALE_EPS[mode], weight, _WEIGHT_EPS[mode])

    def sample(self, a: int, n: int) -> Tensor:
        """States of each type in simulated spots, ``(a, n, c, k)``."""
        logits_cp = (self.weight_cp + _TINIEST_SHARE).log()
        return sample(normal_mixture(logits_cp, self.mean_cpk, self.scale_cpk), (a, n))

    def penalty(self, gamma_amnck: Tensor, true_anck: Tensor | None = None, ratio_an1: Tensor | None = None) -> Tensor:
        """Negative log-density of states, ``(a, m, n, c)``.

        Parameters
        ----------
        gamma_amnck
            The states.
        true_anck, ratio_an1
            States that spots were simulated with, and the share of the simulated in their counts: one more component,
            as narrow as the narrowest, of that weight.
        """
        density = Normal(self.mean_cpk, self.scale_cpk, validate_args=False).log_prob(gamma_amnck.unsqueeze(-2)).sum(-1)
        log_terms = density + (self.weight_cp + self.weight_eps).log()
        if true_anck is not None and ratio_an1 is not None:
            narrowest = Normal(true_anck.unsqueeze(1), self.scale_cpk.amin(-2), validate_args=False)
            ratio = ratio_an1[:, None, :, None]
            log_true = narrowest.log_prob(gamma_amnck).sum(-1, keepdim=True) + ratio.clamp(min=_TINIEST_SHARE).log()
            log_rest = (1 - ratio).clamp(min=_TINIEST_SHARE).log()
            log_terms = torch.cat([log_terms + log_rest, log_true.masked_fill(ratio == 0, -torch.inf)], dim=-1)
        return -log_terms.logsumexp(-1)


def entropy(v_nt: Tensor) -> Tensor:
    """Entropy of proportions in nats, ``(n,)``."""
    return -(v_nt * (v_nt + _TINY).log()).sum(-1)


def divergence(target_nt: Tensor, v_nt: Tensor) -> Tensor:
    """KL divergence of proportions from a target, ``(n,)``."""
    return (target_nt * ((target_nt + _TINY).log() - (v_nt + _TINY).log())).sum(-1)


def check_amortization(amortization: str, prior_mode: str) -> None:
    """Raise ``ValueError`` for options that do not exist, or do not go together."""
    if amortization not in _AMORTIZATIONS:
        raise ValueError(unknown_name("amortization", amortization, _AMORTIZATIONS))
    if prior_mode not in _PRIOR_MODES:
        raise ValueError(unknown_name("prior_mode", prior_mode, _PRIOR_MODES))
    if prior_mode == "mog" and amortization not in ("both", "latent"):
        raise ValueError(
            f"prior_mode='mog' has several states a type, which a network must give: amortization={amortization!r} "
            "has none. Take amortization='both' or 'latent', or prior_mode='normal'."
        )
