"""A fingerprint of everything that a model reads: one changed count gives another."""

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

from .blocks import CompressedBlock, DenseBlock, blocks

__all__ = ["MatrixDigest", "digest_of", "text_digest"]

_BYTES_AT_ONCE = 2**24


class MatrixDigest:
    """SHA-256 of a matrix, fed block by block.

    Neither the cuts between blocks nor the storage matter: what is taken in are the entries that are not zero, row by
    row (column by column of a CSC matrix), values as float32 and places as int32.
    """

    def __init__(self) -> None:
        self._values, self._places, self._lengths = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()

    def add(self, block: DenseBlock | CompressedBlock) -> None:
        """Take in the next rows (or columns)."""
        if isinstance(block, DenseBlock):
            row, places = np.nonzero(block.values)
            values, lengths = block.values[row, places], np.bincount(row, minlength=len(block.values))
        else:
            values, places, lengths = _without_zeros(block)
        self._values.update(np.ascontiguousarray(values, np.float32).data)
        self._places.update(np.ascontiguousarray(places, np.int32).data)
        self._lengths.update(np.ascontiguousarray(lengths, np.int32).data)

    def hexdigest(self) -> str:
        """What was taken in so far, in 64 hexadecimal digits."""
        return hashlib.sha256(self._values.digest() + self._places.digest() + self._lengths.digest()).hexdigest()


def _without_zeros(block: CompressedBlock) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lengths = np.diff(block.indptr)
    if np.count_nonzero(block.data) == len(block.data):
        return block.data, block.indices, lengths
    is_kept = block.data != 0
    row = np.repeat(np.arange(len(lengths)), lengths)[is_kept]
    return block.data[is_kept], block.indices[is_kept], np.bincount(row, minlength=len(lengths))


def digest_of(values: object) -> str:
    """The fingerprint of one registered item.

    Parameters
    ----------
    values
        ``(n, g)`` matrix of numbers in any storage that :func:`~celbo.store.matrices.blocks.blocks` reads, or
        a column ``(n,)``.

    Returns
    -------
    64 hexadecimal digits. A matrix on disk is read once, in bounded memory.
    """
    if isinstance(values, pd.DataFrame):
        return text_digest(digest_of(values[name].to_numpy()) for name in values)
    if isinstance(values, np.ndarray) and (values.ndim == 1 or values.dtype.kind not in "biuf"):
        return _digest_of_array(values)
    digest = MatrixDigest()
    for block in blocks(values):
        digest.add(block)
    return digest.hexdigest()


def _digest_of_array(values: np.ndarray) -> str:
    digest = hashlib.sha256()
    step = max(1, _BYTES_AT_ONCE // max(values.itemsize, 1))
    for start in range(0, len(values), step):
        some = values[start : start + step]
        digest.update(some.tobytes() if values.dtype.kind in "biuf" else "\0".join(map(str, some.ravel())).encode())
    return digest.hexdigest()


def text_digest(parts: Iterable[str]) -> str:
    """The fingerprint of several."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
