"""Loggers beside the history: Fabric's, by name, or the user's own."""

from pathlib import Path
from typing import Any

from ..core import settings, unknown_name
from ..core.kinds import described

__all__ = ["make_loggers"]


def make_loggers(chosen: object, folder: str | Path | None) -> list[Any]:
    """Loggers from what the user gave.

    Parameters
    ----------
    chosen
        None or False: none, the history is always kept. ``"csv"`` (or True), ``"tensorboard"``; a logger of Fabric or
        Lightning; a list of them.
    folder
        Where named loggers write; ``settings.logging_dir`` when not given.

    Raises
    ------
    ValueError, TypeError
        Anything else.
    """
    if chosen is None or chosen is False:
        return []
    if chosen is True or isinstance(chosen, str):
        from lightning_fabric.loggers import CSVLogger, TensorBoardLogger

        named = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
        name = "csv" if chosen is True else chosen
        if name not in named:
            raise ValueError(unknown_name("logger", name, named))
        return [named[name](root_dir=str(folder or settings.logging_dir))]
    loggers = list(chosen) if isinstance(chosen, list | tuple) else [chosen]
    for one in loggers:
        if not hasattr(one, "log_metrics"):
            raise TypeError(
                f"logger must be None, True, 'csv', 'tensorboard' or objects with log_metrics(), got {described(one)}."
            )
    return loggers
