"""celbo: deep probabilistic models of single-cell omics, fast and safe, under scvi-tools' names.

Importing the root costs nothing: subpackages load when they are first named.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .core import REGISTRY_KEYS, __version__, settings, unknown_name
from .core.planned import PUBLIC_API, not_in_celbo_yet

if TYPE_CHECKING:
    from . import (  # noqa: F401  (what __getattr__ gives)
        choosing,
        compat,
        criticism,
        data,
        dataloaders,
        distributions,
        external,
        io,
        model,
        module,
        nn,
        ops,
        pl,
        posterior,
        report,
        testing,
        tl,
        train,
        utils,
    )
    from .choosing import which

_SUBPACKAGES = (
    "choosing",
    "compat",
    "criticism",
    "data",
    "dataloaders",
    "distributions",
    "external",
    "io",
    "model",
    "module",
    "nn",
    "ops",
    "pl",
    "posterior",
    "report",
    "testing",
    "tl",
    "train",
    "utils",
)

__all__ = ["REGISTRY_KEYS", "__version__", "settings", "which", *_SUBPACKAGES]


_LOOKED_FOR = {"export_archive": "model.base", "convert_archive": "model.base", "model_report": "report"}
"""Names that people look for here -> the room that has them."""


def __getattr__(name: str) -> Any:
    if name == "which":
        return importlib.import_module(".choosing", __name__).which
    if name in _SUBPACKAGES:
        return importlib.import_module(f".{name}", __name__)
    if name in PUBLIC_API:
        raise AttributeError(not_in_celbo_yet(f"scvi.{name}"), name=name)
    if name in _LOOKED_FOR:
        raise AttributeError(f"celbo.{name} is celbo.{_LOOKED_FOR[name]}.{name}.", name=name)
    raise AttributeError(unknown_name("attribute of celbo", name, __all__), name=name)


def __dir__() -> list[str]:
    return sorted(__all__)
