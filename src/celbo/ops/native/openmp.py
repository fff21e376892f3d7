"""torch's OpenMP library, called by hand where it is GNU's: torch's Linux builds.

A process may hold several copies of it (torch's, the system's, those of other packages), and each has threads of its
own. The one that counts is the one torch's calls reach: a library that was loaded for the whole process, if there is
one, and otherwise the one that ``libtorch_cpu`` is linked to.
"""

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...core.process import c_function

__all__ = ["OPENMP", "OpenMP"]

_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@dataclass(frozen=True)
class OpenMP:
    """Functions of the library.

    Attributes
    ----------
    set_threads
        Sets the number of threads for what the calling thread starts, and for nobody else.
    n_processors
        Gives the number of processors that this process may run on.
    _parallel, _nothing
        ``GOMP_parallel``, and a function of the library that may be called on any thread and changes nothing.
    """

    set_threads: Callable[[int], None]
    n_processors: Callable[[], int]
    _parallel: Any
    _nothing: Any

    def run(self, function: Callable[[], None], n_threads: int) -> None:
        """Call a function on each thread of the calling thread's team; it must not raise."""
        callback = _CALLBACK(lambda _: function())
        self._parallel(callback, None, n_threads, 0)

    def start_team(self, n_threads: int) -> None:
        """Give the calling thread a team of so many threads, itself included, that has nothing to do.

        They last as long as the calling thread does, asleep.
        """
        self._parallel(self._nothing, None, n_threads, 0)


def _find() -> OpenMP | None:
    """The functions, or None: another system, another OpenMP, or a torch without any."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))  # loaded already
        parallel = _function("GOMP_parallel", torch_cpu)
        set_threads, n_processors = (
            _function("omp_set_num_threads", torch_cpu),
            _function("omp_get_num_procs", torch_cpu),
        )
        nothing = ctypes.cast(_function("omp_get_thread_num", torch_cpu), _CALLBACK)
    except (OSError, AttributeError):
        return None
    parallel.argtypes, parallel.restype = (_CALLBACK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    set_threads.argtypes, set_threads.restype = (ctypes.c_int,), None
    mkl = c_function("MKL_Set_Num_Threads_Local", torch_cpu)  # torch's matrix products may ask MKL instead

    def set_both(n: int) -> None:
        set_threads(n)
        if mkl is not None:
            mkl(ctypes.c_int(n))

    return OpenMP(set_both, n_processors, parallel, nothing)


def _function(name: str, torch_cpu: ctypes.CDLL) -> Any:
    """The function of that name that a call from inside torch reaches."""
    everyones = c_function(name)
    return getattr(torch_cpu, name) if everyones is None else everyones


OPENMP = _find()
