"""Object code for ``kernels``, by numba. :mod:`.machine_code` imports this when nothing compiled lies on disk."""

import logging
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, config, njit, types

from . import accessibility_kernel, csr_kernel, kernels, methylation_kernel, mixture_kernel

__all__ = ["compile_rows"]

logger = logging.getLogger("celbo")

SIGNATURE = types.void(
    *(types.CPointer(types.voidptr), types.CPointer(types.intp)),  # tables and how many rows each has
    *(types.voidptr, types.voidptr),  # scratch
    *(types.intp, types.intp, types.intp),  # genes, first row, row behind the last
)
LINKABLE = frozenset({"exp", "expf", "lgamma", "log", "log1p", "memcpy", "memset", "NRT_MemInfo_call_dtor"})
DECLARED = re.compile(r'^declare [^@]*@"?([^"(]+)', re.MULTILINE)
F32, I32, I64 = np.float32, np.int32, np.int64


def negative_binomial(tables: Any, rows: Any, scratch: Any, index: Any, g: int, start: int, stop: int) -> None:
    """Negative binomial, with dropout or without: views of bare memory, then the loop."""
    kernels.negative_binomial_rows(
        carray(tables[0], (rows[0], g), F32),
        carray(tables[1], (rows[1], g), F32),
        carray(tables[2], rows[2], F32),
        carray(tables[3], (rows[3], g), F32),
        carray(tables[4], (rows[4], g), F32),
        carray(tables[5], (rows[5], g), F32),
        carray(tables[6], (rows[6], g), F32),
        carray(tables[7], rows[7], F32),
        carray(tables[8], (rows[8], g), F32),
        carray(tables[9], rows[9], F32),
        carray(tables[10], (rows[10], g), F32),
        carray(tables[11], (rows[11], g), F32),
        carray(tables[12], 1, F32)[0],
        carray(scratch, (kernels.SCRATCH_ROWS, g), F32),
        carray(index, g, np.intp),
        start,
        stop,
    )


def poisson(tables: Any, rows: Any, scratch: Any, index: Any, g: int, start: int, stop: int) -> None:
    """Poisson: views of bare memory, then the loop."""
    kernels.poisson_rows(
        carray(tables[0], (rows[0], g), F32),
        carray(tables[1], (rows[1], g), F32),
        carray(tables[2], rows[2], F32),
        carray(tables[3], rows[3], F32),
        carray(tables[4], (rows[4], g), F32),
        carray(tables[5], rows[5], F32),
        carray(tables[6], 1, F32)[0],
        carray(scratch, (kernels.SCRATCH_ROWS, g), F32),
        carray(index, g, np.intp),
        start,
        stop,
    )


def csr_product(tables: Any, rows: Any, scratch: Any, index: Any, h: int, start: int, stop: int) -> None:
    """Product of CSR and dense: views of bare memory, then the loop."""
    csr_kernel.csr_product_rows(
        carray(tables[0], rows[0], I64),
        carray(tables[1], rows[1], I32),
        carray(tables[2], rows[2], F32),
        carray(tables[3], (rows[3], h), F32),
        carray(tables[4], rows[4], F32),
        carray(tables[5], (rows[5], h), F32),
        start,
        stop,
    )


def dense_rows(tables: Any, rows: Any, scratch: Any, index: Any, g: int, start: int, stop: int) -> None:
    """Rows of CSR made dense: views of bare memory, then the loop."""
    csr_kernel.dense_rows(
        carray(tables[0], rows[0], I64),
        carray(tables[1], rows[1], I64),
        carray(tables[2], rows[2], I32),
        carray(tables[3], rows[3], F32),
        carray(tables[4], (rows[4], g), F32),
        start,
        stop,
    )


def repeating_rows(tables: Any, rows: Any, scratch: Any, index: Any, g: int, start: int, stop: int) -> None:
    """Repeated entries of rows of CSR: views of bare memory, then the loop."""
    csr_kernel.repeating_rows(
        carray(tables[0], rows[0], I64),
        carray(tables[1], rows[1], I32),
        carray(tables[2], rows[2], I32),
        carray(index, g, np.intp),
        start,
        stop,
    )


def accessibility(tables: Any, rows: Any, scratch: Any, index: Any, g: int, start: int, stop: int) -> None:
    """Open and closed regions: views of bare memory, then the loop."""
    accessibility_kernel.accessibility_rows(
        carray(tables[0], rows[0], I64),
        carray(tables[1], rows[1], I32),
        carray(tables[2], rows[2], F32),
        carray(tables[3], (rows[3], g), F32),
        carray(tables[4], rows[4], F32),
        carray(tables[5], rows[5], F32),
        carray(tables[6], rows[6], F32),
        carray(tables[7], rows[7], F32),
        carray(tables[8], rows[8], F32),
        carray(tables[9], rows[9], F32),
        carray(tables[10], rows[10], F32),
        carray(tables[11], rows[11], F32),
        carray(scratch, (kernels.SCRATCH_ROWS, g), F32),
        start,
        stop,
    )


