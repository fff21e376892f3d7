"""Machine code for ``kernels``, from numba or from its cache on disk. ``fused_cpu`` imports this when first used."""

import logging
import time
from collections.abc import Callable
from typing import Any

from numba import config, njit
from numba.core import event

from . import kernels

__all__ = ["compile_rows"]

logger = logging.getLogger("celbo")

ROWS = {
    "negative_binomial": (kernels.negative_binomial_rows, kernels.NEGATIVE_BINOMIAL_SIGNATURE),
    "poisson": (kernels.poisson_rows, kernels.POISSON_SIGNATURE),
}
OPTIONS = {"nogil": True, "error_model": "numpy"}


def compile_rows(family: str) -> Callable[..., None]:
    """A family's loop over rows, ready to call without the interpreter lock.

    Parameters
    ----------
    family
        ``"negative_binomial"`` (with or without dropout) or ``"poisson"``.

    Raises
    ------
    RuntimeError
        When numba's compiler is switched off.
    numba.core.errors.NumbaError
        When numba cannot compile it.
    """
    if config.DISABLE_JIT:
        raise RuntimeError("numba's compiler is switched off (NUMBA_DISABLE_JIT)")
    function, signature = ROWS[family]
    dispatcher = _dispatcher(function)
    started = time.perf_counter()
    announcement = _Announcement(
        f"Compiling the {family.replace('_', ' ')} likelihood for this machine, once: about 3 s."
    )
    with event.install_listener("numba:compile", announcement):
        dispatcher.compile(signature.args)
    logger.debug("%s kernel ready after %.2f s", family, time.perf_counter() - started)
    return dispatcher


def _dispatcher(function: Any) -> Any:
    """With numba's cache on disk where there is a place for it."""
    try:
        return njit(cache=True, **OPTIONS)(function)
    except RuntimeError as error:
        logger.info(
            "Compiled code cannot be kept for the next run (%s); NUMBA_CACHE_DIR may name a folder for it.", error
        )
        return njit(**OPTIONS)(function)


class _Announcement(event.Listener):
    """Logs a line when numba begins to compile, which it does not when its cache has the function."""

    def __init__(self, line: str) -> None:
        self.line: str | None = line

    def on_start(self, event: Any) -> None:
        if self.line is not None:
            logger.info(self.line)
            self.line = None

    def on_end(self, event: Any) -> None:
        pass
