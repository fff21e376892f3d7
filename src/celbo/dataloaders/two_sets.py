"""Minibatches of two data sets at once, each split separately."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import checked, settings
from .base import DataModule, Loader
from .concat import ConcatDataLoader
from .loader import AnnDataLoader
from .splitter import DataSplitter

if TYPE_CHECKING:
    from ..data import AnnDataManager

__all__ = ["TwoSetsLoader", "TwoSetsSplitter"]

Parts = tuple[dict[str, Any] | None, ...]
"""A minibatch of each data set; None for a data set that is not being read."""


class TwoSetsLoader(ConcatDataLoader):
    """Minibatches ``(of the one, of the other)``; the longer data set sets the length of an epoch.

    Parameters
    ----------
    loaders
        One for each data set.
    """

    def __init__(self, loaders: list[AnnDataLoader]) -> None:
        self._take_loaders(loaders)


class _InTurn(Loader):
    """Minibatches of one data set and then of the other, so that each cell comes once.

    Parameters
    ----------
    loaders
        One for each data set; None where it has no cells.
    """

    def __init__(self, loaders: list[Any]) -> None:
        self.loaders = loaders

    def __len__(self) -> int:
        """Minibatches per epoch."""
        return sum(len(loader) for loader in self.loaders if loader is not None)

    def __iter__(self) -> Iterator[Parts]:
        """One epoch."""
        for place, loader in enumerate(self.loaders):
            for tensors in loader or ():
                yield tuple(tensors if i == place else None for i in range(len(self.loaders)))


class TwoSetsSplitter(DataModule):
    """Split the cells of two data sets separately, and load them together.

    Parameters
    ----------
    adata_manager, second_manager
        Managers of the two data sets.
    names
        What their cells are called in messages.
    external_indexing
        ``[of the first, of the second]``, each ``[train, validation, test]``.
    validate_together
        Whether a minibatch to validate on has cells of both, as those to train on do, or of one after the other, so
        that each cell is looked at once.
    of_each
        Further arguments of the splitter of each data set, over those of both.
    seed, **kwargs
        See :class:`~celbo.dataloaders.DataSplitter`; the same for both.

    Attributes
    ----------
    train_idx, val_idx, test_idx
        Row numbers of each set, for each of the two.
    n_train, n_val
        How many there are in both.

    Raises
    ------
    ValueError
        ``external_indexing`` does not have two parts, or fewer than two cells of one of the sets are left to train on.
    """

    train_idx: Any
    val_idx: Any
    test_idx: Any

    @checked
    def __init__(
        self,
        adata_manager: "AnnDataManager",
        second_manager: "AnnDataManager",
        names: Sequence[str] = ("first", "second"),
        external_indexing: list[Any] | None = None,
        validate_together: bool = False,
        of_each: Sequence[Mapping[str, Any]] = ({}, {}),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        seed = settings.seed if seed is None else seed
        given = [None, None] if external_indexing is None else external_indexing
        if len(given) != 2:
            raise ValueError(
                f"external_indexing has {len(given)} parts: give [[train, validation, test], [train, validation, "
                f"test]], of the {names[0]} cells and of the {names[1]} ones."
            )
        self.validate_together = validate_together
        each = zip((adata_manager, second_manager), given, of_each, strict=True)
        self.parts = [
            DataSplitter(
                manager,
                **({"external_indexing": sets, "seed": None if seed is None else seed + place} | kwargs | dict(own)),
            )
            for place, (manager, sets, own) in enumerate(each)
        ]
        self.train_idx, self.val_idx, self.test_idx = (
            [np.asarray(getattr(part, name)) for part in self.parts] for name in ("train_idx", "val_idx", "test_idx")
        )
        self.n_train, self.n_val = (sum(getattr(part, name) for part in self.parts) for name in ("n_train", "n_val"))
        for name, part in zip(names, self.parts, strict=True):
            if part.n_train < 2:
                raise ValueError(
                    f"{part.n_train} {name} cells are left to train on, and two are needed at least: raise train_size."
                )

    def train_dataloader(self) -> TwoSetsLoader:
        """Minibatches of the training cells of both, in another order each epoch."""
        loaders: list[Any] = [part.train_dataloader() for part in self.parts]
        return TwoSetsLoader(loaders)

    def val_dataloader(self) -> Loader | None:
        """Minibatches of the validation cells of the one, then of the other, or of both; None without any."""
        return self._looked_at([part.val_dataloader() for part in self.parts])

    def test_dataloader(self) -> Loader | None:
        """The same of the test cells."""
        return self._looked_at([part.test_dataloader() for part in self.parts])

    def _looked_at(self, loaders: list[Any]) -> Loader | None:
        if not self.validate_together:
            return _InTurn(loaders) if any(loader is not None for loader in loaders) else None
        return TwoSetsLoader(loaders) if all(loader is not None for loader in loaders) else None

    @property
    def finisher(self) -> Callable[[Any, int], Any]:
        """Makes sparse tensors dense, on the device they lie on."""
        return self.on_after_batch_transfer

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """A part with its sparse tensors made dense, on the device they lie on."""
        return None if batch is None else self.parts[0].on_after_batch_transfer(batch)