def accessibility_gradient(tables: Any, rows: Any, scratch: Any, index: Any, g: int, start: int, stop: int) -> None:
    """Gradients of open and closed regions: views of bare memory, then the loop."""
    accessibility_kernel.accessibility_gradient_blocks(
        carray(tables[0], rows[0], I64),
        carray(tables[1], rows[1], I32),
        carray(tables[2], rows[2], F32),
        carray(tables[3], rows[3], F32),
        carray(tables[4], (rows[4], g), F32),
        carray(tables[5], rows[5], F32),
        carray(tables[6], rows[6], F32),
        carray(tables[7], rows[7], F32),
        carray(tables[8], rows[8], F32),
        carray(tables[9], (rows[9], g), F32),
        carray(tables[10], rows[10], F32),
        carray(scratch, (kernels.SCRATCH_ROWS, g), F32),
        start,
        stop,
    )


def methylation(tables: Any, rows: Any, scratch: Any, index: Any, g: int, start: int, stop: int) -> None:
    """Methylated reads: views of bare memory, then the loop."""
    methylation_kernel.methylation_rows(
        carray(tables[0], (rows[0], g), F32),
        carray(tables[1], (rows[1], g), F32),
        carray(tables[2], (rows[2], g), F32),
        carray(tables[3], (rows[3], g), F32),
        carray(tables[4], rows[4], F32),
        carray(tables[5], (rows[5], g), F32),
        carray(tables[6], (rows[6], g), F32),
        carray(index, g, np.intp),
        start,
        stop,
    )


def mixture(tables: Any, rows: Any, scratch: Any, index: Any, g: int, start: int, stop: int) -> None:
    """Mixture of negative binomials: views of bare memory, then the loop."""
    mixture_kernel.mixture_rows(
        carray(tables[0], (rows[0], g), F32),
        carray(tables[1], (rows[1], g), F32),
        carray(tables[2], (rows[2], g), F32),
        carray(tables[3], (rows[3], g), F32),
        carray(tables[4], (rows[4], g), F32),
        carray(tables[5], rows[5], F32),
        carray(tables[6], (rows[6], g), F32),
        carray(tables[7], (rows[7], g), F32),
        carray(tables[8], (rows[8], g), F32),
        carray(tables[9], (rows[9], g), F32),
        start,
        stop,
    )


def sparse_linear(tables: Any, rows: Any, scratch: Any, index: Any, g: int, start: int, stop: int) -> None:
    """Linear layer of sparse input: views of bare memory, then the loop."""
    csr_kernel.linear_blocks(
        carray(tables[0], rows[0], I64),
        carray(tables[1], rows[1], I32),
        carray(tables[2], rows[2], F32),
        carray(tables[3], (rows[3], g), F32),
        carray(tables[4], rows[4], F32),
        carray(tables[5], (rows[5], rows[3]), F32),
        carray(scratch, kernels.SCRATCH_ROWS * g, F32),
        start,
        stop,
    )


def sparse_linear_gradient(tables: Any, rows: Any, scratch: Any, index: Any, g: int, start: int, stop: int) -> None:
    """Gradient of a linear layer of sparse input: views of bare memory, then the loop."""
    csr_kernel.weight_gradient_blocks(
        carray(tables[0], rows[0], I64),
        carray(tables[1], rows[1], I32),
        carray(tables[2], rows[2], F32),
        carray(tables[3], (rows[3], rows[4]), F32),
        carray(tables[4], (rows[4], g), F32),
        carray(scratch, kernels.SCRATCH_ROWS * g, F32),
        start,
        stop,
    )


ENTRIES: dict[str, Callable[..., None]] = {
    "negative_binomial": negative_binomial,
    "poisson": poisson,
    "accessibility": accessibility,
    "accessibility_gradient": accessibility_gradient,
    "methylation": methylation,
    "mixture": mixture,
    "csr_product": csr_product,
    "dense_rows": dense_rows,
    "repeating_rows": repeating_rows,
    "sparse_linear": sparse_linear,
    "sparse_linear_gradient": sparse_linear_gradient,
}
NAMES = {
    "negative_binomial": "negative binomial likelihood",
    "poisson": "poisson likelihood",
    "accessibility": "accessibility likelihood",
    "accessibility_gradient": "gradient of the accessibility likelihood",
    "methylation": "methylation likelihood",
    "mixture": "likelihood of proteins",
    "csr_product": "sparse product",
    "dense_rows": "gathering of sparse rows",
    "repeating_rows": "search for repeated entries",
    "sparse_linear": "sparse linear layer",
    "sparse_linear_gradient": "gradient of the sparse linear layer",
}


def compile_rows(family: str) -> tuple[bytes, str]:
    """Compile a family's loop over rows for this processor.

    Parameters
    ----------
    family
        A key of :data:`ENTRIES`.

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
    logger.info("Compiling the %s for this machine, once: about 3 s.", NAMES[family])
    started = time.perf_counter()
    dispatcher = njit(**kernels.INNER)(ENTRIES[family])
    dispatcher.compile(SIGNATURE.args)
    compiled = dispatcher.overloads[SIGNATURE.args]
    _refuse_foreign_calls(compiled.library.get_llvm_str())
    _, kind, (object_code, _) = compiled.library.serialize_using_object_code()
    assert kind == "object"
    logger.debug("%s kernel compiled in %.2f s", family, time.perf_counter() - started)
    return object_code, compiled.fndesc.llvm_func_name


def _refuse_foreign_calls(code: str) -> None:
    """Object code is linked without numba: it may call the C library and nothing of numba's runtime or Python's."""
    foreign = {name for name in DECLARED.findall(code) if not name.startswith("llvm.")} - LINKABLE
    if foreign:
        raise RuntimeError(f"A kernel calls what is not there without numba: {', '.join(sorted(foreign))}.")
