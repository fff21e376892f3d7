"""How anndata writes celbo's own arrays, so that an AnnData that holds them is saved like any other.

anndata has no public way to add a writer. Where its inside is no longer what this module was written for, there is
none, and :data:`CAN_WRITE` says so: names of cells are then plain strings from the start.
"""

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from ..matrices.matrix import StoredMatrix
from ..tables.names import STEP, CellNames

__all__ = ["CAN_WRITE"]

ENTRIES = 2**22
"""Values of a matrix that are copied at once."""


def _write_names(group: Any, key: str, names: CellNames, *, dataset_kwargs: Mapping[str, Any], **_: Any) -> None:
    """Names as an array of text, some at a time."""
    if isinstance(group, h5py.Group):
        stored = group.create_dataset(key, shape=(len(names),), dtype=h5py.string_dtype(), **dataset_kwargs)
    else:
        options = {"chunks": (max(1, min(len(names), STEP)),), **dataset_kwargs}
        stored = group.create_array(key, shape=(len(names),), dtype=str, **options)
    start = 0
    for piece in names.pieces():
        stored[start : start + len(piece)] = np.array(piece, dtype=object)
        start += len(piece)


def _write_matrix(group: Any, key: str, x: StoredMatrix, *, dataset_kwargs: Mapping[str, Any], **_: Any) -> None:
    """Rows of other files in CSR form, some at a time."""
    n, g = x.shape
    target = group.create_group(key)
    target.attrs["shape"] = [n, g]
    stored = {"data": _growing(target, "data", x.dtype, dataset_kwargs)}
    stored["indices"] = _growing(target, "indices", np.dtype(np.int32 if g < 2**31 else np.int64), dataset_kwargs)
    step, ends = max(1, ENTRIES * n // max(x.n_entries, 1)), [np.zeros(1, np.int64)]
    for start in range(0, n, step):
        rows = x.read(start, min(start + step, n))
        for name, values in (("data", rows.data), ("indices", rows.indices)):
            before = stored[name].shape[0]
            stored[name].resize((before + len(values),))
            stored[name][before:] = values
        ends.append(ends[-1][-1] + np.asarray(rows.indptr[1:], np.int64))
    indptr = np.concatenate(ends)
    if isinstance(target, h5py.Group):
        target.create_dataset("indptr", data=indptr, **dataset_kwargs)
    else:
        target.create_array("indptr", data=indptr)


def _growing(target: Any, name: str, dtype: np.dtype, options: Mapping[str, Any]) -> Any:
    if isinstance(target, h5py.Group):
        return target.create_dataset(name, shape=(0,), maxshape=(None,), dtype=dtype, **{"chunks": (2**16,), **options})
    return target.create_array(name, shape=(0,), dtype=dtype, **{"chunks": (2**17,), **options})


def _register() -> bool:
    try:
        from anndata._io.specs.registry import _REGISTRY, IOSpec
        from anndata.compat import ZarrGroup

        for group in (h5py.Group, ZarrGroup):
            _REGISTRY.register_write(group, CellNames, IOSpec("string-array", "0.2.0"))(_write_names)
            _REGISTRY.register_write(group, StoredMatrix, IOSpec("csr_matrix", "0.1.0"))(_write_matrix)
    except (ImportError, AttributeError, TypeError):
        return False
    return True


CAN_WRITE = _register()
"""Whether anndata could be told."""
