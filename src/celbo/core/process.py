"""The process: the functions of C in it, its memory, and whether it is the one of several that speaks."""

import ctypes
import functools
import os
import sys
from typing import Any

__all__ = [
    "c_function",
    "give_back_free_blocks",
    "is_first_process",
    "keep_large_blocks",
    "n_processes",
    "stacklevel_of_user",
]


def c_function(name: str, library: ctypes.CDLL | None = None) -> Any:
    """A function of C by name, of a library or of all that this process has loaded; None where there is none."""
    try:
        return getattr(ctypes.CDLL(None) if library is None else library, name)
    except AttributeError:
        return None


def stacklevel_of_user() -> int:
    """``stacklevel`` with which the function that asks warns at the first line outside of celbo: the user's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in (__name__.partition(".")[0], "contextlib", "functools")


def n_processes() -> int:
    """Processes that the launcher started, as the environment says; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this is the first of several processes, or the only one.

    Told from the environment, before any process group exists: ``WORLD_SIZE`` with ``RANK`` (torchrun), or with
    ``LOCAL_RANK`` and ``NODE_RANK`` (Fabric). Tasks of ``srun`` count as processes of their own.
    """
    if n_processes() == 1:
        return True
    if "RANK" in os.environ:
        return int(os.environ["RANK"]) == 0
    return int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 256 << 20


@functools.cache
def keep_large_blocks() -> bool:
    """Ask the C library to keep up to 256 MiB of freed blocks for reuse; done once a process.

    Returns
    -------
    Whether the C library is one that can be asked (glibc); elsewhere nothing is done.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    # mmap threshold is capped by glibc at 32 MiB on 64-bit; blocks above it are rare in a step
    return bool(mallopt(_M_MMAP_THRESHOLD, 32 << 20)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST_KEPT))


def give_back_free_blocks() -> bool:
    """Give freed blocks that were kept for reuse back to the system.

    Returns
    -------
    Whether there were any; False where the C library cannot be asked.
    """
    malloc_trim = _glibc("malloc_trim")
    return malloc_trim is not None and bool(malloc_trim(0))


def _glibc(name: str) -> Any:
    """A function of the C library that only glibc has; None elsewhere."""
    return c_function(name) if sys.platform.startswith("linux") else None
