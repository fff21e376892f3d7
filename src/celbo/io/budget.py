"""What a file may ask for: memory and work in proportion to its own size, and so much beside it.

One budget goes with one reading of one archive. Whatever is made of the file's words (arrays, tables, integers) is
asked for here first, so that nothing is allocated that the file does not hold.

======== ===========================================================================================================
memory   8 bytes for each byte of the file and 64 MB beside; text becomes objects, and a packed number a wider one
values   5 million in all, those that are used twice counted twice
tables   50,000 pandas frames, columns, series, indices and categoricals: each takes about a kB and 0.1 ms
keys     5,000 of other kinds than text and numbers: a file may choose them all alike, which makes sets slow
integers 2,048 bits
======== ===========================================================================================================
"""

import math
from typing import Any

from .errors import ArchiveError

__all__ = ["MAX_BITS", "MAX_TABLES", "MAX_VALUES", "Budget", "bounded", "labels"]

MAX_VALUES = 5_000_000
MAX_TABLES = 50_000
MAX_BITS = 2048
_BYTES_PER_BYTE = 8
_BYTES_BESIDE = 2**26
_MAX_ODD_KEYS = 5_000
_MAX_INT_KEY = 2**60
_MAX_DIMS = 32
_PLAIN_KEYS = (str, bool, int, float, bytes, type(None))


class Budget:
    """What may still be made of one file.

    Parameters
    ----------
    n_file_bytes
        Its size.
    """

    def __init__(self, n_file_bytes: int) -> None:
        self.bytes_left = _BYTES_PER_BYTE * n_file_bytes + _BYTES_BESIDE
        self.values_left = MAX_VALUES
        self.tables_left = MAX_TABLES
        self.odd_keys_left = _MAX_ODD_KEYS

    def charge(self, n_bytes: int) -> None:
        """Count bytes that are about to be made; an ``ArchiveError`` where they are too many for the file."""
        self.bytes_left -= n_bytes
        if self.bytes_left < 0:
            raise ArchiveError("it declares arrays far larger than the file itself")

    def count(self, n: int) -> None:
        """Count values; shared parts count each time they are used, so that no tiny file unfolds without end.

        Raises an ``ArchiveError`` beyond ``MAX_VALUES``.
        """
        self.values_left -= n
        if self.values_left < 0:
            raise ArchiveError(f"it unfolds into more than {MAX_VALUES:,} values")

    def tables(self, n: int = 1) -> None:
        """Count pandas objects; an ``ArchiveError`` beyond ``MAX_TABLES``."""
        self.tables_left -= n
        if self.tables_left < 0:
            raise ArchiveError(f"it holds more than {MAX_TABLES:,} tables, columns and indices")

    def key(self, key: object) -> Any:
        """The key of a dict or element of a set, which must not be one of many that hash alike (``ArchiveError``)."""
        if isinstance(key, int) and abs(key) >= _MAX_INT_KEY:
            raise ArchiveError("a dictionary or set has an integer beyond 2**60")
        if type(key) not in _PLAIN_KEYS:
            self.odd_keys_left -= 1
            if self.odd_keys_left < 0:
                raise ArchiveError(f"it has more than {_MAX_ODD_KEYS:,} keys that are neither text nor numbers")
        return key

    def shape(self, sizes: object, itemsize: int) -> tuple[int, ...]:
        """A shape that is one (else an ``ArchiveError``), its bytes counted."""
        if not isinstance(sizes, tuple | list) or len(sizes) > _MAX_DIMS:
            raise ArchiveError("an array has an impossible shape")
        if any(type(size) is not int or not 0 <= size < 2**63 for size in sizes):
            raise ArchiveError("an array has an impossible shape")
        self.charge(math.prod(sizes) * max(itemsize, 4))  # numpy gives empty text 4 bytes
        return tuple(sizes)


def bounded(number: int) -> int:
    """An integer of at most 2,048 bits; an ``ArchiveError`` for a longer one."""
    if number.bit_length() > MAX_BITS:
        raise ArchiveError(f"it holds an integer of {number.bit_length():,} bits, more than {MAX_BITS:,}")
    return number


def labels(values: Any) -> Any:
    """Labels of rows or columns, given back: an index takes any object, and fails at one that has no hash when used."""
    if values.dtype == object:
        for value in values:
            hash(value)
    return values
