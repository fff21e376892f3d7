"""Several columns of ``obs`` or ``var`` taken together as one table in ``obsm`` or ``varm``."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from ...store.tables.columns import numbers, put_column, worked_out
from ..access import place, require_key
from ..categories import encode, extended, used_categories
from ..constants import PREFIX
from ..registry_view import table
from .arraylike import BaseArrayLikeField
from .dataframe import require_numbers

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "BaseJointField",
    "CategoricalJointField",
    "CategoricalJointObsField",
    "CategoricalJointVarField",
    "NumericalJointField",
    "NumericalJointObsField",
    "NumericalJointVarField",
]


class BaseJointField(BaseArrayLikeField):
    """Columns of ``obs`` (or ``var``) that end up as one table ``_scvi_{registry_key}`` in ``obsm`` (or ``varm``).

    Parameters
    ----------
    registry_key
        Name under which models know them; their number is the summary statistic ``n_{registry_key}``.
    attr_keys
        Column names, in the order models see them. One name alone is taken as a list of one; None and the empty
        list leave the field empty.
    field_type
        ``"obsm"`` or ``"varm"``: where the table goes.
    required
        Kept as an attribute for compatibility with scvi-tools; an empty list is never an error.

    Raises
    ------
    ValueError
        ``field_type`` is neither ``"obsm"`` nor ``"varm"``, or a column is named twice.
    TypeError
        ``attr_keys`` is no list of names.
    """

    def __init__(
        self,
        registry_key: str,
        attr_keys: list[str] | str | None,
        field_type: Literal["obsm", "varm"] | None = None,
        required: bool = True,
    ) -> None:
        if field_type not in ("obsm", "varm"):
            raise ValueError(f"field_type of {registry_key!r} must be 'obsm' or 'varm', got {field_type!r}.")
        self._source_attr_name = field_type[:3]
        self._attr_keys = _as_list(registry_key, attr_keys)
        super().__init__(registry_key, field_type, PREFIX + registry_key, is_empty=not self._attr_keys)
        self._required = required
        self.count_stat_key = f"n_{registry_key}"

    @property
    def source_attr_name(self) -> str:
        """``"obs"`` or ``"var"``: where the columns come from."""
        return self._source_attr_name

    @property
    def attr_keys(self) -> list[str]:
        """Names of the columns."""
        return self._attr_keys

    @property
    def places(self) -> list[str]:
        """Where the columns lie, as a user would type it."""
        return [self.source_place(key) for key in self.attr_keys]

    @property
    def obs_columns(self) -> list[str]:
        """The columns, where they are those of ``obs``."""
        return list(self.attr_keys) if self.source_attr_name == "obs" else []

    @property
    def required(self) -> bool:
        """Whether the field may not be empty."""
        return self._required

    def validate_field(self, adata: AnnData) -> None:
        """Raise when a column does not exist."""
        for key in self.attr_keys:
            require_key(adata, self.source_attr_name, key)

    def source_column(self, adata: AnnData, key: str) -> pd.Series:
        """One of the user's columns."""
        return getattr(adata, self.source_attr_name)[key]

    def source_place(self, key: str) -> str:
        """Where that column lies, as a user would type it."""
        return place(self.source_attr_name, key, self.held_by)

    def _require_same_columns(self, source_keys: object) -> None:
        given = [str(key) for key in np.asarray(source_keys)]
        if given != [str(key) for key in self.attr_keys]:
            raise ValueError(
                f"The source registry has {self.registry_key!r} from the columns {given}, this setup names "
                f"{self.attr_keys}: name the same columns in the same order."
            )

    def _write(self, adata: AnnData, columns: dict[str, Any]) -> None:
        frame = pd.DataFrame(index=getattr(adata, self.source_attr_name).index)
        for key, values_n in columns.items():
            put_column(frame, key, values_n)
        getattr(adata, self.attr_name)[self.attr_key] = frame

    @abstractmethod
    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Read the columns and write the table."""


def _as_list(registry_key: str, attr_keys: object) -> list[str]:
    if attr_keys is None:
        return []
    if isinstance(attr_keys, str):
        return [attr_keys]
    if isinstance(attr_keys, dict) or not np.iterable(attr_keys):
        raise TypeError(f"The field {registry_key!r} takes a list of column names, got {attr_keys!r}.")
    keys = list(attr_keys)
    repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
    if repeated:
        raise ValueError(f"The field {registry_key!r} names columns twice: {', '.join(map(repr, repeated))}.")
    return keys


class CategoricalJointField(BaseJointField):
    """Several columns of categories; the table holds their codes."""

    MAPPINGS_KEY = "mappings"
    FIELD_KEYS_KEY = "field_keys"
    N_CATS_PER_KEY = "n_cats_per_key"

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Find the categories of each column and write the codes. Unused categories are left out."""
        self.validate_field(adata)
        mappings = {
            key: used_categories(self.source_column(adata, key), self.source_place(key)) for key in self.attr_keys
        }
        return self._encode(adata, mappings)

    def transfer_field(
        self, state_registry: dict[str, Any], adata_target: AnnData, *, extend_categories: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Write the codes that the source's mappings give; unknown categories raise or, if asked, go behind."""
        if self.is_empty:
            return {}
        self.validate_field(adata_target)
        self._require_same_columns(state_registry[self.FIELD_KEYS_KEY])
        mappings = {key: np.asarray(state_registry[self.MAPPINGS_KEY][key]) for key in self.attr_keys}
        if extend_categories:
            mappings = {key: self._extended(adata_target, key, mapping) for key, mapping in mappings.items()}
        return self._encode(adata_target, mappings)

    def _extended(self, adata: AnnData, key: str, mapping: np.ndarray) -> np.ndarray:
        place = self.source_place(key)
        return extended(mapping, used_categories(self.source_column(adata, key), place), place)

    def _encode(self, adata: AnnData, mappings: dict[str, np.ndarray]) -> dict[str, Any]:
        if self.is_empty:
            return {}
        codes = {
            key: encode(self.source_column(adata, key), mapping, self.source_place(key))
            for key, mapping in mappings.items()
        }
        self._write(adata, codes)
        return {
            self.MAPPINGS_KEY: mappings,
            self.FIELD_KEYS_KEY: list(self.attr_keys),
            self.N_CATS_PER_KEY: [len(mapping) for mapping in mappings.values()],
        }

    def get_summary_stats(self, _state_registry: dict[str, Any]) -> dict[str, int]:
        """The number of columns."""
        return {self.count_stat_key: len(self.attr_keys)}

    def view_state_registry(self, state_registry: dict[str, Any]) -> "Table | None":
        """Each column's categories and their codes."""
        if self.is_empty:
            return None
        rows: list[list[object]] = []
        for key, mapping in state_registry[self.MAPPINGS_KEY].items():
            source = self.source_place(key)
            rows += [[source if code == 0 else "", name, code] for code, name in enumerate(mapping)]
        return table(
            f"{self.registry_key} State Registry", ["Source Location", "Categories", "scvi-tools Encoding"], rows
        )


class NumericalJointField(BaseJointField):
    """Several columns of numbers; the table is a copy of them."""

    COLUMNS_KEY = "columns"

    def validate_field(self, adata: AnnData) -> None:
        """Raise when a column does not exist, or has anything but finite numbers."""
        super().validate_field(adata)
        for key in self.attr_keys:
            require_numbers(self.source_column(adata, key), self.source_place(key))

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Copy the columns into the table."""
        self.validate_field(adata)
        if self.is_empty:
            return {}
        self._write(adata, {key: _counted_with(self.source_column(adata, key)) for key in self.attr_keys})
        return {self.COLUMNS_KEY: np.array(self.attr_keys, dtype=object)}

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """As :meth:`register_field`, for the same columns in the same order."""
        if not self.is_empty:
            self._require_same_columns(state_registry[self.COLUMNS_KEY])
        return self.register_field(adata_target)

    def get_summary_stats(self, _state_registry: dict[str, Any]) -> dict[str, int]:
        """The number of columns."""
        return {self.count_stat_key: len(self.attr_keys)}

    def view_state_registry(self, state_registry: dict[str, Any]) -> "Table | None":
        """Where the numbers lie."""
        if self.is_empty:
            return None
        rows = [[self.source_place(key)] for key in state_registry[self.COLUMNS_KEY]]
        return table(f"{self.registry_key} State Registry", ["Source Location"], rows)


def _counted_with(column: pd.Series) -> np.ndarray:
    """Numbers of one column as they lie, or, where pandas keeps them in another way, as float64."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        return numbers(column)
    return worked_out(column, numbers, np.float64)


class CategoricalJointObsField(CategoricalJointField):
    """Categories for each cell, from several columns of ``adata.obs``. See :class:`BaseJointField`."""

    def __init__(self, registry_key: str, attr_keys: list[str] | str | None) -> None:
        super().__init__(registry_key, attr_keys, field_type="obsm")


class CategoricalJointVarField(CategoricalJointField):
    """Categories for each gene, from several columns of ``adata.var``. See :class:`BaseJointField`."""

    def __init__(self, registry_key: str, attr_keys: list[str] | str | None) -> None:
        super().__init__(registry_key, attr_keys, field_type="varm")


class NumericalJointObsField(NumericalJointField):
    """Numbers for each cell, from several columns of ``adata.obs``. See :class:`BaseJointField`."""

    def __init__(self, registry_key: str, attr_keys: list[str] | str | None, required: bool = True) -> None:
        super().__init__(registry_key, attr_keys, field_type="obsm", required=required)


class NumericalJointVarField(NumericalJointField):
    """Numbers for each gene, from several columns of ``adata.var``. See :class:`BaseJointField`."""

    def __init__(self, registry_key: str, attr_keys: list[str] | str | None, required: bool = True) -> None:
        super().__init__(registry_key, attr_keys, field_type="varm", required=required)
