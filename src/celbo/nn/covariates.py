r"""Where covariates enter a layer: the one place.

A linear layer that sees one-hot covariates computes

.. math:: y = W\,[x,\, u,\, e_{c_1},\, e_{c_2},\, \dots]^\top + b
            = W_{xu}\,[x, u]^\top + W_{:, c_1} + W_{:, c_2} + \dots + b,

since a product with a one-hot vector is a column. Here the columns are gathered: no matrix of zeros is built and
multiplied, and the weight (so the ``state_dict``) is that of the one-hot layer.

Dims: n cells, i inputs, h outputs, c categories, s samples.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.linear import linear

__all__ = ["append_columns", "covariate_widths", "linear_with_covariates", "with_covariates"]


def covariate_widths(n_cat_list: Iterable[int] | None) -> list[int]:
    """Columns that each categorical covariate takes: its number of categories, 0 where there is only one."""
    return [n_cat if n_cat > 1 else 0 for n_cat in n_cat_list or []]


def append_columns(x: Tensor, *columns: Tensor) -> Tensor:
    """Concatenate along the last dimension, repeating each of ``columns`` over the leading dimensions of ``x``.

    Parameters
    ----------
    x
        ``(n, i)`` or ``(s, n, i)``.
    *columns
        ``(n, k)``, or with the leading dimensions of ``x``.

    Returns
    -------
    ``(..., n, i + k + ...)``; ``x`` itself where there is nothing to append.
    """
    if not columns:
        return x
    return torch.cat([x, *(block.expand(*x.shape[:-1], block.shape[-1]) for block in columns)], dim=-1)


def with_covariates(
    x: Tensor, batch_index: Tensor, cont_covs: Tensor | None = None, cat_covs: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """What a network sees: continuous covariates as columns of its input, the batch and categories as codes.

    Parameters
    ----------
    x
        Input, ``(n, i)`` or ``(s, n, i)``; a CSR tensor stays one where there is nothing to append.
    batch_index
        Codes, ``(n, 1)``.
    cont_covs, cat_covs
        Continuous covariates and codes of the categorical ones, ``(n, k)`` each.

    Returns
    -------
    Input with its columns, and codes ``(n, 1)`` of the batch and of each category.
    """
    codes = [batch_index, *(() if cat_covs is None else cat_covs.split(1, dim=-1))]
    return (x, codes) if cont_covs is None else (append_columns(x.to_dense(), cont_covs), codes)


def linear_with_covariates(
    x: Tensor, weight: Tensor, bias: Tensor | None, widths: Sequence[int], cat_list: Sequence[Tensor | None]
) -> Tensor:
    """Linear layer of ``x`` and one-hot covariates.

    Parameters
    ----------
    x
        Dense input, ``(n, i)`` or ``(s, n, i)``, continuous covariates included.
    weight
        ``(h, i + sum(widths))``: columns of ``x``, then those of each covariate.
    bias
        ``(h,)`` or None.
    widths
        Columns of each covariate, see :func:`covariate_widths`. 0: it is not looked at.
    cat_list
        For each covariate its codes, ``(n, 1)`` or ``(n,)`` integers below its width, or one row of weights a cell,
        ``(n, width)`` (a soft assignment; one-hot rows are a special case).

    Returns
    -------
    ``(n, h)`` or ``(s, n, h)``.

    Raises
    ------
    ValueError
        Fewer covariates than widths, or None where one is needed.
    IndexError
        A code that is not below the width (on a GPU this is a device-side assertion).
    """
    if len(cat_list) < len(widths):
        raise ValueError(
            f"This layer was built for {len(widths)} categorical covariates and got {len(cat_list)}: "
            "give the codes of each, in the order of n_cat_list."
        )
    needed = [position for position, width in enumerate(widths) if width]
    if not needed:
        return linear(x, weight, bias)
    dense, *blocks = weight.split([weight.shape[1] - sum(widths), *(widths[position] for position in needed)], dim=1)
    y = linear(x, dense, bias)
    for position, block in zip(needed, blocks, strict=True):
        y = y + _columns_of(block, cat_list[position], position)
    return y


def _columns_of(block: Tensor, codes: Tensor | None, position: int) -> Tensor:
    """Columns of ``block`` ``(h, c)`` that the cells' codes name, as rows, ``(n, h)``."""
    if codes is None:
        raise ValueError(
            f"Categorical covariate {position} has {block.shape[1]} categories, but None was given for it."
        )
    if codes.dim() > 1 and codes.shape[-1] == block.shape[1]:
        return F.linear(codes.to(block.dtype), block)
    try:
        return F.embedding(codes.squeeze(-1) if codes.dim() > 1 else codes, block.t())
    except IndexError as error:
        raise IndexError(
            f"Categorical covariate {position} has codes from {int(codes.min())} to {int(codes.max())}; "
            f"this layer was built for {block.shape[1]} categories, codes 0 to {block.shape[1] - 1}."
        ) from error
