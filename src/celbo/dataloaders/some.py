"""Some cells of a data set, for what a model begins with."""

from typing import TYPE_CHECKING

import numpy as np

from ..core import REGISTRY_KEYS
from .loader import AnnDataLoader

if TYPE_CHECKING:
    from ..data import AnnDataManager

__all__ = ["some_cells"]

_CELLS, _NUMBERS = 5000, 2 * 10**7


def some_cells(manager: "AnnDataManager") -> np.ndarray:
    """Data of up to 5,000 cells, fewer where there are more than 4,000 features; evenly spaced, ``(n, g)``.

    Parameters
    ----------
    manager
        Of the data set.
    """
    n_cells, n_features = (manager.summary_stats[name] for name in ("n_cells", "n_vars"))
    n = min(n_cells, _CELLS, 2 + _NUMBERS // n_features)
    rows = np.linspace(0, n_cells - 1, n).astype(np.int64)
    loader = AnnDataLoader(manager, indices=rows, batch_size=_CELLS)
    return np.concatenate([tensors[REGISTRY_KEYS.X_KEY].numpy() for tensors in loader])
