"""The compiled loops of this process, each made ready at its first use, and whether it can be."""

import importlib
import os
import threading
import warnings
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .machine_code import Loop

__all__ = ["Family", "all_work", "loop", "works"]

Family = Literal[
    "negative_binomial", "poisson", "accessibility", "csr_product", "sparse_linear", "sparse_linear_gradient"
]

_loops: dict[Family, "Loop"] = {}
_broken: dict[Family, str] = {}
_compiling = threading.Lock()


def _unlock() -> None:
    """In a forked child: the thread that was compiling is not there."""
    global _compiling
    _compiling = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def loop(family: Family) -> "Loop":
    """The compiled loop over rows; compiled, or read from disk, at the first call.

    Raises
    ------
    Exception
        Whatever keeps numba from being imported or from compiling.
    """
    if family not in _loops:
        with _compiling:
            if family not in _loops:
                # by name: linking takes a moment, and this module must load without it
                machine_code = importlib.import_module(f"{__package__}.machine_code")
                _loops[family] = machine_code.ready_loop(family)
    return _loops[family]


def all_work() -> bool:
    """Whether none was found broken so far; asking compiles nothing."""
    return not _broken


def works(family: Family) -> bool:
    """Whether numba can compile the family here; when it cannot, the first to ask is warned."""
    if family in _broken:
        return False
    try:
        loop(family)
    except Exception as error:  # whatever is wrong with a user's numba, work goes on without it
        _broken[family] = f"{type(error).__name__}: {error}"
        message = f"numba cannot be used, the slower plain torch form is taken instead: {_broken[family]}"
        warnings.warn(message, RuntimeWarning, stacklevel=5)
        return False
    return True
