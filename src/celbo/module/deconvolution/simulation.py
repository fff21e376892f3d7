"""Simulated spots, on which the networks of a deconvolution learn proportions that are known.

Dims: n spots, g genes, k latents, c cell types, a augmentations.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from ...distributions import NegativeBinomial
from ...ops.draws import sample
from .states import StatesPrior

__all__ = ["with_simulated_spots"]

_FEW_TYPES = 0.03  # Dirichlet parameter of simulated proportions: a spot of few types
_MIXING = (0.4, 0.5)  # Beta parameters of the share of simulated counts in a mixed spot
_DEEPER = 50.0  # counts by which the first simulated spots are deeper than the spots whose depth they have


class _Tissue(Protocol):
    """What is asked of a module: the prior of the states, and the profiles of the types in given states."""

    n_labels: int
    px_r: Any

    def states_prior(self) -> StatesPrior: ...

    def profiles(self, gamma: Tensor, batch_index: Tensor) -> Tensor: ...


@torch.no_grad()
def with_simulated_spots(
    module: _Tissue, observed_ang: Tensor, batch_index: Tensor, n_simulated: int
) -> Mapping[str, Any]:
    """Arguments of :meth:`MRDeconv.inference <celbo.module.MRDeconv.inference>` with simulated spots behind the others.

    Types and states are drawn from few-type proportions and from the prior of the states, counts from the decoder. The
    first simulated spots are wholly so; in the others the counts are mixed with those of the observed ones.

    Parameters
    ----------
    module
        Gives the prior and the profiles of the types.
    observed_ang
        Counts, ``(a, n, g)``; the spots themselves first.
    batch_index
        Codes, ``(n, 1)``.
    n_simulated
        Number of simulated spots for each spot, at least 1.

    Returns
    -------
    ``x_augmented`` ``(a, n, g)``, ``prior_sampled`` ``(a, n * c, k)``, ``ratios_ct_augmentation`` ``(a, n, c)`` and
    ``ratio_augmentation`` ``(a, n, 1)``; the last three are 0 for what was observed.
    """
    x_ng = observed_ang[0]
    n, c = len(x_ng), module.n_labels
    gamma_anck = module.states_prior().sample(n_simulated, n)
    few_types = Dirichlet(x_ng.new_full((c,), _FEW_TYPES), validate_args=False)
    v_anc = sample(few_types, (n_simulated, n))
    library_an1 = x_ng.sum(-1, keepdim=True).repeat(n_simulated, 1, 1)
    library_an1[0] += _DEEPER
    scale_ang = (v_anc.unsqueeze(-1) * module.profiles(gamma_anck, batch_index)).sum(-2)
    simulated_ang = sample(NegativeBinomial(mu=library_an1 * scale_ang, theta=module.px_r.exp()))
    mixing = torch.cat([x_ng.new_full((1,), concentration) for concentration in _MIXING])
    share = sample(Dirichlet(mixing, validate_args=False), (n_simulated - 1, n))[..., :1]
    ratio_an1 = torch.cat([x_ng.new_ones(1, n, 1), share])
    mixed_ang = (1 - ratio_an1) * x_ng + ratio_an1 * simulated_ang
    return {
        "x_augmented": torch.cat([observed_ang, mixed_ang]),
        "prior_sampled": _behind_zeros(gamma_anck.flatten(1, 2), len(observed_ang)),
        "ratios_ct_augmentation": _behind_zeros(v_anc, len(observed_ang)),
        "ratio_augmentation": _behind_zeros(ratio_an1, len(observed_ang)),
    }


def _behind_zeros(simulated: Tensor, n_observed: int) -> Tensor:
    return torch.cat([simulated.new_zeros(n_observed, *simulated.shape[1:]), simulated])
