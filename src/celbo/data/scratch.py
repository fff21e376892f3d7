"""Arrays with one entry a cell that lie in a temporary file, mapped into memory as they are used."""

import logging
import tempfile
from collections.abc import Callable, Iterable
from typing import IO, Any

import numpy as np

__all__ = ["Scratch"]

logger = logging.getLogger("celbo")


class Scratch:
    """A temporary file that arrays are put into; it has no name and is gone with the last of them.

    The file lies where :mod:`tempfile` puts such (``TMPDIR``). An array may be changed: the change is in memory, the
    file stays as it is.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def put(self, pieces: Callable[[], Iterable[np.ndarray]], n: int, dtype: Any) -> np.ndarray:
        """Write an array piece by piece and map it.

        Parameters
        ----------
        pieces
            Begins the pieces anew, each one-dimensional; they are asked for again where there is no room for a file.
        n
            Entries of all pieces together.
        dtype
            Of the entries.

        Returns
        -------
        ``(n,)``: mapped, or in memory where there is no room in the temporary folder, which is said.
        """
        dtype = np.dtype(dtype)
        if n == 0:
            return np.empty(0, dtype)
        try:
            start = self._write(pieces(), dtype)
        except OSError as error:
            if error.errno is None:  # of the data, not of the file
                raise
            logger.warning("No temporary file (%s): %s are kept in memory.", error, f"{n:,} values")
            return np.concatenate([np.asarray(piece, dtype) for piece in pieces()])
        return np.asarray(np.memmap(self._opened(), dtype, mode="c", offset=start, shape=(n,)))

    def _write(self, pieces: Iterable[np.ndarray], dtype: np.dtype) -> int:
        """Put them at the end of the file; says where they begin."""
        file = self._opened()
        start = file.seek(0, 2)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype).data)
        file.flush()
        return start

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="celbo-")
        return self._file
