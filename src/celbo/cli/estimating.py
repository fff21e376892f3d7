"""How much memory and time a training would take, by stated rules and one second of training on this machine.

Dims: n cells, g features.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from ..core import number_of
from ..data import StoredMatrix
from ..model import SCVI
from ..module.base import BaseModuleClass
from ..store.memory import readable_bytes, resident_memory
from ..train.recipes import default_recipe, find_recipe
from .kind import Kind

__all__ = ["COST", "Size", "cells_a_second", "default_epochs", "estimates", "seconds_of", "size_of"]

COST: Mapping[str, float] = {
    "scvi": 1.0,
    "joint_embedding": 1.4,
    "drvi": 10.9,
    "linear_scvi": 0.9,
    "scanvi": 1.7,
    "autozi": 1.4,
    "lda": 0.5,
    "decipher": 0.8,
    "cellassign": 5.5,
    "solo": 1.2,
    "peakvi": 0.6,
    "poissonvi": 0.5,
    "totalvi": 2.3,
    "totalanvi": 4.5,
    "multivi": 1.6,
    "sysvi": 2.8,
    "scar": 1.6,
    "mrvi": 1.8,
    "contrastivevi": 1.0,
    "contrastivetotalvi": 2.5,
    "cytovi": 0.9,
    "velovi": 18.0,
    "methylvi": 1.8,
    "methylanvi": 2.7,
    "resolvi": 4.4,
    "scviva": 0.9,
}
"""Model -> time for a pass over the cells, by that of scvi: 2,000 simulated cells of 1,000 features, one thread."""

_FEWER_EPOCHS = ("drvi", "mrvi")
"""Models whose ``train`` settles on fewer epochs than their recipe says."""

_SECOND = 1.0
_SHARE_TRAINED = 0.9
_BYTES_A_COUNT = 8
_BYTES_A_WEIGHT = 16
_TABLES_A_STEP = 12
_CELLS_A_STEP = 128
_MOST_ENTRIES = 2**22
_MOST_COLUMNS = 5_000
_SIZE_OF_PROGRAM = 2**29
_UNITS = (("days", 86400), ("h", 3600), ("min", 60))


@dataclass(frozen=True)
class Size:
    """Size of data.

    Attributes
    ----------
    n_cells, n_features, n_nonzero
        Of all modalities; nonzero values of a matrix that is dense, or of a file that does not say, are estimated.
    n_batches
        Batches that a column names.
    """

    n_cells: int
    n_features: int
    n_nonzero: int
    n_batches: int = 1

    @property
    def share_nonzero(self) -> float:
        """Nonzero values among all."""
        return self.n_nonzero / max(1, self.n_cells * self.n_features)


def size_of(parts: Sequence[AnnData], n_batches: int) -> Size:
    """Size of an AnnData, or of the modalities of a MuData."""
    n_nonzero = sum(map(_nonzero, parts))
    return Size(max(one.n_obs for one in parts), sum(one.n_vars for one in parts), n_nonzero, n_batches)


def _nonzero(adata: AnnData) -> int:
    x = adata.X if adata.X is not None else next(iter(adata.layers.values()), None)
    if isinstance(x, StoredMatrix):
        return int(x.n_nonzero)
    if x is None:
        return 0
    if sp.issparse(x):
        return int(x.nnz)
    some = np.asarray(x[: max(1, _MOST_ENTRIES // max(1, adata.n_vars))])
    return int(np.count_nonzero(some) / max(1, some.size) * adata.n_obs * adata.n_vars)


def estimates(size: Size, kinds: Sequence[Kind]) -> Iterator[tuple[str, str]]:
    """Lines about the memory and the time of training these models, each with what it is worked out from.

    They leave scbasset out, whose time goes by the length of its sequences, and models of two data sets.
    """
    program = resident_memory() or _SIZE_OF_PROGRAM  # before the training, whose weights would count twice
    rate, n_weights = cells_a_second(size)
    data, rest = size.n_nonzero * _BYTES_A_COUNT, program + _of_training(size, n_weights)
    yield (
        "memory",
        f"about {readable_bytes(data + rest)}: {readable_bytes(data)} of data ({size.n_nonzero:,} nonzero values of "
        f"{_BYTES_A_COUNT} bytes), {readable_bytes(rest)} for the program and training; from disk (--data stream) "
        f"{readable_bytes(rest)}",
    )
    known = [kind for kind in kinds if kind.name in COST]
    yield "time", f"about {', '.join(_time_of(kind, size, rate) for kind in known)}"
    yield "", f"({_basis(known[0], size, rate)}; other models by what they cost beside it)"


def _basis(kind: Kind, size: Size, rate: float) -> str:
    epochs = f"{kind.name}: {number_of(default_epochs(kind, size)[0], 'epoch')} of {_trained(size):,} cells"
    width, times = _width(size)
    speed = f"this machine trained an scvi of {width:,} features at {times * rate:,.0f} cells/s for {_SECOND:g} s"
    wider = f", scaled to {size.n_features:,} features" if times > 1 else ""
    return f"{epochs}; {speed}{wider}"


def _time_of(kind: Kind, size: Size, rate: float) -> str:
    until = "up to " if default_epochs(kind, size)[1] else ""
    return f"{kind.name} {until}{_readable(seconds_of(kind, size, rate))}"


def _of_training(size: Size, n_weights: int) -> int:
    """Bytes of weights with gradients and moments, and of the tables of a step."""
    return _BYTES_A_WEIGHT * n_weights + 4 * _TABLES_A_STEP * _CELLS_A_STEP * size.n_features


def seconds_of(kind: Kind, size: Size, rate: float) -> float:
    r"""Seconds of a training by default.

    .. math:: \mathrm{epochs} \cdot 0.9\, n \cdot \mathrm{cost} / \mathrm{rate}

    Parameters
    ----------
    kind
        Which model.
    size
        Of the data.
    rate
        Cells a second of an scvi of as many features.
    """
    return default_epochs(kind, size)[0] * _trained(size) * COST[kind.name] / rate


def _trained(size: Size) -> int:
    return math.ceil(_SHARE_TRAINED * size.n_cells)


def default_epochs(kind: Kind, size: Size) -> tuple[int, bool]:
    """Epochs of a training by default, and whether they may be fewer."""
    cls: Any = next(iter(kind.parts.values()), kind.cls)
    defaults = {name: one.default for name, one in signature(cls.train).parameters.items()} | dict(cls._own_recipe)
    recipe = find_recipe(default_recipe(cls, cls._training_plan_cls))
    stops = bool(defaults.get("early_stopping")) or defaults.get("gives_up_after", 1) < 1
    stops = stops or recipe.converges or kind.name in _FEWER_EPOCHS
    if (epochs := defaults.get("max_epochs")) is not None:
        return int(epochs), stops
    n_train = _trained(size)
    if cls._few_cells_by_classic and recipe.for_cells(n_train) is not recipe:
        recipe = recipe.for_cells(n_train)
        if "max_epochs" in cls._of_few_cells:
            return int(cls._of_few_cells["max_epochs"]), False
    if cls._module_cls.start_from_counts is not BaseModuleClass.start_from_counts:
        recipe = recipe.started(cls._module_cls.starts_from_profile is not BaseModuleClass.starts_from_profile)
    batch_size = recipe.batch_size(n_train, size.n_batches)
    return recipe.max_epochs(size.n_cells, batch_size, size.n_batches), stops


def cells_a_second(size: Size) -> tuple[float, int]:
    """Train an scvi for a second on random counts as sparse as the data, of as many features but 5,000 at most.

    Returns
    -------
    Cells a second after the first epoch, and the number of weights; of wider data, both in proportion to the features.
    """
    width, times = _width(size)
    n = int(np.clip(_MOST_ENTRIES // width, _CELLS_A_STEP, 8 * _CELLS_A_STEP))
    share = min(max(size.share_nonzero, 1 / max(1, size.n_features)), 1.0)
    rng = np.random.default_rng(0)
    x = sp.random(n, width, share, format="csr", dtype=np.float32, random_state=rng)
    x.data = np.ceil(-3 * np.log1p(-x.data)).clip(1).astype(np.float32)
    adata = AnnData(x)
    SCVI.setup_anndata(adata)
    model, watch = SCVI(adata), _Watch(_SECOND)
    model.train(max_epochs=10**6, batch_size=_CELLS_A_STEP, callbacks=[watch], verbose=0, seed=0)
    n_weights = sum(weights.numel() for weights in model.module.parameters())
    return watch.n_epochs * _trained(Size(n, 1, 1)) / watch.seconds / times, round(times * n_weights)


def _width(size: Size) -> tuple[int, float]:
    """Features of the scvi that is trained for a second, and how many times as many the data have."""
    width = max(1, min(size.n_features, _MOST_COLUMNS))
    return width, max(1, size.n_features) / width


class _Watch:
    """Callback that stops a training after some seconds, of which the first epoch is none."""

    def __init__(self, most: float) -> None:
        self._most, self._begun = most, 0.0
        self.n_epochs, self.seconds = 0, 0.0

    def on_train_epoch_end(self, trainer: Any, plan: object) -> None:
        """Note the time."""
        now = time.perf_counter()
        if not self._begun:
            self._begun = now
            return
        self.n_epochs, self.seconds = self.n_epochs + 1, now - self._begun
        trainer.should_stop = self.seconds >= self._most


def _readable(seconds: float) -> str:
    """A time as people say it: ``"40 s"``, ``"3 min"``, ``"2 days"``."""
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"
