"""How CYTOVI trains: few passes in large minibatches, since a cell is a row of 15 to 50 numbers."""

import math
from collections.abc import Mapping
from typing import Any

from .verbs import CytometryMixin

__all__ = ["OWN_RECIPE", "train_settings"]

OWN_RECIPE: Mapping[str, Any] = {
    "max_epochs": None,
    "batch_size": None,
    "lr": 1e-2,
    "early_stopping": False,
    "n_epochs_kl_warmup": None,
}
"""In place of scvi-tools' defaults, under any recipe but ``classic``; None: by the number of cells."""

_SMALLEST_BATCH, _LARGEST_BATCH, _STEPS_AN_EPOCH = 128, 4096, 64
_FEWEST_STEPS, _MOST_EPOCHS, _FEWEST_EPOCHS = 1500, 150, 10


def _cells_a_batch(n_cells: int) -> int:
    """A power of two with at least 64 minibatches per epoch: rows are short, and large minibatches cost little."""
    wanted = max(1, n_cells // _STEPS_AN_EPOCH)
    return min(max(2 ** int(math.log2(wanted)), _SMALLEST_BATCH), _LARGEST_BATCH)


def _epochs(n_cells: int, batch_size: int) -> int:
    """As many as make 1,500 steps, at most 150 and at least 10."""
    steps_an_epoch = max(1, math.ceil(0.9 * n_cells / batch_size))
    return max(_FEWEST_EPOCHS, min(_MOST_EPOCHS, math.ceil(_FEWEST_STEPS / steps_an_epoch)))


def train_settings(model: "CytometryMixin", options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``train``: an adversary where panels differ; size and number of minibatches by the number of cells.

    Parameters
    ----------
    model
        The model.
    options
        As they were given; None by default.
    """
    adversary, n_cells = options.pop("adversarial_classifier"), model.summary_stats["n_cells"]
    if adversary is None:
        adversary = not model.measures_all and model.summary_stats["n_batch"] > 1
    size = options["batch_size"] or _cells_a_batch(n_cells)
    epochs = options["max_epochs"] or _epochs(n_cells, size)
    plan: dict[str, Any] = {"adversarial_classifier": adversary}
    if options["recipe"] != "classic":
        plan["scale_adversarial_loss"] = 1.0  # "auto" is one less the KL weight, and ends in the middle
        if options["n_epochs_kl_warmup"] is None and options["n_steps_kl_warmup"] is None:
            plan["n_epochs_kl_warmup"] = epochs // 2  # without it hidden markers are imputed a little worse
    plan |= dict(options["plan_kwargs"] or {})
    return options | {"batch_size": size, "max_epochs": epochs, "plan_kwargs": plan}
