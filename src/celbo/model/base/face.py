"""The names by which users of scvi-tools ask a model about itself, and where it finds the managers of its data.

Managers hang on the AnnData object itself, weakly keyed by the class or model they belong to: they live as long as
both do, and a copy of the AnnData has none, which is how a copy is told from the original. The other way, from a class
or model to its AnnDatas, holds nothing alive either.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, overload
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from ...core import REGISTRY_KEYS, Explained, Summary, checked_methods
from ...core.argument_names import TORCH_DEVICE
from ...data import AnnDataManager
from .describe import summary_of, summary_text
from .registered import Registered

__all__ = ["ModelFace", "all_managers", "forget_manager", "gene_names", "keep_manager", "kept_manager", "models_of"]

_ATTRIBUTE = "_celbo_managers"
_data_of: WeakKeyDictionary[Any, WeakValueDictionary[str, Any]] = WeakKeyDictionary()


class _Managers(WeakKeyDictionary):
    """Pickling or copying an AnnData leaves its managers behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Managers, ()

    def __deepcopy__(self, memo: object) -> "_Managers":
        return _Managers()


def keep_manager(owner: object, manager: AnnDataManager) -> None:
    """Remember a manager on its AnnData for a model class or a model; a ``ValueError`` where it has no AnnData yet."""
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


def models_of(cls: type) -> list[Any]:
    """Models of a class that are alive and have seen data."""
    return [owner for owner in _data_of if isinstance(owner, cls)]


def forget_manager(owner: object, adata: object) -> bool:
    """Drop the manager kept for ``owner``; returns whether there was one."""
    return adata.__dict__.get(_ATTRIBUTE, {}).pop(owner, None) is not None


