"""Trainer: settings and state of a run; :mod:`celbo.train.loop` does the epochs."""

import inspect
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..ops.memory import keep_large_blocks
from ..ops.random import private_rng
from .arguments import as_list, refuse_unknown
from .base import Plan
from .callbacks import Callback, KeepBest, LearningRateMonitor, LoudEarlyStopping, SaveCheckpoint
from .fabric import make_engine
from .history import History
from .hooks import Hooks
from .loggers import make_loggers
from .loop import batches_in, run_epoch
from .nonfinite import FiniteGuard, NonFiniteLossError
from .optim import SchedulerLink, unpack_optimizers
from .progress import make_progress

__all__ = ["Trainer"]

logger = logging.getLogger("celbo")


class Trainer:
    """Runs a plan over a data module.

    Parameters
    ----------
    accelerator, devices, strategy, precision, num_nodes
        Where and how to compute; see :func:`~celbo.train.fabric.make_engine`.
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
    retries
        How often a run whose weights diverge starts anew with a quarter of the learning rate.

    Raises
    ------
    TypeError
        An unknown argument, with the nearest known one.
    """

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
        logger: Any = None,
        log_every_n_steps: int = 10,
        learning_rate_monitor: bool = False,
        log_save_dir: str | Path | None = None,
        strategy: str = "auto",
        precision: str | int = "32-true",
        num_nodes: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        accumulate_grad_batches: int = 1,
        limit_train_batches: float | None = None,
        limit_val_batches: float | None = None,
        callbacks: Any = None,
        seed: int | None = None,
        verbose: int = 1,
        keep_best: bool = False,
        retries: int = 0,
        **without_effect: Any,
    ) -> None:
        refuse_unknown(without_effect, inspect.signature(Trainer).parameters)
        if max_epochs is None or int(max_epochs) < 1:
            raise ValueError(f"max_epochs must be at least 1, got {max_epochs!r}.")
        self._engine_kwargs: dict[str, Any] = {
            "accelerator": accelerator,
            "devices": devices,
            "strategy": strategy,
            "precision": precision,
            "num_nodes": num_nodes,
        }
        self.max_epochs, self.min_epochs, self.max_steps = int(max_epochs), min_epochs, max_steps
        self.check_val_every_n_epoch = 1 if check_val_every_n_epoch is None else check_val_every_n_epoch
        self.log_every_n_steps = log_every_n_steps
        self.gradient_clip_val, self.gradient_clip_algorithm = gradient_clip_val, gradient_clip_algorithm
        self.accumulate_grad_batches = accumulate_grad_batches
        self.limit_train_batches, self.limit_val_batches = limit_train_batches, limit_val_batches
        self.seed, self.retries = seed, retries
        self.verbose = verbose if enable_progress_bar else 0
        self.loggers = make_loggers(logger, log_save_dir)
        self.callbacks: list[Any] = as_list(callbacks)
        self._stop_after_kl_warmup: LoudEarlyStopping | None = None
        if early_stopping:
            stopping = LoudEarlyStopping(
                early_stopping_monitor,
                early_stopping_min_delta,
                early_stopping_patience,
                early_stopping_mode,
                early_stopping_warmup_epochs or 0,
            )
            self.callbacks.append(stopping)
            self._stop_after_kl_warmup = stopping if early_stopping_warmup_epochs is None else None
        if enable_checkpointing and not any(isinstance(callback, SaveCheckpoint) for callback in self.callbacks):
            self.callbacks.append(SaveCheckpoint(monitor=checkpointing_monitor, dirpath=log_save_dir))
        if learning_rate_monitor:
            self.callbacks.append(LearningRateMonitor())
        self.keep_best = keep_best
        self.model: Any = None
        self.history = History()
        self._reset()

    def _reset(self) -> None:
        self.current_epoch = 0
        self.global_step = 0
        self.should_stop = False
        self.stop_reason = ""
        self.interrupted = False
        self.last_validated_epoch: int | None = None
        self.callback_metrics: dict[str, float] = {}
        self.optimizers: list[torch.optim.Optimizer] = []
        self.lr_links: list[SchedulerLink] = []

    # What plans and callbacks ask of their trainer, by Lightning's names.

    @property
    def logged_metrics(self) -> dict[str, float]:
        """Metrics of the last epoch."""
        return self.callback_metrics

    @property
    def logger(self) -> Any:
        """The first logger, or None."""
        return self.loggers[0] if self.loggers else None

    @property
    def lightning_module(self) -> Plan:
        """The plan."""
        return self.plan

    @property
    def is_global_zero(self) -> bool:
        """Whether this process writes and speaks."""
        return self.engine.is_first

    @property
    def num_training_batches(self) -> int | None:
        """Minibatches an epoch; None where the loader has no length."""
        return batches_in(self.train_loader, self.limit_train_batches)

    @property
    def estimated_stepping_batches(self) -> int:
        """Optimizer steps of the whole run."""
        if self.num_training_batches is None:
            raise TypeError(
                "A one-cycle schedule must know the number of steps, but the training loader has no length: "
                "give it a __len__, or train with recipe='classic'."
            )
        steps = self.max_epochs * math.ceil(self.num_training_batches / self.accumulate_grad_batches)
        return min(steps, self.max_steps) if self.max_steps > 0 else steps

    @property
    def validates_now(self) -> bool:
        """Whether the running epoch ends with a validation."""
        return self.val_loader is not None and (self.current_epoch + 1) % self.check_val_every_n_epoch == 0

    def stop(self, reason: str) -> None:
        """End training after this epoch and say why."""
        self.should_stop, self.stop_reason = True, reason

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward pass under the run's precision and strategy."""
        self.engine.backward(loss, **kwargs)

    def to_device(self, batch: Any) -> Any:
        """Move a minibatch, and let the data module finish it there (sparse tensors are made dense)."""
        batch = self.engine.to_device(batch)
        if self._finish_batch is None:
            return batch
        if isinstance(batch, tuple | list):  # several minibatches at once, as (all cells, labelled cells)
            return type(batch)(self._finish_batch(part, 0) for part in batch)
        return self._finish_batch(batch, 0)

    def save_model(self, path: Path) -> None:
        """Write the model as it stands, trained up to here, as an archive."""
        if self.model is None:
            raise ValueError("Checkpoints are archives of a model: train through model.train, or set trainer.model.")
        before = self.model.is_trained_, self.model.history_
        try:
            history = History(self.history.frames())
            history.add(0, self.callback_metrics)  # of the running epoch, which ends only after the validation
            self.model.is_trained_, self.model.history_ = True, history.frames()
            self.model.save(str(path), overwrite=True)
        finally:
            self.model.is_trained_, self.model.history_ = before

    def call(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Call a hook of the callbacks."""
        self._hooks.call(hook, self, *args, **kwargs)

    # The run.

    def fit(
        self,
        model: Plan,
        train_dataloaders: Iterable[Any] | None = None,
        val_dataloaders: Iterable[Any] | None = None,
        datamodule: Any = None,
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
        self._finish_batch = getattr(
            datamodule, "on_after_batch_transfer", None
        )  # data modules of others need not have it
        if datamodule is not None:
            train_dataloaders, val_dataloaders = datamodule.train_dataloader(), datamodule.val_dataloader()
        keep_large_blocks()
        self.plan, self.train_loader = model, train_dataloaders
        self.val_loader = val_dataloaders if self.check_val_every_n_epoch and self.limit_val_batches != 0 else None
        self.engine = make_engine(**self._engine_kwargs)
        self.raw_module = self.engine.place(model)
        model.trainer = self
        self._prepare_callbacks()
        try:
            with private_rng(self.seed, self.engine.device):
                self._fit_with_retries()
        finally:
            self.engine.release(self.raw_module)
            model.module, model.trainer = self.raw_module, None

    def _fit_with_retries(self) -> None:
        before = self.history.frames()
        initial = {name: value.clone() for name, value in self.raw_module.state_dict().items()} if self.retries else {}
        noted = [(callback, callback.state_dict()) for callback in self._stateful if self.retries]
        for attempt in range(self.retries + 1):
            self._reset()
            self.history = History(before)
            try:
                return self._run()
            except NonFiniteLossError as error:
                if attempt == self.retries or error.from_data:
                    raise
                self.plan.scale_learning_rate(0.25)
                self.raw_module.load_state_dict(initial)
                for callback, state in noted:
                    callback.load_state_dict(state)
                logger.warning(f"{error} Starting anew with a quarter of the learning rate.")

    def _run(self) -> None:
        self.optimizers, self.lr_links = unpack_optimizers(self.plan.configure_optimizers())
        self.optimizers = self.engine.set_up_optimizers(self.optimizers)
        self.guard = FiniteGuard(self.raw_module, 1 if self.engine.device.type == "cpu" else self.log_every_n_steps)
        progress = make_progress(self.verbose if self.engine.is_first else 0)
        progress.start(self.max_epochs)
        started, n_seen = time.perf_counter(), 0
        try:
            self._begin()
            while not self._finished():
                row = run_epoch(self)
                n_seen += self.plan.train_epoch_metrics.n_obs
                progress.epoch(self.current_epoch, row)
                self.current_epoch += 1
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
            progress.close()
            self.call("teardown", stage="fit")
        self._summarise(time.perf_counter() - started, n_seen)

    def _begin(self) -> None:
        self.call("setup", stage="fit")
        self.call("on_fit_start")
        self.plan.on_train_start()
        self.call("on_train_start")

    def _end(self) -> None:
        self.plan.on_train_end()
        self.call("on_train_end")
        self.call("on_fit_end")
        self._finalize_loggers("success")

    def _finalize_loggers(self, status: str) -> None:
        for log in self.loggers:
            log.finalize(status)

    def _finished(self) -> bool:
        if self.should_stop and self.current_epoch >= self.min_epochs:
            return True
        return self.current_epoch >= self.max_epochs or 0 < self.max_steps <= self.global_step

    def _prepare_callbacks(self) -> None:
        for callback in self.callbacks:
            if isinstance(callback, LoudEarlyStopping) and "validation" in callback.monitor and self.val_loader is None:
                raise ValueError(
                    "Can't run Early Stopping with validation monitor with no validation set: "
                    "give validation_size, or early_stopping=False."
                )
        if self._stop_after_kl_warmup is not None:
            self._stop_after_kl_warmup.warmup_epochs = self.plan.kl_warmup_epochs
        if self.max_epochs == 1:  # a curve by epochs would be a single point
            self.plan.on_step = True
        keep_best = [KeepBest()] if self.keep_best and self.val_loader is not None else []
        everyone = [*self.callbacks, *keep_best]
        self._hooks = Hooks(everyone)
        self._stateful = [callback for callback in everyone if isinstance(callback, Callback)]

    # Records.

    def record(self, row: Mapping[str, float]) -> None:
        """Write an epoch's metrics to the history and the loggers."""
        self.callback_metrics |= row
        self.history.add(self.current_epoch, row)
        for log in self.loggers:
            log.log_metrics(dict(row), step=self.current_epoch)

    def record_step(self, values: Mapping[str, Tensor | float]) -> None:
        """Write a step's values, every ``log_every_n_steps`` steps."""
        if self.global_step % self.log_every_n_steps:
            return
        row = {f"{name}_step": float(value) for name, value in values.items()}
        self.history.add(self.global_step, row, "step")
        for log in self.loggers:
            log.log_metrics(row, step=self.global_step)

    def _summarise(self, seconds: float, n_seen: int) -> None:
        if not self.engine.is_first or not self.verbose:
            return
        elbo = self.callback_metrics.get("elbo_validation")
        parts = [f"{self.current_epoch} epochs in {seconds:.1f} s ({n_seen / max(seconds, 1e-9):,.0f} cells/s)"]
        parts += [] if elbo is None else [f"validation ELBO {elbo:.2f}"]
        parts += [f"stopped: {self.stop_reason}"] if self.stop_reason else []
        logger.info(f"Trained {', '.join(parts)}.")
