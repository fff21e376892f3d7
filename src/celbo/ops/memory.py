"""Large blocks of memory are kept between steps instead of being mapped anew.

glibc gives blocks above a threshold back to the kernel when they are freed, so a training step that allocates the same
minibatch-sized tensors again pays a page fault for every 4 KiB of them.
"""

import ctypes
import functools
import sys

__all__ = ["keep_large_blocks"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 256 << 20


@functools.cache
def keep_large_blocks() -> bool:
    """Ask the C library to keep up to 256 MiB of freed blocks for reuse; done once a process.

    Returns
    -------
    Whether the C library is one that can be asked (glibc); elsewhere nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # mmap threshold is capped by glibc at 32 MiB on 64-bit; blocks above it are rare in a step
    return bool(mallopt(_M_MMAP_THRESHOLD, 32 << 20)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST_KEPT))
