"""A run whose weights diverge starts again, with a quarter of the learning rate."""

import logging
from typing import Any

from torch import Tensor

from .history import History
from .nonfinite import NonFiniteLossError, copy_weights
from .run import Run

__all__ = ["Attempts"]

logger = logging.getLogger("celbo")

_SLOWER = 0.25


class Attempts:
    """The attempts of a run, and what each begins with.

    Parameters
    ----------
    trainer
        The trainer, set up; ``trainer.retries`` says how often a run may start again.
    """

    def __init__(self, trainer: Run) -> None:
        self.trainer = trainer
        self.number = 0
        self.history = trainer.history.frames()
        self.weights: dict[str, Tensor] = copy_weights(trainer.raw_module, {}) if trainer.retries else {}
        self.callbacks = [callback.state_dict() for callback in trainer.stateful if trainer.retries]

    def run(self) -> None:
        """Run until one attempt ends well, or raise the last one's error."""
        trainer = self.trainer
        while True:
            trainer.reset()
            trainer.history = History(self.history)
            try:
                return trainer.run_once()
            except NonFiniteLossError as error:
                if self.number == trainer.retries or error.from_data:
                    raise
                self._begin_again(error)

    def _begin_again(self, error: NonFiniteLossError) -> None:
        trainer = self.trainer
        self.number += 1
        trainer.plan.scale_learning_rate(_SLOWER)
        trainer.raw_module.load_state_dict(self.weights)
        for callback, state in zip(trainer.stateful, self.callbacks, strict=True):
            callback.load_state_dict(state)
        if trainer.engine.is_first:
            logger.warning(f"{error} Starting again with a quarter of the learning rate.")

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        first_loss = self.trainer.guard.first_loss
        return {"attempt": self.number, "weights": self.weights, "history": self.history, "first_loss": first_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put it back. Callbacks begin as they are made, in any process."""
        self.number, self.history = state_dict["attempt"], state_dict["history"]
        guard = self.trainer.guard
        guard.first_loss = state_dict.get("first_loss")  # checkpoints of earlier versions have none
        guard.may_retry = self.number < self.trainer.retries
        self.weights = {name: value.clone() for name, value in state_dict["weights"].items()}
