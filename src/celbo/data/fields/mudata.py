"""Fields of a MuData: an AnnData's field, looked up in one modality, or in the MuData itself."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..access import is_mudata
from ..modalities import CellsOf, listed_modalities, require_agreement, rows_in_modality
from .arraylike import ObsmField, VarmField
from .base import BaseAnnDataField
from .categorical import CategoricalObsField, CategoricalVarField
from .dataframe import NumericalObsField, NumericalVarField
from .joint import (
    CategoricalJointObsField,
    CategoricalJointVarField,
    NumericalJointObsField,
    NumericalJointVarField,
)
from .labels import LabelsWithUnlabeledObsField
from .layer import LayerField
from .protein import ProteinLayerField

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "BaseMuDataWrapperClass",
    "ModalityField",
    "MuDataCategoricalJointObsField",
    "MuDataCategoricalJointVarField",
    "MuDataCategoricalObsField",
    "MuDataCategoricalVarField",
    "MuDataLabelsWithUnlabeledObsField",
    "MuDataLayerField",
    "MuDataNumericalJointObsField",
    "MuDataNumericalJointVarField",
    "MuDataNumericalObsField",
    "MuDataNumericalVarField",
    "MuDataObsmField",
    "MuDataProteinLayerField",
    "MuDataVarmField",
    "MuDataWrapper",
]

Preregister = Callable[["BaseMuDataWrapperClass", Any], None]

_OF_MODALITIES_ONLY = ("X", "layers")


class BaseMuDataWrapperClass(BaseAnnDataField):
    """A field of a MuData; what it does is done by the AnnData's field in it.

    Parameters
    ----------
    mod_key
        Modality in which the data lie; None: in the MuData itself (its ``obs``, ``obsm``, ...).
    mod_required
        Whether a modality must be named.

    Raises
    ------
    ValueError
        ``mod_required`` and none named.
    """

    _adata_field: BaseAnnDataField

    def __init__(self, mod_key: str | None = None, mod_required: bool = False) -> None:
        if mod_required and mod_key is None:
            raise ValueError(f"Modality required for {type(self).__name__} but not provided.")
        self._mod_key = mod_key

    def _look_up(self, field: BaseAnnDataField) -> None:
        """Take over the AnnData's field, which says of its data whose they are."""
        self._adata_field = field
        field.held_by = "mdata" if self._mod_key is None else f"mdata.mod[{self._mod_key!r}]"

    @property
    def adata_field(self) -> BaseAnnDataField:
        """The AnnData's field."""
        return self._adata_field

    @property
    def registry_key(self) -> str:
        """Name under which models and minibatches know the data."""
        return self.adata_field.registry_key

    @property
    def attr_name(self) -> str:
        """Attribute of the modality (or MuData) where the data lie."""
        return self.adata_field.attr_name

    @property
    def attr_key(self) -> str | None:
        """Key within the attribute; None for ``X``."""
        return self.adata_field.attr_key

    @property
    def mod_key(self) -> str | None:
        """Modality; None for the MuData itself."""
        return self._mod_key

    @property
    def is_empty(self) -> bool:
        """Whether there are no data behind the field, because the user named none."""
        return self.adata_field.is_empty

    @property
    def names_columns(self) -> bool:
        """Whether the data are a table with named columns."""
        return self.adata_field.names_columns

    @property
    def place(self) -> str:
        """Where the data lie, as a user would type it."""
        return self.adata_field.place

    def get_modality(self, mdata: Any) -> Any:
        """The modality's AnnData, or the MuData itself.

        Raises
        ------
        AssertionError
            Something else than a MuData.
        ValueError
            A modality that it does not have, or none named for a matrix, which only modalities have.
        """
        if not is_mudata(mdata):
            raise AssertionError(f"`get_modality` can only be called on MuData objects, got a {type(mdata).__name__}.")
        if self.mod_key is None and self.attr_name in _OF_MODALITIES_ONLY:
            raise ValueError(
                f"The field {self.registry_key!r} is a matrix, and only modalities have one: name it with mod_key=, "
                f"one of {listed_modalities(mdata)}."
            )
        if self.mod_key is not None and self.mod_key not in mdata.mod:
            raise ValueError(f"Modality {self.mod_key} not found in mdata.mod. There are: {listed_modalities(mdata)}.")
        return mdata if self.mod_key is None else mdata.mod[self.mod_key]

    def holder(self, mdata: object) -> Any:  # type: ignore[override]
        """The modality's AnnData, or the MuData itself."""
        return self.get_modality(mdata)

    @property
    def obs_columns(self) -> list[str]:
        """Columns of ``obs`` that the field is made of, as the user named them."""
        return self.adata_field.obs_columns

    def row_indexer(self, mdata: object) -> np.ndarray | None:
        """Row of the data for each cell of the MuData, ``(n,)``, -1 for none; None where they are in its order."""
        if self.mod_key is None or self.obs_columns:
            return None
        return rows_in_modality(mdata, self.mod_key)

    def _cells(self, mdata: object) -> Any:
        """What the AnnData's field reads: the modality, or cells whose columns come from more than one place."""
        modality = self.get_modality(mdata)
        if not self.obs_columns:
            return modality
        if self.mod_key is not None and rows_in_modality(mdata, self.mod_key) is None:
            for name in self.obs_columns:
                require_agreement(mdata, self.mod_key, name)
            return modality
        return CellsOf(mdata, self.mod_key, self.obs_columns)

    def validate_field(self, mdata: object) -> None:  # type: ignore[override]
        """Raise when the modality or the data are not there; changes nothing."""
        self.adata_field.validate_field(self._cells(mdata))

    def preregister(self, mdata: object) -> None:
        """What has to be done before registration: nothing, unless :func:`MuDataWrapper` was given a function."""

    def register_field(self, mdata: object) -> dict[str, Any]:  # type: ignore[override]
        """Read the data for the first time, write the codes where codes are needed, return the state."""
        self.preregister(mdata)
        with self._writing(mdata) as cells:
            return self.adata_field.register_field(cells)

    def transfer_field(  # type: ignore[override]
        self, state_registry: dict[str, Any], mdata_target: object, **kwargs: Any
    ) -> dict[str, Any]:
        """Fit another MuData to a state that exists already, return the state that results."""
        self.preregister(mdata_target)
        field, modality = self.adata_field, self.get_modality(mdata_target)
        if isinstance(field, LayerField) and not modality.n_obs:
            return field.transfer_to_no_cells(state_registry, modality)
        with self._writing(mdata_target) as cells:
            return self.adata_field.transfer_field(state_registry, cells, **kwargs)

    @contextmanager
    def _writing(self, mdata: object) -> Iterator[Any]:
        cells = self._cells(mdata)
        yield cells
        if isinstance(cells, CellsOf):
            cells.keep()

    def check_state(self, state_registry: dict[str, Any]) -> None:
        """Raise when a state is none of this field's, as one from a file may be."""
        self.adata_field.check_state(state_registry)

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """Sizes that follow from the state."""
        return self.adata_field.get_summary_stats(state_registry)

    def view_state_registry(self, state_registry: dict[str, Any]) -> "Table | None":
        """The state as a table for people, or None."""
        return self.adata_field.view_state_registry(state_registry)

    def get_field_data(self, adata: object) -> Any:
        """The data as they lie in the modality; a column of ``obs`` or ``var`` as ``(n, 1)``."""
        return self.adata_field.get_field_data(self._cells(adata))

    def column_names(self, adata: object) -> Any:
        """Names of the columns of this MuData's table."""
        return self.adata_field.column_names(self.get_modality(adata))


