"""The fields of reads of bisulfite sequencing: for each context of methylation the methylated ones, and all."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData

from ...core import ArgumentError, unknown_name
from ...core.rules import rules
from ...store.matrices.paired import paired_rows
from ..access import MissingLayerError, anndata_value
from ..counts import check_counts
from ..modalities import is_mudata
from .bundles import Fields, in_modality
from .layer import LayerField

__all__ = ["ReadsField", "coverage_key", "methylated_key", "reads_of_contexts"]


def methylated_key(context: str) -> str:
    """Registry key of a context's methylated reads."""
    return f"{context}_mc"


def coverage_key(context: str) -> str:
    """Registry key of all reads of a context."""
    return f"{context}_cov"


class ReadsField(LayerField):
    """Reads of one context: a layer of its modality, whole numbers, at most as many as those of another layer.

    Parameters
    ----------
    registry_key, layer
        See :class:`~celbo.data.fields.LayerField`.
    context
        The modality, for messages.
    at_most
        Layer with all reads, where ``layer`` has the methylated ones; None: ``layer`` has all.
    """

    def __init__(self, registry_key: str, layer: str, context: str, at_most: str | None = None) -> None:
        super().__init__(registry_key, layer)
        self.context, self.at_most = context, at_most

    @property
    def place(self) -> str:
        """Where the reads lie, as a user would type it."""
        return f"mdata.mod[{self.context!r}].layers[{self.attr_key!r}]"

    def validate_field(self, adata: AnnData) -> None:
        """Raise a ``MissingLayerError`` for a layer that the modality does not have, the nearest one named."""
        if self.attr_key not in adata.layers:
            argument = "cov_layer" if self.at_most is None else "mc_layer"
            what = f"layer of mdata.mod[{self.context!r}] ({argument})"
            raise MissingLayerError(unknown_name(what, str(self.attr_key), map(str, adata.layers)))
        super().validate_field(adata)

    def _check(self, adata: AnnData) -> None:
        names, x = self.column_names(adata), anndata_value(adata, self.attr_name, self.attr_key)
        report = check_counts(x, obs_names=adata.obs_names, var_names=names)
        report.raise_if_bad(self.place, [])
        if rules().bad_counts == "warning":
            report.tell(self.place, [])
            return
        if report.n_noninteger:
            raise ValueError(
                f"{self.place} holds fractions: {report.n_noninteger} of {report.nnz} values other than 0 are not "
                "whole numbers. METHYLVI takes numbers of reads. A share of methylated reads becomes their number as "
                "(share * coverage).round()."
            )
        if self.at_most is not None:
            self._require_coverage(adata, x, names)

    def _require_coverage(self, adata: AnnData, x: Any, names: np.ndarray) -> None:
        """Raise a ``ValueError`` for more methylated reads than reads, with the first of them."""
        assert self.at_most is not None
        if self.at_most not in adata.layers:
            return  # the field of that layer says so
        n_wrong, first = 0, ""
        for start, methylated, covered in paired_rows(x, anndata_value(adata, self.attr_name, self.at_most)):
            wrong = (methylated > covered).tocoo()
            if wrong.nnz and not n_wrong:
                row, column = int(wrong.coords[0][0]), int(wrong.coords[1][0])
                numbers = f"{methylated[row, column]:g} of {covered[row, column]:g} reads"
                first = f"{numbers} in cell {adata.obs_names[start + row]!r}, region {names[column]!r}"
            n_wrong += wrong.nnz
        if n_wrong:
            raise ValueError(
                f"{self.place} has more methylated reads than there are reads in {n_wrong} entries, the first with "
                f"{first}. layers[{self.at_most!r}] must count all reads, methylated or not: exchange mc_layer and "
                "cov_layer, or add the unmethylated reads to the methylated ones for the coverage."
            )


def reads_of_contexts(mdata: object, mc_layer: str, cov_layer: str, contexts: Sequence[str]) -> Fields:
    """Methylated reads of each context, a modality, then all reads of each.

    Parameters
    ----------
    mdata
        The MuData; where it is none, as when an archive is read, contexts are not looked for.
    mc_layer, cov_layer
        Layers that every one of these modalities has.
    contexts
        Names of the modalities.

    Raises
    ------
    ArgumentError
        No context, one twice, or one that is no modality.
    """
    if not contexts or len(set(contexts)) < len(contexts):
        raise ArgumentError(f"methylation_contexts must name the modalities of reads, each once, got {list(contexts)}.")
    for context in contexts if is_mudata(mdata) else ():
        modalities = list(mdata.mod)  # type: ignore[attr-defined]
        if context not in modalities:
            raise ArgumentError(unknown_name("modality of mdata (methylation_contexts)", context, modalities))
    methylated = [(context, ReadsField(methylated_key(context), mc_layer, context, cov_layer)) for context in contexts]
    covered = [(context, ReadsField(coverage_key(context), cov_layer, context)) for context in contexts]
    return [field for context, one in methylated + covered for field in in_modality(context, [one])]