@checked_methods
class ModelFace(Explained, Registered):
    """State of a model, and how it is asked for."""

    _module_cls: ClassVar[type[torch.nn.Module] | None] = None
    history_: dict[str, Any] | None
    kept_epoch_: int | None
    is_trained_: bool
    train_indices_: Any
    validation_indices_: Any
    test_indices_: Any
    get_normalized_function_name_: str = "get_normalized_expression"
    run_name_: str
    run_id_: str
    _adata: AnnData | None
    _adata_manager: AnnDataManager | None
    _model_summary_string: str
    minified_data_type: str | None = None
    _reads: ClassVar[Sequence[str]] = ()
    _plan_defaults: Mapping[str, Any] = MappingProxyType({})

    # How an archive makes one.

    def to_device(self, device: Annotated[str | int | torch.device, TORCH_DEVICE]) -> None:
        """Move the module.

        Parameters
        ----------
        device
            A device of torch, by name (``"cpu"``, ``"cuda:0"``) or by number.

        Examples
        --------
        >>> model.to_device("cpu")
        """
        self.module.to(torch.device(device) if isinstance(device, str) else device)

    def _when_loaded(self) -> None:
        """Hook run on a model read from an archive, with its attributes and weights."""

    @classmethod
    def _replay_setup(cls, adata: AnnData, registry: Mapping[str, Any], **kwargs: Any) -> AnnDataManager:
        """Repeat the setup that a registry tells of, with its categories and gene order."""
        method = getattr(cls, registry.get("setup_method_name") or "setup_anndata")
        method(adata, source_registry=registry, **dict(registry.get("setup_args") or {}), **kwargs)
        manager = kept_manager(cls, adata)
        assert manager is not None
        return manager

    # Managers.

    def _manager_like_training(self, adata: AnnData, **kwargs: Any) -> AnnDataManager:
        if self._adata_manager is not None:
            return self._adata_manager.transfer_fields(adata, **kwargs)
        return self._replay_setup(adata, self.registry_, **kwargs)

    def deregister_manager(self, adata: AnnData | None = None) -> None:
        """Forget what setup made of an AnnData, for this model and for its class.

        Parameters
        ----------
        adata
            The AnnData; None: all but the model's own.

        Raises
        ------
        ValueError
            It was not set up for this model or its class.

        Examples
        --------
        >>> model.deregister_manager()  # forget all data but the training data
        """
        owners = (self, type(self))
        if adata is not None:
            forgotten = [forget_manager(owner, adata) for owner in owners]
            if not any(forgotten):
                raise ValueError(f"This AnnData was not set up for {type(self).__name__}: there is nothing to forget.")
            return
        for owner in owners:
            for manager in all_managers(owner).values():
                if manager.adata is not self._adata and manager.adata is not None:
                    forget_manager(owner, manager.adata)

    @overload
    def get_anndata_manager(self, adata: AnnData, required: Literal[True]) -> AnnDataManager: ...

    @overload
    def get_anndata_manager(self, adata: AnnData, required: bool = False) -> AnnDataManager | None: ...

    def get_anndata_manager(self, adata: AnnData, required: bool = False) -> AnnDataManager | None:
        """Manager that this model has for an AnnData.

        Parameters
        ----------
        adata
            The AnnData.
        required
            Whether having none is an error.

        Raises
        ------
        ValueError
            ``required``, and the model has not seen this AnnData.

        Examples
        --------
        >>> model.get_anndata_manager(adata).summary_stats["n_cells"]
        400
        """
        manager = kept_manager(self, adata)
        if manager is None and required:
            raise ValueError(
                f"This {type(self).__name__} has not seen this AnnData: pass it to a method of the model first, "
                f"or set it up with {type(self).__name__}.setup_anndata."
            )
        return manager

    # Properties.

    @property
    def adata_manager(self) -> AnnDataManager:
        """Manager of the training data; a ``ValueError`` where the model was loaded without data."""
        if self._adata_manager is None:
            raise ValueError("This model was loaded without data: set model.adata first.")
        return self._adata_manager

    @property
    def device(self) -> torch.device:
        """Device of the module."""
        return self.module.device

    @property
    def is_trained(self) -> bool:
        """Whether the model has been trained."""
        return self.is_trained_

    @is_trained.setter
    def is_trained(self, value: bool) -> None:
        self.is_trained_ = value

    @property
    def history(self) -> dict[str, Any] | None:
        """``{metric: DataFrame}`` of training, indexed by epoch (or step); None before."""
        return self.history_

    @property
    def train_indices(self) -> np.ndarray | None:
        """Rows of the cells trained on."""
        return self.train_indices_

    @train_indices.setter
    def train_indices(self, value: object) -> None:
        self.train_indices_ = value

    @property
    def validation_indices(self) -> np.ndarray | None:
        """Rows of the cells validated on."""
        return self.validation_indices_

    @validation_indices.setter
    def validation_indices(self, value: object) -> None:
        self.validation_indices_ = value

    @property
    def test_indices(self) -> np.ndarray | None:
        """Rows of the cells left out."""
        return self.test_indices_

    @test_indices.setter
    def test_indices(self, value: object) -> None:
        self.test_indices_ = value

    @property
    def get_normalized_function_name(self) -> str:
        """Name of the method that gives normalized values."""
        return self.get_normalized_function_name_

    @get_normalized_function_name.setter
    def get_normalized_function_name(self, value: str) -> None:
        self.get_normalized_function_name_ = value

    @property
    def run_name(self) -> str:
        """Name of the training run, for trackers of experiments; the user's own."""
        return self.run_name_

    @run_name.setter
    def run_name(self, value: str) -> None:
        self.run_name_ = value

    @property
    def run_id(self) -> str:
        """Identity of the training run, as a tracker of experiments gave it."""
        return self.run_id_

    @run_id.setter
    def run_id(self, value: str) -> None:
        self.run_id_ = value

    @property
    def summary_string(self) -> str:
        """What the model is, its arguments, and whether it is trained."""
        return summary_text(self)

    def __repr__(self) -> str:
        return self.summary_string

    def summary(self) -> Summary:
        """What the model is: its state, data, arguments and size, and what it may be asked.

        Notebooks show a model by it.

        Returns
        -------
        Text in a terminal, a table in a notebook; ``rows`` has the lines by name.

        Examples
        --------
        >>> model.summary().rows["data"]
        '100 vars, 400 cells, 2 batch, 1 labels'
        """
        return summary_of(self, self._registries_by_name(), ModelFace)

    def _registries_by_name(self) -> dict[str, Mapping[str, Any]]:
        """What setup found out about each data set of the model."""
        return {"data": self.registry_}

    # Verbs that mixins add.

    def get_normalized_expression(self, *args: Any, **kwargs: Any) -> Any:
        """Not of this model: raises a ``NotImplementedError``."""
        raise NotImplementedError(f"{type(self).__name__} has no get_normalized_expression.")

    def differential_abundance(self, *args: Any, **kwargs: Any) -> Any:
        """Not of this model: raises a ``NotImplementedError``."""
        raise NotImplementedError(f"differential_abundance is not implemented for {type(self).__name__}.")

    def _get_user_attributes(self) -> list[tuple[str, Any]]:
        """Name and value of each attribute, by name; those whose names end in ``_`` go into an archive."""
        return sorted(vars(self).items())
