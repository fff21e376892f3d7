"""Which cells have salient latents: the column that says so, put into the minibatches that a question is about."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..core import REGISTRY_KEYS
from ..dataloaders.row_sources.source import as_indices
from ..module.contrasts import IS_TARGET
from .cells import Asked

__all__ = ["LATENTS", "Kind", "marked"]

Kind = Literal["background", "salient"]
LATENTS: tuple[Kind, ...] = ("background", "salient")
"""Latents that all cells have, and those that only target cells have."""


@dataclass(frozen=True)
class _Marked(Asked):
    """Cells whose minibatches have a column :data:`IS_TARGET`: whether a cell has salient latents."""

    is_target_n: np.ndarray

    def loader_of(self, cells: np.ndarray) -> Iterator[dict[str, Tensor]]:
        """Minibatches of some cells by row number."""
        start = 0
        for tensors in super().loader_of(cells):
            part = cells[start : start + len(tensors[REGISTRY_KEYS.X_KEY])]
            start += len(part)
            yield {**tensors, IS_TARGET: torch.from_numpy(self.is_target_n[part].astype(np.float32))[:, None]}


def marked(cells: Asked, of: object) -> Asked:
    """Cells whose minibatches say which of them have salient latents.

    Parameters
    ----------
    cells
        The cells.
    of
        ``"salient"``: all have, ``"background"``: none has; else row numbers or a mask of those that have.
    """
    assert cells.adata is not None
    is_target_n = np.full(cells.adata.n_obs, isinstance(of, str) and of == "salient")
    if not isinstance(of, str):
        is_target_n[as_indices(of, cells.adata.n_obs, what="cell")] = True
    marked = _Marked(**vars(cells), is_target_n=is_target_n)
    return replace(marked, batches=marked.loader_of(marked.require_cells("salient latents")))
