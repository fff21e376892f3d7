"""How a training went."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd

from ..core import checked
from ..model.base import BaseModelClass
from ..report.figures import MUTED, TRAIN, VALIDATION
from ..train.history import epoch_table
from .canvas import AXES, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["history"]

Metric = Literal["elbo", "loss", "reconstruction_loss", "kl_local"]

_NAMES: dict[str, tuple[str, str, str]] = {
    "elbo": ("elbo_train", "elbo_validation", "negative ELBO (nats per cell)"),
    "loss": ("train_loss", "validation_loss", "loss"),
    "reconstruction_loss": (
        "reconstruction_loss_train",
        "reconstruction_loss_validation",
        "reconstruction error (nats per cell)",
    ),
    "kl_local": ("kl_local_train", "kl_local_validation", "KL of the cells' latents (nats per cell)"),
}
"""Metric -> its names in the history, of training and of validation; name of the axis."""


@checked
def history(model: BaseModelClass, metric: Metric = "elbo", *, ax: Annotated[Any, AXES] = None) -> "Axes":
    """Draw a metric of training and of validation by epoch, its best epoch, and the weight of the KL divergence.

    Parameters
    ----------
    model
        A trained model.
    metric
        ``"elbo"``, ``"loss"``, ``"reconstruction_loss"`` or ``"kl_local"``: in nats per cell, the loss in the model's
        own unit. Lower is better.
    ax
        Matplotlib Axes to draw on; None: of a new figure.

    Returns
    -------
    The Axes. Training is a solid line, validation a dashed one, the epoch of the least validation a dot. Where the KL
    divergence had a weight that changed, it is a dotted line with an axis of its own, at the right.

    Raises
    ------
    ValueError
        When the model has no such metric, as before training.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.simulate_counts(n_cells=200, n_genes=100, seed=0)
    >>> celbo.model.SCVI.setup_anndata(adata)
    >>> model = celbo.model.SCVI(adata)
    >>> model.train(max_epochs=3, verbose=0, seed=0)
    >>> celbo.pl.history(model).get_ylabel()
    'negative ELBO (nats per cell)'
    """
    from matplotlib.ticker import MaxNLocator

    table = epoch_table(model.history or {})
    training, validation, name = _NAMES[metric]
    if training not in table:
        raise ValueError(f"The model's history has no {training!r}: train the model first, or take another metric.")
    ax = canvas(ax, "epoch", name)
    _curve(ax, table[training], TRAIN, "-", "training")
    if validation in table:
        _curve(ax, table[validation], VALIDATION, "--", "validation")
        seen = table[validation].dropna()
        row = int(np.argmin(seen.to_numpy(float)))
        epoch = int(seen.index[row]) + 1
        ax.plot([epoch], [seen.iloc[row]], "o", color=VALIDATION, label=f"best epoch: {epoch}")
    if "kl_weight" in table and np.ptp(table["kl_weight"].dropna().to_numpy(float)) > 0:
        _weight(ax, table["kl_weight"])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize="small", loc="center right")
    return ax


def _curve(ax: "Axes", values: pd.Series, colour: str, line: str, label: str) -> None:
    seen = values.dropna()
    ax.plot(np.asarray(seen.index) + 1, seen.to_numpy(float), color=colour, linestyle=line, label=label)


def _weight(ax: "Axes", weight: pd.Series) -> None:
    right = ax.twinx()
    _curve(right, weight, MUTED, ":", "KL weight")
    right.set_ylabel("weight of the KL divergence", color=MUTED)
    right.spines["top"].set_visible(False)