class ModalityField(BaseMuDataWrapperClass):
    """A field of an AnnData, looked up in a modality of a MuData.

    Parameters
    ----------
    field
        The AnnData's field.
    mod_key
        Modality; None: the MuData itself.
    """

    def __init__(self, field: BaseAnnDataField, mod_key: str | None) -> None:
        super().__init__(mod_key=mod_key)
        self._look_up(field)


def MuDataWrapper(
    adata_field_cls: type[BaseAnnDataField], preregister_fn: Preregister | None = None
) -> type[BaseMuDataWrapperClass]:
    """The field of a MuData that goes with an AnnData's field.

    Parameters
    ----------
    adata_field_cls
        The AnnData's field.
    preregister_fn
        ``(field, mdata)``, called before registration.

    Returns
    -------
    A class whose constructor takes the arguments of ``adata_field_cls`` and, by keyword, ``mod_key`` and
    ``mod_required``.
    """

    class Wrapped(BaseMuDataWrapperClass):
        field_cls: ClassVar[type[BaseAnnDataField]] = adata_field_cls

        def __init__(self, *args: Any, mod_key: str | None = None, mod_required: bool = False, **kwargs: Any) -> None:
            super().__init__(mod_key=mod_key, mod_required=mod_required)
            self._look_up(adata_field_cls(*args, **kwargs))

        def preregister(self, mdata: object) -> None:
            if preregister_fn is not None:
                preregister_fn(self, mdata)

    Wrapped.__name__ = Wrapped.__qualname__ = f"MuData{adata_field_cls.__name__}"
    Wrapped.__doc__ = f"{adata_field_cls.__name__} of a MuData.\n\n{inspect.getdoc(adata_field_cls)}"
    return Wrapped


class MuDataProteinLayerField(MuDataWrapper(ProteinLayerField)):  # type: ignore[misc]
    """:class:`ProteinLayerField` of a MuData: its arguments, and ``mod_key`` as :class:`MuDataLayerField` has it."""

    @contextmanager
    def _writing(self, mdata: object) -> Iterator[Any]:
        """The modality, which is all that its field sees, has the batches' codes and names while they are looked at."""
        batch, modality = self.adata_field.given_batch_field, self.get_modality(mdata)
        if batch is None or batch.mod_key == self.mod_key:
            yield modality
            return
        before = modality.obs
        names = batch._cells(mdata).obs[batch.obs_columns]
        codes = {batch.attr_key: batch.get_field_data(mdata).ravel()}
        modality.obs = before.assign(**{name: names[name].to_numpy() for name in names}, **codes)
        try:
            yield modality
        finally:
            modality.obs = before


MuDataLayerField = MuDataWrapper(LayerField)
MuDataNumericalObsField = MuDataWrapper(NumericalObsField)
MuDataNumericalVarField = MuDataWrapper(NumericalVarField)
MuDataCategoricalObsField = MuDataWrapper(CategoricalObsField)
MuDataCategoricalVarField = MuDataWrapper(CategoricalVarField)
MuDataObsmField = MuDataWrapper(ObsmField)
MuDataVarmField = MuDataWrapper(VarmField)
MuDataNumericalJointObsField = MuDataWrapper(NumericalJointObsField)
MuDataNumericalJointVarField = MuDataWrapper(NumericalJointVarField)
MuDataCategoricalJointObsField = MuDataWrapper(CategoricalJointObsField)
MuDataCategoricalJointVarField = MuDataWrapper(CategoricalJointVarField)
MuDataLabelsWithUnlabeledObsField = MuDataWrapper(LabelsWithUnlabeledObsField)
