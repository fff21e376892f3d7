"""One minibatch's way through a trained module: encode once, decode as often as asked, keep nothing on the device.

Dims: n cells, g genes, k latents, s samples.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from ..core import REGISTRY_KEYS, settings
from ..dataloaders import AnnDataLoader
from ..module.base import BaseModuleClass
from ..ops.draws import minibatches_of, randomness_of
from ..ops.native.threads import between_batches, working_threads
from ..store.progress import tracking

__all__ = [
    "Batches",
    "LoaderOf",
    "Minibatch",
    "Rows",
    "decode",
    "device_of",
    "encode",
    "evaluating",
    "on_device",
    "sample_passes",
    "size_of",
]

_POSTERIOR_IN_PARTS = (("qzm", "qzv"), ("qz_m", "qz_v"))
"""Names under which modules written for scvi-tools give mean and variance of the latents."""

Minibatch = Mapping[str, Tensor]
"""Tensors of some cells by registry key."""

Batches = Iterable[Minibatch]
"""Minibatches; every cell in one of them, in the order in which answers are wanted."""

LoaderOf = Callable[[np.ndarray], Batches]
"""Gives the minibatches of the cells with the row numbers asked for, in that order, repeats included."""

BatchChoice = int | Tensor | None
"""Batch to decode as: one code for all cells, ``(n, 1)`` codes, or None for each cell's own."""

MAX_DECODED = 2**24
"""Numbers a pass through the decoder may give for each head: 64 MiB of float32."""


