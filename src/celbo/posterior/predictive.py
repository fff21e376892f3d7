"""Counts drawn from the posterior predictive distribution.

Dims: n cells, g genes, s samples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..core import optional
from ..module.base import BaseModuleClass
from ..module.predictive import drawn
from .output import EXPRESSION, Output
from .passes import Batches, Rows, decode, encode, evaluating, on_device

__all__ = ["joint_predictive_sample", "posterior_predictive_sample"]


def posterior_predictive_sample(
    module: BaseModuleClass,
    batches: Batches,
    output: Output = EXPRESSION,
    *,
    n_samples: int = 1,
    transform_batch: Sequence[int | None] = (None,),
    genes: np.ndarray | None = None,
    seed: int | None = None,
) -> Any:
    r"""Counts like those observed, :math:`\hat x_n \sim p(x \mid z_n),\; z_n \sim q(z \mid x_n)`.

    Parameters
    ----------
    module
        Its ``sample`` draws for one minibatch; with the argument ``distribution`` where it explains more than one
        thing.
    batches
        Minibatches.
    output
        Of what.
    n_samples
        Draws for each cell.
    transform_batch
        Codes of the batches to decode as; None: each cell's own. Draws of several are averaged, and are no counts then.
    genes
        Columns to give; None for all.
    seed
        See :func:`~celbo.posterior.passes.evaluating`.

    Returns
    -------
    ``sparse.GCXS`` of ``(n, g)``, or ``(n, g, s)`` for more than one draw. Only entries other than zero are kept.

    Raises
    ------
    ModuleNotFoundError
        When the package ``sparse`` is not installed.
    ValueError
        When there are no minibatches.
    """
    sparse = optional("sparse", extra="sparse", purpose="posterior_predictive_sample")
    of = {} if output.distribution == EXPRESSION.distribution else {"distribution": output.distribution}
    decode_as = [None if code is None else {"transform_batch": code} for code in transform_batch]
    coordinates: list[np.ndarray] = []
    values: list[np.ndarray] = []
    shape: tuple[int, ...] = ()
    n = 0
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            samples = [module.sample(tensors, n_samples=n_samples, generative_kwargs=one, **of) for one in decode_as]
            block = (samples[0] if len(samples) == 1 else torch.stack(samples).mean(0)).cpu().numpy()
            block = block if genes is None else block[:, genes]
            where = np.nonzero(block)
            values.append(block[where])
            coordinates.append(np.stack([where[0] + n, *where[1:]]))
            n, shape = n + len(block), block.shape[1:]
    if not values:
        raise ValueError("There are no cells to draw for: `indices` (or the dataloader) is empty.")
    counts = sparse.COO(np.concatenate(coordinates, 1), np.concatenate(values), (n, *shape), has_duplicates=False)
    return sparse.GCXS(counts)


def joint_predictive_sample(
    module: BaseModuleClass, batches: Batches, outputs: Sequence[Output], *, n_samples: int = 1, seed: int | None = None
) -> list[np.ndarray]:
    """Data of several outputs like those observed, of the same draws of the latents; all else as above.

    Parameters
    ----------
    module, batches, n_samples, seed
        See :func:`posterior_predictive_sample`.
    outputs
        Of what.

    Returns
    -------
    Of each output ``(n, g)``, or ``(n, g, s)`` for more than one draw, dense.
    """
    rows = [Rows(None) for _ in outputs]
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            decoded = decode(module, tensors, encode(module, tensors, n_samples))
            for part, output in zip(rows, outputs, strict=True):
                part.append(drawn(decoded[output.distribution], n_samples))
    return [part.array() for part in rows]
