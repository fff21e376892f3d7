"""Damaged h5ad files and zarr stores: does each end in the AnnData, or in one error of celbo's that names the file?

``python -m benchmarks.fuzz_stores --n 10000`` damages a small file of each kind that often (bits flipped, cut, parts
swapped or overwritten, attributes and lengths changed), reads it in two ways, and prints what did not end so, took more
than 10 s or 1 GB. Exit code 1 if anything did. The reading is done in child processes: a hang or a crash is one case.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from celbo.data import open as open_data
from celbo.data import read
from celbo.store.damage import DamagedDataError

from .damage import BYTES, ODD, places
from .watching import report, watched

__all__ = ["KINDS", "main", "make", "mutate"]

N, G = 40, 12


def cells() -> anndata.AnnData:
    """A bit of everything."""
    rng = np.random.default_rng(0)
    x = sparse.csr_matrix(rng.poisson(0.7, (N, G)).astype(np.float32))
    columns = {
        "batch": pd.Categorical(["a", "b"] * (N // 2)),
        "depth": rng.random(N),
        "maybe": pd.array([1, None] * (N // 2), dtype="Int64"),
        "note": [f"note {i}" for i in range(N)],
    }
    obs = pd.DataFrame(columns, index=[f"cell {i}" for i in range(N)])
    adata = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"gene {i}" for i in range(G)]))
    adata.layers["dense"] = x.toarray()
    adata.obsm["place"] = rng.random((N, 2))
    adata.uns["how"] = {"by": "celbo", "steps": np.arange(5)}
    adata.raw = anndata.AnnData(x.tocsc(), var=adata.var)
    return adata


KINDS = ("h5ad", "h5ad_gzip", "zarr2", "zarr3")


def make(kind: str, folder: Path) -> Path:
    """A sound file of a kind."""
    path = folder / ("cells.h5ad" if kind.startswith("h5ad") else "cells.zarr")
    if path.suffix == ".h5ad":
        cells().write_h5ad(path, compression="gzip" if kind.endswith("gzip") else None)
    else:
        with anndata.settings.override(zarr_write_format=int(kind[-1])), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cells().write_zarr(path)
    return path


def mutate(path: Path, rng: np.random.Generator) -> str:
    """Damage a file in one way; says how."""
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file())
        path = files[rng.integers(len(files))]
        ways: list[Way] = [*RAW, _lose]
        ways += [_retype] * 4 if path.name in ("zarr.json", ".zarray", ".zattrs", ".zgroup") else []
    else:
        ways = [*RAW, _attribute, _values, _resize, _replace]
    way = ways[rng.integers(len(ways))]
    return f"{path.name}: {way(path, rng)}"


Way = Callable[[Path, np.random.Generator], str]


def _in_file(way: Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, str]]) -> Way:
    def damage(path: Path, rng: np.random.Generator) -> str:
        raw, how = way(np.fromfile(path, np.uint8), rng)
        raw.tofile(path)
        return how

    return damage


RAW = tuple(map(_in_file, BYTES))


def _lose(path: Path, rng: np.random.Generator) -> str:
    path.unlink()
    return "gone"


def _retype(path: Path, rng: np.random.Generator) -> str:
    """Another value somewhere in a JSON document."""
    try:
        document = json.loads(path.read_text())
    except ValueError:
        return "no JSON"
    found = list(places(document))
    if not found:
        return "empty"
    holder, key = found[rng.integers(len(found))]
    holder[key] = ODD[rng.integers(len(ODD))]
    path.write_text(json.dumps(document))
    return f"{key!r} is {holder[key]!r}"


def _elements(file: h5py.File) -> list[Any]:
    found: list[Any] = []
    file.visititems(lambda name, element: found.append(element))
    return found


def _attribute(path: Path, rng: np.random.Generator) -> str:
    with h5py.File(path, "r+") as file:
        places = [(element, name) for element in _elements(file) for name in element.attrs]
        element, name = places[rng.integers(len(places))]
        value = [0, -1, 10**18, "x", "array", "csr_matrix", "categorical", "", [1, 2], [10**12, 3], 1.5][
            rng.integers(11)
        ]
        element.attrs[name] = value
        return f"{element.name}.{name} = {value!r}"


def _values(path: Path, rng: np.random.Generator) -> str:
    with h5py.File(path, "r+") as file:
        arrays = [e for e in _elements(file) if isinstance(e, h5py.Dataset) and e.size and e.dtype.kind in "iufb"]
        array = arrays[rng.integers(len(arrays))]
        values = array[...].ravel()
        at = rng.integers(len(values), size=rng.integers(1, 5))
        info = np.iinfo(values.dtype) if values.dtype.kind in "iu" else None
        odd = (
            [0, 1]
            if values.dtype.kind == "b"
            else [info.min, info.max, 0, len(values)]
            if info
            else [np.nan, np.inf, -1]
        )
        values[at] = np.asarray(odd[rng.integers(len(odd))]).astype(values.dtype)
        array[...] = values.reshape(array.shape)
        return f"{array.name}[{at.tolist()}] = {values[at[0]]!r}"


def _resize(path: Path, rng: np.random.Generator) -> str:
    """An array of another length, or of a length that is only announced."""
    with h5py.File(path, "r+") as file:
        arrays = [e for e in _elements(file) if isinstance(e, h5py.Dataset) and e.ndim]
        array = arrays[rng.integers(len(arrays))]
        name, dtype, attributes, values = array.name, array.dtype, dict(array.attrs), array[...]
        length = [0, len(values) - 1, len(values) + 1, 10**7, 10**12][rng.integers(5)]
        del file[name]
        shape = (max(0, length), *values.shape[1:])
        chunks = (min(1000, max(1, length)), *(max(1, n) for n in values.shape[1:]))
        made = file.create_dataset(name, shape, dtype, chunks=chunks if 0 not in shape else None)
        made[: min(length, len(values))] = values[:length]
        made.attrs.update(attributes)
        return f"{name} of length {length}"


def _replace(path: Path, rng: np.random.Generator) -> str:
    """One element in the place of another, or nothing there."""
    with h5py.File(path, "r+") as file:
        names = [element.name for element in _elements(file)]
        one, other = (names[i] for i in rng.integers(len(names), size=2))
        if one.startswith(other) or other.startswith(one) or rng.random() < 0.3:
            del file[one]
            return f"{one} is gone"
        del file[one]
        file[one] = file[other]
        return f"{one} is {other}"


def _loaded(path: Path) -> None:
    read(path)


def _streamed(path: Path) -> None:
    adata = open_data(path, stream=True)
    for x in (adata.X, *adata.layers.values()):
        if x is not None:
            x[:]


WAYS = (_loaded, _streamed)


def _ends_clean(path: Path, way: Callable[[Path], None]) -> str | None:
    """What was not clean about reading a damaged file; None for nothing."""
    try:
        way(path)
    except Exception as error:
        known = isinstance(error, (DamagedDataError, MemoryError, FileNotFoundError)) or type(error) is ValueError
        if not known or str(path) not in str(error):
            return f"{type(error).__name__}: {str(error)[:200]}"
    return None


def _work(kind: str, first: int, last: int, seed: int, one_way: int) -> None:
    """Cases of a kind: each file damaged and read."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        sound = make(kind, Path(folder))

        def run(case: int) -> Iterator[dict[str, Any]]:
            path = Path(folder) / str(case) / sound.name
            path.parent.mkdir()
            (shutil.copytree if sound.is_dir() else shutil.copy)(sound, path)
            how = mutate(path, np.random.default_rng([seed, case]))
            for way in WAYS[case % 2 :: 2] if one_way else WAYS:
                fault = _ends_clean(path, way)
                if fault is not None:
                    yield {"how": how, "way": way.__name__, "fault": fault}
            shutil.rmtree(path.parent)

        report(first, last, run)


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each kind, and the faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--one-way", action="store_true", help="load and stream in turns, not each file in both ways")
    parser.add_argument("--work", nargs=5, metavar=("KIND", "FIRST", "LAST", "SEED", "ONE"), help="one worker's cases")
    given = parser.parse_args(arguments)
    if given.work:
        kind, *numbers = given.work
        _work(kind, *map(int, numbers))
        return 0
    bad = 0
    for kind in given.kinds:
        began, faults = (
            time.perf_counter(),
            list(watched("benchmarks.fuzz_stores", kind, given.n, given.seed, given.one_way)),
        )
        for fault in faults:
            print(json.dumps(fault))
        bad += len(faults)
        print(f"{kind}: {given.n} damaged, {len(faults)} did not end clean, {time.perf_counter() - began:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
