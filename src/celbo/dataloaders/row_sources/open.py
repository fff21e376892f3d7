"""From a table, whatever it is stored as, to its rows."""

import functools
import sys
from collections.abc import Callable

import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from ...core import checked
from .backed import BackedCSRRows, DaskRows, HDF5Rows, ZarrRows, backed_csc_rows
from .source import RowSource, array_rows, frame_rows
from .sparse import CSRRows, csc_rows

__all__ = ["rows"]

SUPPORTED = (
    "numpy array, pandas DataFrame, scipy csr_matrix, csr_array, csc_matrix or csc_array, backed AnnData matrix "
    "(dense, CSR or CSC), h5py dataset, zarr array, dask array"
)


@checked
def rows(array: object, dtype: object = np.float32, columns: np.ndarray | None = None) -> RowSource:
    """Row source of a table.

    Parameters
    ----------
    array
        Cells x features, in any storage that AnnData may hold.
    dtype
        Of the rows that come out.
    columns
        Stored column of each column that comes out, -1 for one of zeros; None for all of them as they lie.

    Raises
    ------
    TypeError
        For a storage that no reader knows, or one that holds no numbers.
    """
    _register_loaded()
    return _open(array, dtype=dtype, columns=columns)


@functools.singledispatch
def _open(array: object, dtype: object, columns: np.ndarray | None) -> RowSource:
    kind = f"{type(array).__module__}.{type(array).__qualname__}"
    raise TypeError(f"No reader for rows of a {kind}. Supported are: {SUPPORTED}.")


_open.register(np.ndarray, array_rows)
_open.register(pd.DataFrame, frame_rows)
_open.register(sparse.csr_matrix, CSRRows)
_open.register(sparse.csr_array, CSRRows)
_open.register(sparse.csc_matrix, csc_rows)
_open.register(sparse.csc_array, csc_rows)
_open.register(h5py.Dataset, HDF5Rows)
_open.register(CSRDataset, BackedCSRRows)
_open.register(CSCDataset, backed_csc_rows)

_OPTIONAL: dict[str, Callable[..., RowSource]] = {
    "zarr": ZarrRows,
    "dask.array": functools.partial(DaskRows, open_block=rows),
}


def _register_loaded() -> None:
    """Register the array types of optional packages that are loaded; without the package there is no such array."""
    for name in [name for name in _OPTIONAL if name in sys.modules]:
        _open.register(sys.modules[name].Array, _OPTIONAL.pop(name))
