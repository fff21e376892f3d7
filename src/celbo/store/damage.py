"""Whether a file, or a zarr store, is whole, and still the one that was opened."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.regular_file import kind_of

__all__ = [
    "ChangedFileError",
    "DamagedChunkError",
    "DamagedDataError",
    "FileMark",
    "NoNumbersError",
    "OutsideDataError",
    "naming_damage",
    "require_regular",
]

_ZARR_METADATA = frozenset({".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json"})


class ChangedFileError(OSError):
    """A file is no longer what it was when it was opened."""


class DamagedDataError(OSError, ValueError):
    """Part of a file cannot be read, or does not fit the rest of it; the message names file and rows."""


class DamagedChunkError(DamagedDataError):
    """A chunk of a zarr array cannot be what it should be; the message names the chunk, and no rows."""


class NoNumbersError(TypeError, ValueError):
    """A matrix holds text, complex numbers or objects."""


class OutsideDataError(DamagedDataError):
    """A file sends its reader to another file, which is not followed.

    Parameters
    ----------
    path
        The file.
    what
        Which part of it, and where it leads.
    """

    def __init__(self, path: str | Path, what: str) -> None:
        super().__init__(
            f"{path}: {what}. celbo reads only the file that is named. If you trust it, read it with anndata and write "
            "it to one file: anndata.read_h5ad(...).write_h5ad(...)."
        )


def require_regular(path: Path, *, folder: bool = False) -> None:
    """Make sure that a path, or what it links to, is a file that can be read to its end; or a folder, if ``folder``.

    Raises
    ------
    FileNotFoundError
        When there is nothing.
    DamagedDataError
        For a device, a pipe, a socket, or a folder in place of a file (a file in place of a folder).
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"There is no file {path}.") from None
    wanted, called = (stat.S_IFDIR, "a folder") if folder else (stat.S_IFREG, "a file")
    if stat.S_IFMT(mode) != wanted:
        raise DamagedDataError(f"{path} is {kind_of(mode)}; {called} is wanted here.")


@contextmanager
def naming_damage(path: Path, part: str = "", *, what: str = "AnnData") -> Iterator[None]:
    """Turn whatever goes wrong in reading a file as AnnData into a :class:`DamagedDataError` that names it.

    Parameters
    ----------
    path
        The file.
    part
        What of it is read: ``"obs"``; nothing for all.
    what
        What it is read as.

    Raises
    ------
    DamagedDataError
        Whatever went wrong, the two below aside.
    MemoryError
        The file does not fit in memory.
    ModuleNotFoundError
        A package that reading needs is not installed.
    """
    try:
        yield
    except (ModuleNotFoundError, DamagedDataError):
        raise
    except MemoryError as error:
        if str(path) in str(error):
            raise
        raise MemoryError(f"{_named(path)} does not fit in memory, or is damaged: {_first_line(error)}") from error
    except Exception as error:
        raise DamagedDataError(
            f"{_named(path)} cannot be read as {what}; {f'its {part}' if part else 'it'} is damaged, cut short or "
            f"something else: "
            f"{_first_line(error)}"
        ) from error


def _named(path: Path) -> str:
    return f"{path} ({path.stat().st_size} bytes)" if path.is_file() else str(path)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class FileMark:
    """Modification time and size of a file, or of what a zarr store is made of, as they were when this was made.

    Parameters
    ----------
    path
        File or folder.

    Notes
    -----
    :meth:`check` looks at a file's one stamp, or at a store's folders and metadata (a chunk that is replaced, added or
    taken away changes its folder); ``check(thorough=True)`` looks at every chunk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamps = dict(_stamps(path))
        self._quick = {name: stamp for name, stamp in self._stamps.items() if name == str(path) or _is_quick(name)}

    def check(self, thorough: bool = False) -> None:
        """Make sure that nothing changed.

        Raises
        ------
        ChangedFileError
            With what changed and how.
        """
        if thorough:
            self._compare(dict(_stamps(self.path)), self._stamps)
        else:
            self._compare({name: _stamp(name) for name in self._quick}, self._quick)

    def _compare(self, now: dict[str, tuple[int, int] | None], before: dict[str, tuple[int, int] | None]) -> None:
        for name in now.keys() | before.keys():
            if now.get(name) != before.get(name):
                inside = "" if name == str(self.path) else f" ({os.path.relpath(name, self.path)})"
                how = "is gone" if now.get(name) is None else "was changed"
                raise ChangedFileError(
                    f"{self.path}{inside} {how} while it was being read: what was trained on would be neither the old "
                    "data nor the new. Leave the file alone until the run ends, and start the run again."
                )


def _stamps(path: Path) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Path and stamp of the file, or of the folder and everything in it."""
    yield str(path), _stamp(str(path))
    for folder, folders, files in os.walk(path):  # of a file: nothing
        for name in (*folders, *files):
            full = os.path.join(folder, name)
            yield full, _stamp(full)


def _stamp(name: str) -> tuple[int, int] | None:
    """Modification time in ns and size; None for what is not there."""
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def _is_quick(name: str) -> bool:
    return os.path.basename(name) in _ZARR_METADATA or os.path.isdir(name)
