"""How DIAGVI trains: from what some cells say, in as many epochs as make 3,000 steps, on both modalities at once."""

import math
from collections.abc import Mapping
from typing import Any

from ...dataloaders.some import some_cells
from ...train.method import Argument
from ...train.recipes import default_recipe
from .verbs import DiagviMixin

__all__ = ["STOPPING", "WARM_START", "train_settings"]

STOPPING: Mapping[str, Any] = {
    "early_stopping": True,
    "early_stopping_monitor": "validation_loss",
    "early_stopping_min_delta": 1.0,
    "early_stopping_patience": 10,
}
"""When the classic recipe stops."""

WARM_START = Argument(
    bool | None,
    "Begin with what some cells say of features and of those that go together. None: unless training goes on, or by "
    '``recipe="classic"``.',
)

_ENOUGH_STEPS, _MOST_EPOCHS, _FEWEST_EPOCHS = 3000, 80, 10


def train_settings(model: DiagviMixin, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``train``; a model that is new begins with what its data say.

    Parameters
    ----------
    model
        The model.
    options
        As they were given. ``datasplitter_kwargs`` may have settings of one modality, by its name.

    Raises
    ------
    ValueError
        The model was loaded without data.
    """
    if not model.adatas:
        raise ValueError("This DIAGVI was loaded without data: load it with adatas= to train on.")
    wanted = options.pop("warm_start")
    is_classic = (options["recipe"] or default_recipe(type(model))) == "classic"
    if wanted or (wanted is None and not model.is_trained and not is_classic):
        cells = {name: some_cells(manager) for name, manager in model.adata_managers.items()}
        model.module.start_from(cells, model.guidance_graph)
    if options["max_epochs"] is None and not is_classic:
        options |= {"max_epochs": _epochs(max(map(len, model.adatas.values())), options["batch_size"])}
    names, given = model.set_names, dict(options.get("datasplitter_kwargs") or {})
    of_each = [given.pop(name, {}) for name in names]
    own = {"second_manager": model.adata_managers[names[1]], "names": names, "of_each": of_each}
    return options | {"datasplitter_kwargs": own | {"validate_together": True} | given}


def _epochs(n_cells: int, batch_size: int) -> int:
    """As many as make 3,000 steps, at most 80 and at least 10."""
    steps_an_epoch = math.ceil(0.9 * n_cells / batch_size)
    return max(_FEWEST_EPOCHS, min(_MOST_EPOCHS, math.ceil(_ENOUGH_STEPS / steps_an_epoch)))
