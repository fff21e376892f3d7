"""Cells that are all the same teach a model nothing: warn before training."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import REGISTRY_KEYS

__all__ = ["say_where_cells_are_alike"]

logger = logging.getLogger("celbo")

_LOOKED_AT = 16


def say_where_cells_are_alike(loader: Any) -> None:
    """Warn where evenly spaced cells of the data all have the same counts.

    Parameters
    ----------
    loader
        Of the training cells. Third-party loaders are not read.
    """
    first = getattr(loader, "dataloaders", [loader])[0]
    tables = getattr(first, "tables", None)
    if tables is None or len(tables) < 2:
        return
    rows = np.linspace(0, len(tables) - 1, min(_LOOKED_AT, len(tables))).astype(np.int64)
    x = tables.fetch(rows).get(REGISTRY_KEYS.X_KEY)  # latents alone may be left of the data
    if x is None or not _are_alike(x):
        return
    which = f"All {len(rows)} cells" if len(rows) == len(tables) else f"{len(rows)} of {len(tables)} cells looked at"
    logger.warning(f"{which} have the same counts: there is nothing to learn from. Look at the data's counts.")


def _are_alike(x: Tensor) -> bool:
    if x.layout != torch.sparse_csr:
        return bool((x == x[:1]).all())
    n_n = x.crow_indices().diff()  # wide data stay sparse
    if (n_n != n_n[0]).any():
        return False
    parts = (part.view(len(x), -1) for part in (x.col_indices(), x.values()))
    return all(bool((part == part[:1]).all()) for part in parts)
