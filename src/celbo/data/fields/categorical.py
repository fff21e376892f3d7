"""Categories in a column of ``obs`` or ``var``, and the codes that stand for them."""

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from ...store.tables.columns import put_column
from ..access import place, require_key
from ..categories import encode, extended, used_categories, warn_if_rare
from ..constants import PREFIX
from ..registry_view import table
from .dataframe import BaseDataFrameField, require_one_name

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["CategoricalDataFrameField", "CategoricalObsField", "CategoricalVarField"]

logger = logging.getLogger("celbo")


class CategoricalDataFrameField(BaseDataFrameField):
    """A column of categories. Its codes are written to a column ``_scvi_{registry_key}`` beside it.

    Parameters
    ----------
    registry_key
        Name under which models know it; the number of categories is the summary statistic ``n_{registry_key}``.
    attr_key
        Column name. None means one category for all: codes of zero.
    field_type
        ``"obs"`` or ``"var"``.
    """

    CATEGORICAL_MAPPING_KEY = "categorical_mapping"
    ORIGINAL_ATTR_KEY = "original_key"

    def __init__(
        self, registry_key: str, attr_key: str | None, field_type: Literal["obs", "var"] | None = None
    ) -> None:
        require_one_name(registry_key, attr_key)
        super().__init__(registry_key, PREFIX + registry_key, field_type=field_type)
        self.is_default = attr_key is None
        self._original_attr_key = PREFIX + registry_key if attr_key is None else attr_key
        self.count_stat_key = f"n_{registry_key}"

    @property
    def source_place(self) -> str:
        """Where the user's categories lie, as a user would type it."""
        return place(self.attr_name, self._original_attr_key, self.held_by)

    @property
    def obs_columns(self) -> list[str]:
        """The user's column, where it is one of ``obs``."""
        return [] if self.is_default or self.attr_name != "obs" else [self._original_attr_key]

    def validate_field(self, adata: AnnData) -> None:
        """Raise when the column does not exist."""
        if not self.is_default:
            require_key(adata, self.attr_name, self._original_attr_key)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Find the categories and write the codes.

        Unused categories are left out. Cells without a category are an error (see
        :func:`celbo.data.categories.used_categories`); categories with fewer than three cells a warning.
        """
        self.validate_field(adata)
        column = self.source_column(adata)
        mapping = used_categories(column, self.source_place)
        mapping = mapping.astype(np.int64) if self.is_default else mapping
        self._say_unused(column, mapping)
        return self._write(adata, column, mapping, is_new=True)

    def transfer_field(
        self, state_registry: dict[str, Any], adata_target: AnnData, *, extend_categories: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Write the codes that the source's mapping gives.

        Parameters
        ----------
        state_registry
            The source's state.
        adata_target
            Data to fit to it.
        extend_categories
            Put categories that the source does not know behind the known ones, instead of raising.

        Raises
        ------
        ValueError
            For categories that the source does not know; the known ones are listed, nearest first.
        """
        self.validate_field(adata_target)
        self._require_same_origin(state_registry)
        column = self.source_column(adata_target)
        mapping = np.asarray(state_registry[self.CATEGORICAL_MAPPING_KEY])
        if extend_categories:
            mapping = extended(mapping, used_categories(column, self.source_place), self.source_place)
        return self._write(adata_target, column, mapping)

    def source_column(self, adata: AnnData) -> pd.Series:
        """The user's column, or zeros when none was named."""
        frame = getattr(adata, self.attr_name)
        if self.is_default:
            return pd.Series(np.zeros(len(frame), dtype=np.int8), index=frame.index)
        return frame[self._original_attr_key]

    def _require_same_origin(self, state_registry: dict[str, Any]) -> None:
        origin = state_registry[self.ORIGINAL_ATTR_KEY]
        if self.is_default and origin != self._original_attr_key:
            raise ValueError(
                f"The source registry has categories of {self.registry_key!r} from {place(self.attr_name, origin)}, "
                f"this setup names no column for it: name one (for example {origin!r})."
            )

    def _write(self, adata: AnnData, column: pd.Series, mapping: np.ndarray, *, is_new: bool = False) -> dict[str, Any]:
        codes_n = encode(column, mapping, self.source_place)
        put_column(getattr(adata, self.attr_name), self.attr_key, codes_n)
        if is_new and not self.is_default:
            warn_if_rare(codes_n, mapping, self.source_place)
        return {self.CATEGORICAL_MAPPING_KEY: mapping, self.ORIGINAL_ATTR_KEY: self._original_attr_key}

    def _say_unused(self, column: pd.Series, mapping: np.ndarray) -> None:
        if isinstance(column.dtype, pd.CategoricalDtype) and len(column.cat.categories) > len(mapping):
            unused = [str(name) for name in column.cat.categories if name not in set(mapping)]
            shown = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
            logger.info("%s has %d unused categories (%s); they are left out.", self.source_place, len(unused), shown)

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """The number of categories."""
        return {self.count_stat_key: len(state_registry[self.CATEGORICAL_MAPPING_KEY])}

    def check_state(self, state_registry: dict[str, Any]) -> None:
        """Raise when a state has no categories, or those of another column than none."""
        super().check_state(state_registry)
        self._require_same_origin(state_registry)

    def view_state_registry(self, state_registry: dict[str, Any]) -> "Table | None":
        """Categories and their codes."""
        source = place(self.attr_name, state_registry[self.ORIGINAL_ATTR_KEY])
        mapping = state_registry[self.CATEGORICAL_MAPPING_KEY]
        rows = [[source if code == 0 else "", name, code] for code, name in enumerate(mapping)]
        return table(
            f"{self.registry_key} State Registry", ["Source Location", "Categories", "scvi-tools Encoding"], rows
        )


class CategoricalObsField(CategoricalDataFrameField):
    """A category for each cell: ``adata.obs[attr_key]``. See :class:`CategoricalDataFrameField`."""

    def __init__(self, registry_key: str, attr_key: str | None) -> None:
        super().__init__(registry_key, attr_key, field_type="obs")


class CategoricalVarField(CategoricalDataFrameField):
    """A category for each gene: ``adata.var[attr_key]``. See :class:`CategoricalDataFrameField`."""

    def __init__(self, registry_key: str, attr_key: str | None) -> None:
        super().__init__(registry_key, attr_key, field_type="var")
