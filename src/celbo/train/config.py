"""What users ask of a training run: settings as objects, how they combine with keywords, and who understands them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, runtime_checkable

from ..core import ArgumentError, UnknownArgumentError, checked
from .callbacks import HOOKS

__all__ = [
    "LIGHTNING_ONLY",
    "WITHOUT_EFFECT",
    "KwargsLike",
    "TrainerConfig",
    "TrainingPlanConfig",
    "as_list",
    "flatten_config",
    "is_lightnings",
    "merge_kwargs",
    "needs_lightning",
    "needs_their_trainer",
    "refuse_unknown",
]


@runtime_checkable
class _HasToKwargs(Protocol):
    def to_kwargs(self) -> dict[str, Any]: ...


KwargsLike = Mapping[str, Any] | _HasToKwargs


def flatten_config(config: Any, nested: str) -> dict[str, Any]:
    """The fields of a dataclass as keyword arguments, those of the field ``nested`` beside the others."""
    kwargs = {f.name: getattr(config, f.name) for f in fields(config) if f.name != nested}
    return kwargs | getattr(config, nested)


@checked
@dataclass
class TrainingPlanConfig:
    """Arguments of :class:`~celbo.train.TrainingPlan`, with scvi-tools' defaults; see there."""

    optimizer: Literal["Adam", "AdamW", "Custom"] = "Adam"
    optimizer_creator: Any = None
    lr: float = 1e-3
    update_only_decoder: bool = False
    weight_decay: float = 1e-6
    eps: float = 0.01
    n_steps_kl_warmup: int | None = None
    n_epochs_kl_warmup: int | None = 400
    reduce_lr_on_plateau: bool = False
    lr_factor: float = 0.6
    lr_patience: int = 30
    lr_threshold: float = 0.0
    lr_scheduler_metric: Literal["elbo_validation", "reconstruction_loss_validation", "kl_local_validation"] = (
        "elbo_validation"
    )
    lr_min: float = 0.0
    max_kl_weight: float = 1.0
    min_kl_weight: float = 0.0
    compile: bool = False
    compile_kwargs: dict[str, Any] | None = None
    on_step: bool | None = False
    on_epoch: bool | None = True
    loss_kwargs: dict[str, Any] = field(default_factory=dict)

    def to_kwargs(self) -> dict[str, Any]:
        """As keyword arguments of the plan."""
        return flatten_config(self, "loss_kwargs")


@checked
@dataclass
class TrainerConfig:
    """Arguments of :class:`~celbo.train.Trainer`, with scvi-tools' defaults; see there."""

    accelerator: str | None = None
    devices: list[int] | str | int | None = None
    benchmark: bool = True
    check_val_every_n_epoch: int | None = None
    max_epochs: int = 400
    default_root_dir: str | None = None
    enable_checkpointing: bool = False
    checkpointing_monitor: str = "validation_loss"
    num_sanity_val_steps: int = 0
    enable_model_summary: bool = False
    early_stopping: bool = False
    early_stopping_monitor: str = "elbo_validation"
    early_stopping_min_delta: float = 0.0
    early_stopping_patience: int = 45
    early_stopping_warmup_epochs: int | None = 0
    early_stopping_mode: Literal["min", "max"] = "min"
    enable_progress_bar: bool = True
    progress_bar_refresh_rate: int = 1
    simple_progress_bar: bool = True
    logger: Any = None
    log_every_n_steps: int = 10
    learning_rate_monitor: bool = False
    log_save_dir: str | None = None
    extra_kwargs: dict[str, Any] = field(default_factory=dict)

    def to_kwargs(self) -> dict[str, Any]:
        """As keyword arguments of the trainer."""
        return flatten_config(self, "extra_kwargs")


