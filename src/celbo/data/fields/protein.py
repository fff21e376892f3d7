"""Protein counts, of which whole batches may be missing."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from .arraylike import ObsmField
from .base import BaseAnnDataField
from .layer import LayerField

__all__ = ["ProteinLayerField", "ProteinObsmField"]

logger = logging.getLogger("celbo")


class _ProteinMask(BaseAnnDataField):
    """The part of a field of protein counts that finds which proteins were measured in which batch."""

    PROTEIN_BATCH_MASK = "protein_batch_mask"
    COLUMN_NAMES_KEY = "column_names"

    def _find_masks_by(self, use_batch_mask: bool, batch_field: BaseAnnDataField | None) -> None:
        """Remember the field of the batches; for a MuData's, the AnnData's field in it is the one that is read."""
        if use_batch_mask and batch_field is None:
            raise ValueError(
                "`use_batch_mask = True` requires that `batch_field is not None`. Please provide a `batch_field`."
            )
        self.use_batch_mask = use_batch_mask
        self.given_batch_field = batch_field
        self.batch_field = None if batch_field is None else batch_field.adata_field

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Note the column names, and the mask where proteins are missing."""
        return {**super().register_field(adata), **self._mask(adata)}  # type: ignore[safe-super]

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Match the columns with the source's; the mask is this AnnData's own, in the source's column order."""
        state = super().transfer_field(state_registry, adata_target, **kwargs)  # type: ignore[safe-super]
        return {**state, **self._mask(adata_target, np.asarray(state[self.COLUMN_NAMES_KEY]))}

    def _mask(self, adata: AnnData, reference: np.ndarray | None = None) -> dict[str, Any]:
        if not self.use_batch_mask or self.batch_field is None:
            return {}
        codes_n = np.asarray(self.batch_field.get_field_data(adata)).ravel()
        measured = _measured_by_batch(self.get_field_data(adata), codes_n)
        if reference is not None:
            order = pd.Index(np.asarray(self.column_names(adata))).get_indexer(pd.Index(reference))
            measured = {batch: mask_p[order] for batch, mask_p in measured.items()}
        if all(mask_p.all() for mask_p in measured.values()):
            return {}
        logger.info("Found batches with missing protein expression")
        return {self.PROTEIN_BATCH_MASK: measured}


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


def _measured_by_batch(values: Any, codes_n: np.ndarray) -> dict[str, np.ndarray]:
    """For each batch, ``(p,)`` booleans: some cell of the batch has a count of that protein."""
    x_np: Any = values.tocsr() if sp.issparse(values) else np.asarray(values)
    nonzero_np = x_np != 0
    return {
        str(batch): np.asarray(nonzero_np[codes_n == batch].sum(axis=0)).ravel() > 0 for batch in np.unique(codes_n)
    }
