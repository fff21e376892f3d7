"""What a verb asks of the model that it is given."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar, cast, overload

import numpy as np
import torch
from anndata import AnnData

from ..data import AnnDataManager, attrdict, state_registry_of
from ..posterior import Output

__all__ = ["AnsweringWith", "Model", "answering_with"]


class Model(ABC):
    """A model as verbs see it: names and data of what it was trained on, and a module that answers.

    Verbs are functions whose first argument is one, and mixins are lists of them: a mixin of verbs is a ``Model`` whose
    abstract methods :class:`~celbo.model.base.BaseModelClass` has, in whatever order a class names the two.

    Attributes
    ----------
    module
        The module. Each verb asks it for what its kind of model has, so no one type would tell.
    summary_stats
        Sizes of the training data by name.
    registry_
        What setup found out about the training data.
    init_params_
        Arguments of the constructor, in scvi-tools' layout.
    kept_epoch_
        The epoch whose weights the model has; None: nobody knows.
    """

    module: Any
    summary_stats: attrdict
    registry_: Mapping[str, Any]
    init_params_: dict[str, dict[str, Any]]
    kept_epoch_: int | None
    _outputs: ClassVar[Sequence[Output]]
    _data_loader_cls: ClassVar[type]

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the module is."""

    @property
    @abstractmethod
    def adata(self) -> AnnData | None:
        """The training data; None for a model loaded without."""

    @property
    @abstractmethod
    def history(self) -> dict[str, Any] | None:
        """Metrics of the training by name; None before."""

    @property
    @abstractmethod
    def adata_manager(self) -> AnnDataManager:
        """Manager of the training data."""

    @abstractmethod
    def get_var_names(self, legacy_mudata_format: bool = False) -> np.ndarray:
        """Names of the features, ``(g,)``."""

    @abstractmethod
    def get_state_registry(self, registry_key: str) -> attrdict:
        """What setup learnt about a field: categories, column names."""

    @abstractmethod
    def get_setup_arg(self, setup_arg: str) -> Any:
        """An argument of the setup call."""

    @overload
    def get_anndata_manager(self, adata: AnnData, required: Literal[True]) -> AnnDataManager: ...

    @overload
    def get_anndata_manager(self, adata: AnnData, required: bool = False) -> AnnDataManager | None: ...

    @abstractmethod
    def get_anndata_manager(self, adata: AnnData, required: bool = False) -> AnnDataManager | None:
        """Manager that the model has for data."""

    @abstractmethod
    def _check_if_trained(self, warn: bool = True, message: str | None = None) -> None: ...

    @abstractmethod
    def _validate_anndata(
        self, adata: AnnData | None = None, copy_if_view: bool = True, extend_categories: bool = False
    ) -> AnnData: ...

    @abstractmethod
    def _make_data_loader(
        self,
        adata: AnnData,
        indices: Iterable[Any] | None = None,
        batch_size: int | None = None,
        shuffle: bool = False,
        data_loader_class: type | None = None,
        **data_loader_kwargs: Any,
    ) -> Iterable[dict[str, torch.Tensor]]: ...


M = TypeVar("M", bound=Model)


class AnsweringWith:
    """What stands for a model: all but the module and the registry is the model's own."""

    def __init__(self, model: Model, module: object, registry: Mapping[str, Any]) -> None:
        self._model, self.module, self.registry_ = model, module, registry

    @property  # type: ignore[misc]  # the class of the model, which notes name
    def __class__(self) -> Any:
        return self._model.__class__

    def get_state_registry(self, registry_key: str) -> attrdict:
        """What setup learnt about a field of the data asked about."""
        return state_registry_of(self.registry_, registry_key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def answering_with(model: M, module: object, registry: Mapping[str, Any] | None = None) -> M:
    """What stands for a model in a call of one of its verbs, and answers with a variant of its module.

    Parameters
    ----------
    model
        The model; it is not changed, so that other threads may ask it meanwhile.
    module
        What answers.
    registry
        What setup found out about the data that are asked about; None: the registry of the training data.

    Returns
    -------
    The model, as far as its verbs can tell.
    """
    return cast(M, AnsweringWith(model, module, model.registry_ if registry is None else registry))
