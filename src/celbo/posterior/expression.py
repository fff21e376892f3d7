r"""Denoised expression: what the decoder expects of each gene in each cell, batch by batch if asked.

.. math:: \ell\,\rho_{ng}, \qquad \rho_n = \mathrm{softmax}(f(z_n, b)), \quad z_n \sim q(z \mid x_n)

Cells are encoded once, whatever the number of batches they are decoded as. Genes are picked after the softmax, which
needs all of them: a gene list saves memory and copying, not the last layer.

Dims: n cells, g genes, k drawn rows, s samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from ..core import checked
from ..module.base import BaseModuleClass
from .importance import importance_pool
from .passes import Batches, LoaderOf, Minibatch, Rows, decode, encode, evaluating, on_device, sample_passes, size_of

__all__ = [
    "Weighting",
    "draw_rows",
    "expression_blocks",
    "expression_rows",
    "normalized_expression",
    "sampled_expression",
]

Library = float | Literal["latent"]


@checked
@dataclass(frozen=True)
class Weighting:
    """Importance weights of posterior samples; arguments of :func:`~celbo.posterior.importance_weights`."""

    max_cells: int = 1024
    truncation: bool = False
    n_mc_samples: int = 500
    n_mc_samples_per_pass: int = 250


def normalized_expression(
    module: BaseModuleClass,
    batches: Batches,
    *,
    transform_batch: Sequence[int | None] = (None,),
    genes: np.ndarray | None = None,
    library_size: Library = 1,
    n_samples: int = 1,
    return_mean: bool = True,
    n_cells: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """Denoised expression of every cell.

    Parameters
    ----------
    module
        Its ``generative`` gives ``px``, a distribution of :mod:`celbo.distributions`.
    batches
        Minibatches.
    transform_batch
        Codes of the batches to decode as, averaged over; None among them: each cell's own.
    genes
        Columns to give, in this order; None for all.
    library_size
        What a cell's expression sums to over all genes, or ``"latent"``: the library the model has for the cell.
    n_samples
        Draws of the latents for each cell.
    return_mean
        Average over the draws.
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
    options = (transform_batch, genes, library_size, n_samples, return_mean, seed)
    for block in expression_blocks(module, batches, *options):
        rows.append(block)
    return rows.array()


def expression_blocks(
    module: BaseModuleClass,
    batches: Batches,
    transform_batch: Sequence[int | None] = (None,),
    genes: np.ndarray | None = None,
    library_size: Library = 1,
    n_samples: int = 1,
    return_mean: bool = True,
    seed: int | None = None,
) -> Iterator[Tensor | np.ndarray]:
    """As :func:`normalized_expression`, minibatch by minibatch, ``(n, g)`` or ``(s, n, g)``: for what is not kept."""
    average = return_mean or n_samples == 1
    with evaluating(module, seed):
        index = None if genes is None else torch.from_numpy(genes).to(module.device)
        for tensors in on_device(batches, module):
            n = size_of(tensors)
            draws = Rows(n_samples)
            total_ng: Any = 0
            for encoded in sample_passes(encode(module, tensors, n_samples), n_samples, tensors):
                values_sng = _over_batches(module, tensors, encoded, transform_batch, index, library_size)
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
    batches: Sequence[int | Tensor | None],
    genes: Tensor | None,
    library_size: Library,
) -> Tensor:
    """Expression of an encoded minibatch averaged over the batches it is decoded as, ``(..., n, g)``."""
    first, *others = batches
    total = _values(decode(module, tensors, encoded, first)["px"], genes, library_size)
    for batch in others:
        total = total + _values(decode(module, tensors, encoded, batch)["px"], genes, library_size)
    return total / len(batches) if others else total


def _values(px: Distribution, genes: Tensor | None, library_size: Library) -> Tensor:
    values = px.get_normalized("mu" if library_size == "latent" else "scale")  # type: ignore[attr-defined]
    if values is None:
        raise NotImplementedError(
            f"{type(px).__name__} was made without a normalized scale: use library_size='latent'."
        )
    values = values if genes is None else values[..., genes]
    return values if library_size in ("latent", 1) else values * library_size


def draw_rows(cells_n: np.ndarray, n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """``(n_rows,)`` cells drawn from ``cells_n`` with replacement."""
    if not len(cells_n):
        raise ValueError("There are no cells to draw from.")
    return cells_n[rng.integers(len(cells_n), size=n_rows)]


def sampled_expression(
    module: BaseModuleClass,
    loader_of: LoaderOf,
    cells_n: np.ndarray,
    n_rows: int,
    *,
    transform_batch: Sequence[int | None] = (None,),
    genes: np.ndarray | None = None,
    library_size: Library = 1,
    weighting: Weighting | None = None,
    seed: int | None = None,
) -> np.ndarray:
    r"""Draws of expression from a group of cells, :math:`\rho(z),\; z \sim \tfrac{1}{N} \sum_n q(z \mid x_n)`.

    Cells are drawn first, so that ``n_rows`` rows are encoded and decoded, however many cells there are.

    Parameters
    ----------
    module, transform_batch, genes, library_size, seed
        See :func:`normalized_expression`.
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
        return expression_rows(
            module, loader_of, cells_n, n_rows, rng, list(transform_batch), genes, library_size, weighting
        )


def expression_rows(
    module: BaseModuleClass,
    loader_of: LoaderOf,
    cells_n: np.ndarray,
    n_rows: int,
    rng: np.random.Generator,
    batches: Sequence[int | np.ndarray | None],
    genes: np.ndarray | None = None,
    library_size: Library = 1,
    weighting: Weighting | None = None,
) -> np.ndarray:
    """As :func:`sampled_expression`, inside :func:`~celbo.posterior.passes.evaluating`.

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
    index = None if genes is None else torch.from_numpy(genes).to(module.device)
    rows, start = Rows(n_rows), 0
    for tensors in on_device(loader_of(drawn), module):
        part = slice(start, start := start + size_of(tensors))
        encoded = encode(module, tensors)
        if z_rk is not None:
            encoded = {**encoded, "z": z_rk[part]}
        rows.append(_over_batches(module, tensors, encoded, [_of_rows(b, part) for b in batches], index, library_size))
    return rows.array()


def _of_rows(batch: int | np.ndarray | None, part: slice) -> int | Tensor | None:
    return torch.from_numpy(batch[part])[:, None] if isinstance(batch, np.ndarray) else batch
