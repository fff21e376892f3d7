"""The compiled loops over rows: made ready at their first use, kept on disk as object code, loaded without numba.

numba is needed to compile and takes 0.7 s and 60 MB to import; a run that finds its loops compiled pays neither, only
for llvmlite, which links the object code into the process. A file is taken for this very processor, these sources and
these versions only (all are in its name), and when its digest is right.
"""

import ctypes
import functools
import hashlib
import importlib
import logging
import os
import sys
import tempfile
import threading
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

__all__ = ["Family", "Loop", "all_work", "loop", "ready_loop", "works"]

logger = logging.getLogger("celbo")

Family = Literal[
    "negative_binomial",
    "poisson",
    "accessibility",
    "accessibility_gradient",
    "methylation",
    "mixture",
    "csr_product",
    "dense_rows",
    "repeating_rows",
    "sparse_linear",
    "sparse_linear_gradient",
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
                _loops[family] = ready_loop(family)
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


SCRATCH_ROWS = 6
SOURCES = ("*kernel*.py", "vectors.py", "compiling.py")
SUCCESS = (0, -2)
"""What numba's functions return: a value, or None."""

_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 6, *[ctypes.c_ssize_t] * 3)


class Loop:
    """A compiled loop over rows; calls release the interpreter lock.

    Parameters
    ----------
    object_code
        An object file.
    symbol
        Name of the function in it, as :mod:`.compiling` makes them.

    Raises
    ------
    RuntimeError
        The object code has no such function.
    """

    def __init__(self, object_code: bytes, symbol: str) -> None:
        self._engine = _engine()
        self._engine.add_object_file(_llvm().ObjectFileRef.from_data(object_code))
        self._engine.finalize_object()
        address = self._engine.get_function_address(symbol)
        if not address:
            raise RuntimeError(f"The object code has no function {symbol}.")
        self._function = _FUNCTION(address)

    def bind(self, tables: list[Tensor], g: int) -> "Bound":
        """The loop over these tables, each contiguous with rows of ``g`` entries or of one."""
        return Bound(self._function, tables, g)


class Bound:
    """A loop and the tables that it reads and writes: ``bound(start, stop)`` does these rows."""

    def __init__(self, function: Any, tables: list[Tensor], g: int) -> None:
        self._function, self._tables, self._g = function, tables, g  # the tables live as long as their addresses
        self._pointers = (ctypes.c_void_p * len(tables))(*(table.data_ptr() for table in tables))
        self._rows = (ctypes.c_ssize_t * len(tables))(*(table.shape[0] for table in tables))

    def __call__(self, start: int, stop: int) -> None:
        """Do the rows from ``start`` up to ``stop``."""
        scratch, index = np.empty((SCRATCH_ROWS, self._g), np.float32), np.empty(self._g, np.intp)
        unused = (ctypes.c_void_p * 2)()
        status = self._function(
            ctypes.addressof(unused),
            ctypes.addressof(unused) + ctypes.sizeof(ctypes.c_void_p),
            ctypes.addressof(self._pointers),
            ctypes.addressof(self._rows),
            scratch.ctypes.data,
            index.ctypes.data,
            *(self._g, start, stop),
        )
        if status not in SUCCESS:
            raise RuntimeError(f"A compiled loop over rows ended with status {status}.")


def ready_loop(family: str) -> Loop:
    """A family's loop, from disk or compiled now.

    Parameters
    ----------
    family
        As :func:`.compiling.compile_rows` takes it.

    Raises
    ------
    Exception
        Whatever keeps numba from being imported or from compiling.
    """
    name = f"{family}-{_key()}.celbo"
    for folder in _folders():
        if (kept := _read(folder / name)) is not None:
            return Loop(*kept)
    # by name: numba takes long to import, and this module must not before it is needed
    compiling = importlib.import_module(f"{__package__}.compiling")
    made = compiling.compile_rows(family)
    _keep(name, *made)
    return Loop(*made)


@functools.cache
def _llvm() -> Any:
    """The linker of llvmlite: loading it takes a moment, and this module must load without it."""
    import llvmlite.binding

    return llvmlite.binding


@functools.cache
def _key() -> str:
    """What machine code depends on: sources, versions, processor."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for source in sorted(path for pattern in SOURCES for path in folder.glob(pattern)):
        digest.update(source.read_bytes())
    processor = [_llvm().get_process_triple(), _llvm().get_host_cpu_name(), _llvm().get_host_cpu_features().flatten()]
    asked = [os.environ.get(f"NUMBA_{name}", "") for name in ("CPU_NAME", "CPU_FEATURES", "OPT")]
    versions = [metadata.version(package) for package in ("numba", "llvmlite", "numpy")] + [sys.version]
    digest.update("\n".join(processor + asked + versions).encode())
    return digest.hexdigest()[:32]


def _folders() -> list[Path]:
    """Where object code may lie: where ``NUMBA_CACHE_DIR`` says, or beside the package and in the user's cache."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(chosen)]
    caches = os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else os.environ.get("XDG_CACHE_HOME")
    return [Path(__file__).parent / "__pycache__", Path(caches or Path("~/.cache").expanduser()) / "celbo"]


def _read(path: Path) -> tuple[bytes, str] | None:
    """Object code and symbol; None where the file is absent or damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.info("Compiled code in %s cannot be read (%s): compiling again.", path, error)
        return None
    digest, _, rest = content.partition(b"\n")
    if digest != _digest(rest):
        logger.info("Compiled code in %s is damaged: compiling again.", path)
        return None
    symbol, _, object_code = rest.partition(b"\n")
    return object_code, symbol.decode()


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _keep(name: str, object_code: bytes, symbol: str) -> None:
    """Write a file for the next run into the first folder that can be written, whole or not at all."""
    content = symbol.encode() + b"\n" + object_code
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as place:
                (made := Path(place) / name).write_bytes(_digest(content) + b"\n" + content)
                os.replace(made, folder / name)
            return
        except OSError as error:
            reason = error
    logger.info("Compiled code cannot be kept for the next run (%s); NUMBA_CACHE_DIR may name a folder for it.", reason)


_UNREACHED = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda memory: None)
"""Stands in for numba's release of memory, which the loops name and never reach: they own none."""


def _engine() -> Any:
    """A linker for object code; symbols it lacks are looked up in the process (the C library's mathematics)."""
    _llvm().initialize_native_target()
    _llvm().initialize_native_asmprinter()
    if _llvm().address_of_symbol("NRT_MemInfo_call_dtor") is None:
        _llvm().add_symbol("NRT_MemInfo_call_dtor", ctypes.cast(_UNREACHED, ctypes.c_void_p).value)
    target_machine = _llvm().Target.from_default_triple().create_target_machine()  # belongs to the engine from here on
    return _llvm().create_mcjit_compiler(_llvm().parse_assembly(""), target_machine)
