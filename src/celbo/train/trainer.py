"""Trainer: settings and state of a run; :mod:`celbo.train.loop` does the epochs."""

import inspect
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from torch import Tensor

from ..core import checked
from ..core.kinds import Number
from ..core.process import give_back_free_blocks, keep_large_blocks
from ..dataloaders.base import as_data_module, as_loader
from ..dataloaders.placing import keep_on_device
from ..ops.draws import draws_globally
from ..ops.native.threads import working_threads
from ..ops.random import global_rng, own_rng
from . import checkpoints
from .callbacks import (
    Callback,
    Hooks,
    KeepBest,
    LearningRateMonitor,
    LoudEarlyStopping,
    SaveCheckpoint,
    refuse_without_validation,
)
from .config import as_list, refuse_unknown
from .engines.engine import make_engine
from .history import History, make_loggers, make_progress, speaking_at
from .loop import prepare_recordings, run_epoch
from .nonfinite import FiniteGuard, say_where_cells_are_alike
from .optim import unpack_optimizers
from .plans.base import Plan
from .run import Attempts, Watcher, say_summary
from .view import TrainerView

if TYPE_CHECKING:
    from .checkpoints import SavedRun

__all__ = ["Trainer"]


class Trainer(TrainerView):
    """Runs a plan over a data module.

    Parameters
    ----------
    accelerator, devices, strategy, precision, num_nodes
        Where and how to compute; see :func:`~celbo.train.engines.engine.make_engine`.
    max_epochs, min_epochs, max_steps
        When to end; ``max_steps=-1`` sets no limit.
    check_val_every_n_epoch
        Epochs between validations, 1 when not given; 0 turns validation off.
    enable_checkpointing, checkpointing_monitor
        Save the model whenever that metric is the best so far.
    early_stopping, early_stopping_monitor, early_stopping_min_delta, early_stopping_patience, early_stopping_mode
        Stop when a metric no longer improves.
    early_stopping_warmup_epochs
        Validations that early stopping ignores at first; None: as long as the KL warm-up lasts.
    gradient_clip_val, gradient_clip_algorithm
        Largest norm (or ``"value"``) of the gradients; None: not clipped.
    accumulate_grad_batches
        Minibatches an optimizer step.
    limit_train_batches, limit_val_batches
        Minibatches an epoch, a number or a share; None: all.
    logger
        None: the history only. ``"csv"``, ``"tensorboard"``, True (CSV), or loggers of Fabric or Lightning.
    log_every_n_steps, log_save_dir
        Interval of step-level logging; folder of loggers and checkpoints.
    learning_rate_monitor
        Keep the learning rate in the history.
    callbacks
        Objects with Lightning's hook names.
    seed
        Seed of everything random in training; the global generators are left as they were.
    verbose
        0 silent, 1 a progress bar, 2 one line an epoch.
    keep_best
        Put the weights of the best validation ELBO back at the end.
    keep_best_from
        Share of the run before which none are kept; early stopping, which ends a run at any time, looks at all.
    gives_up_after
        Share of the run without better weights after which it ends, where the best are kept; 1: never.
    retries
        How often a run whose weights diverge starts again with a quarter of the learning rate.
    checkpoint_every
        How often the state of the run is written, so that it can go on after a kill: ``"1 epoch"``, ``"200 steps"``,
        ``"5 min"``. None: never, or every 5 minutes where one of the next two is given.
    checkpoint_dir
        Where to; a new folder in ``settings.logging_dir`` when not given.
    resume
        Folder of a run's checkpoints: go on with that run, to the same weights as if it had not been ended.

    Raises
    ------
    TypeError
        An unknown argument, with the nearest known one.
    """

    attempts: Attempts

    @checked
    def __init__(
        self,
        accelerator: str = "auto",
        devices: int | Sequence[int] | str = "auto",
        check_val_every_n_epoch: int | None = None,
        max_epochs: int = 400,
        min_epochs: int = 0,
        max_steps: int = -1,
        enable_checkpointing: bool = False,
        checkpointing_monitor: str = "validation_loss",
        early_stopping: bool = False,
        early_stopping_monitor: str = "elbo_validation",
        early_stopping_min_delta: float = 0.0,
        early_stopping_patience: int = 45,
        early_stopping_warmup_epochs: int | None = 0,
        early_stopping_mode: Literal["min", "max"] = "min",
        enable_progress_bar: bool = True,
        logger: object = None,
        log_every_n_steps: int = 10,
        learning_rate_monitor: bool = False,
        log_save_dir: str | Path | None = None,
        strategy: str | Any = "auto",
        precision: str | int = "32-true",
        num_nodes: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        accumulate_grad_batches: int = 1,
        limit_train_batches: float | None = None,
        limit_val_batches: float | None = None,
        callbacks: object = None,
        seed: int | None = None,
        verbose: int = 1,
        keep_best: bool = False,
        keep_best_from: Annotated[float, Number(0, 1)] = 0.0,
        gives_up_after: Annotated[float, Number(0, 1)] = 1.0,
        retries: int = 0,
        checkpoint_every: str | None = None,
        checkpoint_dir: str | Path | None = None,
        resume: "str | Path | SavedRun | None" = None,
        **without_effect: Any,
    ) -> None:
        refuse_unknown(without_effect, inspect.signature(Trainer).parameters)
        self._engine_kwargs: dict[str, Any] = {
            "accelerator": accelerator,
            "devices": devices,
            "strategy": strategy,
            "precision": precision,
            "num_nodes": num_nodes,
        }
        self.max_epochs, self.min_epochs, self.max_steps = max_epochs, min_epochs, max_steps
        self.check_val_every_n_epoch = 1 if check_val_every_n_epoch is None else check_val_every_n_epoch
        self.gradient_clip_val, self.gradient_clip_algorithm = gradient_clip_val, gradient_clip_algorithm
        self.log_every_n_steps, self.accumulate_grad_batches = log_every_n_steps, accumulate_grad_batches
        self.limit_train_batches, self.limit_val_batches = limit_train_batches, limit_val_batches
        self.seed, self.keep_best, self.retries, self.precision = seed, keep_best, retries, str(precision)
        self.keep_best_from, self.gives_up_after = 0.0 if early_stopping else keep_best_from, gives_up_after
        every = None if checkpoint_every is None else checkpoints.Interval.parse(checkpoint_every)
        self._checkpoints = every, checkpoint_dir
        self._resumed = None if resume is None else checkpoints.checked_run(resume)
        self.verbose, self.loggers = verbose if enable_progress_bar else 0, make_loggers(logger, log_save_dir)
        stopping = LoudEarlyStopping(
            early_stopping_monitor,
            early_stopping_min_delta,
            early_stopping_patience,
            early_stopping_mode,
            early_stopping_warmup_epochs or 0,
        )
        self._stop_after_kl_warmup = stopping if early_stopping and early_stopping_warmup_epochs is None else None
        self.callbacks: list[Any] = [*as_list(callbacks), *([stopping] if early_stopping else [])]
        if enable_checkpointing and not any(isinstance(callback, SaveCheckpoint) for callback in self.callbacks):
            self.callbacks.append(SaveCheckpoint(monitor=checkpointing_monitor, dirpath=log_save_dir))
        self.callbacks += [LearningRateMonitor()] if learning_rate_monitor else []
        self.model: Any = None
        self.history = History()
        self.reset()

    def __getstate__(self) -> dict[str, Any]:
        """What a pickled model keeps of its training: settings, figures and history, none of the machinery.

        Optimizers, loaders, callbacks and loggers may hold anything, functions and open files among it.
        """
        plain = (bool, int, float, str, type(None), History)
        return {name: value for name, value in vars(self).items() if isinstance(value, plain)}

    def call(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Call a hook of the callbacks."""
        self._hooks.call(hook, self, *args, **kwargs)

    def listens(self, *hooks: str) -> bool:
        """Whether a callback has one of these hooks."""
        return self._hooks.listens(*hooks)

    # The run.

    def fit(
        self,
        model: Plan,
        train_dataloaders: Iterable[Any] | None = None,
        val_dataloaders: Iterable[Any] | None = None,
        datamodule: object = None,
    ) -> None:
        """Train a plan.

        Parameters
        ----------
        model
            The plan.
        train_dataloaders, val_dataloaders
            Iterables of minibatches, unless a data module is given.
        datamodule
            Object with ``train_dataloader`` and ``val_dataloader``, set up.

        Raises
        ------
        NonFiniteLossError
            The loss became NaN or infinite, after the retries; the last finite weights are kept.
        """
        keep_large_blocks()
        self.engine = make_engine(**self._engine_kwargs)
        self.plan = model
        self._take_loaders(train_dataloaders, val_dataloaders, datamodule)
        self._draws_globally = draws_globally(model)  # asked before the engine wraps the module
        self.raw_module = self.engine.place(model)
        model.trainer = self
        try:
            self._prepare()
            threads = None if self._resumed is None else self._resumed.threads
            with self._randomness(), working_threads(threads), speaking_at(self.verbose), self.engine.computing():
                self.attempts.run()
        finally:
            self.engine.release(self.raw_module)
            model.module, model.trainer = self.raw_module, None
            give_back_free_blocks()

    def _take_loaders(self, train: Iterable[Any] | None, validation: Iterable[Any] | None, datamodule: object) -> None:
        self.data, self._finish_batch = None, None
        if datamodule is not None:
            self.data = as_data_module(datamodule)
            self._finish_batch = self.data.finisher
            train, validation = self.data.train_dataloader(), self.data.val_dataloader()
        if train is None:
            raise ValueError("There is nothing to train on: the data module has no cells, or no loader was given.")
        self.datamodule, self.train_loader = datamodule, as_loader(train)
        validates = validation is not None and self.check_val_every_n_epoch and self.limit_val_batches != 0
        self.val_loader = as_loader(validation) if validation is not None and validates else None
        loaders = [loader for loader in (self.train_loader, self.val_loader) if loader is not None]
        if self.engine.world_size > 1:
            for loader in loaders:
                loader.take_share(self.engine.rank, self.engine.world_size)
        if self.engine.room_for_data:
            keep_on_device(loaders, self.engine.device, self.engine.room_for_data)

    def _randomness(self) -> AbstractContextManager[int]:
        seed = self.seed if self.seed is None else self.seed + self.engine.rank  # noise of each process's own
        others = self._draws_globally
        return global_rng(seed, self.engine.device) if others else own_rng(seed)

    def _prepare(self) -> None:
        self._prepare_callbacks()
        self.identity, self.checkpointing = {}, Watcher()
        if self._resumed is not None or self._checkpoints != (None, None):
            self.identity = checkpoints.describe_run(self)  # reads the names of all cells
            if self._resumed is not None:
                checkpoints.refuse_other_run(self._resumed.path, self._resumed.state["identity"], self.identity)
            self.checkpointing = checkpoints.make_checkpointing(self, *self._checkpoints, self._resumed)
        self.attempts = Attempts(self)
        if self.engine.is_first and self._resumed is None:
            say_where_cells_are_alike(self.train_loader)

    def run_once(self) -> None:
        """Run from where the trainer stands, or from the checkpoint that it resumes, to the end."""
        self.call("setup", stage="fit")
        self.optimizers, self.lr_links = unpack_optimizers(self.plan.configure_optimizers())
        self.optimizers = self.engine.set_up_optimizers(self.optimizers)
        every = 1 if self.engine.device.type == "cpu" else self.log_every_n_steps
        can_retry = self.attempts.number < self.retries
        self.guard = FiniteGuard(self.raw_module, every, self.engine.any_process, can_retry)
        self.recorded = {}
        self.progress = make_progress(self.verbose if self.engine.is_first else 0)
        started, self.n_seen = time.perf_counter(), 0
        self.progress.start(self.max_epochs)
        try:
            self._begin()
            prepare_recordings(self)
            self._run_epochs()
            self._end()
        except KeyboardInterrupt:
            self.interrupted = True
            self.stop(f"interrupted by hand in epoch {self.current_epoch}; the model is usable")
            self._end()
        except Exception as error:
            self.call("on_exception", error)
            self._finalize_loggers("failed")
            raise
        finally:
            self.recorded = {}  # their memory
            self.checkpointing.close()
            self.progress.close()
            self.call("teardown", stage="fit")
        if self.engine.is_first and self.verbose:
            say_summary(self, time.perf_counter() - started)

    def _run_epochs(self) -> None:
        while not self._finished():
            row = run_epoch(self)
            self.n_seen += self.plan.train_epoch_metrics.n_obs
            self.progress.epoch(self.current_epoch, row)
            self.current_epoch += 1
            self.batches_done, self.epoch_is_trained = 0, False
            self.checkpointing.epoch_done()
        self.checkpointing.training_over()

    def _begin(self) -> None:
        self.call("on_fit_start")
        self.plan.on_train_start()
        self.call("on_train_start")
        resumed, self._resumed = self._resumed, None  # once: an attempt after it begins at the beginning
        if resumed is not None:
            checkpoints.restore(self, resumed.state, resumed.path)
            self.n_seen = -self.plan.train_epoch_metrics.n_obs if self.batches_done else 0
            checkpoints.say_what_differs(self, resumed)
        self.checkpointing.begin(resumed is not None)

    def _end(self) -> None:
        self.plan.on_train_end()
        self.call("on_train_end")
        self.call("on_fit_end")
        self._finalize_loggers("success")

    def _finalize_loggers(self, status: str) -> None:
        for log in self.loggers:
            log.finalize(status)

    def _finished(self) -> bool:
        if self.batches_done:
            return False  # resumed within an epoch: it is brought to its end
        if self.should_stop and self.current_epoch >= self.min_epochs:
            return True
        return self.current_epoch >= self.max_epochs or 0 < self.max_steps <= self.global_step

    def _prepare_callbacks(self) -> None:
        if self.val_loader is None:
            refuse_without_validation(self.callbacks)
        if self._stop_after_kl_warmup is not None:
            self._stop_after_kl_warmup.warmup_epochs = self.plan.kl_warmup_epochs
        if self.max_epochs == 1:  # a curve by epochs would be a single point
            self.plan.on_step = True
        keeps = self.keep_best and self.val_loader is not None
        keep_best = [KeepBest(from_share=self.keep_best_from, gives_up_after=self.gives_up_after)] if keeps else []
        everyone = [*self.callbacks, *keep_best]
        self._hooks = Hooks(everyone)
        self.stateful = [callback for callback in everyone if isinstance(callback, Callback)]

    # Records.

    def record(self, row: Mapping[str, float]) -> None:
        """Write an epoch's metrics to the history and the loggers."""
        if self.plan.by_step_and_epoch:
            row = {**row, **{f"{name}_epoch": value for name, value in row.items()}}
        self.note(row)
        self.history.add(self.current_epoch, row)
        for log in self.loggers if self.engine.is_first else ():
            log.log_metrics(dict(row), step=self.current_epoch)

    def record_step(self, values: Mapping[str, Tensor | float]) -> None:
        """Write a step's values, every ``log_every_n_steps`` steps."""
        if self.global_step % self.log_every_n_steps:
            return
        row = _of_step(values)
        self.history.add(self.global_step, row, "step")
        for log in self.loggers if self.engine.is_first else ():
            log.log_metrics(row, step=self.global_step)

    def record_validation_step(self) -> None:
        """Write what the plan noted of a validation minibatch, which are counted from the first."""
        if self.plan.step_values:
            self.history.log_metrics(_of_step(self.plan.step_values))
            self.plan.step_values = {}


def _of_step(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    return {f"{name}_step": float(value) for name, value in values.items()}
