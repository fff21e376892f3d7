"""The command line: ``celbo train``, ``predict``, ``info``, ... Nothing heavy is imported before a command runs."""

from typing import TYPE_CHECKING, Any

from .interrupts import ignore, while_loading

if TYPE_CHECKING:
    from .commands import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the ``celbo`` script."""
    with while_loading():
        from .commands import app
    try:
        app(prog_name="celbo")
    finally:
        ignore()


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .commands import app

    return app
