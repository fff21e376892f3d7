"""Training under Lightning's own Trainer, for what only that one understands.

celbo's loop calls callbacks by Lightning's hook names and writes to Lightning's loggers by itself. A profiler,
``fast_dev_run`` or one of Lightning's own callbacks needs Lightning's ``Trainer``: then the plan runs under it, as a
``LightningModule`` (:mod:`celbo.train.lightning.module`), with the same metrics and history.
"""

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ...core import optional, settings
from ...module.base.randomness import minibatches_of, randomness_of
from ...ops.native.thread_count import working_threads
from ..arguments import WITHOUT_EFFECT, as_list
from ..callbacks import HOOKS
from ..nonfinite import FiniteGuard
from ..plans.base import Plan
from ..trainer import Trainer
from .module import make_history_logger, make_lightning_module

__all__ = ["LIGHTNING_ONLY", "LightningTrainer", "make_trainer", "needs_lightning"]

logger = logging.getLogger("celbo")

LIGHTNING_ONLY = (
    "ckpt_path",
    "enable_autolog_hparams",
    "fast_dev_run",
    "limit_predict_batches",
    "limit_test_batches",
    "max_time",
    "min_steps",
    "model_registry",
    "overfit_batches",
    "plugins",
    "profiler",
    "reload_dataloaders_every_n_epochs",
    "sync_batchnorm",
    "val_check_interval",
)
"""Arguments of Lightning's Trainer (2.6), and of its ``fit``, that celbo's does not have."""

_PACKAGES = ("lightning.pytorch.", "pytorch_lightning.")
_STATE = ("state_key", "state_dict", "load_state_dict", "on_save_checkpoint", "on_load_checkpoint")


def needs_lightning(kwargs: Mapping[str, Any]) -> list[str]:
    """What of a trainer's arguments only Lightning's Trainer understands, in words; Lightning is not imported for it.

    Parameters
    ----------
    kwargs
        Arguments of ``train`` for the trainer.
    """
    needs = [name for name in LIGHTNING_ONLY if kwargs.get(name) is not None]
    needs += [
        f"{name}={type(kwargs[name]).__name__}" for name in ("strategy", "accelerator") if _is_theirs(kwargs.get(name))
    ]
    needs += [
        type(callback).__name__ for callback in as_list(kwargs.get("callbacks")) if _needs_their_trainer(callback)
    ]
    return needs


def _is_theirs(value: Any) -> bool:
    return f"{type(value).__module__}.".startswith(_PACKAGES)


def _needs_their_trainer(callback: Any) -> bool:
    """Whether a callback is one of Lightning's own, or has a hook that celbo's loop does not call."""
    bases = [cls for cls in type(callback).__mro__ if f"{cls.__module__}.".startswith(_PACKAGES)]
    if not bases:
        return False
    if any(cls.__name__ != "Callback" for cls in bases):
        return True
    known_to_them = {name for name in dir(bases[-1]) if name.startswith("on_")} - set(HOOKS) - set(_STATE)
    own = {name for cls in type(callback).__mro__ if cls not in (*bases, object) for name in vars(cls)}
    return bool(known_to_them & own)


def make_trainer(trainer_cls: type[Trainer], kwargs: dict[str, Any]) -> Trainer:
    """The trainer for these arguments: celbo's, or Lightning's where one of them needs it (said in one line).

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
    trainer = LightningTrainer(**kwargs)
    logger.info(f"Training under Lightning's Trainer: celbo's own loop does not have {', '.join(needs)}.")
    return trainer


class _Batches:
    """Minibatches of a loader and nothing else: Lightning looks into what resembles torch's DataLoader."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(minibatches_of(self._loader))

    def __len__(self) -> int:
        return len(self._loader)


