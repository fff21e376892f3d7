r"""Inverse dispersion :math:`\theta` that is a parameter of the module, kept as its logarithm.

Dims: n cells, g genes, b batches, c classes.
"""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["dispersion_shape", "log_theta_of"]


def dispersion_shape(dispersion: str, n_genes: int, n_batch: int, n_labels: int) -> tuple[int, ...]:
    """Shape of the parameter ``px_r``: ``(g,)``, ``(g, b)`` for ``"gene-batch"`` or ``(g, c)`` for ``"gene-label"``.

    Raises
    ------
    ValueError
        A dispersion per batch or label without batches or labels.
    """
    if dispersion == "gene":
        return (n_genes,)
    n_groups, argument = (n_batch, "n_batch") if dispersion == "gene-batch" else (n_labels, "n_labels")
    if n_groups < 1:
        raise ValueError(f"dispersion={dispersion!r} needs {argument} of at least 1, got {n_groups}.")
    return (n_genes, n_groups)


def log_theta_of(px_r: Tensor, dispersion: str, batch_index: Tensor, y: Tensor | None) -> Tensor:
    """Log inverse dispersion: ``px_r`` itself, ``(g,)``, or that of each cell's batch or label, ``(n, g)``.

    Raises
    ------
    ValueError
        ``dispersion="gene-label"`` without labels.
    """
    if dispersion == "gene":
        return px_r
    codes = batch_index if dispersion == "gene-batch" else y
    if codes is None:
        raise ValueError('generative() needs `y`, because the module was built with dispersion="gene-label".')
    return F.embedding(codes.squeeze(-1), px_r.t())
