r"""Correlation of genes in denoised data.

.. math:: w_{ng} \sim \mathrm{Gamma}(\theta_g, \theta_g / (\ell\,\rho_{ng})), \qquad
          \rho_n = \rho(z_n),\; z_n \sim q(z \mid x_n)

that is, the Poisson rate that the negative binomial has inside, at a library :math:`\ell` common to all cells: counting
noise and depth are left out, over-dispersion is kept.

Dims: n cells, g genes, s samples, r = n s rows.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Gamma

from ..core import unknown_name
from ..distributions import NegativeBinomial, NegativeBinomialMixture, Poisson
from ..module.base import BaseModuleClass
from ..ops.draws import sample
from .output import EXPRESSION, Output
from .passes import Batches, Rows, decode, encode, evaluating, on_device, sample_passes

__all__ = ["feature_correlation", "pearson", "spearman"]

_GENES = 256
"""Columns ranked at once."""


def feature_correlation(
    module: BaseModuleClass,
    batches: Batches,
    *,
    outputs: Sequence[Output] = (EXPRESSION,),
    transform_batch: Sequence[int | None] = (None,),
    n_samples: int = 10,
    library_size: float = 1000,
    kind: Literal["spearman", "pearson"] = "spearman",
    log_transform: bool = False,
    n_cells: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    r"""Correlation matrix of genes in denoised data, averaged over the batches that cells are decoded as.

    Parameters
    ----------
    module
        The module.
    batches
        Minibatches; read once for each entry of ``transform_batch``.
    outputs
        What is correlated, all features with all. Their distributions are negative binomials, zero-inflated or not
        (added zeros are left out), mixtures of two, of which one is drawn, or Poisson.
    transform_batch
        Codes of the batches; None: each cell's own.
    n_samples
        Draws for each cell.
    library_size
        Library of all cells, of those that have one; mixtures do not.
    kind
        ``"pearson"`` needs one pass and ``(g, g)`` memory; ``"spearman"`` needs ranks, so all ``(r, g)`` draws in
        float32.
    log_transform
        Correlate :math:`\\log(1 + w)`.
    n_cells, seed
        See :func:`~celbo.posterior.latent_representation`.

    Returns
    -------
    ``(g, g)`` float64. A gene that does not vary has NaN.

    Raises
    ------
    ValueError
        Unknown ``kind``.
    NotImplementedError
        Another distribution.
    """
    if kind not in ("spearman", "pearson"):
        raise ValueError(unknown_name("correlation_type", kind, ("spearman", "pearson")))
    total = None
    n_rows = None if n_cells is None else n_cells * n_samples
    with evaluating(module, seed):
        for code in transform_batch:
            blocks_rg = _denoised(module, batches, outputs, code, n_samples, library_size)
            blocks_rg = map(np.log1p, blocks_rg) if log_transform else blocks_rg
            matrix_gg = pearson(blocks_rg) if kind == "pearson" else spearman(blocks_rg, n_rows)
            total = matrix_gg if total is None else total + matrix_gg
    if total is None:
        raise ValueError("No batch to decode as: pass None for the observed batches.")
    return total / len(transform_batch)


def _denoised(
    module: BaseModuleClass,
    batches: Batches,
    outputs: Sequence[Output],
    code: int | None,
    n_samples: int,
    library_size: float,
) -> Iterator[np.ndarray]:
    """Blocks of denoised draws, ``(r, g)``."""
    for tensors in on_device(batches, module):
        for encoded in sample_passes(encode(module, tensors, n_samples), n_samples, tensors):
            decoded = decode(module, tensors, encoded, code)
            rates = [_draw_rate(decoded[output.distribution], library_size) for output in outputs]
            rate = rates[0] if len(rates) == 1 else torch.cat(rates, dim=-1)
            yield rate.reshape(-1, rate.shape[-1]).cpu().numpy()


def _draw_rate(px: Distribution, library_size: float) -> Tensor:
    if isinstance(px, NegativeBinomial):
        return _gamma(*torch.broadcast_tensors(px.scale * library_size, px.theta))
    if isinstance(px, NegativeBinomialMixture):
        is_first = sample(Bernoulli(px.mixture_probs, validate_args=False)).bool()
        return _gamma(torch.where(is_first, px.mu1, px.mu2), torch.where(is_first, px.theta1, px.theta2))
    if isinstance(px, Poisson):
        return px.scale * library_size
    raise NotImplementedError(
        "Denoised draws are known for NegativeBinomial, ZeroInflatedNegativeBinomial, NegativeBinomialMixture and "
        f"Poisson, not {type(px).__name__}."
    )


def _gamma(mean: Tensor, theta: Tensor) -> Tensor:
    return sample(Gamma(theta, theta / mean, validate_args=False))


def pearson(blocks_rg: Iterator[np.ndarray]) -> np.ndarray:
    """Pearson correlation of columns in one pass over blocks of rows, ``(g, g)`` float64.

    Sums are taken around the first block's mean, which keeps their digits.

    Raises
    ------
    ValueError
        There are no blocks.
    """
    first = next(blocks_rg, None)
    if first is None:
        raise ValueError("There are no cells to correlate genes over.")
    shift_g = first.mean(0, dtype=np.float64)
    n, sum_g, product_gg = 0, np.zeros_like(shift_g), np.zeros((len(shift_g), len(shift_g)))
    for block_rg in (block for part in ([first], blocks_rg) for block in part):
        centred_rg = block_rg - shift_g
        n += len(centred_rg)
        sum_g += centred_rg.sum(0)
        product_gg += centred_rg.T @ centred_rg
    return _from_covariance(product_gg - np.outer(sum_g, sum_g) / n)


def spearman(blocks_rg: Iterator[np.ndarray], n_rows: int | None = None) -> np.ndarray:
    """Spearman correlation of columns, ``(g, g)`` float64; ties get their mean rank. ``n_rows`` rows come, if known."""
    from scipy.stats import rankdata  # a third of a second that only this answer needs

    rows = Rows(n_rows)
    for block_rg in blocks_rg:
        rows.append(block_rg)
    ranks_rg = rows.array()  # ranks take the place of the values, column by column
    middle = (len(ranks_rg) + 1) / 2
    for start in range(0, ranks_rg.shape[1], _GENES):
        columns = slice(start, start + _GENES)
        ranks_rg[:, columns] = rankdata(ranks_rg[:, columns], axis=0) - middle
    return pearson(iter(np.array_split(ranks_rg, max(1, len(ranks_rg) // 1024))))


def _from_covariance(covariance_gg: np.ndarray) -> np.ndarray:
    deviation_g = np.sqrt(np.diag(covariance_gg))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation_gg = covariance_gg / np.outer(deviation_g, deviation_g)
    np.fill_diagonal(correlation_gg, np.where(deviation_g > 0, 1.0, np.nan))
    return correlation_gg.clip(-1, 1)
