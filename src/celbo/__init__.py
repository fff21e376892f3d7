"""celbo: deep probabilistic models of single-cell omics, fast and safe, under scvi-tools' names.

Importing the root costs nothing: subpackages load when they are first named.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .core import REGISTRY_KEYS, __version__, settings, unknown_name

if TYPE_CHECKING:
    from . import (
        compat,
        data,
        dataloaders,
        distributions,
        external,
        io,
        model,
        module,
        nn,
        posterior,
        report,
        testing,
        train,
    )

_SUBPACKAGES = (
    "compat",
    "data",
    "dataloaders",
    "distributions",
    "external",
    "io",
    "model",
    "module",
    "nn",
    "ops",
    "posterior",
    "report",
    "testing",
    "train",
)

__all__ = ["REGISTRY_KEYS", "__version__", "settings", *_SUBPACKAGES]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(unknown_name("attribute of celbo", name, __all__))


def __dir__() -> list[str]:
    return sorted(__all__)
