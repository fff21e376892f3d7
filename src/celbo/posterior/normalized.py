r"""Normalized values of what a model explains, such as denoised expression, batch by batch if asked.

.. math:: \ell\,\rho_{ng}, \qquad \rho_n = \mathrm{softmax}(f(z_n, b)), \quad z_n \sim q(z \mid x_n)

is that of counts. Cells are encoded once, whatever the number of batches they are decoded as. Features are picked after
the softmax, which needs all of them: a list of them saves memory and copying, not the last layer.

Dims: n cells, g features, k drawn rows, s samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import checked
from ..module.base import BaseModuleClass
from .importance import importance_pool
from .output import EXPRESSION, Output, read
from .passes import Batches, LoaderOf, Minibatch, Rows, decode, encode, evaluating, on_device, sample_passes, size_of

__all__ = ["Weighting", "draw_rows", "normalized", "normalized_blocks", "sampled", "sampled_rows"]

Outputs = Sequence[Output]


@checked
@dataclass(frozen=True)
class Weighting:
    """Importance weights of posterior samples; arguments of :func:`~celbo.posterior.importance_weights`."""

    max_cells: int = 1024
    truncation: bool = False
    n_mc_samples: int = 500
    n_mc_samples_per_pass: int = 250


def normalized(
    module: BaseModuleClass,
    batches: Batches,
    outputs: Outputs = (EXPRESSION,),
    *,
    transform_batch: Sequence[int | None] = (None,),
    columns: np.ndarray | None = None,
    n_samples: int = 1,
    return_mean: bool = True,
    use_mean: bool = False,
    n_cells: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """Normalized values of every cell.

    Parameters
    ----------
    module
        The module.
    batches
        Minibatches.
    outputs
        What is wanted; the columns of several stand beside each other.
    transform_batch
        Codes of the batches to decode as, averaged over; None among them: each cell's own.
    columns
        Columns to give, in this order; None for all.
    n_samples
        Draws of the latents for each cell.
    return_mean
        Average over the draws.
    use_mean
        Decode the mean of the latents instead of a draw.
    n_cells, seed
        See :func:`~celbo.posterior.latent_representation`.

    Returns
    -------
    ``(n, g)`` float32, or ``(s, n, g)`` for more than one draw that is not averaged.

    Notes
    -----
    Holds the answer, one minibatch and at most 64 MiB of decoded draws.
    """
    average = return_mean or n_samples == 1
    rows = Rows(n_cells, axis=0 if average else 1)
    for block in normalized_blocks(
        module,
        batches,
        outputs,
        transform_batch=transform_batch,
        columns=columns,
        n_samples=n_samples,
        return_mean=return_mean,
        use_mean=use_mean,
        seed=seed,
    ):
        rows.append(block)
    return rows.array()


def normalized_blocks(
    module: BaseModuleClass,
    batches: Batches,
    outputs: Outputs = (EXPRESSION,),
    *,
    transform_batch: Sequence[int | None] = (None,),
    columns: np.ndarray | None = None,
    n_samples: int = 1,
    return_mean: bool = True,
    use_mean: bool = False,
    seed: int | None = None,
) -> Iterator[Tensor | np.ndarray]:
    """As :func:`normalized`, minibatch by minibatch, ``(n, g)`` or ``(s, n, g)``: for what is not kept."""
    average = return_mean or n_samples == 1
    with evaluating(module, seed):
        index = None if columns is None else torch.from_numpy(columns).to(module.device)
        for tensors in on_device(batches, module):
            n = size_of(tensors)
            draws = Rows(n_samples)
            total_ng: Any = 0
            whole = encode(module, tensors, n_samples)
            whole = {**whole, "z": whole["qz"].loc} if use_mean else whole
            for encoded in sample_passes(whole, n_samples, tensors):
                values_sng = _over_batches(module, tensors, encoded, outputs, transform_batch, index)
                values_sng = values_sng.reshape(-1, n, values_sng.shape[-1])
                if average:
                    total_ng = total_ng + values_sng.sum(0) if n_samples > 1 else values_sng[0]
                else:
                    draws.append(values_sng)
            yield total_ng / n_samples if average and n_samples > 1 else total_ng if average else draws.array()


def _over_batches(
    module: BaseModuleClass,
    tensors: Minibatch,
    encoded: dict[str, Any],
    outputs: Outputs,
    batches: Sequence[int | Tensor | None],
    columns: Tensor | None,
) -> Tensor:
    """Values of an encoded minibatch averaged over the batches it is decoded as, ``(..., n, g)``."""
    first, *others = batches
    total = read(outputs, decode(module, tensors, encoded, first), columns)
    if not others:
        return total
    total = total / len(batches)
    for batch in others:
        total.add_(read(outputs, decode(module, tensors, encoded, batch), columns), alpha=1 / len(batches))
    return total


def draw_rows(cells_n: np.ndarray, n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """``(n_rows,)`` cells drawn from ``cells_n`` with replacement; a ``ValueError`` where there are none."""
    if not len(cells_n):
        raise ValueError("There are no cells to draw from.")
    return cells_n[rng.integers(len(cells_n), size=n_rows)]


def sampled(
    module: BaseModuleClass,
    loader_of: LoaderOf,
    cells_n: np.ndarray,
    n_rows: int,
    outputs: Outputs = (EXPRESSION,),
    *,
    transform_batch: Sequence[int | None] = (None,),
    columns: np.ndarray | None = None,
    weighting: Weighting | None = None,
    seed: int | None = None,
) -> np.ndarray:
    r"""Draws of normalized values from a group of cells, :math:`\rho(z),\; z \sim \tfrac{1}{N} \sum_n q(z \mid x_n)`.

    Cells are drawn first, so that ``n_rows`` rows are encoded and decoded, however many cells there are.

    Parameters
    ----------
    module, outputs, transform_batch, columns, seed
        See :func:`normalized`.
    loader_of
        Gives the minibatches of cells by row number.
    cells_n
        Row numbers of the group.
    n_rows
        Number of draws.
    weighting
        Draw in proportion to importance weights; None: uniformly.

    Returns
    -------
    ``(n_rows, g)`` float32.
    """
    with evaluating(module, seed) as rng:
        return sampled_rows(module, loader_of, cells_n, n_rows, rng, list(transform_batch), outputs, columns, weighting)


def sampled_rows(
    module: BaseModuleClass,
    loader_of: LoaderOf,
    cells_n: np.ndarray,
    n_rows: int,
    rng: np.random.Generator,
    batches: Sequence[int | np.ndarray | None],
    outputs: Outputs = (EXPRESSION,),
    columns: np.ndarray | None = None,
    weighting: Weighting | None = None,
) -> np.ndarray:
    """As :func:`sampled`, inside :func:`~celbo.posterior.passes.evaluating`.

    Parameters
    ----------
    batches
        Batches to decode as, averaged over: a code, None, or ``(n_rows,)`` codes, one for each row.
    """
    z_rk: Tensor | None = None
    if weighting is None:
        drawn = draw_rows(cells_n, n_rows, rng)
    else:
        drawn, z_rk = importance_pool(module, loader_of, cells_n, n_rows, rng, **vars(weighting))
    index = None if columns is None else torch.from_numpy(columns).to(module.device)
    rows, start = Rows(n_rows), 0
    for tensors in on_device(loader_of(drawn), module):
        part = slice(start, start := start + size_of(tensors))
        encoded = encode(module, tensors)
        if z_rk is not None:
            encoded = {**encoded, "z": z_rk[part]}
        rows.append(_over_batches(module, tensors, encoded, outputs, [_of_rows(b, part) for b in batches], index))
    return rows.array()


def _of_rows(batch: int | np.ndarray | None, part: slice) -> int | Tensor | None:
    return torch.from_numpy(batch[part])[:, None] if isinstance(batch, np.ndarray) else batch
