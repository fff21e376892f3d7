"""Import late: optional packages, and the package root's public names."""

import importlib
import sys
from types import ModuleType
from typing import Any

__all__ = ["load_name", "optional"]


def load_name(package: str, home: str, name: str) -> Any:
    """A public name of a package, from the module below it that has it; the package keeps it, so this runs once."""
    value = getattr(importlib.import_module(f"{package}.{home}"), name)
    setattr(sys.modules[package], name, value)
    return value


def optional(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say how to get it.

    Parameters
    ----------
    module
        Dotted name, for example ``"sklearn.mixture"``.
    extra
        The extra of celbo that installs it.
    purpose
        What needs it, in the user's words.

    Raises
    ------
    ModuleNotFoundError
        With the pip line that installs the package.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != top:
            raise
        message = f"{purpose} needs the package {top!r}, which is not installed: pip install 'celbo[{extra}]'"
        raise ModuleNotFoundError(message, name=top) from error
