"""Process-wide settings, with scvi-tools' names."""

import inspect
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .argument_names import NAMES
from .arguments import checked
from .errors import unknown_name
from .kinds import REFUSED, AnyOf, Flag, Kind, OneOf, Text, Whole, described
from .process import is_first_process

__all__ = ["Settings", "settings"]

logger = logging.getLogger("celbo")


_LEVELS = OneOf(("debug", "info", "warning", "error", "critical", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
_KINDS: Mapping[str, Kind] = {
    "num_threads": Whole(1),
    "verbosity": AnyOf((Whole(0), _LEVELS)),
    "warnings_stacklevel": Whole(1),
    "progress_bar_style": OneOf(("rich", "tqdm")),
    "dl_persistent_workers": Flag(),
    "jax_preallocate_gpu_memory": Flag(),
    "mlflow_set_experiment": Text(),
    "mlflow_set_tracking_uri": Text(),
    "logging_dir": NAMES["path"],
}
_MAY_BE_NONE = ("seed", "num_threads")


class Settings:
    """What holds for every model of this process unless a call says otherwise.

    Parameters
    ----------
    verbosity
        Level of the ``celbo`` logger (10 debug, 20 info, 30 warning).
    progress_bar_style
        Accepted for compatibility with scvi-tools; celbo has one progress bar.
    batch_size
        Cells a minibatch in inference, and in training when ``batch_size`` is falsy.
    seed
        Seed of models, splits, loaders and sampling when a call gives none. ``None``: fresh randomness each time.
        The global generators of numpy and torch are never touched.
    logging_dir
        Where loggers and checkpoints write when no folder is given; made only when something is written.
    dl_num_workers, dl_persistent_workers
        Kept for compatibility with scvi-tools: celbo's loaders read in the calling process.
    warnings_stacklevel
        ``stacklevel`` of celbo's warnings.
    jax_preallocate_gpu_memory, mlflow_set_tracking_uri, mlflow_set_experiment
        Kept for compatibility with scvi-tools, and without effect.
    """

    @checked
    def __init__(
        self,
        verbosity: int = logging.INFO,
        progress_bar_style: Literal["rich", "tqdm"] = "rich",
        batch_size: int = 128,
        seed: int | None = None,
        logging_dir: str | Path = "./scvi_log/",
        dl_num_workers: int = 0,
        dl_persistent_workers: bool = False,
        jax_preallocate_gpu_memory: bool = False,
        warnings_stacklevel: int = 2,
        mlflow_set_tracking_uri: str = "",
        mlflow_set_experiment: str = "mlflow_experiment",
    ) -> None:
        self.progress_bar_style = progress_bar_style
        self.batch_size = batch_size
        self.seed = seed
        self.logging_dir = logging_dir
        self.dl_num_workers = dl_num_workers
        self.dl_persistent_workers = dl_persistent_workers
        self.warnings_stacklevel = warnings_stacklevel
        self.jax_preallocate_gpu_memory = jax_preallocate_gpu_memory
        self.mlflow_set_tracking_uri = mlflow_set_tracking_uri
        self.mlflow_set_experiment = mlflow_set_experiment
        self._num_threads: int | None = None
        self.verbosity = verbosity

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in self._names():
            raise AttributeError(unknown_name("setting", name, self._names()), name=name)
        kind = _KINDS.get(name) or NAMES.get(name)
        if kind is not None and not (value is None and name in _MAY_BE_NONE):
            taken = kind.take(value)
            if taken is REFUSED:
                raise ValueError(f"settings.{name} must be {kind.wanted}, got {described(value)}.{kind.hint(value)}")
            value = taken
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(unknown_name("setting", name, self._names()), name=name)

    @classmethod
    def _names(cls) -> list[str]:
        """What can be set: the arguments of the constructor, and properties."""
        properties = [name for name, value in vars(cls).items() if isinstance(value, property)]
        return list(dict.fromkeys([*list(inspect.signature(cls.__init__).parameters)[1:], *properties]))

    @property
    def batch_size(self) -> int:
        """Cells a minibatch. A number below 1 raises a ``ValueError``."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        if int(value) < 1:
            raise ValueError(f"settings.batch_size must be at least 1, got {value!r}.")
        self._batch_size = int(value)

    @property
    def seed(self) -> int | None:
        """Default seed, or None. A number outside of 0 to 2**32 - 1 raises a ``ValueError``."""
        return self._seed

    @seed.setter
    def seed(self, value: int | None) -> None:
        if value is not None and not 0 <= int(value) < 2**32:
            raise ValueError(f"settings.seed must be None or an integer in [0, 2**32), got {value!r}.")
        self._seed = None if value is None else int(value)

    @property
    def logging_dir(self) -> Path:
        """Folder of logs and checkpoints."""
        return self._logging_dir

    @logging_dir.setter
    def logging_dir(self, value: str | Path) -> None:
        self._logging_dir = Path(value)

    @property
    def num_threads(self) -> int | None:
        """Threads of torch in this process; None leaves torch's own choice."""
        return self._num_threads

    @num_threads.setter
    def num_threads(self, value: int | None) -> None:
        self._num_threads = value
        if value is not None:
            import torch

            torch.set_num_threads(int(value))

    @property
    def verbosity(self) -> int:
        """Level of the ``celbo`` logger."""
        return self._verbosity

    @verbosity.setter
    def verbosity(self, level: int | str) -> None:
        self._verbosity = logging.getLevelNamesMapping()[level.upper()] if isinstance(level, str) else int(level)
        logger.setLevel(self._verbosity)
        if not logger.handlers:
            self.reset_logging_handler()

    def reset_logging_handler(self) -> None:
        """Write celbo's messages to stderr, plainly, and nowhere else."""
        logger.handlers.clear()
        logger.addHandler(_StderrHandler())
        logger.propagate = False


class _StderrHandler(logging.StreamHandler):
    """Looks ``sys.stderr`` up for each message, so that capture and redirection work."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(message)s"))
        self.addFilter(lambda record: is_first_process())  # others would say the same again

    @property
    def stream(self) -> Any:  # type: ignore[override]
        """Where messages go."""
        return sys.stderr


settings = Settings()
