r"""Native counts: what a model expects of each gene without the ambient RNA, drawn as whole numbers.

Dims: n cells, g genes, s samples.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..core import REGISTRY_KEYS
from ..module.base import BaseModuleClass
from ..ops.random import generator_for
from .passes import Batches, Rows, decode, encode, evaluating, on_device

__all__ = ["denoised_blocks", "denoised_counts"]


def denoised_counts(
    module: BaseModuleClass,
    batches: Batches,
    *,
    n_samples: int = 1,
    n_cells: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    r"""Native counts of every cell, rounded at random so that their expectation is kept.

    .. math:: c_{ng} = \lfloor e_{ng} \rfloor + \mathrm{Bernoulli}(e_{ng} - \lfloor e_{ng} \rfloor), \qquad
              e_{ng} = \Bigl(\sum_h x_{nh}\Bigr)\, \rho_{ng}(z_n), \quad z_n \sim q(z \mid x_n)

    Parameters
    ----------
    module
        Its ``px`` carries a ``scale`` that sums to the native share of a cell's counts.
    batches, n_cells, seed
        See :func:`~celbo.posterior.latent_representation`.
    n_samples
        Draws, of which the median is given; of an even number the lower of the two in the middle.

    Returns
    -------
    ``(n, g)`` float32.
    """
    rows = Rows(n_cells)
    for block in denoised_blocks(module, batches, n_samples=n_samples, seed=seed):
        rows.append(block)
    return rows.array()


def denoised_blocks(
    module: BaseModuleClass, batches: Batches, *, n_samples: int = 1, seed: int | None = None
) -> Iterator[Tensor]:
    """As :func:`denoised_counts`, minibatch by minibatch, ``(n, g)``: for what is not kept."""
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            px = decode(module, tensors, encode(module, tensors, n_samples))["px"]
            expected = tensors[REGISTRY_KEYS.X_KEY].sum(-1, keepdim=True) * px.get_normalized("scale")
            drawn = _rounded_at_random(expected)
            yield drawn.median(0).values if n_samples > 1 else drawn


def _rounded_at_random(expected: Tensor) -> Tensor:
    whole = expected.floor()
    chance = torch.empty_like(expected).uniform_(generator=generator_for(expected.device))
    return whole + (chance < expected - whole)
