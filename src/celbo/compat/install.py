"""Switch scvi-tools' import name over to celbo, and back."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.rules import CELBO, SCVI_TOOLS, follow
from ..train.recipes import default_recipe, use_default_recipe
from .finder import CelboFinder

__all__ = ["as_scvi", "install_as_scvi", "is_installed", "uninstall"]

_finder = CelboFinder()
_recipe_before: str | None = None


def is_installed() -> bool:
    """Whether ``import scvi`` gives celbo."""
    return _finder in sys.meta_path


def install_as_scvi() -> None:
    """Let ``import scvi`` and its submodules give celbo's modules from now on, in this process.

    The modules are the same objects under both names, so ``isinstance`` holds across them. ``scvi.__version__`` is the
    scvi-tools release whose API celbo follows. Training takes scvi-tools' own defaults (``recipe="classic"``) unless a
    call says otherwise, and the other points of :class:`celbo.core.rules.Rules` are as there too: negative values at
    setup, for example, are a warning.

    A public name that celbo does not have yet can be imported; using it is a ``NotImplementedError`` that says so.
    Private modules of scvi-tools that code of others is known to import are stood in for
    (:data:`celbo.compat.aliases.PRIVATE`). Calling it again changes nothing.

    Raises
    ------
    RuntimeError
        The real scvi-tools is already imported: two libraries under one name would mix their classes.

    Examples
    --------
    >>> import celbo
    >>> celbo.compat.install_as_scvi()
    >>> from scvi.model import SCVI
    >>> SCVI is celbo.model.SCVI
    True
    >>> celbo.compat.uninstall()
    """
    global _recipe_before
    if is_installed():
        return
    present = sys.modules.get("scvi")
    if present is not None:
        raise RuntimeError(
            "celbo cannot stand in for scvi-tools: the real one is already imported in this process, from "
            f"{vars(present).get('__file__', 'an unknown place')}. Call celbo.compat.install_as_scvi() before anything "
            "imports scvi, or run the script as `python -m celbo.compat SCRIPT.py`."
        )
    _recipe_before = default_recipe()
    use_default_recipe("classic")
    follow(SCVI_TOOLS)
    sys.meta_path.insert(0, _finder)


def uninstall() -> None:
    """Undo :func:`install_as_scvi`: the name ``scvi`` is free again, the default recipe what it was."""
    global _recipe_before
    if not is_installed():
        return
    sys.meta_path.remove(_finder)
    _finder.forget()
    follow(CELBO)
    if _recipe_before is not None:
        use_default_recipe(_recipe_before)
    _recipe_before = None


@contextmanager
def as_scvi() -> Iterator[None]:
    """:func:`install_as_scvi` for the length of a ``with`` block."""
    install_as_scvi()
    try:
        yield
    finally:
        uninstall()
