r"""Where cells lie: latent representation, its mixture over cells, embeddings of batches.

Dims: n cells, k latents, s samples.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    StudentT,
)

from ..core import REGISTRY_KEYS
from ..module.base import BaseModuleClass, EmbeddingModuleMixin
from ..ops.draws import sample
from .passes import Batches, Rows, encode, evaluating, on_device

__all__ = ["aggregated_posterior", "batch_representation", "is_logistic_normal", "latent_representation"]

_DRAWS = 2**22
"""Numbers drawn at once for the mean of a logistic normal: 16 MiB."""


def is_logistic_normal(module: BaseModuleClass) -> bool:
    """Whether latents go through a softmax: the module says ``latent_distribution = "ln"``."""
    return module.latent_distribution == "ln"


def latent_representation(
    module: BaseModuleClass,
    batches: Batches,
    *,
    give_mean: bool = True,
    mc_samples: int = 5000,
    return_dist: bool = False,
    n_cells: int | None = None,
    seed: int | None = None,
    posterior_of: Callable[[Mapping[str, Any]], Normal] | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    r"""Posterior of the latents of each cell, :math:`q(z_n \mid x_n)`.

    Parameters
    ----------
    module
        Its ``inference`` gives ``qz`` and ``z``.
    batches
        Minibatches.
    give_mean
        The mean of the posterior, or a draw from it.
    mc_samples
        Draws for the mean where it has no closed form: a logistic normal, :math:`z = \mathrm{softmax}(u)`,
        :math:`u \sim N`.
    return_dist
        Return mean and variance of ``qz`` (before the softmax, where there is one) instead.
    n_cells
        Number of cells, if known: the answer is then allocated once.
    seed
        Seed of the draws, see :func:`~celbo.posterior.passes.evaluating`.
    posterior_of
        Another posterior among what ``inference`` gives, such as that of one modality; None: ``qz``.

    Returns
    -------
    ``(n, k)``, or with ``return_dist`` two such: mean and variance.
    """
    first, second = Rows(n_cells), Rows(n_cells)
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            encoded = encode(module, tensors)
            qz = encoded["qz"] if posterior_of is None else posterior_of(encoded)
            if return_dist:
                first.append(qz.loc)
                second.append(qz.scale.square())
            elif not give_mean:
                first.append(encoded["z"] if posterior_of is None else _drawn(qz, is_logistic_normal(module)))
            else:
                first.append(_mean_on_simplex(qz, mc_samples) if is_logistic_normal(module) else qz.loc)
    return (first.array(), second.array()) if return_dist else first.array()


def _drawn(qz: Normal, on_simplex: bool) -> Tensor:
    return sample(qz).softmax(-1) if on_simplex else sample(qz)


def _mean_on_simplex(qz: Normal, n_samples: int) -> Tensor:
    """Monte Carlo mean of the softmax of a normal variable, ``(n, k)``."""
    total_nk = torch.zeros_like(qz.loc)
    step = max(1, _DRAWS // max(1, qz.loc.numel()))
    for start in range(0, n_samples, step):
        draws_snk = sample(qz, (min(step, n_samples - start),))
        total_nk += draws_snk.softmax(-1).sum(0)
    return total_nk / n_samples


def aggregated_posterior(mean_nk: np.ndarray, variance_nk: np.ndarray, dof: float | None = 3.0) -> Distribution:
    r"""Mixture of the cells' posteriors, :math:`\bar q(z) = \tfrac{1}{N} \sum_n q(z \mid x_n)`.

    Parameters
    ----------
    mean_nk, variance_nk
        Of each cell's posterior, ``(n, k)``.
    dof
        Degrees of freedom of Student's t components, whose tails are heavier; None for normal ones.

    Returns
    -------
    Distribution over ``(k,)`` on the CPU.

    Notes
    -----
    The scale of a component is the square root of the variance; scvi-tools 1.4.2 takes the variance itself.
    """
    loc, scale = torch.from_numpy(mean_nk), torch.from_numpy(variance_nk).sqrt()
    component = Normal(loc, scale) if dof is None else StudentT(dof, loc, scale)
    return MixtureSameFamily(Categorical(torch.ones(len(loc))), Independent(component, 1))


def batch_representation(module: BaseModuleClass, batches: Batches, *, n_cells: int | None = None) -> np.ndarray:
    """Learned embedding of each cell's batch, ``(n, k)``.

    Raises
    ------
    KeyError
        When the module has none.
    """
    if not isinstance(module, EmbeddingModuleMixin) or REGISTRY_KEYS.BATCH_KEY not in module.embeddings_dict:
        raise KeyError(
            "This model has no learned embedding of its batches: make it with batch_representation='embedding'."
        )
    rows = Rows(n_cells)
    with evaluating(module):
        for tensors in on_device(batches, module):
            rows.append(module.compute_embedding(REGISTRY_KEYS.BATCH_KEY, tensors[REGISTRY_KEYS.BATCH_KEY]))
    return rows.array()