class _LightningEngine:
    """What plan, metrics and callbacks ask of celbo's engine, answered by a running Lightning Trainer."""

    def __init__(self, trainer: Any, module: Any) -> None:
        self.trainer, self.module = trainer, module

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.trainer.strategy.root_device

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.trainer.is_global_zero

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.trainer.world_size

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.trainer.global_rank

    def to_device(self, batch: Any) -> Any:
        """The minibatch as it is: Lightning has moved it."""
        return batch

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Backward pass of manual optimization."""
        self.module.manual_backward(loss, **kwargs)

    def gather(self, value: Any) -> list[Any]:
        """What each process has, by rank; in all processes."""
        if self.trainer.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(gathered, value)
        return gathered


class LightningTrainer(Trainer):
    """celbo's trainer with the epochs left to ``lightning.pytorch.Trainer``.

    Parameters
    ----------
    **kwargs
        Arguments of :class:`~celbo.train.Trainer` and of Lightning's. Runs that diverge are not started again.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._lightning = optional("lightning.pytorch", extra="lightning", purpose=", ".join(needs_lightning(kwargs)))
        known = {*inspect.signature(Trainer.__init__).parameters, *WITHOUT_EFFECT}
        callbacks = as_list(kwargs.pop("callbacks", None))
        self._their_callbacks = [callback for callback in callbacks if _needs_their_trainer(callback)]
        ours = [callback for callback in callbacks if not _needs_their_trainer(callback)]
        self._theirs = {name: kwargs.pop(name) for name in LIGHTNING_ONLY if name in kwargs}
        self._ckpt_path = self._theirs.pop("ckpt_path", None)
        switches = inspect.signature(self._lightning.Trainer.__init__).parameters
        self._theirs |= {name: kwargs[name] for name in WITHOUT_EFFECT if name in kwargs and name in switches}
        super().__init__(callbacks=ours, **{n: v for n, v in kwargs.items() if n in known or n not in self._theirs})
        self.retries = 0
        self._their_loggers = [log for log in self.loggers if _is_theirs(log)]
        self.loggers = [log for log in self.loggers if not _is_theirs(log)]

    def fit(
        self, model: Plan, train_dataloaders: Any = None, val_dataloaders: Any = None, datamodule: Any = None
    ) -> None:
        """Train a plan; see :meth:`celbo.train.Trainer.fit`."""
        self._finish_batch = getattr(datamodule, "on_after_batch_transfer", None)
        if datamodule is not None:
            train_dataloaders, val_dataloaders = datamodule.train_dataloader(), datamodule.val_dataloader()
        self.plan, self.datamodule, self.train_loader = model, datamodule, train_dataloaders
        self.raw_module = model.module
        self.val_loader = val_dataloaders if self.check_val_every_n_epoch and self.limit_val_batches != 0 else None
        self.reset()
        with _quiet():
            module = make_lightning_module(self._lightning.LightningModule, model, self, self.follow)
            their_trainer = self._lightning.Trainer(**self._their_arguments())
            self.engine: Any = _LightningEngine(their_trainer, module)
            self._run_theirs(their_trainer, module)
        self.interrupted = bool(their_trainer.interrupted)

    def _run_theirs(self, their_trainer: Any, module: Any) -> None:
        self.guard = FiniteGuard(self.raw_module, 1)
        self.plan.trainer = self
        self._prepare_callbacks()
        validation = None if self.val_loader is None else _Batches(self.val_loader)
        try:
            with randomness_of(self.plan, self.seed, self.engine.device), working_threads():
                their_trainer.fit(module, _Batches(self.train_loader), validation, ckpt_path=self._ckpt_path)
        except Exception as error:
            self.call("on_exception", error)
            raise
        finally:
            self.plan.trainer = None
            self.plan.to(self.engine.device)

    def _their_arguments(self) -> dict[str, Any]:
        checkpoints = any("ModelCheckpoint" in {c.__name__ for c in type(cb).__mro__} for cb in self._their_callbacks)
        clipping = {} if self.gradient_clip_val is None else {"gradient_clip_algorithm": self.gradient_clip_algorithm}
        ours = {
            **self._engine_kwargs,
            **clipping,
            "max_epochs": self.max_epochs,
            "min_epochs": self.min_epochs or None,
            "max_steps": self.max_steps,
            "check_val_every_n_epoch": max(1, self.check_val_every_n_epoch),
            "gradient_clip_val": self.gradient_clip_val,
            "accumulate_grad_batches": self.accumulate_grad_batches,
            "limit_train_batches": self.limit_train_batches,
            "limit_val_batches": self.limit_val_batches,
            "log_every_n_steps": self.log_every_n_steps,
            "callbacks": self._their_callbacks,
            "logger": [*self._their_loggers, make_history_logger(self._lightning.loggers.Logger, self.history)],
            "enable_progress_bar": bool(self.verbose),
            "enable_checkpointing": checkpoints,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": str(settings.logging_dir),
        }
        return ours | self._theirs

    def follow(self) -> None:
        """Take over where Lightning's loop stands: plan and callbacks ask this trainer."""
        theirs = self.engine.trainer
        self.current_epoch, self.global_step = theirs.current_epoch, theirs.global_step


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's tips, device adverts and advice about its own loaders do not reach the user; its errors do."""
    names = ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")
    loggers = [logging.getLogger(name) for name in names]
    levels = [log.level for log in loggers]
    try:
        for log in loggers:
            log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(lightning|pytorch_lightning)\.")
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
