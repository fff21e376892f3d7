"""Protein counts, of which whole batches may be missing."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from ...core import position_of, settings
from ...core.rules import rules
from ...store.matrices.matrix import StoredMatrix
from ..counts import check_counts
from .arraylike import ObsmField
from .base import BaseAnnDataField
from .categorical import CategoricalObsField
from .layer import LayerField

__all__ = ["ProteinLayerField", "ProteinObsmField"]

logger = logging.getLogger("celbo")


_WITHOUT_PANELS = (
    "Proteins of a cell are all measured or all missing here: leave out the columns with NaN, or take the proteins of "
    "these cells for missing"
)
_OF_MODALITY = ", by leaving the cells out of this modality only."
_OF_TABLE = ", by a 0 in every column, as a cell without any count counts as one without proteins."
_SHOWN = 10
_ROWS_AT_ONCE = 2**14
"""Cells whose counts are looked at together, where these lie on disk."""


class _ProteinMask(BaseAnnDataField):
    """The part of a field of protein counts that finds which proteins were measured in which batch.

    A protein whose counts are NaN in all cells of a batch was not measured there.
    """

    PROTEIN_BATCH_MASK = "protein_batch_mask"
    _cure = "override_missing_proteins=True"
    cure_of_nan = (
        "0 would say that the protein was measured: leave these cells out, or give them, by panel_key, a panel in "
        "which no cell has a count of it."
    )
    COLUMN_NAMES_KEY = "column_names"

    def _find_masks_by(
        self,
        use_batch_mask: bool,
        batch_field: BaseAnnDataField | None,
        measured: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Remember the field of the batches; for a MuData's, the AnnData's field in it is the one that is read."""
        if use_batch_mask and batch_field is None:
            raise ValueError(
                "`use_batch_mask = True` requires that `batch_field is not None`. Please provide a `batch_field`."
            )
        self.use_batch_mask, self.measured_proteins = use_batch_mask, measured or {}
        if not use_batch_mask:
            self.cure_of_nan = f"{_WITHOUT_PANELS}{_OF_MODALITY if isinstance(self, LayerField) else _OF_TABLE}"
        self.given_batch_field = batch_field
        self.batch_field = None if batch_field is None else batch_field.adata_field

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Note the column names, and the mask where proteins are missing."""
        state = {**super().register_field(adata), **self._mask(adata)}  # type: ignore[safe-super]
        measured = state.get(self.PROTEIN_BATCH_MASK)
        if measured and not np.logical_or.reduce(list(measured.values())).any():
            _refuse(
                f"{self.place} has no count of any protein in any cell, so there is nothing to learn about proteins. "
                "Name the table or layer that has their counts, or take SCVI, which needs none."
            )
        return state

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Match the columns with the source's; the mask is this AnnData's own, in the source's column order."""
        state = super().transfer_field(state_registry, adata_target, **kwargs)  # type: ignore[safe-super]
        known = state_registry.get(self.PROTEIN_BATCH_MASK, {})
        return {**state, **self._mask(adata_target, np.asarray(state[self.COLUMN_NAMES_KEY]), known)}

    def _mask(
        self, adata: AnnData, reference: np.ndarray | None = None, known: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, Any]:
        """The mask of these cells, where they lack a protein; what ``known`` does not say of a batch is told."""
        if not self.use_batch_mask or self.batch_field is None:
            return {}
        codes_n = np.asarray(self.batch_field.get_field_data(adata)).ravel()
        measured = _measured_by_batch(self.get_field_data(adata), codes_n) | self._stated(adata, codes_n)
        if reference is not None:
            order = pd.Index(np.asarray(self.column_names(adata))).get_indexer(pd.Index(reference))
            measured = {batch: mask_p[order] for batch, mask_p in measured.items()}
        if all(mask_p.all() for mask_p in measured.values()):
            return {}
        names = np.asarray(self.column_names(adata) if reference is None else reference)
        news = {
            code: mask for code, mask in measured.items() if not np.array_equal(mask, np.ravel(known.get(code, ())))
        }
        _tell({self._batch_name(adata, code, codes_n): mask for code, mask in news.items()}, names, self._cure)
        return {self.PROTEIN_BATCH_MASK: measured}

    def _batch_name(self, adata: AnnData, code: str, codes_n: np.ndarray) -> str:
        """What the batch (or panel) of a code is called, where it has a name."""
        column = self.batch_field.obs_columns if self.batch_field is not None else []
        if not column:
            return "all cells"
        return repr(str(adata.obs[column[0]].iloc[int(np.flatnonzero(codes_n == int(code))[0])]))

    def _stated(self, adata: AnnData, codes_n: np.ndarray) -> dict[str, np.ndarray]:
        """Masks of the batches of which the caller says what was measured."""
        if not self.measured_proteins:
            return {}
        assert isinstance(self.batch_field, CategoricalObsField)
        names, batch_n = list(map(str, self.column_names(adata))), self.batch_field.source_column(adata).to_numpy()
        categories = list(pd.unique(batch_n))
        stated = {}
        for batch, proteins in self.measured_proteins.items():
            known = categories[position_of(batch, categories, "batch or panel (measured_proteins)")]
            positions = [position_of(name, names, "protein (measured_proteins)") for name in proteins]
            stated[str(codes_n[batch_n == known][0])] = np.isin(np.arange(len(names)), positions)
        return stated

    def _check_counts(self, adata: AnnData) -> None:
        """Refuse what is no count; NaN in all cells of a batch is none, and says that the protein was not measured."""
        values: Any = self.get_field_data(adata)
        stays = sp.issparse(values) or isinstance(values, StoredMatrix)
        if stays or self.batch_field is None or not np.isnan(table := _floats(values)).any():
            super()._check_counts(adata)  # type: ignore[misc]
            return
        codes_n = np.asarray(self.batch_field.get_field_data(adata)).ravel()
        names = list(map(str, self.column_names(adata)))
        for code in np.unique(codes_n):
            cells = np.flatnonzero(codes_n == code)
            gone_np = np.isnan(table[cells])
            partly = np.flatnonzero(gone_np.any(0) & ~gone_np.all(0))
            if len(partly):
                cell = cells[gone_np[:, partly[0]].argmax()]
                _refuse(
                    f"{self.place} has NaN for {names[partly[0]]!r} in the cell {adata.obs_names[cell]!r}, and counts "
                    "in others of its batch. NaN in all cells of a batch (or panel) means that it was not measured "
                    "there: leave the cell out, or give it a panel of its own by panel_key."
                )
        check_counts(np.nan_to_num(table), obs_names=adata.obs_names, var_names=names).raise_if_bad(self.place)


