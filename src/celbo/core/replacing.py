"""Files and folders that are there whole or not at all: built under another name, put in place by one rename."""

import ctypes
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["BusyError", "building", "printable", "remove"]

_EXCHANGE = 2
_AT_CWD = -100
_LONGEST_NAME = 200


class BusyError(FileExistsError):
    """Another process is writing to the same place."""


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """A path next to ``target`` to write to, which takes its place when the block ends well.

    Parameters
    ----------
    target
        Absolute path of the file or folder to make. Whatever is there stays whole until one rename replaces it.

    Yields
    ------
    The path to write to; its suffix is that of the target. After an error nothing of it is left.

    Raises
    ------
    BusyError
        Another process is writing to ``target``.

    Notes
    -----
    What a killed process left behind is removed by the next one that writes to the same place.
    """
    with _claimed(target):
        _clear_leftovers(target)
        partial = target.with_name(f".{_short(target)}.partial-{os.getpid()}{target.suffix}")
        try:
            yield partial
            _put_in_place(partial, target)
        except BaseException:
            remove(partial)
            raise


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def printable(path: object) -> str:
    """A path, or any text, as text that UTF-8 takes: bytes of a name that are not UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _short(target: Path) -> str:
    """The target's name, or a digest of one that would be too long with something around it."""
    name = os.fsencode(target.name)
    return target.name if len(name) <= _LONGEST_NAME else hashlib.sha256(name).hexdigest()[:16]


def _put_in_place(partial: Path, target: Path) -> None:
    """Make ``partial`` the target. One rename decides: a process killed at any moment leaves the old or the new."""
    if not os.path.lexists(target) or not (target.is_dir() or partial.is_dir()):
        os.replace(partial, target)
        return
    if _exchange(partial, target):
        remove(partial)
        return
    aside = target.with_name(f".{_short(target)}.old-{os.getpid()}")
    os.rename(target, aside)  # a kill right here is mended by the next start: see _clear_leftovers
    try:
        os.rename(partial, target)
    except BaseException:
        os.rename(aside, target)
        raise
    remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step, where the system can."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return libc.renamex_np(os.fsencode(one), os.fsencode(other), _EXCHANGE) == 0
        return libc.renameat2(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(other), _EXCHANGE) == 0
    except (OSError, AttributeError, TypeError):  # no such function, or no such library
        return False


def _clear_leftovers(target: Path) -> None:
    """Put back or remove what processes that are gone have left; only whoever holds the claim may."""
    start = f".{_short(target)}."
    for path in sorted(target.parent.iterdir()) if target.parent.is_dir() else ():
        kind = path.name.removeprefix(start)
        if kind == path.name:
            continue
        if kind.startswith("old-") and not os.path.lexists(target):
            os.rename(path, target)
        elif kind.startswith(("old-", "partial-")):
            remove(path)


@contextmanager
def _claimed(target: Path) -> Iterator[None]:
    """Hold a place for this process, by a lock that the system takes back when the process ends, however it does."""
    path = target.with_name(f".{_short(target)}.lock")
    descriptor = _lock(path, target)
    try:
        yield
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _lock(path: Path, target: Path) -> int | None:
    """The descriptor of a locked file; None where the file system has no locks."""
    if fcntl is None:
        return None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BusyError(
                f"Another process is writing to {printable(target)}: wait for it, or choose another place."
            ) from None
        except OSError:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # its last holder removed the file in between
