"""Object code for ``kernels``, by numba. :mod:`.machine_code` imports this when nothing compiled lies on disk."""

import logging
import time
from collections.abc import Callable
from typing import Any

from numba import carray, config, njit, types

from . import kernels

__all__ = ["compile_rows"]

logger = logging.getLogger("celbo")

POINTER = types.CPointer(types.float32)
SIGNATURE = types.void(
    *(types.CPointer(POINTER), types.CPointer(types.intp)),  # tables and how many rows each has
    *(POINTER, types.CPointer(types.intp)),  # scratch
    *(types.intp, types.intp, types.intp),  # genes, first row, row behind the last
)


def negative_binomial(
    tables: Any, rows: Any, scratch: Any, index: Any, g: int, start: int, stop: int
) -> None:
    """Negative binomial, with dropout or without: views of bare memory, then the loop."""
    kernels.negative_binomial_rows(
        carray(tables[0], (rows[0], g)),
        carray(tables[1], (rows[1], g)),
        carray(tables[2], rows[2]),
        carray(tables[3], (rows[3], g)),
        carray(tables[4], (rows[4], g)),
        carray(tables[5], (rows[5], g)),
        carray(tables[6], (rows[6], g)),
        carray(tables[7], rows[7]),
        carray(tables[8], (rows[8], g)),
        carray(tables[9], rows[9]),
        carray(tables[10], (rows[10], g)),
        carray(tables[11], (rows[11], g)),
        carray(scratch, (kernels.SCRATCH_ROWS, g)),
        carray(index, g),
        start,
        stop,
    )


def poisson(tables: Any, rows: Any, scratch: Any, index: Any, g: int, start: int, stop: int) -> None:
    """Poisson: views of bare memory, then the loop."""
    kernels.poisson_rows(
        carray(tables[0], (rows[0], g)),
        carray(tables[1], (rows[1], g)),
        carray(tables[2], rows[2]),
        carray(tables[3], rows[3]),
        carray(tables[4], (rows[4], g)),
        carray(tables[5], rows[5]),
        carray(scratch, (kernels.SCRATCH_ROWS, g)),
        carray(index, g),
        start,
        stop,
    )


ENTRIES: dict[str, Callable[..., None]] = {"negative_binomial": negative_binomial, "poisson": poisson}


def compile_rows(family: str) -> tuple[bytes, str]:
    """Compile a family's loop over rows for this processor.

    Parameters
    ----------
    family
        ``"negative_binomial"`` (with or without dropout) or ``"poisson"``.

    Returns
    -------
    Object code, and the name of the function in it.

    Raises
    ------
    RuntimeError
        When numba's compiler is switched off.
    numba.core.errors.NumbaError
        When numba cannot compile it.
    """
    if config.DISABLE_JIT:
        raise RuntimeError("numba's compiler is switched off (NUMBA_DISABLE_JIT)")
    logger.info("Compiling the %s likelihood for this machine, once: about 3 s.", family.replace("_", " "))
    started = time.perf_counter()
    dispatcher = njit(**kernels.INNER)(ENTRIES[family])
    dispatcher.compile(SIGNATURE.args)
    compiled = dispatcher.overloads[SIGNATURE.args]
    _, kind, (object_code, _) = compiled.library.serialize_using_object_code()
    assert kind == "object"
    logger.debug("%s kernel compiled in %.2f s", family, time.perf_counter() - started)
    return object_code, compiled.fndesc.llvm_func_name
