"""Where a model finds the manager of an AnnData.

Managers hang on the AnnData object itself, weakly keyed by the class or model they belong to: they live as long as
both do, and a copy of the AnnData has none, which is how a copy is told from the original. The other way, from a class
or model to its AnnDatas, holds nothing alive either.
"""

from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import pandas as pd

from ...core import REGISTRY_KEYS
from ...data import AnnDataManager

__all__ = ["all_managers", "forget_manager", "gene_names", "keep_manager", "kept_manager"]

_ATTRIBUTE = "_celbo_managers"
_data_of: WeakKeyDictionary[Any, WeakValueDictionary[str, Any]] = WeakKeyDictionary()


class _Managers(WeakKeyDictionary):
    """Pickling or copying an AnnData leaves its managers behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Managers, ()

    def __deepcopy__(self, memo: object) -> "_Managers":
        return _Managers()


def keep_manager(owner: object, manager: AnnDataManager) -> None:
    """Remember a manager on its AnnData for a model class or a model."""
    adata = manager.adata
    if adata is None:
        raise ValueError("This manager has no AnnData yet: call register_fields first.")
    adata.__dict__.setdefault(_ATTRIBUTE, _Managers())[owner] = manager
    _data_of.setdefault(owner, WeakValueDictionary())[manager.adata_uuid] = adata


def kept_manager(owner: object, adata: object) -> AnnDataManager | None:
    """The manager that was kept on this very object for ``owner``, or None."""
    return adata.__dict__.get(_ATTRIBUTE, {}).get(owner)


def gene_names(owner: object, adata: Any) -> pd.Index:
    """Names of the genes that the setup of an AnnData for ``owner`` took; those of ``X`` where there was none."""
    manager = kept_manager(owner, adata)
    if manager is None:
        return adata.var_names
    return pd.Index(np.asarray(manager.get_state_registry(REGISTRY_KEYS.X_KEY)["column_names"]))


def all_managers(owner: object) -> dict[str, AnnDataManager]:
    """The managers kept for ``owner``, by the identity of their AnnData."""
    kept = {uuid: kept_manager(owner, adata) for uuid, adata in _data_of.get(owner, {}).items()}
    return {uuid: manager for uuid, manager in kept.items() if manager is not None}


def forget_manager(owner: object, adata: object) -> bool:
    """Drop the manager kept for ``owner``; returns whether there was one."""
    return adata.__dict__.get(_ATTRIBUTE, {}).pop(owner, None) is not None
