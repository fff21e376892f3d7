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
    """Draw a metric of training and of validation by epoch, the epoch kept, and the weight of the KL divergence.

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
    The Axes. Training is a solid line, validation a dashed one. A dot is the epoch whose weights the model has, or the
    epoch of the least validation, called the best, where an older archive does not tell. Epochs are counted from 0, as
    in ``model.history``. Where the KL divergence had a weight that changed, it is a dotted line with an axis of its
    own, at the right.

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
        number, said = _marked(seen, model.kept_epoch_)
        ax.plot([number], [seen[number]], "o", color=VALIDATION, label=f"{said}: {number}")
    if "kl_weight" in table and np.ptp(table["kl_weight"].dropna().to_numpy(float)) > 0:
        _weight(ax, table["kl_weight"])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize="small", loc="center right")
    return ax


def _marked(validation: pd.Series, kept_epoch: int | None) -> tuple[int, str]:
    """The validated epoch to mark: that of the model's weights, where it is known."""
    if kept_epoch is None:
        return int(validation.index[int(np.argmin(validation.to_numpy(float)))]), "best epoch"
    return int(max(epoch for epoch in validation.index if epoch <= kept_epoch)), "epoch whose weights were kept"


def _curve(ax: "Axes", values: pd.Series, colour: str, line: str, label: str) -> None:
    seen = values.dropna()
    ax.plot(np.asarray(seen.index), seen.to_numpy(float), color=colour, linestyle=line, label=label)


def _weight(ax: "Axes", weight: pd.Series) -> None:
    right = ax.twinx()
    _curve(right, weight, MUTED, ":", "KL weight")
    right.set_ylabel("weight of the KL divergence", color=MUTED)
    right.spines["top"].set_visible(False)
