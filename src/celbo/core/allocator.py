"""Large blocks of memory are kept between steps instead of being mapped again.

glibc gives blocks above a threshold back to the kernel when they are freed, so a training step that allocates the same
minibatch-sized tensors again pays a page fault for every 4 KiB of them. When a run is over, they are given back.
"""

import ctypes
import functools
import sys
from typing import Any

__all__ = ["give_back_free_blocks", "keep_large_blocks"]

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
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
