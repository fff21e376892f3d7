"""Where a model finds the manager of an AnnData.

Managers hang on the AnnData object itself, weakly keyed by the class or model they belong to: they live as long as
both do, a copy of
the AnnData has none (which is how a copy is told from the original), and nothing is kept alive by a global table.
"""

from typing import Any
from weakref import WeakKeyDictionary

from ...data import AnnDataManager

__all__ = ["forget_manager", "keep_manager", "kept_manager"]

_ATTRIBUTE = "_celbo_managers"


class _Managers(WeakKeyDictionary):
    """Pickling or copying an AnnData leaves its managers behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Managers, ()

    def __deepcopy__(self, memo: Any) -> "_Managers":
        return _Managers()


def keep_manager(owner: Any, manager: AnnDataManager) -> None:
    """Remember a manager on its AnnData for a model class or a model."""
    adata = manager.adata
    if adata is None:
        raise ValueError("This manager has no AnnData yet: call register_fields first.")
    adata.__dict__.setdefault(_ATTRIBUTE, _Managers())[owner] = manager


def kept_manager(owner: Any, adata: Any) -> AnnDataManager | None:
    """The manager that was kept on this very object for ``owner``, or None."""
    return adata.__dict__.get(_ATTRIBUTE, {}).get(owner)


def forget_manager(owner: Any, adata: Any) -> None:
    """Let go of the manager kept for ``owner``."""
    adata.__dict__.get(_ATTRIBUTE, {}).pop(owner, None)
