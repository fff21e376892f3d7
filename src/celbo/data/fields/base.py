"""What every field is: one registry key, one place of the AnnData, one state."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from ..access import anndata_array, place
from ..constants import ATTR_KEY, ATTR_NAME, MOD_KEY

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["BaseAnnDataField"]


class BaseAnnDataField(ABC):
    """One thing that a model reads from an AnnData.

    A field knows where its data lie (``attr_name``, ``attr_key``), what setup must learn about them (its state:
    categories, column names) and which sizes follow. It keeps nothing about any particular AnnData, so one field
    serves the data it was set up with and every later one.

    Parameters
    ----------
    registry_key
        Name under which models and minibatches know the data.
    attr_name
        Attribute of the AnnData: ``"X"``, ``"layers"``, ``"obs"``, ``"var"``, ``"obsm"``, ``"varm"`` or ``"uns"``.
    attr_key
        Key within the attribute; None for ``X``, or for a field without data.
    is_empty
        True when the user named nothing: the field is in the registry, with no data behind it.

    Attributes
    ----------
    held_by
        What holds the data, as a user would type it: ``adata``, or a modality of a MuData.
    cure_of_nan
        What to do about NaN among counts; None: what is right for those of genes.
    """

    held_by: str = "adata"
    cure_of_nan: str | None = None

    def __init__(self, registry_key: str, attr_name: str, attr_key: str | None, is_empty: bool = False) -> None:
        self._registry_key = registry_key
        self._attr_name = attr_name
        self._attr_key = attr_key
        self._is_empty = is_empty

    @property
    def registry_key(self) -> str:
        """Name under which models and minibatches know the data."""
        return self._registry_key

    @property
    def attr_name(self) -> str:
        """Attribute of the AnnData where the data lie."""
        return self._attr_name

    @property
    def attr_key(self) -> str | None:
        """Key within the attribute; None for ``X``."""
        return self._attr_key

    @property
    def mod_key(self) -> str | None:
        """Modality of a MuData; None for an AnnData."""
        return None

    @property
    def adata_field(self) -> "BaseAnnDataField":
        """The field that reads one AnnData: itself, unless it belongs to a MuData."""
        return self

    @property
    def places(self) -> list[str]:
        """Where the data lie in the AnnData, as a user would type it."""
        return [self.place]

    @property
    def obs_columns(self) -> list[str]:
        """Columns of ``obs`` that the field is made of, as the user named them."""
        return []

    def holder(self, adata: AnnData) -> AnnData:
        """What holds the data: the AnnData itself; of a MuData, the modality."""
        return adata

    def row_indexer(self, adata: AnnData) -> np.ndarray | None:
        """Row of the data for each cell, ``(n,)``, -1 for none; None where they are in the order of the cells."""
        return None

    @property
    def is_empty(self) -> bool:
        """Whether there are no data behind the field, because the user named none."""
        return self._is_empty

    @property
    def names_columns(self) -> bool:
        """Whether the data are a table with named columns, which :meth:`column_names` gives."""
        return False

    def column_names(self, adata: AnnData) -> Any:
        """Names of the columns of this AnnData's table, for fields with :attr:`names_columns`."""
        raise NotImplementedError(f"The field {self.registry_key!r} has no named columns.")

    @abstractmethod
    def validate_field(self, adata: AnnData) -> None:
        """Raise when the data are not there or not of the right kind; changes nothing."""

    @abstractmethod
    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Read the data for the first time, write the codes where codes are needed, return the state."""

    @abstractmethod
    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Fit another AnnData to a state that exists already, return the state that results."""

    @abstractmethod
    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """Sizes that follow from the state; of an empty field too."""

    def check_state(self, state_registry: dict[str, Any]) -> None:
        """Raise when a state is none of this field's, as one from a file may be."""
        self.get_summary_stats(state_registry)

    @abstractmethod
    def view_state_registry(self, state_registry: dict[str, Any]) -> "Table | None":
        """The state as a table for people, or None."""

    def get_field_data(self, adata: AnnData) -> Any:
        """The data as they lie in the AnnData; a column of ``obs`` or ``var`` as ``(n, 1)``.

        Raises a ``ValueError`` for an empty field.
        """
        if self.is_empty:
            raise ValueError(f"The field {self.registry_key!r} is empty: setup named no data for it.")
        return anndata_array(adata, self.attr_name, self.attr_key)

    def get_data_registry(self) -> dict[str, Any]:
        """Where the data lie, as the registry stores it; empty for an empty field."""
        if self.is_empty:
            return {}
        where = {ATTR_NAME: self.attr_name, ATTR_KEY: self.attr_key}
        return where if self.mod_key is None else {MOD_KEY: self.mod_key, **where}

    @property
    def place(self) -> str:
        """Where the data lie, as a user would type it."""
        return place(self.attr_name, self.attr_key, self.held_by)
