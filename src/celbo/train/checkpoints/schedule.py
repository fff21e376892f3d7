"""When checkpoints are written: every so many epochs, steps or minutes, at the end, and when the job is ended."""

import logging
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core import settings
from ...io import ArchiveError
from ..run import Run, Watcher
from .folder import CheckpointFolder, SavedRun, find_checkpoints
from .state import before_validation, capture

__all__ = ["Checkpointing", "Interval", "TerminatedError", "make_checkpointing"]

logger = logging.getLogger("celbo")

_UNITS = {
    "epoch": ("epoch", 1.0),
    "step": ("step", 1.0),
    "s": ("second", 1.0),
    "sec": ("second", 1.0),
    "second": ("second", 1.0),
    "min": ("second", 60.0),
    "minute": ("second", 60.0),
    "h": ("second", 3600.0),
    "hour": ("second", 3600.0),
}
_SECONDS = ((3600, "h"), (60, "min"), (1, "s"))
_STEPS_BETWEEN_AGREEMENTS = 10
_SIGTERM_EXIT = 128 + signal.SIGTERM


class TerminatedError(SystemExit):
    """The system asked the process to end (SIGTERM): training has stopped; the exit code is 143.

    It is a ``SystemExit``: a program that does not catch it ends, as one that is sent SIGTERM should.

    Attributes
    ----------
    message
        What was written, and how to go on.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_SIGTERM_EXIT)
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Interval:
    """How often a checkpoint is due.

    Attributes
    ----------
    n
        How many of the unit, above 0.
    unit
        ``"epoch"``, ``"step"`` or ``"second"``.
    """

    n: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """The interval of ``"1 epoch"``, ``"200 steps"``, ``"5 min"``, ``"30 s"`` or ``"2 h"``.

        Raises
        ------
        ValueError
            Anything else.
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+?)s?\s*", str(text).lower())
        unit = None if match is None else _UNITS.get(match[2] or "s")
        n = 0.0 if match is None or unit is None else float(match[1]) * unit[1]
        if unit is None or n <= 0 or (unit[0] != "second" and n != int(n)):
            raise ValueError(
                f"checkpoint_every={text!r} is no interval: give '1 epoch', '200 steps', '5 min', '30 s' or '2 h'."
            )
        return cls(n, unit[0])

    def __str__(self) -> str:
        if self.unit != "second":
            return f"{int(self.n)} {self.unit}" + ("" if self.n == 1 else "s")
        seconds, unit = next(one for one in _SECONDS if self.n % one[0] == 0 or one[0] == 1)
        return f"{self.n / seconds:g} {unit}"


def make_checkpointing(
    trainer: Run,
    every: Interval | None,
    folder: str | Path | None,
    resumed: SavedRun | None,
    clock: Callable[[], float] = time.monotonic,
) -> "Checkpointing":
    """The checkpoints of a run.

    Parameters
    ----------
    trainer
        Its trainer.
    every
        Interval; None: that of the resumed run, or 5 minutes.
    folder
        Where to; None: where the resumed run has them, or a new folder in ``celbo.settings.logging_dir``.
    resumed
        The run that this one goes on with.
    clock
        Seconds.

    Raises
    ------
    ValueError
        The folder has checkpoints of a run that this one does not go on with, or the strategy shares the weights out.
    """
    if not trainer.engine.holds_all_weights:
        raise ValueError(
            "Checkpoints need all weights in each process, and the strategy shares them out: train with "
            "strategy='ddp', or without checkpoint_every, checkpoint_dir and resume."
        )
    interval = every or _interval_of(resumed) or Interval.parse("5 min")
    if resumed is not None and (folder is None or Path(folder).absolute() == resumed.folder):
        return Checkpointing(
            trainer, CheckpointFolder(resumed.folder, resumed.path, set(resumed.damaged)), interval, clock
        )
    path = _new_folder_name() if folder is None else Path(folder).absolute()
    if find_checkpoints(path):
        raise ValueError(
            f"{path} has checkpoints of another run: pass resume={str(path)!r} to go on with it, or another "
            "checkpoint_dir."
        )
    return Checkpointing(trainer, CheckpointFolder(path), interval, clock)


def _interval_of(resumed: SavedRun | None) -> Interval | None:
    """How often a run wrote its checkpoints; None where they do not say it, or make no sense."""
    try:
        return None if resumed is None else Interval.parse(resumed.state["checkpoint_every"])
    except (KeyError, ValueError):
        return None


def _new_folder_name() -> Path:
    base = Path(settings.logging_dir).absolute() / "checkpoints"
    now = time.strftime("run-%Y%m%d-%H%M%S")
    taken = {path.name for path in base.iterdir()} if base.is_dir() else set()
    name = next(name for name in (now, *(f"{now}-{i}" for i in range(2, 1000))) if name not in taken)
    return base / name


