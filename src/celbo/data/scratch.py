"""Arrays with one entry a cell that lie in a temporary file, mapped into memory as they are used."""

import contextlib
import logging
import mmap
import sys
import tempfile
from collections.abc import Callable, Iterable
from typing import IO, Any, Self

import numpy as np

__all__ = ["COMPACT_FROM", "Scratch", "forget"]

COMPACT_FROM = 2**18
"""Cells from which on data that stream have their tables here; those of fewer are in memory, which is simpler."""

_PAGEOUT = 21
"""Linux's ``MADV_PAGEOUT``, which :mod:`mmap` does not name."""

logger = logging.getLogger("celbo")


class Scratch:
    """A temporary file that arrays are put into; it has no name and is gone with the last of them.

    The file lies where :mod:`tempfile` puts such (``TMPDIR``). To be used in ``with``; the arrays outlive it.
    They may be changed: what is changed is in memory, the file stays as it is.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, pieces: Callable[[], Iterable[np.ndarray]], dtype: Any) -> np.ndarray:
        """Write an array piece by piece and map it.

        Parameters
        ----------
        pieces
            Begins the pieces anew, each one-dimensional; they are asked for again where there is no room for a file.
        dtype
            Of the entries.

        Returns
        -------
        The entries of all pieces, flat: mapped, or in memory where the temporary folder has no room (it is said).
        """
        dtype = np.dtype(dtype)
        try:
            start, n = self._write(pieces(), dtype)
        except OSError as error:
            if error.errno is None:  # of the data, not of the file
                raise
            logger.warning("No temporary file (%s): a column of the cells is kept in memory.", error)
            return np.concatenate([np.empty(0, dtype), *(np.asarray(piece, dtype) for piece in pieces())])
        if n == 0:
            return np.empty(0, dtype)
        return np.asarray(np.memmap(self._opened(), dtype, mode="c", offset=start, shape=(n,)))

    def _write(self, pieces: Iterable[np.ndarray], dtype: np.dtype) -> tuple[int, int]:
        """Put them at the end of the file; says where they begin and how many entries they have."""
        file, n = self._opened(), 0
        start = file.seek(0, 2)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype).data)
            n += len(piece)
        file.flush()
        return start, n

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="celbo-")  # noqa: SIM115 (closed with this)
        return self._file


def forget(array: np.ndarray) -> None:
    """Let go of the memory that an array of a :class:`Scratch` took as it was read; it is read again when used.

    What was changed in it is kept. Does nothing to other arrays, and where the system has no such call.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):  # Linux before 5.4
            owner.madvise(_PAGEOUT)
