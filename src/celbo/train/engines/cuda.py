"""One process on one CUDA device needs nothing but torch either: Fabric takes seconds to import."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils._pytree import tree_map

from .engine import Engine
from .graphs import CudaGraphs

__all__ = ["CudaEngine"]


class CudaEngine(Engine):
    """One process on the first CUDA device in full precision. Its steps can be recorded."""

    def __init__(self) -> None:
        self._graphs = CudaGraphs(torch.device("cuda", 0))

    @property
    def device(self) -> torch.device:
        """The first CUDA device."""
        return self._graphs.device

    def computing(self) -> AbstractContextManager[None]:
        """A stream of the run's own."""
        return self._graphs.on_stream()

    def graphs(self) -> CudaGraphs:
        """CUDA's graphs."""
        return self._graphs

    def to_device(self, batch: object) -> Any:
        """Move a minibatch: its tensors, and whatever else can be moved."""
        device = self.device
        return tree_map(lambda leaf: leaf.to(device, non_blocking=True) if hasattr(leaf, "to") else leaf, batch)
