"""A sparse matrix written block of rows by block of rows, in anndata's layout.

Dims: n cells, g genes.
"""

from typing import Any

import h5py
import numpy as np
from scipy import sparse

from ..progress import Tell

__all__ = ["CHUNK_ENTRIES", "CsrWriter"]

CHUNK_ENTRIES = 2**17
"""Values a chunk of the file: about 650 cells of 200 genes, 512 KiB before compression."""

_PARTS = ("data", "indices")


class CsrWriter:
    """Writes a matrix in CSR form; see :class:`~celbo.store.writing.matrix.MatrixWriter`.

    Parameters
    ----------
    root
        Group of h5py or zarr to write it to.
    n, g
        Its rows and columns.
    name
        Of the matrix in the group.
    """

    def __init__(self, root: Any, n: int, g: int, name: str = "X") -> None:
        self._group = root.create_group(name)
        self._group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n, g]})
        self._lengths = [np.zeros(1, np.int64)]
        self._arrays: dict[str, Any] = {}
        self._waiting: dict[str, np.ndarray] = {}
        self._shape = (n, g)
        self.n_written = 0
        self.tell: Tell | None = None

    def append(self, block_ng: np.ndarray | sparse.csr_array) -> None:
        """Write the next rows, ``(rows, g)``, dense or sparse, of one dtype throughout."""
        block = sparse.csr_array(block_ng)
        self._lengths.append(np.diff(block.indptr).astype(np.int64))
        self._write(block.data, block.indices.astype(np.int32, copy=False))
        self.n_written += block.shape[0]
        if self.tell is not None:
            self.tell(self.n_written, self._shape[0])

    def finish(self) -> None:
        """Write what waits for a chunk to be full, and where each row begins."""
        if not self._arrays:
            self.append(sparse.csr_array((0, self._shape[1]), dtype=np.float32))
        for name, values in self._waiting.items():
            _extend(self._arrays[name], values)
        indptr = np.cumsum(np.concatenate(self._lengths))
        stored = self._new("indptr", indptr.dtype, min(len(indptr), CHUNK_ENTRIES))
        _extend(stored, indptr)

    def _write(self, data: np.ndarray, indices: np.ndarray) -> None:
        """Write whole chunks; what is left waits for the next."""
        for name, part in zip(_PARTS, (data, indices)):
            if name not in self._arrays:
                self._arrays[name] = self._new(name, part.dtype, CHUNK_ENTRIES)
                self._waiting[name] = part[:0]
            values = np.concatenate([self._waiting[name], part])
            n_now = len(values) // CHUNK_ENTRIES * CHUNK_ENTRIES
            _extend(self._arrays[name], values[:n_now])
            self._waiting[name] = values[n_now:].copy()

    def _new(self, name: str, dtype: np.dtype[Any], chunk: int) -> Any:
        """An array without entries."""
        if isinstance(self._group, h5py.Group):
            return self._group.create_dataset(name, shape=(0,), maxshape=(None,), dtype=dtype, chunks=(chunk,))
        return self._group.create_array(name, shape=(0,), dtype=dtype, chunks=(chunk,))


def _extend(array: Any, values: np.ndarray) -> None:
    """Put values behind those that are there."""
    if len(values):
        start = array.shape[0]
        array.resize((start + len(values),))
        array[start:] = values
