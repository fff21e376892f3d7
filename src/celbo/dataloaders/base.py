"""What a run asks of who gives it minibatches: a Loader of one set of cells, a DataModule of all sets.

celbo's own are of these classes. Third-party ones are wrapped once, as a run begins (:func:`as_loader`,
:func:`as_data_module`); what one of them does not have is then what the abstract class says of it.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

__all__ = ["DataModule", "ForeignDataModule", "ForeignLoader", "Loader", "Tables", "as_data_module", "as_loader"]

logger = logging.getLogger("celbo")


def _said(given: object, name: str, otherwise: Any = None) -> Any:
    return getattr(given, name, otherwise)


class Tables(Protocol):
    """What a loader reads its minibatches from."""

    def __len__(self) -> int:
        """Number of cells."""

    def fetch(self, rows_n: np.ndarray) -> dict[str, Tensor]:
        """Minibatch of some cells, by registry key."""


class Loader(ABC):
    """Minibatches of cells; iterating again gives the next epoch.

    A subclass gives ``__iter__``, ``__len__`` where it knows it, and of the rest what it can.

    Attributes
    ----------
    batch_size
        Cells in a minibatch; None: not known.
    sampler
        Who sets the order, where that is not the loader itself.
    tables
        Where all cells can be read; None: nowhere.
    last_indices
        Rows of the minibatch handed out last; None: not known.
    last_weight
        Cells of that minibatch over an equal share of it, where processes share minibatches.
    """

    batch_size: int | None = None
    sampler: object = None
    tables: Tables | None = None
    last_indices: np.ndarray | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """One epoch of minibatches."""

    @property
    def last_weight(self) -> float:
        """Cells of the minibatch handed out last over an equal share of it."""
        return 1.0

    @property
    def given(self) -> Iterable[Any]:
        """The loader as the user gave it."""
        return self

    def take_share(self, rank: int, size: int) -> None:
        """Read the share of one of several processes from now on. One that cannot must do so by itself: this is logged.

        Parameters
        ----------
        rank, size
            Number of the process, and of all of them.
        """
        if rank == 0:
            logger.info(
                f"{type(self.given).__name__} has no take_share(rank, size): it must give each of the {size} "
                "processes its own share of the cells, and all of them as many minibatches."
            )

    @property
    def is_resumable(self) -> bool:
        """Whether it can go on in the middle of an epoch: it has a state and a length."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Where it stands: a plain dict with ``epoch`` and ``batch``, the minibatch after the last one handed out.

        Raises a ``TypeError`` unless the loader is resumable.
        """
        raise TypeError(f"{type(self.given).__name__} cannot say where it stands.")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the loader stood that gave ``state``; a ``TypeError`` unless it is resumable."""
        raise TypeError(f"{type(self.given).__name__} cannot go on where another one stood.")


