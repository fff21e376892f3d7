r"""Inverse dispersion :math:`\theta` that is a parameter of the module, kept as its logarithm.

Dims: n cells, g genes, b batches, c classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["dispersion_shape", "log_theta_by_moments", "log_theta_of"]

_MOST = 3.0
"""Largest size of a log inverse dispersion to begin with: beyond, counts are next to Poisson or next to nothing."""


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


def log_theta_by_moments(x: Tensor) -> Tensor:
    r"""Log inverse dispersion of each gene if all cells were alike but for their totals.

    .. math:: \theta_g = \frac{\sum_n \mu_{ng}^2 + n}{[\sum_n (x_{ng} - \mu_{ng})^2 - \mu_{ng}]_+ + n / \theta_0},
        \qquad \mu_{ng} = \ell_n \rho_g

    with :math:`\theta_0` the median gene's. The added :math:`n` are cells of one count each: genes of fewer counts,
    which say nothing about their dispersion, take the median's.

    Parameters
    ----------
    x
        Counts, ``(n, g)``.

    Returns
    -------
    ``(g,)``, between -3 and 3.
    """
    x_ng = x.double()
    n_cells, n_genes = x_ng.shape
    share_g = (n_cells * x_ng.sum(0) / x_ng.sum() + 1 / n_genes) / (n_cells + 1)  # a cell of equal counts more
    mu_ng = x_ng.sum(1, keepdim=True) * share_g
    signal_g, excess_g = mu_ng.square().sum(0), ((x_ng - mu_ng).square() - mu_ng).sum(0).clamp(min=0)
    overdispersed_g = excess_g > 0
    if not overdispersed_g.any():
        return torch.full((n_genes,), _MOST)
    usual = (signal_g[overdispersed_g] / excess_g[overdispersed_g]).median()
    theta_g = (signal_g + n_cells) / (excess_g + n_cells / usual)
    return theta_g.log().clamp(-_MOST, _MOST).float()
