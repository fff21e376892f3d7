"""Run: a plan on an engine, what the loop and the checkpoints are handed of it, and its attempts."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..core import elbo_of_weights, number_of
from ..ops.draws import drawing_of
from .engines.engine import Engine
from .engines.recorded import RecordedStage
from .history import History, Progress
from .nonfinite import Copy, NonFiniteLossError
from .plans.base import Plan
from .run_state import RunState

__all__ = ["Attempts", "Run", "Stateful", "Watcher", "say_summary"]


class Stateful(Protocol):
    """What a checkpoint keeps and puts back."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put a state back."""


class Watcher:
    """Who is told how far a run is. This one does nothing; the one of a run with checkpoints writes them when due."""

    def begin(self, resumed: bool) -> None:
        """Training begins, or goes on."""

    def batch_done(self) -> None:
        """A training minibatch is done."""

    def validation_begins(self) -> None:
        """The minibatches of an epoch are done."""

    def validation_batch_done(self) -> None:
        """A validation minibatch is done."""

    def validation_done(self) -> None:
        """The validation is over."""

    def epoch_done(self) -> None:
        """An epoch is recorded, the next one has not begun."""

    def training_over(self) -> None:
        """The last epoch is done."""

    def close(self) -> None:
        """Training ended, however it did."""


class Run(RunState):
    """A plan, where it is computed, and where it is.

    Attributes
    ----------
    plan, engine
        What a step is, and where it is computed.
    stateful
        Callbacks with a state.
    attempts
        The attempts of this run, and what each begins with.
    checkpointing
        Is told of each minibatch.
    progress
        Shows on the screen how far the run is.
    identity
        What the run is made of, see :func:`~celbo.train.checkpoints.fingerprint.describe_run`.
    recorded
        The stages, ``"train"`` and ``"validation"``, whose minibatches the device records.
    retries
        How often a run whose weights diverge starts again.
    precision, gradient_clip_algorithm
        As given to the trainer.
    """

    plan: Plan
    engine: Engine
    stateful: Sequence[Stateful]
    attempts: Stateful
    checkpointing: Watcher
    progress: Progress
    identity: dict[str, Any]
    recorded: dict[str, RecordedStage[Any]]
    retries: int
    precision: str
    gradient_clip_algorithm: str
    _finish_batch: Callable[[Any, int], Any] | None

    @property
    def is_global_zero(self) -> bool:
        """Whether this process writes and speaks."""
        return self.engine.is_first

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.engine.world_size

    @property
    def global_rank(self) -> int:
        """Number of this process."""
        return self.engine.rank

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward pass under the run's precision and strategy."""
        self.engine.backward(loss, **kwargs)

    def to_device(self, batch: object) -> Any:
        """Move a minibatch, and let the data module finish it there (sparse tensors are made dense)."""
        batch = self.engine.to_device(batch)
        if self._finish_batch is None:
            return batch
        with drawing_of(self.datamodule):
            if isinstance(batch, tuple | list):  # several minibatches at once, as (all cells, labelled cells)
                return type(batch)(self._finish_batch(part, 0) for part in batch)
            return self._finish_batch(batch, 0)

    def save_model(self, path: Path) -> None:
        """Write the model as it stands, trained up to here, as an archive; of several processes, the first one does.

        Raises a ``ValueError`` where the run has no model.
        """
        if self.model is None:
            raise ValueError("Checkpoints are archives of a model: train through model.train, or set trainer.model.")
        if not self.engine.is_first:
            return
        before = self.model.is_trained_, self.model.history_, self.model.kept_epoch_
        try:
            history = History(self.history.frames())
            history.add(0, self.callback_metrics)  # of the running epoch, which ends only after the validation
            self.model.is_trained_, self.model.history_ = True, history.frames()
            self.model.kept_epoch_ = self.history.first_epoch + self.current_epoch
            self.model.save(str(path), overwrite=True)
        finally:
            self.model.is_trained_, self.model.history_, self.model.kept_epoch_ = before

    # Of the trainer.

    def call(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Call a hook of the callbacks."""
        raise NotImplementedError

    def listens(self, *hooks: str) -> bool:
        """Whether a callback has one of these hooks."""
        raise NotImplementedError

    def run_once(self) -> None:
        """Run from where it stands to the end."""
        raise NotImplementedError

    def record(self, row: Mapping[str, float]) -> None:
        """Write an epoch's metrics to the history and the loggers."""
        raise NotImplementedError

    def record_step(self, values: Mapping[str, Tensor | float]) -> None:
        """Write a step's values."""
        raise NotImplementedError

    def record_validation_step(self) -> None:
        """Write what the plan noted of a validation minibatch."""
        raise NotImplementedError


logger = logging.getLogger("celbo")

_SLOWER = 0.25


def kept_epoch_of(trainer: RunState) -> int:
    """The epoch whose weights the model has, as the history counts them."""
    history, kept = trainer.history, trainer.kept_epoch
    return history.last_epoch if kept is None else history.first_epoch + kept


def say_summary(trainer: RunState, seconds: float) -> None:
    """One line at the end of a run."""
    elbo = elbo_of_weights(trainer.history.frames(), kept_epoch_of(trainer))
    rate = trainer.n_seen * trainer.world_size / max(seconds, 1e-9)
    parts = [f"{number_of(trainer.current_epoch, 'epoch')} in {seconds:.1f} s ({rate:,.0f} cells/s)"]
    parts += [] if elbo is None else [f"validation ELBO {elbo.value:.2f} ({elbo.where})"]
    parts += [f"stopped: {trainer.stop_reason}"] if trainer.stop_reason else []
    logger.info(f"Trained {', '.join(parts)}.")


def say_unfinished_warmup(plan: Plan, max_epochs: int) -> None:
    """One line before a run that is too short for the warm-up of its KL weight."""
    epochs = plan.n_epochs_kl_warmup
    if epochs and (max_epochs - 1) / epochs < 0.5:
        reached = (max_epochs - 1) / epochs
        logger.info(
            f"The KL weight will only reach {reached:.2f}: its warm-up takes {number_of(epochs, 'epoch')}, "
            f"training {max_epochs}. plan_kwargs={{'n_epochs_kl_warmup': {max(1, max_epochs // 2)}}} "
            "would let it reach 1."
        )


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
        self.first = Copy(trainer.raw_module.state_dict() if trainer.retries else {})
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
                    if self.first.tensors and not trainer.guard.weights_are_finite():
                        trainer.raw_module.load_state_dict(self.first.tensors)
                    raise
                self._begin_again(error)

    def _begin_again(self, error: NonFiniteLossError) -> None:
        trainer = self.trainer
        self.number += 1
        trainer.plan.scale_learning_rate(_SLOWER)
        trainer.raw_module.load_state_dict(self.first.tensors)
        for callback, state in zip(trainer.stateful, self.callbacks, strict=True):
            callback.load_state_dict(state)
        if trainer.engine.is_first:
            logger.warning(f"{error} Starting again with a quarter of the learning rate.")

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        weights, first_loss = self.first.tensors, self.trainer.guard.first_loss
        return {"attempt": self.number, "weights": weights, "history": self.history, "first_loss": first_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put it back. Callbacks begin as they are made, in any process."""
        self.number, self.history = state_dict["attempt"], state_dict["history"]
        guard = self.trainer.guard
        guard.first_loss = state_dict.get("first_loss")  # checkpoints of earlier versions have none
        guard.may_retry = self.number < self.trainer.retries
        self.first.take(state_dict["weights"])
