"""ContrastTrainingMixin: ``train`` of models that tell what target cells have from what background cells have too."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from ...core import checked_methods
from ...core.kinds import Number
from ...dataloaders.contrasts import ContrastiveDataSplitter
from ...train.method import PASSED_ON, SPLIT, WHERE, Argument, training
from .training import UnsupervisedTrainingMixin

__all__ = ["ContrastTrainingMixin"]

_OWN = {
    "background_indices": Argument(
        Sequence[int], "Cells without the condition studied, as row numbers or a boolean mask: controls."
    ),
    "target_indices": Argument(Sequence[int], "Cells with it; none that is a background cell."),
    "load_sparse_tensor": Argument(bool, "Move minibatches to the device sparse and make them dense there."),
    "recombination_weight": Argument(
        Annotated[float | None, Number(0)],
        "Weight of what encoders miss of cells put together from the latents of a background and a target cell, which "
        "keeps the two kinds of latents apart; None: 5, and 0 for ``classic``.",
        "plan",
    ),
}
_LEAST, _MOST = 16, 128
_WEIGHT = 5.0
_STEPS_AN_EPOCH = 20


def _prepared(model: object, options: dict[str, Any]) -> dict[str, Any]:
    """Hand the sets of cells to the splitter, and settle the weight of recombined cells."""
    if options["recombination_weight"] is None:
        del options["recombination_weight"]
        options |= {} if options["recipe"] == "classic" else {"recombination_weight": _WEIGHT}
    sets = {name: options.pop(name) for name in ("background_indices", "target_indices")}
    return options | {"datasplitter_kwargs": sets | (options.get("datasplitter_kwargs") or {})}


@checked_methods
class ContrastTrainingMixin(UnsupervisedTrainingMixin):
    """Training on pairs of background and target cells."""

    _data_splitter_cls: ClassVar[type] = ContrastiveDataSplitter
    _recipe: ClassVar[str | None] = "brief_cycle"  # latents are apart by then, see recombination_weight
    _own_recipe: ClassVar[Mapping[str, Any]] = {"batch_size": _MOST}

    def _own_settings(self, recipe: str, asked: bool) -> Mapping[str, Any]:
        """Small minibatches of few cells: latents come apart with the number of steps."""
        n_pairs = min(_MOST, max(_LEAST, self.summary_stats["n_cells"] // _STEPS_AN_EPOCH))
        own = super()._own_settings(recipe, asked)  # type: ignore[misc]  # BaseModelClass has it
        return own | {"batch_size": n_pairs} if own else own

    train = training(
        dict.fromkeys(("background_indices", "target_indices"), inspect.Parameter.empty),
        {"max_epochs": None},
        WHERE,
        SPLIT,
        {"load_sparse_tensor": False, "batch_size": 128, "early_stopping": False},
        PASSED_ON,
        own=_OWN,
        prepare=_prepared,
    )
