"""The count matrix: ``adata.X``, a layer, or ``adata.raw.X``."""

import dataclasses
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from ...core import REGISTRY_KEYS, settings
from ...core.rules import rules
from ...store.matrices.masks import require_unmasked
from ...store.progress import tracking
from ..access import anndata_value, put_row_major, raw_of, require_key, which_layer
from ..constants import RAW
from ..count_places import count_places
from ..counts import check_counts, fault_of_fragments
from ..genes import align_genes
from .base import BaseAnnDataField

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LayerField"]

logger = logging.getLogger("celbo")


class LayerField(BaseAnnDataField):
    """A matrix of cells by genes: ``adata.X``, ``adata.layers[layer]`` or ``adata.raw.X``. It is neither copied nor
    changed.

    Parameters
    ----------
    registry_key
        Name under which models know it; ``"X"`` gives the summary statistics ``n_vars`` and ``n_cells``,
        another key gives ``n_{key}``.
    layer
        Key of ``adata.layers``; None for ``adata.X``.
    is_count_data
        Check every entry at setup (:func:`celbo.data.check_counts`).
    correct_data_format
        Where scvi-tools' :class:`~celbo.core.rules.Rules` hold, setup puts a dense array of another memory layout
        there as a copy, row by row. celbo's own loaders take any layout as it is.
    check_fragment_counts
        Warn when the counts look like reads (mostly even) instead of fragments.
    use_raw
        Take ``adata.raw.X``; the genes are those of ``adata.raw`` then.
    axes
        What messages call rows and columns.

    Raises
    ------
    ValueError
        ``layer`` and ``use_raw`` are both given.
    """

    N_OBS_KEY = "n_obs"
    N_CELLS_KEY = "n_cells"
    N_VARS_KEY = "n_vars"
    COLUMN_NAMES_KEY = "column_names"

    def __init__(
        self,
        registry_key: str,
        layer: str | None,
        is_count_data: bool = True,
        correct_data_format: bool = True,
        check_fragment_counts: bool = False,
        *,
        use_raw: bool = False,
        axes: tuple[str, str] = ("cells", "genes"),
    ) -> None:
        if use_raw and layer is not None:
            raise ValueError(f"layer={layer!r} and use_raw=True name two matrices: pass one of them.")
        super().__init__(registry_key, RAW if use_raw else "X" if layer is None else "layers", layer)
        self.use_raw, self.axes = use_raw, axes
        self.is_count_data = is_count_data
        self.correct_data_format = correct_data_format
        self.check_fragment_counts = check_fragment_counts
        self.count_stat_key = self.N_VARS_KEY if registry_key == REGISTRY_KEYS.X_KEY else f"n_{registry_key}"

    def validate_field(self, adata: AnnData) -> None:
        """Raise a ``KeyError`` for a layer that does not exist, a ``ValueError`` where there are no counts."""
        if self.attr_key is not None:
            require_key(adata, self.attr_name, self.attr_key)
        x = anndata_value(adata, self.attr_name, self.attr_key)
        if x is None:
            raise ValueError(f"{self.place} is None: there are no counts in it. {which_layer(adata.layers)}")
        require_unmasked(x, self.place)
        n, g = x.shape
        if not (n and g):
            columns = "genes" if self.registry_key == REGISTRY_KEYS.X_KEY else "columns"
            raise ValueError(f"{self.place} is {n} x {g}: there are no {columns if n else 'cells'} in it.")

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Check the counts and note the sizes and gene names."""
        self.validate_field(adata)
        self._check(adata)
        if self.correct_data_format:
            put_row_major(adata, self.attr_name, self.attr_key)
        return self._state(adata, self.column_names(adata))

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Check the counts and match the genes by name with those of the source.

        Raises
        ------
        ValueError
            When genes of the source are missing, or names occur twice; the first of them are named. Where scvi-tools'
            rules hold, also when there are more genes.
        """
        self.validate_field(adata_target)
        reference = np.asarray(state_registry[self.COLUMN_NAMES_KEY])
        _require_as_many(self.column_names(adata_target), reference)
        align_genes(
            self.column_names(adata_target), reference, where=f"adata_target.{'raw.' if self.use_raw else ''}var_names"
        ).raise_if_missing()
        self._check(adata_target)
        if self.correct_data_format:
            put_row_major(adata_target, self.attr_name, self.attr_key)
        return self._state(adata_target, reference)

    def transfer_to_no_cells(self, state_registry: dict[str, Any], adata_target: AnnData) -> dict[str, Any]:
        """As :meth:`transfer_field`, for a modality that none of the cells has: there is nothing to check but names."""
        reference = np.asarray(state_registry[self.COLUMN_NAMES_KEY])
        align_genes(self.column_names(adata_target), reference, where=f"{self.place} of no cells").raise_if_missing()
        return self._state(adata_target, reference)

    @property
    def names_columns(self) -> bool:
        """Yes."""
        return True

    def column_names(self, adata: AnnData) -> Any:
        """Gene names of an AnnData, ``(g,)``, as they are called in it."""
        return np.asarray(raw_of(adata).var_names if self.use_raw else adata.var_names, dtype=object)

    def _state(self, adata: AnnData, names: np.ndarray) -> dict[str, Any]:
        return {self.N_OBS_KEY: adata.n_obs, self.N_VARS_KEY: len(names), self.COLUMN_NAMES_KEY: names}

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """``n_vars`` and ``n_cells`` for the key ``"X"``, else ``n_{key}``."""
        stats = {self.count_stat_key: state_registry[self.N_VARS_KEY]}
        if self.registry_key == REGISTRY_KEYS.X_KEY:
            stats[self.N_CELLS_KEY] = state_registry[self.N_OBS_KEY]
        return stats

    def check_state(self, state_registry: dict[str, Any]) -> None:
        """Raise when a state has no sizes or no column names; a ``ValueError`` when these differ in number."""
        super().check_state(state_registry)
        if len(state_registry[self.COLUMN_NAMES_KEY]) != state_registry[self.N_VARS_KEY]:
            raise ValueError("The state names other columns than it counts.")

    def view_state_registry(self, _state_registry: dict[str, Any]) -> "Table | None":
        """Nothing to show."""
        return None

    def _check(self, adata: AnnData) -> None:
        if self.is_count_data:
            self._check_counts(adata)
        x = anndata_value(adata, self.attr_name, self.attr_key)
        fault = fault_of_fragments(x) if self.check_fragment_counts else None
        if fault is not None:
            warnings.warn(f"{self.place} {fault}", UserWarning, stacklevel=settings.warnings_stacklevel)

    def _check_counts(self, adata: AnnData) -> None:
        x = anndata_value(adata, self.attr_name, self.attr_key)
        with tracking(f"Reading {self.place}", "rows") as progress:
            found = check_counts(x, obs_names=adata.obs_names, var_names=self.column_names(adata), progress=progress)
        report = dataclasses.replace(found, axes=self.axes)
        elsewhere = None if report.is_counts and report.nnz else self._other_places(adata)
        report.raise_if_bad(self.place, elsewhere, self.cure_of_nan)
        report.tell(self.place, elsewhere)

    def _other_places(self, adata: AnnData) -> list[str]:
        """Where else there are counts, as arguments of setup, which each model calls otherwise for a modality."""
        of_modality = "" if self.held_by == "adata" else f" of {self.held_by}"
        return [f"{typed}{of_modality}" for typed in count_places(adata, self.attr_name, self.attr_key)]


def _require_as_many(names: np.ndarray, reference: np.ndarray) -> None:
    if len(names) != len(reference) and not rules().takes_more_genes:
        raise ValueError(
            "Number of vars in `adata_target` not the same as source. "
            f"Expected: {len(reference)} Received: {len(names)}"
        )
