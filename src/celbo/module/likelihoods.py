r"""Likelihoods of counts: their options by name, their dispersions, and the distribution of a decoder's logits.

With the softmax the logits are handed on, so that the sum over genes takes the fused path (:mod:`celbo.ops`); with
another activation the mean is worked out here.

Dims: n cells, g genes, s samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import NegativeBinomial, Normal, Poisson, ZeroInflatedNegativeBinomial
from ..distributions.base import CountDistribution

__all__ = [
    "LIKELIHOODS",
    "BatchRepresentation",
    "CountLikelihood",
    "Dispersion",
    "GeneLikelihood",
    "LatentDistribution",
    "Placement",
    "ProteinDispersion",
    "as_of_genes",
    "dispersion_shape",
    "log_likelihood",
    "log_theta_by_moments",
    "log_theta_of",
    "measured_table",
    "norms",
    "start_genes",
    "two_levels",
]

Dispersion = Literal["gene", "gene-batch", "gene-label", "gene-cell"]
GeneLikelihood = Literal["zinb", "nb", "poisson", "normal"]
ProteinDispersion = Literal["protein", "protein-batch", "protein-label"]
LatentDistribution = Literal["normal", "ln"]
BatchRepresentation = Literal["one-hot", "embedding"]
Placement = Literal["encoder", "decoder", "none", "both"]


def norms(where: Literal["encoder", "decoder"], use_batch_norm: Placement, use_layer_norm: Placement) -> dict[str, Any]:
    """Which normalizations a network has, as arguments of its layers.

    Parameters
    ----------
    where
        Which network.
    use_batch_norm, use_layer_norm
        Where each of the two is wanted.
    """
    wanted = (where, "both")
    return {"use_batch_norm": use_batch_norm in wanted, "use_layer_norm": use_layer_norm in wanted}


Build = Callable[..., Distribution]


@dataclass(frozen=True)
class CountLikelihood:
    """How one likelihood is made.

    Attributes
    ----------
    from_logits
        Takes ``scale_logits``, ``log_library``, ``log_theta``, ``zi_logits``; None where the family has no fused form.
    from_rate
        Takes ``rate``, ``scale``, ``log_theta``, ``zi_logits``.
    zero_inflated
        Whether it looks at ``zi_logits``.
    """

    from_logits: Build | None
    from_rate: Build
    zero_inflated: bool = False

    def __call__(
        self,
        scale_logits: Tensor,
        log_library: Tensor,
        log_theta: Tensor,
        zi_logits: Tensor | Callable[[], Tensor] | None,
        activation: Callable[[Tensor], Tensor],
        is_softmax: bool,
    ) -> Distribution:
        r"""Distribution of mean :math:`\ell\,f(\text{scale\_logits})`.

        Parameters
        ----------
        scale_logits
            ``(n, g)`` or ``(s, n, g)``.
        log_library
            Natural log of library or size factor, ``(n, 1)`` or ``(s, n, 1)``; ``-inf`` for an empty cell.
        log_theta
            Natural log of the inverse dispersion (of the standard deviation for the normal), ``(g,)`` or ``(n, g)``.
        zi_logits
            Logits of an added zero, as ``scale_logits``, or what computes them; None where not looked at.
        activation, is_softmax
            The function :math:`f`, and whether it is the softmax over genes.
        """
        if is_softmax and self.from_logits is not None:
            return self.from_logits(scale_logits, log_library, log_theta, zi_logits)
        scale = activation(scale_logits)
        return self.from_rate(
            log_library.exp() * scale, scale, log_theta, zi_logits() if callable(zi_logits) else zi_logits
        )


LIKELIHOODS: Mapping[str, CountLikelihood] = {
    "zinb": CountLikelihood(
        from_logits=ZeroInflatedNegativeBinomial.from_logits,
        from_rate=lambda rate, scale, log_theta, zi_logits: ZeroInflatedNegativeBinomial(
            mu=rate, theta=log_theta.exp(), zi_logits=zi_logits, scale=scale
        ),
        zero_inflated=True,
    ),
    "nb": CountLikelihood(
        from_logits=lambda scale_logits, log_library, log_theta, _: NegativeBinomial.from_logits(
            scale_logits, log_library, log_theta
        ),
        from_rate=lambda rate, scale, log_theta, _: NegativeBinomial(mu=rate, theta=log_theta.exp(), scale=scale),
    ),
    "poisson": CountLikelihood(
        from_logits=lambda scale_logits, log_library, *_: Poisson.from_logits(scale_logits, log_library),
        from_rate=lambda rate, scale, *_: Poisson(rate, scale=scale, validate_args=False),
    ),
    "normal": CountLikelihood(
        from_logits=None,
        from_rate=lambda rate, scale, log_theta, _: Normal(rate, log_theta.exp(), normal_mu=scale, validate_args=False),
    ),
}
"""The likelihoods that ``gene_likelihood`` names."""


def log_likelihood(px: Distribution, x: Tensor) -> Tensor:
    """Log-likelihood of each cell in nats, summed over genes: ``(n,)`` or ``(s, n)``."""
    return px.log_prob_sum(x) if isinstance(px, CountDistribution) else px.log_prob(x).sum(-1)


_MOST = 3.0
"""Largest size of a log inverse dispersion to begin with: beyond, counts are next to Poisson or next to nothing."""

_CELLS_OF_LEVELS, _ROUNDS, _LEAST_SPREAD = 1000, 100, 1e-3
_LEAST_LEVEL = 0.1
_GENES_AT_ONCE = 64
"""Columns whose moments are taken together: tables in float64 stay small, and no column's sum changes."""


