"""Numbers in a column of ``obs`` or ``var``."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import REGISTRY_KEYS
from ...store.tables.columns import column_parts, is_numbers, numbers, true_places
from ..access import anndata_value, require_key
from ..registry_view import table
from .base import BaseAnnDataField

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "BaseDataFrameField",
    "NumericalDataFrameField",
    "NumericalObsField",
    "NumericalVarField",
    "RowNumberField",
    "require_numbers",
]

_SHOWN = 5


class BaseDataFrameField(BaseAnnDataField):
    """A column of ``adata.obs`` or ``adata.var``.

    Parameters
    ----------
    registry_key
        Name under which models know it.
    attr_key
        Column name; None leaves the field empty.
    field_type
        ``"obs"`` or ``"var"``.
    required
        Whether None is an error.

    Raises
    ------
    ValueError
        ``field_type`` is neither ``"obs"`` nor ``"var"``, or a required field has no ``attr_key``.
    TypeError
        ``attr_key`` is a list.
    """

    def __init__(
        self,
        registry_key: str,
        attr_key: str | None,
        field_type: Literal["obs", "var"] | None = None,
        required: bool = True,
    ) -> None:
        if field_type not in ("obs", "var"):
            raise ValueError(f"field_type of {registry_key!r} must be 'obs' or 'var', got {field_type!r}.")
        if required and attr_key is None:
            raise ValueError(
                f"`attr_key` cannot be `None` if `required=True`. Please provide an `attr_key` for {registry_key!r}."
            )
        require_one_name(registry_key, attr_key)
        super().__init__(registry_key, field_type, attr_key, is_empty=attr_key is None)

    @property
    def obs_columns(self) -> list[str]:
        """The column, where it is one of ``obs``."""
        return [self.attr_key] if self.attr_name == "obs" and self.attr_key is not None else []


def require_one_name(registry_key: str, attr_key: object) -> None:
    """Raise a ``TypeError`` for a list of columns where one is meant."""
    if isinstance(attr_key, (list, tuple, set, np.ndarray, pd.Index)):
        raise TypeError(
            f"The field {registry_key!r} takes one column name, got {attr_key!r}. "
            "Several categorical columns go to categorical_covariate_keys, several continuous ones to "
            "continuous_covariate_keys."
        )


def require_numbers(column: pd.Series, where: str) -> None:
    """Raise unless every cell has a finite number.

    Raises
    ------
    TypeError
        When the column holds something else than numbers or booleans.
    ValueError
        When a number is missing or infinite; says how many and names the first cells.
    """
    if not is_numbers(column):
        raise TypeError(
            f"{where} is of dtype {column.dtype}, numbers are wanted. Convert it ({where}.astype(float)), "
            "or name it where categories are taken."
        )
    bad, first = true_places((_not_finite(part) for part in column_parts(column)), _SHOWN)
    if bad:
        rows = ", ".join(repr(str(name)) for name in column.index[first])
        raise ValueError(
            f"{where} is NaN or infinite for {bad} of {len(column)} rows: {rows}"
            f"{', ...' if bad > _SHOWN else ''}. Fill these in, or leave the rows out."
        )


def _not_finite(column: pd.Series) -> np.ndarray:
    with np.errstate(over="ignore"):  # models compute with single precision: what it cannot hold is infinite there
        return ~np.isfinite(numbers(column).astype(np.float32, copy=False))


def require_positive(column: pd.Series, where: str) -> None:
    """Raise a ``ValueError`` unless every number is above zero; says how many are not and names the first rows."""
    bad, first = true_places((~(numbers(part) > 0) for part in column_parts(column)), _SHOWN)
    if bad:
        rows = ", ".join(repr(str(name)) for name in column.index[first])
        raise ValueError(
            f"{where} is 0 or negative for {bad} of {len(column)} cells: {rows}{', ...' if bad > _SHOWN else ''}. "
            "A size factor stands for a cell's depth and must be above 0: compute it from the counts, or leave these "
            "cells out."
        )


class NumericalDataFrameField(BaseDataFrameField):
    """A column of numbers, read where it lies."""

    def validate_field(self, adata: AnnData) -> None:
        """Raise when the column does not exist or has anything but finite numbers; size factors must be above 0."""
        if self.attr_key is not None:
            require_key(adata, self.attr_name, self.attr_key)
            column = anndata_value(adata, self.attr_name, self.attr_key)
            require_numbers(column, self.place)
            if self.registry_key == REGISTRY_KEYS.SIZE_FACTOR_KEY:
                require_positive(column, self.place)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Check the column; there is nothing to remember."""
        self.validate_field(adata)
        return {}

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """As :meth:`register_field`."""
        return self.register_field(adata_target)

    def get_summary_stats(self, _state_registry: dict[str, Any]) -> dict[str, int]:
        """No sizes."""
        return {}

    def view_state_registry(self, _state_registry: dict[str, Any]) -> "Table | None":
        """Where the numbers lie."""
        if self.is_empty:
            return None
        return table(f"{self.registry_key} State Registry", ["Source Location"], [[self.place]])


class NumericalObsField(NumericalDataFrameField):
    """A number for each cell: ``adata.obs[attr_key]``. See :class:`BaseDataFrameField`."""

    def __init__(self, registry_key: str, attr_key: str | None, required: bool = True) -> None:
        super().__init__(registry_key, attr_key, field_type="obs", required=required)


class RowNumberField(NumericalDataFrameField):
    """The number of each row, written to a column of ``obs`` of whatever data are registered.

    Parameters
    ----------
    registry_key
        Name under which models know it.
    column
        Where it is written.
    """

    def __init__(self, registry_key: str, column: str) -> None:
        super().__init__(registry_key, column, field_type="obs")

    @property
    def obs_columns(self) -> list[str]:
        """None that the user named."""
        return []

    def validate_field(self, adata: AnnData) -> None:
        """Nothing has to be there."""

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Number the rows."""
        adata.obs[self.attr_key] = np.arange(adata.n_obs)
        return {}


class NumericalVarField(NumericalDataFrameField):
    """A number for each gene: ``adata.var[attr_key]``. See :class:`BaseDataFrameField`."""

    def __init__(self, registry_key: str, attr_key: str | None, required: bool = True) -> None:
        super().__init__(registry_key, attr_key, field_type="var", required=required)
