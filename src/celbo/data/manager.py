"""The manager: one model's view of one AnnData, and the registry that describes it."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, Self
from uuid import uuid4

import numpy as np
from anndata import AnnData

from ..core import SCVI_TOOLS_VERSION, Explained, Summary, checked, checked_methods
from .access import is_mudata
from .constants import (
    DATA_REGISTRY,
    FIELD_REGISTRIES,
    MANAGER_UUID,
    MODEL_NAME,
    SCVI_VERSION,
    SETUP_ARGS,
    SETUP_METHOD_NAME,
    STATE_REGISTRY,
    SUMMARY_STATS,
    UUID,
)
from .fields import BaseAnnDataField, LayerField
from .genes import GeneMatch, align_genes
from .modalities import require_fit
from .registry import (
    attrdict,
    data_registry_of,
    field_registry_of,
    require_known_options,
    require_same_shape_of_setup,
    state_registry_of,
    summary_stats_of,
)
from .registry_view import places_table, print_setup_call, screen, summary_of, summary_table
from .validation_check import AnnDataManagerValidationCheck

__all__ = ["AnnDataManager"]

logger = logging.getLogger("celbo")


@checked_methods
@checked
class AnnDataManager(Explained):
    """Registers an AnnData for a model and says afterwards where everything is.

    What registration adds to the AnnData: ``uns["_scvi_uuid"]`` (its identity), ``uns["_scvi_manager_uuid"]`` (who
    registered it last) and the ``_scvi_`` columns of its fields. Nothing else is written; the matrix is not touched.

    Parameters
    ----------
    fields
        What the model reads.
    setup_method_args
        ``{"model_name": ..., "setup_method_name": ..., "setup_args": {...}}`` of the call that made this manager; goes
        into the registry.
    validation_checks
        What to check first. Default: everything.
    """

    make_torch_dataset: ClassVar[Callable[..., Any] | None] = None  # put here by celbo.dataloaders, which is above

    def __init__(
        self,
        fields: list[BaseAnnDataField] | None = None,
        setup_method_args: dict[str, Any] | None = None,
        validation_checks: AnnDataManagerValidationCheck | None = None,
    ) -> None:
        self.id = str(uuid4())
        self.adata: AnnData | None = None
        self.fields = list(fields or [])
        self.validation_checks = validation_checks or AnnDataManagerValidationCheck()
        self._registry: dict[str, Any] = {
            SCVI_VERSION: SCVI_TOOLS_VERSION,
            MODEL_NAME: None,
            SETUP_ARGS: None,
            **(setup_method_args or {}),
            FIELD_REGISTRIES: defaultdict(dict),
        }
        self._transfer_kwargs: dict[str, Any] = {}
        self._matches: dict[str, GeneMatch] = {}  # of fields whose columns are not those of the reference as they are

    # -- registration ----------------------------------------------------------------------------------------------

    def register_fields(
        self, adata: AnnData, source_registry: Mapping[str, Any] | None = None, **transfer_kwargs: Any
    ) -> None:
        """Register an AnnData: check its data, write the codes, fill the registry.

        Parameters
        ----------
        adata
            Not a view.
        source_registry
            Registry of an earlier setup, whose categories and gene order hold here too. None: they are found again.
        transfer_kwargs
            For the fields' ``transfer_field``: ``extend_categories``, ``allow_missing_labels``.

        Raises
        ------
        AssertionError
            When this manager has an AnnData already.
        KeyError, TypeError, ValueError
            A place that is not there, counts that are none, unknown categories, missing genes, an unknown option.
        """
        if self.adata is not None:
            raise AssertionError("Existing AnnData object registered with this Manager instance.")
        self._check(adata)
        require_known_options(self.fields, transfer_kwargs)
        for field in self.fields:
            require_same_shape_of_setup(field, source_registry)
            if not field.is_empty and source_registry is None:
                field.validate_field(adata)
        # the mark goes first: if a field fails, older managers still see that their columns may be gone
        if UUID not in adata.uns:
            adata.uns[UUID] = str(uuid4())
        adata.uns[MANAGER_UUID] = self.id
        for field in self.fields:
            self._add_field(field, adata, source_registry, transfer_kwargs)
        self._registry[UUID] = adata.uns[UUID]
        self._transfer_kwargs = transfer_kwargs
        self.adata = adata
        self._match_columns()

    def register_new_fields(self, fields: list[BaseAnnDataField]) -> None:
        """Add fields to a registered AnnData; one whose registry key exists takes the old one's place."""
        adata = self._registered()
        for field in fields:
            field.validate_field(adata)
        for field in fields:
            self._add_field(field, adata, None, {})
        replaced = {field.registry_key for field in fields}
        self.fields = [field for field in self.fields if field.registry_key not in replaced] + list(fields)
        self._match_columns()

    def transfer_fields(self, adata_target: AnnData, **kwargs: Any) -> Self:
        """Manager of another AnnData with the categories and the gene order of this one.

        Parameters
        ----------
        adata_target
            Not a view. A copy of the registered AnnData gets an identity of its own.
        kwargs
            ``extend_categories=True``: unknown categories go behind the known ones; ``allow_missing_labels=True``:
            cells are unlabelled when the label column is missing.

        Returns
        -------
        A new manager. Genes of another order, or among more, are matched by name: see :meth:`get_column_indexer`.
        """
        self._registered()
        if self.is_copy(adata_target):
            adata_target.uns[UUID] = str(uuid4())
        manager = type(self)(self.fields, self._get_setup_method_args(), self.validation_checks)
        manager.register_fields(adata_target, self._registry, **kwargs)
        return manager

    def validate(self) -> None:
        """Make sure that the AnnData is as this manager left it.

        When another manager registered it since, the ``_scvi_`` columns are written again.

        Raises
        ------
        ValueError
            When cells or genes were added, removed or renamed since setup.
        """
        adata = self._registered()
        self._check(adata)
        self._require_unchanged(adata)
        if adata.uns.get(MANAGER_UUID) == self.id:
            return
        source = deepcopy(self._registry)
        adata.uns[MANAGER_UUID] = self.id
        for field in self.fields:
            self._add_field(field, adata, source, self._transfer_kwargs)

    def update_setup_method_args(self, setup_method_args: dict[str, Any]) -> None:
        """Change setup arguments in the registry, for example after minification."""
        self._registry[SETUP_ARGS] = {**(self._registry[SETUP_ARGS] or {}), **setup_method_args}

    def is_copy(self, adata: AnnData) -> bool:
        """Whether this is another object with the identity of the registered AnnData: ``adata.copy()`` makes such."""
        return self.adata is not None and adata is not self.adata and adata.uns.get(UUID) == self.adata_uuid

    def require_same_object(self, adata: AnnData) -> None:
        """Raise a ``ValueError`` when ``adata`` is a copy of the registered AnnData (see :meth:`is_copy`)."""
        if self.is_copy(adata):
            raise ValueError(
                "The provided AnnData object does not match the AnnData object previously provided for setup. Did you "
                "make a copy? Call setup_anndata on the copy, or pass the object that was set up."
            )

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def adata_uuid(self) -> str:
        """Identity of the registered AnnData."""
        self._registered()
        return self._registry[UUID]

    @property
    def registry(self) -> dict[str, Any]:
        """Everything that setup found out; scvi-tools' layout to the letter."""
        return self._registry

    @property
    def data_registry(self) -> attrdict:
        """Where each field's data lie."""
        self._registered()
        return data_registry_of(self._registry)

    @property
    def summary_stats(self) -> attrdict:
        """Sizes: ``n_vars``, ``n_cells``, ``n_batch``, ..."""
        self._registered()
        return summary_stats_of(self._registry)

    def get_from_registry(self, registry_key: str) -> Any:
        """The data of a field, as they lie in the AnnData (dense, sparse, backed, DataFrame).

        Columns are in the AnnData's own order; :meth:`get_column_indexer` says where the model's are among them. A
        column of ``obs`` or ``var`` comes as ``(n, 1)``.

        Raises
        ------
        KeyError
            When no such field is registered, or setup named no data for it.
        """
        adata = self._registered()
        if not field_registry_of(self._registry, registry_key)[DATA_REGISTRY]:
            raise KeyError(f"Setup named no data for {registry_key!r}: the field is empty.")
        return self._field(registry_key).get_field_data(adata)

    def get_state_registry(self, registry_key: str) -> attrdict:
        """What setup learnt about a field: categories, column names."""
        self._registered()
        return state_registry_of(self._registry, registry_key)

    def get_column_indexer(self, registry_key: str) -> np.ndarray | None:
        """Which columns of the data make a minibatch, in the model's order.

        Parameters
        ----------
        registry_key
            A field with named columns: a matrix of genes, a table in ``obsm``.

        Returns
        -------
        ``(g,)`` integers: column ``j`` of the model is column ``indexer[j]`` of :meth:`get_from_registry`. None when
        the columns are the model's already.
        """
        field_registry_of(self._registry, registry_key)
        match = self._matches.get(registry_key)
        return None if match is None else match.indexer

    def get_row_indexer(self, registry_key: str) -> np.ndarray | None:
        """Row of :meth:`get_from_registry` for each cell, ``(n,)``, -1 for one that its modality lacks.

        None when rows are the cells already, as in every AnnData.
        """
        return self._field(registry_key).row_indexer(self._registered())

    def create_torch_dataset(
        self,
        indices: Sequence[int] | Sequence[bool] | None = None,
        data_and_attributes: list[str] | dict[str, Any] | None = None,
        load_sparse_tensor: bool = False,
    ) -> Any:
        """The registered data as a data set of torch, numpy arrays by registry key.

        Parameters
        ----------
        indices
            Cells to take, as row numbers in any order or a boolean mask; None: all.
        data_and_attributes
            Registry keys to read, as a list or as a dict of key to dtype. None: every key with one row a cell.
        load_sparse_tensor
            Keys stored sparse come out as sparse tensors of torch, of the same layout (CSR or CSC).

        Returns
        -------
        :class:`~celbo.dataloaders.AnnTorchDataset`, or a ``torch.utils.data.Subset`` of it.

        Raises
        ------
        RuntimeError
            When :mod:`celbo.dataloaders` was never imported: this layer does not import torch.
        """
        self._registered()
        make = type(self).make_torch_dataset
        if make is None:
            raise RuntimeError("Import celbo.dataloaders first: it has the data set that this method makes.")
        return make(self, indices, data_and_attributes, load_sparse_tensor)

    @staticmethod
    def view_setup_method_args(registry: Mapping[str, Any]) -> None:
        """Print the call that set the AnnData up."""
        print_setup_call(registry)

    def view_registry(self, hide_state_registries: bool = False) -> None:
        """Print the registry as tables: the call, the sizes, the places, and what each field learnt."""
        self._registered()
        console = screen()
        console.print(f"Anndata setup with scvi-tools version {self._registry[SCVI_VERSION]}.\n")
        self.view_setup_method_args(self._registry)
        console.print(summary_table(self.summary_stats), places_table(self.data_registry))
        if not hide_state_registries:
            for field in self.fields:
                shown = field.view_state_registry(self.get_state_registry(field.registry_key))
                if shown is not None:
                    console.print(shown)

    def summary(self) -> Summary:
        """What it registered: the arguments, the sizes, where each field lies. Notebooks show a manager by it."""
        found = summary_stats_of(self._registry), data_registry_of(self._registry)
        return summary_of(type(self).__name__, self._registry, *found)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _registered(self) -> AnnData:
        if self.adata is None:
            raise AssertionError("AnnData object not registered. Please call register_fields.")
        return self.adata

    def _check(self, adata: AnnData) -> None:
        if is_mudata(adata):
            require_fit(adata, self.validation_checks.check_fully_paired_mudata, self.validation_checks.check_if_view)
        elif not isinstance(adata, AnnData):
            raise TypeError(
                f"An AnnData or a MuData is wanted, got {type(adata).__module__}.{type(adata).__qualname__}."
            )
        if self.validation_checks.check_if_view and adata.is_view:
            how = "to_memory" if adata.isbacked else "copy"
            raise ValueError(
                f"Please run `adata = adata.{how}()`: this AnnData is a view of another one, and setup writes to it."
            )

    def _field(self, registry_key: str) -> BaseAnnDataField:
        return next(field for field in self.fields if field.registry_key == registry_key)

    def _add_field(
        self, field: BaseAnnDataField, adata: AnnData, source: Mapping[str, Any] | None, kwargs: Mapping[str, Any]
    ) -> None:
        state: dict[str, Any] = {}
        if not field.is_empty and source is None:
            state = field.register_field(adata)
        elif not field.is_empty and source is not None:
            state = field.transfer_field(source[FIELD_REGISTRIES][field.registry_key][STATE_REGISTRY], adata, **kwargs)
        self._registry[FIELD_REGISTRIES][field.registry_key] = {
            DATA_REGISTRY: field.get_data_registry(),
            STATE_REGISTRY: state,
            SUMMARY_STATS: field.get_summary_stats(state),
        }

    def _match_columns(self) -> None:
        """Find each field's columns in the AnnData, and say it where they are not simply the same."""
        adata = self._registered()
        for field in self._fields_with_columns():
            reference = self.get_state_registry(field.registry_key).column_names
            match = align_genes(field.column_names(adata), reference, where=f"{field.place} of the new data")
            if not match.is_identity:
                logger.info("%s", match.summary())
                self._matches[field.registry_key] = match

    def _fields_with_columns(self) -> list[BaseAnnDataField]:
        return [field for field in self.fields if field.names_columns and not field.is_empty]

    def _require_unchanged(self, adata: AnnData) -> None:
        for field in self._fields_with_columns():
            state = self.get_state_registry(field.registry_key)
            now_obs = field.holder(adata).n_obs
            n_obs = state.get(LayerField.N_OBS_KEY, now_obs)
            if now_obs != n_obs:
                what = "The AnnData" if field.mod_key is None else f"The modality {field.mod_key!r}"
                raise ValueError(f"{what} had {n_obs} cells at setup and has {now_obs} now. Call setup_anndata again.")
            names, then = field.column_names(adata), self._matches.get(field.registry_key)
            if then is None and np.array_equal(names, state.column_names):
                continue
            now = align_genes(names, state.column_names, where=field.place)
            if not (now.is_identity if then is None else np.array_equal(now.indexer, then.indexer)):
                raise ValueError(
                    f"The columns of {field.place} changed since setup: {len(now.missing)} are missing, others may "
                    "have moved. Call setup_anndata again."
                )

    @property
    def may_lack_modalities(self) -> bool:
        """Whether the data are a MuData of which not every modality needs to have all cells."""
        return is_mudata(self.adata) and not self.validation_checks.check_fully_paired_mudata

    def _get_setup_method_args(self) -> dict[str, Any]:
        """The part of the registry that tells how it was made, for a manager that is made the same way."""
        keys = (MODEL_NAME, SETUP_ARGS, SETUP_METHOD_NAME)
        return {key: self._registry[key] for key in keys if key in self._registry}
