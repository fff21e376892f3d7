"""Optional packages: asked for, and required with a message that says what to install."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

__all__ = ["dependencies", "error_on_missing_dependencies", "is_package_installed"]


def is_package_installed(module: str) -> bool:
    """Whether a package can be imported; it is not imported to find out.

    Parameters
    ----------
    module
        Import name, for example ``"sklearn"``.
    """
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent of a dotted name is missing
        return False


def error_on_missing_dependencies(*modules: str) -> None:
    """Refuse to go on without packages.

    Parameters
    ----------
    *modules
        Import names.

    Raises
    ------
    ModuleNotFoundError
        Names every one that is missing.
    """
    missing = [module for module in modules if not is_package_installed(module)]
    if missing:
        raise ModuleNotFoundError(f"This needs {', '.join(missing)}: pip install {' '.join(missing)}", name=missing[0])


def dependencies(*modules: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator of a function that needs packages: they are looked for when it is called.

    Parameters
    ----------
    *modules
        Import names.
    """

    def decorator(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def checked(*args: Any, **kwargs: Any) -> Any:
            error_on_missing_dependencies(*modules)
            return fn(*args, **kwargs)

        return checked

    return decorator