class ForeignLoader(Loader):
    """A third-party loader: an iterable of minibatches, with what else it has of a :class:`Loader`.

    Parameters
    ----------
    given
        The loader.
    """

    def __init__(self, given: Iterable[Any]) -> None:
        self._given = given
        self.sampler = given
        self.batch_size = _said(given, "batch_size")

    @property
    def given(self) -> Iterable[Any]:
        """The loader as the user gave it."""
        return self._given

    def __iter__(self) -> Iterator[Any]:
        """One epoch of minibatches."""
        return iter(self._given)

    def __len__(self) -> int:
        """Minibatches an epoch."""
        return len(self._given)  # type: ignore[arg-type]  # a TypeError where it has no length, as of any iterable

    @property
    def last_indices(self) -> np.ndarray | None:  # type: ignore[override]
        """Rows of the minibatch handed out last."""
        return _said(self._given, "last_indices")

    @property
    def last_weight(self) -> float:
        """Cells of the minibatch handed out last over an equal share of it."""
        return _said(self._given, "last_weight", 1.0)

    def take_share(self, rank: int, size: int) -> None:
        """Read the share of one of several processes from now on."""
        (_said(self._given, "take_share") or super().take_share)(rank, size)

    @property
    def is_resumable(self) -> bool:
        """Whether it has a state and a length."""
        if not all(callable(_said(self._given, name)) for name in ("state_dict", "load_state_dict", "__len__")):
            return False
        try:
            self.state_dict()
        except TypeError:  # as celbo's own with a sampler of the user's, which keeps the order to itself
            return False
        return True

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return (_said(self._given, "state_dict") or super().state_dict)()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the loader stood that gave ``state``."""
        (_said(self._given, "load_state_dict") or super().load_state_dict)(state)


class DataModule(ABC):
    """The loaders of a run, and which cells are in which.

    Attributes
    ----------
    n_obs
        Cells that are trained on and validated; None: ``n_train`` and ``n_val`` say it.
    n_train, n_val
        Cells of the two sets; None: not known.
    train_idx, val_idx, test_idx
        Rows of the cells in each set; None: they have none.
    n_vars, n_batch, n_labels, n_continuous_cov, n_cats_per_cov, var_names
        Sizes of the data, for a model that is made without data and trained with these loaders: genes, batches, labels,
        continuous covariates, categories of each categorical covariate, names of the genes.
    """

    n_obs: int | None = None
    n_train: int | None = None
    n_val: int | None = None
    train_idx: np.ndarray | None = None
    val_idx: np.ndarray | None = None
    test_idx: np.ndarray | None = None
    n_vars: int
    n_batch: int
    n_labels: int = 1
    n_continuous_cov: int = 0
    n_cats_per_cov: Sequence[int] | None = None
    var_names: Sequence[str] | None = None

    @property
    def given(self) -> object:
        """The data module as the user gave it."""
        return self

    def setup(self, stage: str | None = None) -> None:  # noqa: B027  # most have nothing to do
        """Get ready, before any loader is asked for."""

    @abstractmethod
    def train_dataloader(self) -> Iterable[Any] | None:
        """Minibatches to train on."""

    @abstractmethod
    def val_dataloader(self) -> Iterable[Any] | None:
        """Minibatches to validate on; None: there are none."""

    @property
    def finisher(self) -> Callable[[Any, int], Any] | None:
        """What finishes a minibatch on the device; None: nothing is left to do."""
        return None

    @property
    def n_cells(self) -> int | None:
        """Cells that are trained on and validated; None: nobody knows."""
        return self.n_obs or (self.n_train or 0) + (self.n_val or 0) or None


def _told(name: str, otherwise: Any = None) -> Any:
    """What a data module says of itself, asked each time: its ``setup`` may change it."""
    return property(lambda self: _said(self.given, name, otherwise))


class ForeignDataModule(DataModule):
    """A third-party data module, with what it has of a :class:`DataModule`.

    Parameters
    ----------
    given
        The data module: an object with ``train_dataloader`` and ``val_dataloader``.
    """

    n_obs, n_train, n_val = _told("n_obs"), _told("n_train"), _told("n_val")
    train_idx, val_idx, test_idx = _told("train_idx"), _told("val_idx"), _told("test_idx")
    n_labels, n_continuous_cov = _told("n_labels", 1), _told("n_continuous_cov", 0)
    n_cats_per_cov, var_names = _told("n_cats_per_cov"), _told("var_names")
    n_vars: Any = property(lambda self: self.given.n_vars)
    n_batch: Any = property(lambda self: self.given.n_batch)

    def __init__(self, given: Any) -> None:
        self._given = given

    @property
    def given(self) -> Any:
        """The data module as the user gave it."""
        return self._given

    def setup(self, stage: str | None = None) -> None:
        """Get ready, where it has to."""
        if (setup := _said(self._given, "setup")) is not None:
            setup(stage)

    def train_dataloader(self) -> Iterable[Any] | None:
        """Minibatches to train on."""
        return self._given.train_dataloader()

    def val_dataloader(self) -> Iterable[Any] | None:
        """Minibatches to validate on."""
        return self._given.val_dataloader()

    @property
    def finisher(self) -> Callable[[Any, int], Any] | None:
        """Its ``on_after_batch_transfer``."""
        return _said(self._given, "on_after_batch_transfer")


def as_loader(given: Iterable[Any]) -> Loader:
    """A loader as it is, any other iterable of minibatches wrapped."""
    return given if isinstance(given, Loader) else ForeignLoader(given)


def as_data_module(given: Any) -> DataModule:
    """A data module as it is, any other object with loaders wrapped."""
    return given if isinstance(given, DataModule) else ForeignDataModule(given)