def as_of_genes(protein_dispersion: str) -> str:
    """The dispersion of genes whose parameter has the same layout."""
    return protein_dispersion.replace("protein", "gene")


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


def log_theta_of(px_r: Tensor, dispersion: str, batch_index: Tensor | None, y: Tensor | None) -> Tensor:
    """Log inverse dispersion: ``px_r`` itself, ``(g,)``, or that of each cell's batch or label, ``(n, g)``.

    Raises
    ------
    ValueError
        A dispersion per batch or label without the codes of the cells.
    """
    if dispersion == "gene":
        return px_r
    codes, argument = (batch_index, "batch_index") if dispersion == "gene-batch" else (y, "y")
    if codes is None:
        raise ValueError(
            f'generative() needs `{argument}`, because the module was built with dispersion="{dispersion}".'
        )
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
    n_cells, n_genes = x.shape
    total_n1, total_g = _totals(x)
    share_g = (n_cells * total_g / total_g.sum() + 1 / n_genes) / (n_cells + 1)  # a cell of equal counts more
    signal_g, excess_g = torch.empty_like(total_g), torch.empty_like(total_g)
    for start in range(0, n_genes, _GENES_AT_ONCE):
        block = slice(start, start + _GENES_AT_ONCE)
        mu_ng = total_n1 * share_g[block]
        signal_g[block] = mu_ng.square().sum(0)
        excess_g[block] = ((x[:, block].double() - mu_ng).square() - mu_ng).sum(0).clamp(min=0)
    overdispersed_g = excess_g > 0
    if not overdispersed_g.any():
        return torch.full((n_genes,), _MOST)
    usual = (signal_g[overdispersed_g] / excess_g[overdispersed_g]).median()
    theta_g = (signal_g + n_cells) / (excess_g + n_cells / usual)
    return theta_g.log().clamp(-_MOST, _MOST).float()


def log_levels(x: Tensor) -> Tensor:
    """Log shares of the genes in all counts ``(n, g)``, with a tenth of the mean gene's added to each: ``(g,)``.

    Cells to come have genes that those seen lack. A constant is added, so that the mean is 0.
    """
    total_g = _totals(x)[1]
    level_g = (total_g + _LEAST_LEVEL * total_g.mean()).log()
    return (level_g - level_g.mean()).float()


