"""Sequences of a FASTA file, whole or stretches of them; nothing is loaded that is not asked for.

Where a stretch lies says the index that ``samtools faidx`` writes beside the file, or a look through the file.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from ..core import unknown_name
from ..store.damage import DamagedDataError

__all__ = ["Fasta", "read_fasta"]

_HEAD, _GZIP = b">", b"\x1f\x8b"


class _Place(NamedTuple):
    """Length of a sequence, where it begins in the file, and bases and bytes of a line."""

    length: int
    offset: int
    bases: int
    width: int


class Fasta:
    """A FASTA file, opened for stretches of its sequences: a context manager.

    Parameters
    ----------
    path
        The file, not compressed.

    Raises
    ------
    FileNotFoundError
        It is not there.
    DamagedDataError
        It is compressed, no FASTA file, or has lines of unlike lengths.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = self.path.open("rb")
        try:
            self._places = self._read_places()
        except BaseException:
            self._file.close()
            raise

    def _read_places(self) -> dict[str, _Place]:
        first = self._file.read(2)
        if first == _GZIP:
            raise DamagedDataError(f"{self.path} is compressed: unpack it first (gunzip -k {self.path.name}).")
        if first[:1] != _HEAD:
            raise DamagedDataError(f"{self.path} is no FASTA file: it does not begin with '>'.")
        index = self.path.with_name(self.path.name + ".fai")
        return dict(_of_index(index) if index.is_file() else self._found())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def lengths(self) -> Mapping[str, int]:
        """Length of each sequence by name."""
        return {name: place.length for name, place in self._places.items()}

    def fetch(self, name: str, start: int, end: int) -> str:
        """Bases ``start .. end - 1`` of a sequence, in capitals; N where it has none.

        Parameters
        ----------
        name
            Of the sequence.
        start, end
            Counted from 0; they may lie outside.

        Raises
        ------
        KeyError
            No such sequence; the nearest names are given.
        """
        if name not in self._places:
            raise KeyError(unknown_name(f"sequence of {self.path.name}", name, self._places))
        place = self._places[name]
        first, last = max(0, start), min(end, place.length)
        if first >= last:
            return "N" * (end - start)
        at, behind = (place.offset + i // place.bases * place.width + i % place.bases for i in (first, last - 1))
        self._file.seek(at)
        text = self._file.read(behind - at + 1).translate(None, b"\r\n").decode("ascii", "replace").upper()
        return "N" * (first - start) + text + "N" * (end - last)

    def _found(self) -> Iterator[tuple[str, _Place]]:
        """Places of the sequences, by a look through the file."""
        self._file.seek(0)
        name, offset, length, bases, width, is_over = "", 0, 0, 0, 0, False
        at = 0
        for line in self._file:
            at += len(line)
            if line.startswith(_HEAD):
                if name:
                    yield name, _Place(length, offset, max(bases, 1), max(width, 1))
                name, offset, length, bases, width, is_over = _name(line), at, 0, 0, 0, False
                continue
            n = len(line.rstrip())
            if is_over and n:
                raise DamagedDataError(f"{self.path}: the lines of {name!r} are not all of one length.")
            bases, width = (bases, width) if bases else (n, len(line))
            is_over = n < bases
            length += n
        if name:
            yield name, _Place(length, offset, max(bases, 1), max(width, 1))


def read_fasta(path: str | Path) -> dict[str, str]:
    """All sequences of a file by name, in capitals.

    Parameters
    ----------
    path
        A small file, not compressed.
    """
    with Fasta(path) as fasta:
        return {name: fasta.fetch(name, 0, length) for name, length in fasta.lengths.items()}


def _name(line: bytes) -> str:
    words = line[1:].split()
    return words[0].decode("utf-8", "replace") if words else ""


def _of_index(path: Path) -> Iterator[tuple[str, _Place]]:
    for line in path.read_text().splitlines():
        name, *numbers = line.split("\t")
        try:
            yield name, _Place(*map(int, numbers[:4]))
        except (TypeError, ValueError) as error:
            raise DamagedDataError(f"{path} is no index of a FASTA file: write it again (samtools faidx).") from error
