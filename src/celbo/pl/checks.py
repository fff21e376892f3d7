"""Does a model fit its data, and does it use its latent space?"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from anndata import AnnData

from ..core import checked
from ..model.base import BaseModelClass
from ..report.figures import draw_agreement, draw_dimensions
from ..report.fit import gene_fit, kl_to_standard_normal
from ..report.models import row_of
from ..report.summary import ACTIVE_VARIANCE
from .canvas import AXES, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["latent_dimensions", "predictive"]

Statistic = Literal["mean", "variance", "zeros"]

_TITLES: dict[str, str] = {
    "mean": "mean count of a gene",
    "variance": "variance of the counts of a gene",
    "zeros": "share of cells without a count of a gene",
}


@checked
def predictive(
    model: BaseModelClass, statistic: Statistic = "mean", *, seed: int = 0, ax: Annotated[Any, AXES] = None
) -> "Axes":
    """Draw what a model simulates beside what was observed, gene by gene: a posterior predictive check.

    Parameters
    ----------
    model
        A trained model of counts, with its data.
    statistic
        ``"mean"`` or ``"variance"`` of a gene's counts, on logarithmic axes, or the share of its ``"zeros"``.
    seed
        Of the cells, at most 4,000, and of the counts simulated for them.
    ax
        Matplotlib Axes to draw on; None: of a new figure.

    Returns
    -------
    The Axes: a point for each gene, observed to the right, simulated upwards, and the line where both agree. Genes of 0
    are left out of logarithmic axes.

    Raises
    ------
    ValueError
        For a model that simulates no counts.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.simulate_counts(n_cells=200, n_genes=100, seed=0)
    >>> celbo.model.SCVI.setup_anndata(adata)
    >>> model = celbo.model.SCVI(adata)
    >>> model.train(max_epochs=3, verbose=0, seed=0)
    >>> celbo.pl.predictive(model, "zeros").get_xlabel()
    'observed: share of cells without a count of a gene'
    """
    if not row_of(model).draws_counts:
        raise ValueError(f"{type(model).__name__} simulates no counts that could be compared with those observed.")
    _data_of(model)
    model._check_if_trained(warn=False)
    fit = gene_fit(model, np.random.default_rng(seed), seed)
    observed_g, predicted_g = {
        "mean": (fit.mean_observed_g, fit.mean_predicted_g),
        "variance": (fit.variance_observed_g, fit.variance_predicted_g),
        "zeros": (fit.zeros_observed_g, fit.zeros_predicted_g),
    }[statistic]
    ax = canvas(ax, f"observed: {_TITLES[statistic]}", "simulated", width=4.2, height=4.0)
    shown_g = (observed_g > 0) & (predicted_g > 0) | (statistic == "zeros")
    draw_agreement(ax, observed_g[shown_g], predicted_g[shown_g])
    if statistic != "zeros" and shown_g.any():
        ax.set_xscale("log")
        ax.set_yscale("log")
    return ax


def _data_of(model: BaseModelClass) -> AnnData:
    if model.adata is None:
        raise ValueError(f"This {type(model).__name__} was loaded without data: set model.adata first.")
    return model.adata


@checked
def latent_dimensions(model: BaseModelClass, *, ax: Annotated[Any, AXES] = None) -> "Axes":
    """Draw how much each latent dimension says: its KL divergence from N(0, 1), the prior in most models.

    Parameters
    ----------
    model
        A trained model with a normal posterior of the latents, with its data.
    ax
        Matplotlib Axes to draw on; None: of a new figure.

    Returns
    -------
    The Axes: a bar for each dimension, largest first, in nats per cell. Dimensions whose posterior means vary from cell
    to cell by less than 0.01 in variance are grey and hatched: they carry nothing.

    Raises
    ------
    ValueError
        For a model without such latents.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.simulate_counts(n_cells=200, n_genes=100, seed=0)
    >>> celbo.model.SCVI.setup_anndata(adata)
    >>> model = celbo.model.SCVI(adata)
    >>> model.train(max_epochs=3, verbose=0, seed=0)
    >>> len(celbo.pl.latent_dimensions(model).get_xticks())
    10
    """
    latents = row_of(model).latents
    model._check_if_trained(warn=False)
    mean_nk, variance_nk = (None, None) if latents is None else latents(model, np.arange(_data_of(model).n_obs))
    if mean_nk is None or variance_nk is None:
        raise ValueError(f"{type(model).__name__} has no normal posterior of latents.")
    is_active_k = np.var(mean_nk, axis=0, dtype=np.float64) > ACTIVE_VARIANCE
    ax = canvas(ax, "latent dimension", "KL divergence (nats per cell)", height=2.8)
    draw_dimensions(ax, kl_to_standard_normal(mean_nk, variance_nk), is_active_k)
    if not is_active_k.all():
        ax.legend(frameon=False, fontsize="small")
    return ax