def device_of(module: BaseModuleClass) -> torch.device:
    """Where a module's parameters are; asked of them, so that an object that wraps a module serves as well."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(module: BaseModuleClass, seed: int | None = None) -> Iterator[np.random.Generator]:
    """Put a module into evaluation mode, without gradients and with randomness of its own.

    Parameters
    ----------
    module
        Every submodule gets its mode back at the end.
    seed
        Seed of everything drawn inside. None: ``celbo.settings.seed``; fresh randomness where that is None too. The
        global generators are not touched, or put back where the module is not celbo's and may draw from them.

    Yields
    ------
    A numpy generator that follows from the same seed.
    """
    seed = settings.seed if seed is None else seed
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with (
            torch.inference_mode(),
            randomness_of(module, seed, device_of(module)) as used,
            working_threads(afresh=False),  # short answers must not pay for it
        ):
            yield np.random.default_rng(used)
    finally:
        for part, training in modes:
            part.training = training


def on_device(batches: Batches, module: BaseModuleClass) -> Iterator[dict[str, Tensor]]:
    """The minibatches on the module's device, so that each table travels once however often it is decoded.

    Raises a ``TypeError`` for a minibatch that is no mapping.
    """
    device, done = device_of(module), 0
    total = len(batches.indices) if isinstance(batches, AnnDataLoader) else None
    with tracking("Computing") as tell:
        for tensors in minibatches_of(batches):
            between_batches()
            if not isinstance(tensors, Mapping):
                kind = type(tensors).__name__
                raise TypeError(f"dataloader must give minibatches, mappings of registry keys to tensors, not {kind}.")
            yield {key: table.to(device, non_blocking=True) for key, table in tensors.items() if table is not None}
            if tell is not None:
                done += size_of(tensors)
                tell(done, total)


def size_of(tensors: Minibatch) -> int:
    """Number of cells in a minibatch."""
    return len(next(iter(tensors.values())))


def encode(module: BaseModuleClass, tensors: Minibatch, n_samples: int = 1) -> dict[str, Any]:
    """What ``module.inference`` gives for a minibatch, with ``n_samples`` draws of the latents.

    Modules of others that give the posterior as mean ``qz_m`` and variance ``qz_v`` get ``qz`` beside them.
    """
    more = {"n_samples": n_samples} if n_samples > 1 else {}
    encoded = module.inference(**{**module._get_inference_input(tensors), **more})
    for mean, variance in _POSTERIOR_IN_PARTS:
        if "qz" not in encoded and mean in encoded and variance in encoded:
            encoded["qz"] = Normal(encoded[mean], encoded[variance].sqrt())
    return encoded


def decode(
    module: BaseModuleClass, tensors: Minibatch, encoded: Mapping[str, Any], batch: BatchChoice = None
) -> dict[str, Any]:
    """What ``module.generative`` gives for an encoded minibatch.

    Parameters
    ----------
    module, tensors, encoded
        The module, its minibatch and what :func:`encode` gave for it.
    batch
        Batch to decode as: a code for all cells, ``(n, 1)`` codes, or None for the cells' own.
    """
    if batch is not None:
        own = tensors[REGISTRY_KEYS.BATCH_KEY]
        codes = batch.to(own) if isinstance(batch, Tensor) else torch.full_like(own, batch)
        tensors = {**tensors, REGISTRY_KEYS.BATCH_KEY: codes}
    return module.generative(**module._get_generative_input(tensors, encoded))


def sample_passes(encoded: dict[str, Any], n_samples: int, tensors: Minibatch) -> Iterator[dict[str, Any]]:
    """Cut ``n_samples`` draws of the latents into parts that are decoded one after the other.

    Parameters
    ----------
    encoded
        From :func:`encode`; tensors with a leading dimension of ``n_samples`` are cut, the rest is handed on.
    n_samples
        Number of draws.
    tensors
        The minibatch: decoding one draw gives about as many numbers as it has, and a part at most :data:`MAX_DECODED`.
    """
    step = max(1, MAX_DECODED // max(1, sum(tensor.numel() for tensor in tensors.values())))
    if n_samples <= step:
        yield encoded
        return
    for start in range(0, n_samples, step):
        yield {key: _part(value, n_samples, slice(start, start + step)) for key, value in encoded.items()}


def _part(value: Any, n_samples: int, part: slice) -> Any:
    sampled = isinstance(value, Tensor) and value.dim() == 3 and len(value) == n_samples
    return value[part] if sampled else value


class Rows:
    """Array that is filled minibatch by minibatch: allocated at the first one, nothing is ever concatenated.

    Parameters
    ----------
    n_rows
        Rows that will come. None: not known; capacity then doubles whenever it is used up.
    axis
        Axis of the rows.
    """

    def __init__(self, n_rows: int | None, axis: int = 0) -> None:
        self.n_rows, self.axis, self.filled = n_rows, axis, 0
        self._array: np.ndarray | None = None

    def append(self, block: Tensor | np.ndarray) -> None:
        """Write the rows of a block behind those that are there."""
        block = block.detach().cpu().numpy() if isinstance(block, Tensor) else block
        stop = self.filled + block.shape[self.axis]
        if self._array is None:
            self._array = np.empty(self._shape(block, max(self.n_rows or 0, stop)), block.dtype)
        elif stop > self._array.shape[self.axis]:
            grown = np.empty(self._shape(block, max(stop, 2 * self._array.shape[self.axis])), block.dtype)
            grown[self._at(0, self.filled)] = self._array[self._at(0, self.filled)]
            self._array = grown
        self._array[self._at(self.filled, stop)] = block
        self.filled = stop

    def array(self) -> np.ndarray:
        """The rows written.

        Raises
        ------
        ValueError
            When there was not a single minibatch.
        """
        if self._array is None:
            raise ValueError("There are no cells to answer about: `indices` (or the dataloader) is empty.")
        return self._array[self._at(0, self.filled)]

    def _shape(self, block: np.ndarray, n_rows: int) -> tuple[int, ...]:
        return (*block.shape[: self.axis], n_rows, *block.shape[self.axis + 1 :])

    def _at(self, start: int, stop: int) -> tuple[slice, ...]:
        return (*[slice(None)] * self.axis, slice(start, stop))