def two_levels(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper level of each protein's counts: log counts as a mixture of two normal distributions, by EM.

    Parameters
    ----------
    counts
        Counts, ``(n, p)``; NaN where not measured. Of many cells some are looked at.

    Returns
    -------
    Both levels, as counts, and the share of cells nearer to the upper one, ``(p,)`` each; NaN without any cell.
    """
    counts = counts[:: max(1, len(counts) // _CELLS_OF_LEVELS)]
    is_measured = ~counts.isnan()
    log_np, n_p = counts.nan_to_num().log1p(), is_measured.sum(0)
    ends = log_np.where(is_measured, torch.inf).amin(0), log_np.where(is_measured, -torch.inf).amax(0)
    mean_2p, share_2p = torch.stack(ends), torch.full((2, len(n_p)), 0.5)
    spread_2p = ((ends[1] - ends[0]) / 4).clamp(min=_LEAST_SPREAD).expand(2, -1)
    for _ in range(_ROUNDS):
        distance_2np = (log_np - mean_2p[:, None]) / spread_2p[:, None]
        weight_2np = ((share_2p / spread_2p).log()[:, None] - distance_2np.square() / 2).softmax(0) * is_measured
        total_2p = weight_2np.sum(1).clamp(min=1e-9)
        mean_2p = (weight_2np * log_np).sum(1) / total_2p
        spread_2p = (weight_2np * (log_np - mean_2p[:, None]).square()).sum(1) / total_2p
        spread_2p, share_2p = spread_2p.sqrt().clamp(min=_LEAST_SPREAD), (total_2p / n_p).clamp(min=1e-6)
    low_p, high_p = mean_2p.amin(0), mean_2p.amax(0)
    is_high = is_measured & (log_np > (low_p + high_p) / 2)
    unknown_p = torch.where(n_p > 0, 0.0, torch.nan)
    return low_p.expm1() + unknown_p, high_p.expm1() + unknown_p, is_high.sum(0) / n_p


def start_genes(x: Tensor, px_r: Tensor | None, profile: Tensor | None) -> bool:
    """Let dispersions and levels of genes be those of counts: from random ones the way is longer than all the rest.

    Parameters
    ----------
    x
        Counts, ``(n, g)``.
    px_r
        Log inverse dispersions, ``(g,)`` or ``(g, b)``: of batches or labels, all begin alike. None: there are none.
    profile
        Bias ``(g,)`` of a decoder whose scales are shares; None: it has none.

    Returns
    -------
    Whether there are counts.
    """
    if not 0 < x.sum() < float("inf"):
        return False
    with torch.no_grad():
        if px_r is not None:
            px_r.t().copy_(log_theta_by_moments(x))
        if profile is not None:
            profile.copy_(log_levels(x))
    return True


def _totals(x: Tensor) -> tuple[Tensor, Tensor]:
    """Totals of the cells ``(n, 1)`` and of the genes ``(g,)`` in float64, which is not made of the whole table."""
    total_n1, total_g = x.new_zeros(len(x), 1, dtype=torch.float64), []
    for part in x.split(_GENES_AT_ONCE, dim=1):
        of_block = part.double()
        total_n1 += of_block.sum(1, keepdim=True)
        total_g.append(of_block.sum(0))
    return total_n1, torch.cat(total_g)


def measured_table(masks: Mapping[str, Any] | None, n_panel: int) -> Tensor | None:
    """Table ``(b, p)`` of the proteins that each panel has, 1 or 0; of a panel that no mask is of, all.

    A mask ``(1, p)`` is taken as ``(p,)``: so scvi-tools saves those of sparse counts.
    """
    known = {int(code): torch.as_tensor(mask, dtype=torch.float32).ravel() for code, mask in (masks or {}).items()}
    if not known:
        return None
    every = torch.ones_like(next(iter(known.values())))
    return torch.stack([known.get(code, every) for code in range(n_panel)])
