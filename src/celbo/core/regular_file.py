"""Regular files and nothing else: no device, pipe or folder under a file's name, and no hole of a terabyte."""

import errno
import os
import stat
from os import PathLike
from typing import BinaryIO

__all__ = ["kind_of", "open_regular", "read_regular"]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_SMALL = 2**26
"""Files up to this size (64 MB) are read whatever they hold."""
_HOLES = 8
"""A larger file may be this many times as long as what it has on the disk."""
_MAX_STRETCHES = 10_000

_FLAGS = ("O_NONBLOCK", "O_BINARY", "O_CLOEXEC")
"""Further flags, each where the system has it."""


def kind_of(mode: int) -> str:
    """What a mode (``os.stat_result.st_mode``) is the mode of, in words."""
    return _KINDS.get(stat.S_IFMT(mode), "a file")


def open_regular(path: str | PathLike[str]) -> BinaryIO:
    """Open a file for reading, without waiting for whatever else may have its name.

    Parameters
    ----------
    path
        The file; a link to a regular file is one.

    Raises
    ------
    OSError
        It cannot be opened, it is a device, a pipe, a socket or a folder, or it is nearly all hole (a sparse file).
    """
    flags = os.O_RDONLY | sum(vars(os).get(name, 0) for name in _FLAGS)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a pipe for writers only
            raise OSError(error.errno, "it is a socket or a device, no regular file", str(path)) from error
        raise
    try:
        _check(descriptor, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | PathLike[str]) -> bytes:
    """The bytes of a regular file, no more than it had when it was opened; errors as of :func:`open_regular`."""
    with open_regular(path) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def _check(descriptor: int, path: str | PathLike[str]) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, f"it is {kind_of(found.st_mode)}, no regular file", str(path))
    if found.st_size > _SMALL and found.st_size > _HOLES * max(_held(descriptor, found.st_size), _SMALL // _HOLES):
        raise OSError(
            errno.EFBIG, f"its {found.st_size / 2**30:,.1f} GB are nearly all hole (a sparse file)", str(path)
        )


def _held(descriptor: int, size: int) -> int:
    """Bytes outside of holes; the whole size where the system does not tell of holes."""
    if not hasattr(os, "SEEK_DATA"):
        return size
    held = end = 0
    try:
        for _ in range(_MAX_STRETCHES):
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            held += end - start
        return size  # so many stretches are no trick
    except OSError as error:
        return held if error.errno == errno.ENXIO else size  # ENXIO: no data behind this place
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