class ProteinObsmField(_ProteinMask, ObsmField):
    """Protein counts in ``adata.obsm`` with, for each batch, which proteins were measured at all.

    A protein without a single count in a batch counts as not measured there. When any is, the state gets
    ``protein_batch_mask``: ``{code of the batch as text: (p,) bool, True where measured}``.

    Parameters
    ----------
    base_field_args, base_field_kwargs
        As :class:`ObsmField` takes them.
    use_batch_mask
        Look for proteins that were not measured.
    batch_field
        The field of the batches, registered before this one.
    measured_proteins
        For some batches the proteins measured there, whatever the counts say.
    """

    _cure = f"measured_proteins={{batch: names}}, or {_ProteinMask._cure}"

    def __init__(
        self,
        *base_field_args: Any,
        use_batch_mask: bool = True,
        batch_field: BaseAnnDataField | None = None,
        measured_proteins: Mapping[str, Sequence[str]] | None = None,
        **base_field_kwargs: Any,
    ) -> None:
        super().__init__(*base_field_args, **base_field_kwargs)
        self._find_masks_by(use_batch_mask, batch_field, measured_proteins)


class ProteinLayerField(_ProteinMask, LayerField):
    """Protein counts in ``adata.X`` or a layer, as a modality of a MuData has them. See :class:`ProteinObsmField`.

    Parameters
    ----------
    base_field_args, base_field_kwargs
        As :class:`LayerField` takes them.
    use_batch_mask, batch_field
        As in :class:`ProteinObsmField`.
    """

    def __init__(
        self,
        *base_field_args: Any,
        use_batch_mask: bool = True,
        batch_field: BaseAnnDataField | None = None,
        **base_field_kwargs: Any,
    ) -> None:
        super().__init__(*base_field_args, **base_field_kwargs)
        self._find_masks_by(use_batch_mask, batch_field)


def _refuse(message: str) -> None:
    """Raise a ``ValueError``, or warn, where that is what impossible counts are met with."""
    if rules().bad_counts == "error":
        raise ValueError(message)
    warnings.warn(message, UserWarning, stacklevel=settings.warnings_stacklevel)


def _floats(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def _tell(measured: Mapping[str, np.ndarray], names: np.ndarray, cure: str) -> None:
    """Name the proteins that are taken as not measured, by the name of the batch."""
    missing = {batch: list(map(str, names[~mask_p])) for batch, mask_p in measured.items() if not mask_p.all()}
    if not missing:
        return
    logger.info(
        "Found batches with missing protein expression: %s. Where they were measured, say so: %s. Where they were not, "
        "ask for their values as of a batch that measured them: get_normalized_expression(transform_batch=...).",
        "; ".join(f"{batch} has no count of {_listed(proteins)}" for batch, proteins in missing.items()),
        cure,
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _measured_by_batch(values: Any, codes_n: np.ndarray) -> dict[str, np.ndarray]:
    """For each batch, ``(p,)`` booleans: some cell of the batch has a count of that protein."""
    step = _ROWS_AT_ONCE if isinstance(values, StoredMatrix) else max(1, len(codes_n))
    found = {str(batch): np.zeros(values.shape[1], bool) for batch in np.unique(codes_n)}
    for start in range(0, len(codes_n), step):
        rows = slice(start, start + step)
        some: Any = values[rows]
        x_np: Any = some.tocsr() if sp.issparse(some) else np.nan_to_num(_floats(some))
        nonzero_np, code_n = x_np != 0, codes_n[rows]
        for batch in np.unique(code_n):
            found[str(batch)] |= np.asarray(nonzero_np[code_n == batch].sum(axis=0)).ravel() > 0
    return found
