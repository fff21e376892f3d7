"""BaseModelClass: the life of a model, from a set-up AnnData to an archive."""

import inspect
import logging
from abc import ABCMeta
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar
from uuid import uuid4

from anndata import AnnData

from ...core import DataMismatchError, checked_methods, door_of, settings
from ...core.homes import Home
from ...data import AnnDataManager, summary_stats_of
from ...data.access import is_mudata
from ...data.fields import BaseAnnDataField
from ...dataloaders import AnnDataLoader
from ...module.base import BaseModuleClass
from ...posterior.output import EXPRESSION, Output
from .archived import ArchivedModel
from .face import keep_manager, kept_manager
from .homes import argument_homes
from .made_with import (
    arguments_for,
    build_module,
    drawing_weights,
    given_registry,
    init_params,
    noted_arguments,
    noting_arguments,
    setup_call,
)

__all__ = ["BaseModelClass"]

logger = logging.getLogger("celbo")


class _ModelMeta(ABCMeta):
    """Gives constructors and verbs their doors, and notes the arguments a model is made with."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        checked_methods(cls)
        if "__init__" in namespace:
            cls.__init__ = noting_arguments(namespace["__init__"])  # type: ignore[misc]

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of the constructor, which ``help`` shows; Python would show that of :meth:`__call__`."""
        own = inspect.signature(cls.__init__)  # type: ignore[misc]
        return own.replace(parameters=list(own.parameters.values())[1:])

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        door = door_of(cls.__init__)  # type: ignore[misc]
        (_, *args), kwargs = door.take((cls, *args), kwargs, cls.__name__)  # type: ignore[assignment]
        try:
            with drawing_weights():
                return super().__call__(*args, **kwargs)
        except TypeError as error:
            door.name_unknown(error, (cls, *args), kwargs, cls.__name__)
            raise


