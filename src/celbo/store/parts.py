"""Parts of an opened file of AnnData, read one by one: what must be there, and what may be missing.

A part that cannot be read and is not needed (``uns``, ``obsm``, ``raw``, ...) is left out with a warning. Each matrix
and table is checked as it is read; errors name file and part.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem
from scipy import sparse

from ..core import settings
from ..core.kinds import shape_of
from .allowance import Allowance
from .damage import DamagedDataError, OutsideDataError, naming_damage
from .dtypes import plain_dtype, plain_values
from .matrices.index_structure import check_index_structure
from .part import StoredPart, file_of, is_group
from .tables.obs import records_of, table_fault
from .zarr.inside import counted

__all__ = ["Parts"]


class Parts:
    """What is in one file.

    Parameters
    ----------
    root
        Its h5py or zarr group.
    path
        How messages call it.
    """

    def __init__(self, root: Any, path: Path) -> None:
        self.root, self.path = root, path
        self._allowance = Allowance(path)

    def read(self, key: str) -> Any:
        """A part in memory, ``"obs"`` or ``"layers/counts"``.

        Raises
        ------
        DamagedDataError
            When it cannot be read or makes no sense; names file and part.
        MemoryError
            When it does not fit; says how much is needed.
        """
        with naming_damage(self.path, key):
            if isinstance(self.root, h5py.Group):
                self._allowance.require(self.root[key])
                value = self._read(key)
            else:
                with counted(self.root.store, self._allowance):
                    value = self._read(key)
            _check(value, f"{self.path} ({key})")
        return value

    def count_in(self, key: str) -> None:
        """Make sure that a part that is to be read piece by piece is no larger than the file can hold."""
        with naming_damage(self.path, key):
            if isinstance(self.root, h5py.Group):
                self._allowance.require(self.root[key])
            else:
                with counted(self.root.store, self._allowance):
                    list(self.root[key].members(max_depth=None))

    def _read(self, key: str) -> Any:
        element = self.root[key]
        try:
            return _sparse(element) if _is_unknown_to_scipy(element) else read_elem(element)
        except Exception as error:
            fault = table_fault(element)
            if fault is None:
                raise
            raise DamagedDataError(f"{self.path} ({key}) is damaged: {fault}. Copy the file again.") from error

    def table(self, key: str) -> pd.DataFrame:
        """``obs`` or ``var``; before anndata 0.7 an array of records, with the names of the rows in the first field.

        Raises a ``DamagedDataError`` where it is no table.
        """
        if self._has_records(key):
            frame = pd.DataFrame(self._records(key))
            return frame.set_index(frame.columns[0])
        found = self.read(key)
        if not isinstance(found, pd.DataFrame):
            raise DamagedDataError(f"{self.path}: {key} is no table but a {type(found).__name__}: it is damaged.")
        return found

    def _has_records(self, key: str) -> bool:
        with naming_damage(self.path, key):
            element = self.root[key]
            return not is_group(element) and element.dtype.names is not None

    def _records(self, key: str) -> dict[str, np.ndarray]:
        """The fields of an array of records by name."""
        self.count_in(key)
        with naming_damage(self.path, key):
            return records_of(self.root[key])

    def has(self, key: str) -> bool:
        """Whether there is such a part; anndata writes some that are None as such."""
        with naming_damage(self.path, key):
            return key in self.root and str(self.root[key].attrs.get("encoding-type")) != "null"

    def keys(self, mapping: str) -> list[str]:
        """Names of the entries of ``"layers"``, ``"obsm"``, ...; none where there is no such group."""
        if not self.has(mapping):
            return []
        with naming_damage(self.path, mapping):
            group, folder = self.root[mapping], file_of(self.root)
            if folder is not None and (inside := folder / group.path if folder.is_dir() else folder).is_dir():
                return sorted(one.name for one in inside.iterdir() if one.is_dir())  # zarr would open each
            return sorted(group)

    def stored(self, key: str) -> StoredPart:
        """A matrix where it lies; errors as of :class:`~celbo.store.part.StoredPart`."""
        with naming_damage(self.path, key):
            element = self.root[key]
        return StoredPart(element, self.path)

    def has_raw(self) -> bool:
        """Whether there is a matrix in ``raw``."""
        return any(self.has(key) for key in ("raw/X", "raw.X"))

    def stored_raw(self) -> tuple[StoredPart, pd.DataFrame]:
        """The matrix of ``raw`` where it lies, and its genes; before anndata 0.7 it was ``raw.X``.

        Raises
        ------
        KeyError
            There is none.
        """
        if not self.has_raw():
            raise KeyError(f"{self.path} has no raw.")
        separator = "/" if self.has("raw/X") else "."
        return self.stored(f"raw{separator}X"), self.table(f"raw{separator}var")

    def optional(self, mapping: str, shape: tuple[int, ...] = (), *, where_it_lies: bool = False) -> dict[str, Any]:
        """The entries of ``"layers"``, ``"obsm"``, ``"uns"``, ... that can be read; a warning names the others.

        Parameters
        ----------
        mapping
            The group.
        shape
            What the shape of an entry begins with.
        where_it_lies
            Leave dense arrays of two dimensions on disk.
        """
        found: dict[str, Any] = {}
        with self.tolerating(mapping):
            if self.has(mapping) and self._has_records(mapping):  # before anndata 0.7
                return self._records(mapping)
            for key in self.keys(mapping):
                with self.tolerating(f"{mapping}/{key}"):
                    found[key] = self._fitting(f"{mapping}/{key}", shape, where_it_lies)
        return found

    def fitting(self, key: str, shape: tuple[int, ...]) -> Any:
        """As :meth:`read`, for a part whose shape begins with ``shape``."""
        return self._fitting(key, shape, False)

    def _fitting(self, key: str, shape: tuple[int, ...], where_it_lies: bool) -> Any:
        value = self._lying(key) if where_it_lies else None
        value = self.read(key) if value is None else value
        shape_found = shape_of(value)
        found = np.shape(value) if shape_found is None else shape_found
        if found[: len(shape)] != shape:
            raise DamagedDataError(
                f"{self.path}: {key} is {' x '.join(map(str, found))}, but obs and var make it "
                f"{' x '.join(map(str, shape))}. The file is damaged: copy it again."
            )
        return value

    def _lying(self, key: str) -> Any:
        """A dense array of two dimensions as it lies on disk; None for other parts."""
        with naming_damage(self.path, key):
            element = self.root[key]
            return None if is_group(element) or len(element.shape) != 2 else element

    def raw(self, n: int) -> dict[str, Any] | None:
        """``raw`` of ``n`` cells as AnnData takes it; None where it is not there or cannot be read."""
        with self.tolerating("raw"):
            if self.has("raw"):
                var = self.table("raw/var")
                x = self.fitting("raw/X", (n, len(var)))
                return {"X": x, "var": var, "varm": self.optional("raw/varm", (len(var),))}
        return None

    def anndata(self) -> AnnData:
        """All of it in memory."""
        obs, var = self.table("obs"), self.table("var")
        n, g = len(obs), len(var)
        x = self.fitting("X", (n, g)) if self.has("X") else None
        shapes = {"layers": (n, g), "obsm": (n,), "varm": (g,), "obsp": (n, n), "varp": (g, g), "uns": ()}
        rest = {mapping: self.optional(mapping, shape) for mapping, shape in shapes.items()}
        raw = self.raw(n)
        with naming_damage(self.path):
            return AnnData(x, obs=obs, var=var, raw=raw, **rest)

    @contextmanager
    def tolerating(self, part: str) -> Iterator[None]:
        """Warn of a part that cannot be read, and go on without it; a part that leads to other files ends all."""
        try:
            yield
        except OutsideDataError:
            raise
        except (DamagedDataError, MemoryError) as error:
            self.warn(part, error)

    def warn(self, part: str, error: Exception) -> None:
        """Say that a part is left out, and why."""
        warnings.warn(f"{part} is left out: {error}", UserWarning, stacklevel=settings.warnings_stacklevel)


def _is_unknown_to_scipy(element: Any) -> bool:
    """Whether this is a sparse matrix of half floats, or in another byte order, of which scipy makes none."""
    if not is_group(element) or "data" not in element or "indptr" not in element:
        return False
    return any(plain_dtype(element[name].dtype) != element[name].dtype for name in ("data", "indices", "indptr"))


def _sparse(element: Any) -> Any:
    """Such a matrix in the nearest dtype."""
    shape = element.attrs["shape"] if "shape" in element.attrs else element.attrs["h5sparse_shape"]
    encoding = str(element.attrs.get("encoding-type", element.attrs.get("h5sparse_format", "csr")))
    parts = tuple(plain_values(np.asarray(element[name][:])) for name in ("data", "indices", "indptr"))
    where = str(element.name).lstrip("/")
    check_index_structure(
        parts[2], parts[1], tuple(shape), where, n_values=len(parts[0]), by_column=encoding[:3] == "csc"
    )
    made = sparse.csc_matrix if encoding.startswith("csc") else sparse.csr_matrix
    return made(parts, shape=tuple(int(length) for length in shape))


def _check(value: Any, where: str) -> None:
    """Make sure that compiled code can walk along the sparse matrices in what was read."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check(inner, f"{where.removesuffix(')')}/{key})")
    elif sparse.issparse(value) and value.format in ("csr", "csc"):
        by_column = value.format == "csc"
        check_index_structure(
            value.indptr, value.indices, value.shape, where, n_values=len(value.data), by_column=by_column
        )
