"""TrainRunner: choose the trainer, train a plan, and write the outcome into the model."""

import logging
from collections.abc import Sequence
from typing import Any

from ..core import checked
from ..dataloaders.base import as_data_module
from . import lightning
from .config import LIGHTNING_ONLY, TO_GO_ON, KwargsLike, merge_kwargs, needs_lightning
from .history import History
from .nonfinite import NonFiniteLossError
from .plans.base import Plan
from .run import kept_epoch_of
from .trainer import Trainer

__all__ = ["TrainRunner"]

logger = logging.getLogger("celbo")

_NAMED = 5


class TrainRunner:
    """Runs a training and leaves the model trained.

    Parameters
    ----------
    model
        The model: gets history, indices of the split, its module in evaluation mode, and the trainer.
    training_plan
        The plan of its module.
    data_splitter
        Gives the loaders, ``n_train``, ``n_val`` and the indices of the sets.
    max_epochs, accelerator, devices
        As in :class:`~celbo.train.Trainer`.
    trainer_config, **trainer_kwargs
        Further arguments of the trainer; keyword arguments win.
    """

    _trainer_cls = Trainer

    @checked
    def __init__(
        self,
        model: Any,
        training_plan: Plan,
        data_splitter: Any,
        max_epochs: int,
        accelerator: str = "auto",
        devices: int | Sequence[int] | str = "auto",
        trainer_config: KwargsLike | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        kwargs = merge_kwargs(trainer_config, trainer_kwargs, name="trainer")
        kwargs |= {"max_epochs": max_epochs, "accelerator": accelerator, "devices": devices}
        self.model, self.training_plan, self.data_splitter = model, training_plan, data_splitter
        if training_plan.reduce_lr_on_plateau:
            kwargs.setdefault("learning_rate_monitor", True)
        self.trainer = _make_trainer(self._trainer_cls, kwargs)

    def __call__(self) -> None:
        """Train."""
        model, data, plan = self.model, as_data_module(self.data_splitter), self.training_plan
        data.setup("fit")
        plan.n_obs_training, plan.n_obs_validation = data.n_train, data.n_val
        model.train_indices, model.validation_indices, model.test_indices = data.train_idx, data.val_idx, data.test_idx
        self.trainer.model = model
        self.trainer.history = History(model.history_ or {})
        try:
            self.trainer.fit(plan, datamodule=self.data_splitter)
        except NonFiniteLossError as error:
            raise self._with_names(error) from None
        finally:
            model.module.eval()
        model.history_ = self.trainer.history.frames()
        model.kept_epoch_ = kept_epoch_of(self.trainer)
        model.is_trained_ = True
        model.trainer = self.trainer

    def _with_names(self, error: NonFiniteLossError) -> NonFiniteLossError:
        """The same error with the cells' names: only here the data are known."""
        if not error.rows or self.model.adata is None:
            return error
        names = [str(self.model.adata.obs_names[row]) for row in error.rows]
        listed = ", ".join(map(repr, names[:_NAMED])) + (
            f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        )
        message = f"{error} Cells: {listed}.{self._columns_of(error.inputs)}"
        return NonFiniteLossError(message, error.rows, error.from_data, error.inputs)

    def _columns_of(self, keys: Sequence[str]) -> str:
        """Where the wrong values lie in the AnnData, as a sentence."""
        fields = {field.registry_key: field for field in self.model.adata_manager.fields if not field.is_empty}
        places = [where for key in keys if key in fields for where in fields[key].places]
        return f" The values come from {', '.join(places)}." if places else ""


def _make_trainer(trainer_cls: type[Trainer], kwargs: dict[str, Any]) -> Trainer:
    """The trainer for these arguments: celbo's, or Lightning's where one of them needs it (logged in one line).

    Raises
    ------
    ModuleNotFoundError
        Lightning's is needed and not installed; says what to install.
    """
    needs = needs_lightning(kwargs)
    if not needs:
        return trainer_cls(**{name: value for name, value in kwargs.items() if name not in LIGHTNING_ONLY})
    checkpoints = [name for name in ("resume", "checkpoint_every", "checkpoint_dir") if kwargs.get(name) is not None]
    if checkpoints:
        raise ValueError(
            f"{checkpoints[0]} needs celbo's own loop, and {needs[0]} needs Lightning's Trainer: leave one of them "
            "out, or let Lightning's ModelCheckpoint keep the state of such a run."
        )
    try:
        trainer = lightning.LightningTrainer(**kwargs)
    except ModuleNotFoundError as error:
        if kwargs.get("ckpt_path") is None:
            raise
        raise ModuleNotFoundError(f"{error}. {TO_GO_ON}", name=error.name) from error
    logger.info(f"Training under Lightning's Trainer: celbo's own loop does not have {', '.join(needs)}.")
    return trainer
