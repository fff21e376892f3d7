"""Draws from the posterior predictive distribution of an autoencoder.

Dims: n cells, g features, s samples.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..ops.draws import sample
from .base import BaseModuleClass

__all__ = ["drawn", "predictive_distribution", "predictive_sample"]


@torch.no_grad()
def predictive_sample(
    module: BaseModuleClass,
    tensors: Mapping[str, Tensor],
    n_samples: int = 1,
    generative_kwargs: dict[str, Any] | None = None,
    distribution: str = "px",
) -> Tensor:
    """Draw data from the posterior predictive distribution; the ``sample`` of modules whose ``px`` can draw.

    Parameters
    ----------
    module
        The module.
    tensors
        Minibatch by registry key.
    n_samples
        Samples a cell, each with latents of its own.
    generative_kwargs
        Further arguments of ``generative``.
    distribution
        Which of those that ``generative`` gives.

    Returns
    -------
    ``(n, g)``, or ``(n, g, s)`` for more than one sample, on the CPU.
    """
    return drawn(predictive_distribution(module, tensors, n_samples, generative_kwargs, distribution), n_samples)


def predictive_distribution(
    module: BaseModuleClass,
    tensors: Mapping[str, Tensor],
    n_samples: int,
    generative_kwargs: dict[str, Any] | None,
    distribution: str = "px",
) -> Distribution:
    """What the data are drawn from, at drawn latents; arguments as in :func:`predictive_sample`."""
    options = {"inference_kwargs": {"n_samples": n_samples}, "generative_kwargs": generative_kwargs}
    return module.forward(tensors, compute_loss=False, **options)[1][distribution]


def drawn(px: Distribution, n_samples: int) -> Tensor:
    """One draw of each entry on the CPU; samples, which lead in ``px``, last."""
    x = sample(px).cpu()
    return x.permute(1, 2, 0) if n_samples > 1 else x
