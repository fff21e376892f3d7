"""Training under Lightning's own Trainer, for what only that one understands.

celbo's loop calls callbacks by Lightning's hook names and writes to Lightning's loggers by itself. A profiler,
``fast_dev_run`` or one of Lightning's own callbacks needs Lightning's ``Trainer``: then the plan runs under it, as a
``LightningModule`` (:mod:`celbo.train.lightning.module`), with the same metrics and history.
"""

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...core import optional, settings
from ...dataloaders.base import Loader
from ...ops.draws import minibatches_of, randomness_of
from ...ops.native.threads import working_threads
from ..config import LIGHTNING_ONLY, WITHOUT_EFFECT, as_list, is_lightnings, needs_lightning, needs_their_trainer
from ..engines.engine import Engine
from ..nonfinite import FiniteGuard
from ..plans.base import Plan
from ..trainer import Trainer
from .module import make_history_logger, make_lightning_module

__all__ = ["LightningTrainer"]


class _Batches:
    """Minibatches of a loader and nothing else: Lightning looks into what resembles torch's DataLoader."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(minibatches_of(self._loader))

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]


class _LightningEngine(Engine):
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
        self._their_callbacks = [callback for callback in callbacks if needs_their_trainer(callback)]
        ours = [callback for callback in callbacks if not needs_their_trainer(callback)]
        self._theirs = {name: kwargs.pop(name) for name in LIGHTNING_ONLY if name in kwargs}
        self._ckpt_path = self._theirs.pop("ckpt_path", None)
        switches = inspect.signature(self._lightning.Trainer.__init__).parameters
        self._theirs |= {name: kwargs[name] for name in WITHOUT_EFFECT if name in kwargs and name in switches}
        super().__init__(callbacks=ours, **{n: v for n, v in kwargs.items() if n in known or n not in self._theirs})
        self.retries = 0
        self._their_loggers = [log for log in self.loggers if is_lightnings(log)]
        self.loggers = [log for log in self.loggers if not is_lightnings(log)]

    def fit(
        self, model: Plan, train_dataloaders: Any = None, val_dataloaders: Any = None, datamodule: Any = None
    ) -> None:
        """Train a plan; see :meth:`celbo.train.Trainer.fit`."""
        self.plan, self.raw_module, self.engine = model, model.module, Engine()  # until Lightning's Trainer is there
        self._take_loaders(train_dataloaders, val_dataloaders, datamodule)
        self.reset()
        with _quiet():
            module = make_lightning_module(self._lightning.LightningModule, model, self, self.follow)
            their_trainer = self._their_trainer = self._lightning.Trainer(**self._their_arguments())
            self.engine = _LightningEngine(their_trainer, module)
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
        theirs = self._their_trainer
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
