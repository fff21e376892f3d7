"""History: numbers by name and epoch (or step), in the shape of scvi-tools' ``model.history``; loggers beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import pandas as pd

from ..core import settings, unknown_name
from ..core.kinds import described

__all__ = ["History", "make_loggers"]


class History:
    """Rows of metrics, gathered epoch by epoch.

    Parameters
    ----------
    before
        History of an earlier training that this one continues: ``{name: DataFrame}``.
    """

    def __init__(self, before: Mapping[str, pd.DataFrame] | None = None) -> None:
        self._index_name: dict[str, str] = {}
        self._index: dict[str, list[int]] = {}
        self._values: dict[str, list[float]] = {}
        for name, frame in (before or {}).items():
            self._index_name[name] = str(frame.index.name or "epoch")
            self._index[name] = [int(i) for i in frame.index]
            self._values[name] = [float(v) for v in frame.iloc[:, 0]]
        by_epoch = [index[-1] for name, index in self._index.items() if index and self._index_name[name] == "epoch"]
        self.first_epoch = max(by_epoch, default=-1) + 1
        by_step = [index[-1] for name, index in self._index.items() if index and self._index_name[name] == "step"]
        self.first_step = max(by_step, default=-1) + 1

    def add(self, at: int, row: Mapping[str, SupportsFloat], index_name: str = "epoch") -> None:
        """Add a row of metrics at an epoch or step counted from the start of this training."""
        offset = self.first_epoch if index_name == "epoch" else self.first_step
        for name, value in row.items():
            self._index_name.setdefault(name, index_name)
            self._index.setdefault(name, []).append(at + offset)
            self._values.setdefault(name, []).append(float(value))

    @property
    def history(self) -> dict[str, pd.DataFrame]:
        """:meth:`frames`, by the name that scvi-tools' default logger has for it."""
        return self.frames()

    def log_metrics(self, metrics: Mapping[str, SupportsFloat], step: int | None = None) -> None:
        """Add custom numbers, as a logger does: at a step, or at the next one of each that is not given.

        Parameters
        ----------
        metrics
            Numbers by name.
        step
            Where they belong, counted from the start of this training.
        """
        for name, value in metrics.items():
            index = self._index.get(name)
            following = index[-1] + 1 - self.first_step if index else 0
            self.add(following if step is None else step, {name: value}, "step")

    def state_dict(self) -> dict[str, Any]:
        """Every row, for a checkpoint."""
        return {
            "index_name": self._index_name,
            "index": self._index,
            "values": self._values,
            "first": [self.first_epoch, self.first_step],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put kept rows back in place of all there are."""
        self._index_name = dict(state["index_name"])
        self._index = {name: list(index) for name, index in state["index"].items()}
        self._values = {name: list(values) for name, values in state["values"].items()}
        self.first_epoch, self.first_step = state["first"]

    def frames(self) -> dict[str, pd.DataFrame]:
        """``{name: DataFrame}``, one column of that name, the index called ``epoch`` or ``step``."""
        return {
            name: pd.DataFrame({name: values}, index=pd.Index(self._index[name], name=self._index_name[name]))
            for name, values in self._values.items()
        }

    def table(self) -> pd.DataFrame:
        """All metrics by epoch as one table."""
        return epoch_table(self.frames())

    def write_csv(self, path: str | Path) -> None:
        """Write :meth:`table`."""
        self.table().to_csv(path)


def epoch_table(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The frames indexed by epoch, joined into one table."""
    by_epoch = [frame for frame in frames.values() if frame.index.name == "epoch"]
    return pd.concat(by_epoch, axis=1) if by_epoch else pd.DataFrame(index=pd.Index([], name="epoch"))


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
