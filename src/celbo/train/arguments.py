"""Arguments of a training run as users give them."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..core import UnknownArgumentError

__all__ = ["as_list", "refuse_unknown"]

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


def refuse_unknown(kwargs: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise an error for a keyword that is neither known nor one of Lightning's that change nothing here."""
    for name in kwargs:
        if name not in WITHOUT_EFFECT:
            raise UnknownArgumentError.among(
                name, "train", [*(k for k in known if k not in ("self", "without_effect")), *WITHOUT_EFFECT]
            )


def as_list(given: object) -> list[Any]:
    """One, several or none, as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]
