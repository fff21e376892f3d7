"""A table of ``obsm`` or ``varm``: one row a cell or gene, several columns."""

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from ...store.matrices.masks import require_unmasked
from ...store.progress import tracking
from ..access import anndata_value, place, put_row_major, require_key
from ..counts import check_counts, is_count_matrix
from ..genes import align_genes
from .base import BaseAnnDataField
from .dataframe import require_one_name

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["ArrayLikeField", "BaseArrayLikeField", "ObsmField", "VarmField"]

logger = logging.getLogger("celbo")


class BaseArrayLikeField(BaseAnnDataField):
    """A field whose data are a table of ``adata.obsm`` or ``adata.varm``."""


class ArrayLikeField(BaseArrayLikeField):
    """A table that the user made: an array, a sparse matrix or a DataFrame. It is neither copied nor changed.

    Parameters
    ----------
    registry_key
        Name under which models know it; the number of columns is the summary statistic ``n_{registry_key}``.
    attr_key
        Key of ``adata.obsm`` (or ``varm``).
    field_type
        ``"obsm"`` or ``"varm"``.
    colnames_uns_key
        Key of ``adata.uns`` that holds the column names. Without it a DataFrame's own columns are taken, and an
        array's columns are numbered.
    is_count_data
        Check every entry at setup (:func:`celbo.data.check_counts`).
    correct_data_format
        Where scvi-tools' :class:`~celbo.core.rules.Rules` hold, setup puts a dense array of another memory layout
        there as a copy, row by row. celbo's own loaders take any layout as it is.

    Raises
    ------
    ValueError
        ``field_type`` is neither ``"obsm"`` nor ``"varm"``.
    TypeError
        ``attr_key`` is a list.
    """

    COLUMN_NAMES_KEY = "column_names"

    def __init__(
        self,
        registry_key: str,
        attr_key: str,
        field_type: Literal["obsm", "varm"] | None = None,
        colnames_uns_key: str | None = None,
        is_count_data: bool = False,
        correct_data_format: bool = True,
    ) -> None:
        if field_type not in ("obsm", "varm"):
            raise ValueError(f"field_type of {registry_key!r} must be 'obsm' or 'varm', got {field_type!r}.")
        require_one_name(registry_key, attr_key)
        super().__init__(registry_key, field_type, attr_key)
        self.colnames_uns_key = colnames_uns_key
        self.is_count_data = is_count_data
        self.correct_data_format = correct_data_format
        self.count_stat_key = f"n_{registry_key}"

    def validate_field(self, adata: AnnData) -> None:
        """Raise when the table or the entry with its column names does not exist (``KeyError``).

        Raises a ``ValueError`` for a table of counts without columns.
        """
        values = anndata_value(adata, self.attr_name, self.attr_key)
        require_unmasked(values, self.place)
        if self.is_count_data and not values.shape[1]:
            raise ValueError(f"{self.place} has no columns, so there are no counts in it: name the table that has.")
        if self.colnames_uns_key is not None:
            require_key(adata, "uns", self.colnames_uns_key)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Check the counts, if they are counts, and note the column names."""
        self.validate_field(adata)
        self._check_counts(adata)
        if self.correct_data_format:
            put_row_major(adata, self.attr_name, self.attr_key)
        return {self.COLUMN_NAMES_KEY: self.column_names(adata)}

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Match the columns by name with those of the source.

        Raises
        ------
        ValueError
            When columns of the source are missing; the first of them are named.
        """
        self.validate_field(adata_target)
        reference = np.asarray(state_registry[self.COLUMN_NAMES_KEY])
        self._match(adata_target, reference)
        self._check_counts(adata_target)
        if self.correct_data_format:
            put_row_major(adata_target, self.attr_name, self.attr_key)
        return {self.COLUMN_NAMES_KEY: state_registry[self.COLUMN_NAMES_KEY]}

    @property
    def names_columns(self) -> bool:
        """Yes."""
        return True

    def column_names(self, adata: AnnData) -> np.ndarray | list:
        """Names of the columns of this AnnData's table, from ``uns``, the DataFrame, or numbered from 0."""
        values = anndata_value(adata, self.attr_name, self.attr_key)
        if self.colnames_uns_key is not None:
            return self._names_of_uns(adata, values.shape[1])
        if isinstance(values, pd.DataFrame):
            return list(values.columns)
        return np.arange(values.shape[1])

    def _names_of_uns(self, adata: AnnData, n_columns: int) -> np.ndarray:
        names = np.asarray(anndata_value(adata, "uns", self.colnames_uns_key))
        if names.shape != (n_columns,):
            raise ValueError(
                f"adata.uns[{self.colnames_uns_key!r}] has {names.size} names, {self.place} has {n_columns} columns."
            )
        return names

    def _match(self, adata: AnnData, reference: np.ndarray) -> None:
        names = np.asarray(self.column_names(adata))
        if names.dtype.kind == reference.dtype.kind == "i" and len(names) != len(reference):
            raise ValueError(
                f"Target {self.place} has {len(names)} columns, which does not match the "
                f"{len(reference)} columns of the source."
            )
        align_genes(names, reference, where=self.place).raise_if_missing()

    def _check_counts(self, adata: AnnData) -> None:
        if self.is_count_data:
            values = anndata_value(adata, self.attr_name, self.attr_key)
            names = list(map(str, self.column_names(adata)))
            with tracking(f"Reading {self.place}", "rows") as progress:
                report = check_counts(values, obs_names=adata.obs_names, var_names=names, progress=progress)
            elsewhere = None if report.is_counts and report.nnz else self._count_tables(adata, values.shape)
            report.raise_if_bad(self.place, elsewhere, self.cure_of_nan)
            report.tell(self.place, elsewhere)

    def _count_tables(self, adata: AnnData, shape: tuple[int, ...]) -> list[str]:
        """Other tables of the same shape that hold counts."""
        tables = {key: x for key, x in getattr(adata, self.attr_name).items() if key != self.attr_key}
        found = [key for key, x in tables.items() if np.shape(x) == shape and _are_counts(x)]
        return [place(self.attr_name, key, self.held_by) for key in found]

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """The number of columns."""
        return {self.count_stat_key: len(state_registry[self.COLUMN_NAMES_KEY])}

    def view_state_registry(self, state_registry: dict[str, Any]) -> "Table | None":
        """Nothing to show."""
        return None


def _are_counts(x: Any) -> bool:
    try:
        return is_count_matrix(x)
    except (TypeError, ValueError):  # no numbers
        return False


class ObsmField(ArrayLikeField):
    """A row for each cell: ``adata.obsm[attr_key]``. See :class:`ArrayLikeField`."""

    def __init__(
        self,
        registry_key: str,
        attr_key: str,
        colnames_uns_key: str | None = None,
        is_count_data: bool = False,
        correct_data_format: bool = True,
    ) -> None:
        super().__init__(registry_key, attr_key, "obsm", colnames_uns_key, is_count_data, correct_data_format)


class VarmField(ArrayLikeField):
    """A row for each gene: ``adata.varm[attr_key]``. See :class:`ArrayLikeField`."""

    def __init__(
        self,
        registry_key: str,
        attr_key: str,
        colnames_uns_key: str | None = None,
        is_count_data: bool = False,
        correct_data_format: bool = True,
    ) -> None:
        super().__init__(registry_key, attr_key, "varm", colnames_uns_key, is_count_data, correct_data_format)