class BaseModelClass(ArchivedModel, metaclass=_ModelMeta):
    """Abstract model: data in, a module trained on them, answers out.

    A subclass names its module in ``_module_cls`` and has a ``setup_anndata`` under
    :func:`~celbo.model.base.setup_method`. Arguments of the module come from three places, the later over the earlier:
    sizes of the data by name (``n_input``, ``n_batch``, ...; ``_sizes``: name of the module's -> summary statistic),
    the arguments of the constructor (``_renamed``: name of the model's -> name of the module's or None), and what
    ``_computed_arguments`` works out of both. What it explains is declared in ``_outputs``, expression of the counts
    under ``X`` by default. ``_recipe`` names the recipe that it trains by where nobody names one; None: ``one_cycle``.
    ``_own_recipe`` has arguments of ``train`` in place of defaults under any recipe but ``classic``, ``_of_few_cells``
    those where ``classic`` takes the recipe's place because cells are few, ``_fewest_steps`` is the least that a recipe
    takes, and ``_most_cells_a_batch`` as large as a minibatch of ``one_cycle`` gets. ``_reads`` names further classes
    whose archives it reads. A subclass has a constructor only to name its arguments; its last line is
    ``self._build_module()``.

    Parameters
    ----------
    adata
        AnnData set up with this class's ``setup_anndata``; None for a model whose data come later.
    registry
        Registry to take the sizes from when there is no AnnData.
    **module_kwargs
        Arguments of the module, for a subclass without a constructor.

    Raises
    ------
    ValueError
        An AnnData that was not set up, or is a copy of the one that was.
    """

    _module_cls: ClassVar[type[BaseModuleClass] | None] = None
    _data_loader_cls: ClassVar[type] = AnnDataLoader
    _OBSERVED_LIB_SIZE_KEY = "observed_lib_size"
    _may_wait_for_loaders: ClassVar[bool] = False
    _few_cells_by_classic: ClassVar[bool] = True
    _fewest_steps: ClassVar[int] = 0
    _most_cells_a_batch: ClassVar[int] = 128
    _modalities_may_lack_cells: ClassVar[bool] = False
    _modalities_are_linked: ClassVar[bool] = True  # by cells that have more than one of them
    _recipe: ClassVar[str | None] = None
    _own_recipe: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    _of_few_cells: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    _converging_plan_cls: ClassVar[type[Any] | None] = None  # of models that end where their loss is flat
    _sizes: ClassVar[Mapping[str, str]] = MappingProxyType({})
    _renamed: ClassVar[Mapping[str, str | None]] = MappingProxyType({})
    _outputs: ClassVar[Sequence[Output]] = (EXPRESSION,)

    def __init__(
        self, adata: AnnData | None = None, registry: Mapping[str, Any] | None = None, **module_kwargs: Any
    ) -> None:
        self._adata: AnnData | None = None
        self._adata_manager: AnnDataManager | None = None
        self.module: Any = None
        self.trainer: Any = None
        self.is_trained_ = False
        self.train_indices_ = self.validation_indices_ = self.test_indices_ = None
        self.history_: dict[str, Any] | None = None
        self.seed_: int | None = None
        self.kept_epoch_: int | None = None
        self.get_normalized_function_name_ = type(self).get_normalized_function_name_  # kept by archives
        self.id = str(uuid4())
        self.run_name_ = self.run_id_ = ""
        self._model_summary_string = ""
        registry = registry if registry is not None else given_registry(type(self))
        self._module_init_on_train = self._may_wait_for_loaders and adata is None and registry is None
        self._take_data(adata, registry)
        if type(self).__init__ is BaseModelClass.__init__ and self._module_cls is not None:
            self._build_module()

    @classmethod
    def _argument_homes(cls) -> list[Home]:
        return argument_homes(cls)

    def _take_data(self, adata: AnnData | None, registry: Mapping[str, Any] | None) -> None:
        if adata is not None:
            manager = self._class_manager(adata)
            self._adata, self._adata_manager = adata, manager
            keep_manager(self, manager)
            self.registry_: Mapping[str, Any] = manager.registry
        elif registry is not None:
            self.registry_ = registry
        elif self._module_init_on_train:
            self.registry_ = {"setup_args": {}, "field_registries": {}}  # sizes come with the loaders
        else:
            raise ValueError(f"{type(self).__name__} needs an AnnData that was set up, or registry= of one.")
        self.summary_stats = summary_stats_of(self.registry_)

    @classmethod
    def _class_manager(cls, adata: AnnData) -> AnnDataManager:
        manager = kept_manager(cls, adata)
        if manager is None:
            copied = "_scvi_uuid" in adata.uns and "_celbo_managers" not in adata.__dict__
            hint = " It carries the mark of a setup: did you make a copy, or read it from a file?" if copied else ""
            what, method = ("MuData", "setup_mudata") if is_mudata(adata) else ("AnnData", "setup_anndata")
            raise ValueError(f"Please set up your {what} with {cls.__name__}.{method} first.{hint}")
        manager.validate()
        return manager

    def _build_module(self, **computed: Any) -> None:
        """Make ``self.module``; where sizes are to come with the loaders of :meth:`train`, that calls it again.

        Parameters
        ----------
        **computed
            Arguments worked out by the constructor, over all others.
        """
        assert self._module_cls is not None
        if not self._module_init_on_train:
            given = arguments_for(self._module_cls, noted_arguments(self), self._renamed)
            arguments = given | self._computed_arguments() | computed
            self.module = build_module(self._module_cls, self.registry_, arguments, self._sizes)

    def _wait_no_longer(self, registry: Mapping[str, Any]) -> None:
        """Take sizes from the registry of loaders, and make the module."""
        self._module_init_on_train = False
        self._take_data(None, registry)
        with drawing_weights():
            self._build_module()

    def _own_settings(self, recipe: str, asked: bool) -> Mapping[str, Any]:
        """Arguments of ``train`` in place of defaults under a recipe, which the user may have asked for by name."""
        return {} if recipe == "classic" else self._own_recipe

    def _computed_arguments(self) -> dict[str, Any]:
        """Arguments of the module that follow from the data and from those of the constructor; none by default."""
        return {}

    # Setup and managers.

    @classmethod
    def setup_anndata(cls, adata: AnnData, *args: Any, **kwargs: Any) -> None:
        """Register an AnnData; a subclass defines it with :func:`~celbo.model.base.setup_method`."""
        raise NotImplementedError(f"{cls.__name__} must define setup_anndata().")

    @classmethod
    def _fields_of_setup(cls, adata: AnnData, fields: Sequence[BaseAnnDataField]) -> list[BaseAnnDataField]:
        """Fields to register an AnnData with, from those that ``setup_anndata`` gives."""
        return list(fields)

    @classmethod
    def _get_most_recent_anndata_manager(cls, adata: AnnData, required: bool = False) -> AnnDataManager | None:
        """Manager of the last setup of an AnnData for this class; None, or a ``ValueError``, where there is none."""
        manager = kept_manager(cls, adata)
        return cls._class_manager(adata) if manager is None and required else manager

    @classmethod
    def register_manager(cls, adata_manager: AnnDataManager) -> None:
        """Keep the manager of a setup, for models of this class that are made from its AnnData.

        Parameters
        ----------
        adata_manager
            Manager with its AnnData.
        """
        keep_manager(cls, adata_manager)

    def transfer_fields(self, adata: AnnData, **kwargs: Any) -> AnnData:
        """Set an AnnData up like the training data (``extend_categories=True`` admits new categories); returns it.

        Parameters
        ----------
        adata
            Data with the same genes.
        **kwargs
            ``extend_categories``, ``allow_missing_labels``: see ``setup_anndata``.

        Examples
        --------
        >>> model.transfer_fields(celbo.data.synthetic_iid(seed=1)).n_obs
        400
        """
        keep_manager(self, self._manager_like_training(adata, **kwargs))
        return adata

    def _validate_anndata(
        self, adata: AnnData | None = None, copy_if_view: bool = True, extend_categories: bool = False
    ) -> AnnData:
        """The AnnData to answer about: the training data if None, set up like them if it was not."""
        if adata is None:
            if self._adata is None:
                raise ValueError("This model was loaded without data: pass adata=.")
            adata = self._adata
        if adata.is_view and copy_if_view:
            adata = adata.to_memory() if adata.isbacked else adata.copy()
        manager = self.get_anndata_manager(adata)
        if manager is None:
            logger.info("Input AnnData not set up for this model: taking over the setup of the training data.")
            self._take_over_setup(adata, extend_categories)
        else:
            manager.validate()
        return adata

    def _take_over_setup(self, adata: AnnData, extend_categories: bool) -> None:
        try:
            self.transfer_fields(adata, **({"extend_categories": True} if extend_categories else {}))
        except DataMismatchError as error:
            if "extend_categories" not in str(error):  # no argument of the verb that was called
                raise
            query = f"make a model that does, {type(self).__name__}.load_query_data(adata, model), and train it"
            what_to_do = query if hasattr(self, "load_query_data") else "leave them out, or train with them"
            message = f"{error} This model does not know these cells: {what_to_do}."
            raise DataMismatchError(message, error.on_command_line) from error

    def _make_data_loader(
        self,
        adata: AnnData,
        indices: Iterable[Any] | None = None,
        batch_size: int | None = None,
        shuffle: bool = False,
        data_loader_class: type | None = None,
        **data_loader_kwargs: Any,
    ) -> Any:
        """Minibatches of an AnnData in the order of ``indices``."""
        manager = self.get_anndata_manager(adata, required=True)
        return (data_loader_class or self._data_loader_cls)(
            manager,
            indices=indices,
            batch_size=batch_size or settings.batch_size,
            shuffle=shuffle,
            **data_loader_kwargs,
        )

    @property
    def data(self) -> AnnData | None:
        """The training data, AnnData or MuData; None for a model loaded without. scvi-tools calls either ``adata``."""
        return self._adata

    @property
    def adata(self) -> AnnData | None:
        """The training data; None for a model loaded without."""
        return self._adata

    @adata.setter
    def adata(self, adata: AnnData) -> None:
        self._validate_anndata(adata)
        self._adata, self._adata_manager = adata, self.get_anndata_manager(adata, required=True)

    # Training and after.

    def train(self, *args: Any, **kwargs: Any) -> None:
        """Train; see :class:`~celbo.model.base.UnsupervisedTrainingMixin`."""
        raise NotImplementedError(f"{type(self).__name__} must define train().")

    def _check_if_trained(self, warn: bool = True, message: str | None = None) -> None:
        if self.is_trained_:
            return
        message = message or "Trying to query inferred values from an untrained model. Please train the model first."
        if not warn:
            raise RuntimeError(message)
        logger.warning(message)

    def _get_init_params(self, locals: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Constructor arguments from ``locals()``, for constructors written as scvi-tools has them."""
        return init_params(type(self), locals)

    _get_setup_method_args = staticmethod(setup_call)