class Checkpointing(Watcher):
    """Writes the checkpoints of a run; the loop says where it is.

    Parameters
    ----------
    trainer
        The running trainer.
    folder
        Where to.
    every
        How often.
    clock
        Seconds.

    Notes
    -----
    The first one is written before the first step, so that a folder that cannot be written to is noticed at once and
    a run that is killed early begins with the same weights. One that the disk refuses later does not end the run: it is
    said, the ones before it stay, and the next is tried when it is due. While training runs, SIGTERM is answered by a
    checkpoint and a :class:`TerminatedError`, Ctrl-C by a checkpoint and a ``KeyboardInterrupt`` after the minibatch at
    hand; a second Ctrl-C does not wait.
    """

    def __init__(self, trainer: Run, folder: CheckpointFolder, every: Interval, clock: Callable[[], float]) -> None:
        self.trainer, self.folder, self.every, self._clock = trainer, folder, every, clock
        self._terminating = self._interrupted = False
        self._handlers_before: dict[int, Any] = {}
        self._before_validation: dict[str, Any] | None = None
        self._last = {"epoch": 0.0, "step": 0.0, "second": 0.0}
        self._within_epochs = False

    # What the loop says.

    def begin(self, resumed: bool) -> None:
        """Training begins, or goes on."""
        self._within_epochs = self.trainer.train_loader.is_resumable
        chats = self._speaks and self.trainer.verbose
        if not self._within_epochs and chats:
            logger.info(
                "The loader of training minibatches cannot say where it stands: checkpoints are written at the ends of "
                "epochs only."
            )
        self._note()
        if not resumed:
            self._write()
            if chats:
                logger.info(f"Checkpoints: {self.folder.path}")
        self._answer_signals()

    def batch_done(self) -> None:
        """A training minibatch is done."""
        if not self._within_epochs:
            self._leave_if_alone()
            return
        if self.trainer.engine.world_size > 1 and self.trainer.batches_done % _STEPS_BETWEEN_AGREEMENTS:
            return  # processes agree on what is due, which is not for nothing
        self._look()

    def validation_begins(self) -> None:
        """The minibatches of an epoch are done; a checkpoint taken during validation restarts it."""
        self._before_validation = before_validation(self.trainer)

    def validation_batch_done(self) -> None:
        """A validation minibatch is done."""
        if self._is_asked_to_end and self._within_epochs and self.trainer.engine.world_size == 1:
            self._look()
        self._leave_if_alone()

    def validation_done(self) -> None:
        """Validation is over."""
        self._before_validation = None

    def epoch_done(self) -> None:
        """An epoch is recorded, the next one has not begun."""
        self._look(at_epochs_end=True)

    def training_over(self) -> None:
        """The last epoch is done; what follows it, as putting the best weights back, can be done again from here."""
        if self._last["step"] != self.trainer.global_step:
            self._try_to_write()

    def close(self) -> None:
        """Training ended, however it did."""
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        self._handlers_before = {}

    # Signals.

    def _answer_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets only the main thread answer signals
        terminates = signal.getsignal(signal.SIGTERM) is not None  # None: a library's own, which cannot be put back
        interrupts = callable(signal.getsignal(signal.SIGINT))  # ignored in a background job of a shell: let it be
        if terminates:
            self._handlers_before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note_sigterm)
        if interrupts:
            self._handlers_before[signal.SIGINT] = signal.signal(signal.SIGINT, self._note_sigint)

    def _note_sigterm(self, number: int, frame: object) -> None:
        self._terminating = True

    def _note_sigint(self, number: int, frame: object) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    @property
    def _is_asked_to_end(self) -> bool:
        return self._terminating or self._interrupted

    def _leave_if_alone(self) -> None:
        """Where none can be taken, a signal ends training at once; several processes wait for the epoch's end."""
        if self._is_asked_to_end and not self._within_epochs and self.trainer.engine.world_size == 1:
            self._leave(self._terminating)

    def _leave(self, terminating: bool) -> None:
        if not terminating:
            raise KeyboardInterrupt
        self._terminate()

    def _terminate(self) -> None:
        message = (
            f"SIGTERM: training stopped in epoch {self.trainer.current_epoch}, after step {self.trainer.global_step}. "
            f"resume={str(self.folder.path)!r} goes on from {_name(self.folder.newest)}."
        )
        if self._speaks:
            logger.warning(message)
        raise TerminatedError(message)

    # Writing.

    @property
    def _speaks(self) -> bool:
        return self.trainer.engine.is_first

    def _look(self, at_epochs_end: bool = False) -> None:
        """Write a checkpoint if it is due or the last chance. All processes do so or none."""
        engine = self.trainer.engine
        ending = engine.any_process(self._is_asked_to_end)
        if ending or engine.any_process(self._is_due(at_epochs_end)):
            self._try_to_write()
        if ending:
            self._leave(engine.any_process(self._terminating))

    def _is_due(self, at_epochs_end: bool) -> bool:
        if self.every.unit == "epoch" and not at_epochs_end:
            return False
        return self._now()[self.every.unit] - self._last[self.every.unit] >= self.every.n

    def _now(self) -> dict[str, float]:
        trainer = self.trainer
        return {"epoch": trainer.current_epoch, "step": trainer.global_step, "second": self._clock()}

    def _note(self) -> None:
        self._last = self._now()

    def _try_to_write(self) -> None:
        self._note()  # a failure is tried again when the next one is due
        try:
            self._write()
        except ArchiveError as error:
            if self._speaks:
                logger.warning(
                    f"No checkpoint of step {self.trainer.global_step}: {error} Training goes on; a kill would lose "
                    f"what came after {_name(self.folder.newest)}."
                )

    def _write(self) -> None:
        """Write, or raise in all processes what went wrong in the one that writes."""
        engine, failure = self.trainer.engine, None
        state = capture(self.trainer, self._before_validation) | {"checkpoint_every": str(self.every)}
        if engine.is_first:
            try:
                self.folder.write(state)
            except ArchiveError as error:
                failure = error
        if engine.any_process(failure is not None):
            raise failure or ArchiveError("The first process could not write a checkpoint; it says why.")


def _name(path: Path | None) -> str:
    return "the beginning" if path is None else path.name
