"""``scvi.dataloaders._data_splitting``: sizes of splits."""

from collections.abc import Sequence

import numpy as np

from ...dataloaders.split import split_sizes

__all__ = ["validate_data_split", "validate_data_split_with_external_indexing"]


def validate_data_split(
    n_samples: int,
    train_size: float | None,
    validation_size: float | None = None,
    batch_size: int | None = None,
    drop_last: bool | int = False,
    train_size_is_none: bool | int = True,
) -> tuple[int, int]:
    """Numbers of training and validation cells; no cell is dropped for a batch size."""
    return split_sizes(n_samples, train_size, validation_size)


def validate_data_split_with_external_indexing(
    n_samples: int,
    external_indexing: Sequence[np.ndarray] | None = None,
    batch_size: int | None = None,
    drop_last: bool | int = False,
) -> tuple[int, int]:
    """Numbers of training and validation cells of sets that were given.

    Raises
    ------
    ValueError
        A cell is in two of the sets, or is none of the data's.
    """
    sets = [np.asarray(cells) for cells in external_indexing or []]
    joined = np.concatenate(sets) if sets else np.empty(0, np.int64)
    if len(np.unique(joined)) != len(joined):
        raise ValueError("There are overlapping indexing between train, valid and test sets: each cell may be in one.")
    if len(joined) and (joined.min() < 0 or joined.max() >= n_samples):
        raise ValueError(f"external_indexing names cells outside of 0 .. {n_samples - 1}.")
    sizes = [len(cells) for cells in sets] + [0, 0]
    return sizes[0], sizes[1]