def merge_kwargs(config: KwargsLike | None, overrides: KwargsLike | None, *, name: str) -> dict[str, Any]:
    """Settings of a config object with keyword arguments over them.

    Parameters
    ----------
    config, overrides
        Mappings, or objects with ``to_kwargs()``; None is empty. ``overrides`` win.
    name
        What is configured, for messages.

    Raises
    ------
    TypeError
        Anything else.
    """
    return _as_dict(config, f"{name}_config") | _as_dict(overrides, f"{name}_kwargs")


def _as_dict(settings: KwargsLike | None, argument: str) -> dict[str, Any]:
    if settings is None:
        return {}
    if isinstance(settings, Mapping):
        return dict(settings)
    if not isinstance(settings, _HasToKwargs):
        raise TypeError(f"{argument} must be a mapping or have to_kwargs(), got a {type(settings).__name__}.")
    given = settings.to_kwargs()
    if not isinstance(given, Mapping):
        kind = type(given).__name__
        raise TypeError(f"{argument}: to_kwargs() of a {type(settings).__name__} must give a mapping, not a {kind}.")
    return dict(given)


# Switches of Lightning's Trainer that change nothing here: what they turn on celbo does anyway, or has not.
WITHOUT_EFFECT = (
    "barebones",
    "benchmark",
    "default_root_dir",
    "detect_anomaly",
    "deterministic",
    "enable_model_summary",
    "inference_mode",
    "num_sanity_val_steps",
    "progress_bar_refresh_rate",
    "simple_progress_bar",
    "use_distributed_sampler",
)


TO_GO_ON = "To go on with a killed run: train(resume=DIR)."
_RESUMING = re.compile("resum|ckpt|from_checkpoint|checkpoint_path")


def refuse_unknown(kwargs: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise an ``UnknownArgumentError`` for a keyword that is neither known nor one of Lightning's without effect.

    Raises an ``ArgumentError`` that says how to resume for one that seems to mean that.
    """
    for name in kwargs:
        if _RESUMING.search(name):
            raise ArgumentError.of(name, f"No argument of train is called {name!r}. {TO_GO_ON}")
        if name not in WITHOUT_EFFECT:
            raise UnknownArgumentError.among(
                name, "train", [*(k for k in known if k not in ("self", "without_effect")), *WITHOUT_EFFECT]
            )


def as_list(given: object) -> list[Any]:
    """One, several or none, as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


# What only Lightning's Trainer understands.

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

_LIGHTNING = ("lightning.pytorch.", "pytorch_lightning.")
_STATE = ("state_key", "state_dict", "load_state_dict", "on_save_checkpoint", "on_load_checkpoint")


def needs_lightning(kwargs: Mapping[str, Any]) -> list[str]:
    """What of a trainer's arguments only Lightning's Trainer understands, in words; Lightning is not imported for it.

    Parameters
    ----------
    kwargs
        Arguments of ``train`` for the trainer.
    """
    theirs = [name for name in ("strategy", "accelerator") if is_lightnings(kwargs.get(name))]
    needs = [name for name in LIGHTNING_ONLY if kwargs.get(name) is not None]
    needs += [f"{name}={type(kwargs[name]).__name__}" for name in theirs]
    needs += [type(callback).__name__ for callback in as_list(kwargs.get("callbacks")) if needs_their_trainer(callback)]
    return needs


def is_lightnings(value: object) -> bool:
    """Whether an object is of a class of Lightning's."""
    return f"{type(value).__module__}.".startswith(_LIGHTNING)


def needs_their_trainer(callback: object) -> bool:
    """Whether a callback is one of Lightning's own, or has a hook that celbo's loop does not call."""
    bases = [cls for cls in type(callback).__mro__ if f"{cls.__module__}.".startswith(_LIGHTNING)]
    if not bases:
        return False
    if any(cls.__name__ != "Callback" for cls in bases):
        return True
    known_to_them = {name for name in dir(bases[-1]) if name.startswith("on_")} - set(HOOKS) - set(_STATE)
    own = {name for cls in type(callback).__mro__ if cls not in (*bases, object) for name in vars(cls)}
    return bool(known_to_them & own)
