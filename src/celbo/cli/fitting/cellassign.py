"""CellAssign on the command line: a table of markers, and size factors from all the genes of the input.

Dims: n cells, g marker genes, c types.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import unknown_name
from ...data.genes import align_genes
from ...data.library import total_counts
from ...data.opening import of_genes
from ..counts import counts_of, genes_of, place_of_counts
from ..errors import UserError
from ..kind import Fitted, Kind
from ..options import TrainOptions

__all__ = ["SIZE_FACTOR", "check", "fit", "predict", "read_markers"]

SIZE_FACTOR = "celbo_size_factor"
"""Column of ``obs`` with the size factors that are computed here: total counts by the training cells' mean."""


def read_markers(path: Path) -> pd.DataFrame:
    """Read a table of markers: genes by types, names in the first column and the first line, entries 0 and 1.

    Parameters
    ----------
    path
        ``.csv``, or ``.tsv`` with tabs.

    Raises
    ------
    UserError
        Not there, empty, a gene twice, or entries other than 0 and 1.
    """
    if not path.is_file():
        raise UserError(f"--markers {path}: there is no such file.")
    try:
        frame = pd.read_csv(path, index_col=0, sep="\t" if path.suffix == ".tsv" else ",")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"--markers {path} is no table: {error}") from None
    _require_separator(path, frame)
    frame.index, frame.columns = frame.index.astype(str), frame.columns.astype(str)
    if frame.empty:
        raise UserError(f"--markers {path}: wanted a line for each gene and a column for each type, got {frame.shape}.")
    if frame.index.has_duplicates:
        raise UserError(f"--markers {path} has the gene {frame.index[frame.index.duplicated()][0]!r} twice.")
    number_gc = frame.apply(pd.to_numeric, errors="coerce")
    is_wrong_gc = ~number_gc.isin([0, 1]).to_numpy()
    if is_wrong_gc.any():
        row, column = np.argwhere(is_wrong_gc)[0]
        raise UserError(
            f"--markers {path} has {frame.iloc[row, column]!s} for gene {frame.index[row]!r} and type "
            f"{frame.columns[column]!r}: 1 where the gene marks the type, else 0."
        )
    return number_gc.astype(float)


def _require_separator(path: Path, frame: pd.DataFrame) -> None:
    """Refuse a table that another separator would split: read by commas it has no columns, or one."""
    if len(frame.columns) > 1:
        return
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    wanted = ("tab", "\t") if path.suffix == ".tsv" else ("comma", ",")
    for name, separator in (("semicolon", ";"), ("tab", "\t"), ("comma", ",")):
        if separator != wanted[1] and first.count(separator) > first.count(wanted[1]):
            raise UserError(
                f"--markers {path} is separated by {name}s: save it with {wanted[0]}s (.csv has commas, .tsv has tabs)."
            )


def check(options: TrainOptions) -> None:
    """Read the table of markers before the data."""
    read_markers(Path(str(options.markers)))


def fit(kind: Kind, adata: AnnData, options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """Train on the marker genes, with size factors from all genes where the input has no column of them."""
    markers, mean_total = read_markers(Path(str(options.markers))), None
    if options.size_factor_key is None:
        mean_total = float(_totals(adata, options.layer, options.raw).mean())
        adata = _with_size_factors(adata, (options.layer, options.raw), mean_total)
        options = replace(options, size_factor_key=SIZE_FACTOR)
    marked = _with_markers(adata, list(markers.index), options.raw)
    kind.cls.setup_anndata(marked, **kind.setup_arguments(options))
    model = kind.cls(marked, markers)
    model.mean_total_ = mean_total  # goes with the archive, as every attribute with such a name
    model.train(**training)
    return Fitted(model)


def predict(fitted: Fitted, adata: AnnData | None = None) -> pd.DataFrame:
    """Probability of each type for each cell, cells by types; size factors are on the scale of the training cells."""
    model = fitted.model
    if adata is not None and model.get_setup_arg("size_factor_key") == SIZE_FACTOR:
        adata = _with_size_factors(adata, place_of_counts(model), model.mean_total_)
    return model.predict(adata)


def _with_markers(adata: AnnData, genes: Sequence[str], raw: bool) -> AnnData:
    names = genes_of(adata, raw)
    match = align_genes(names, genes)
    if len(match.missing):
        more = f" ({len(match.missing)} genes of --markers are not there)" if len(match.missing) > 1 else ""
        raise UserError(unknown_name("gene of the input", match.missing[0], names) + more)
    return of_genes(adata, np.isin(np.arange(len(names)), match.indexer), raw)


def _with_size_factors(adata: AnnData, place: tuple[str | None, bool], mean_total: float) -> AnnData:
    adata.obs[SIZE_FACTOR] = _totals(adata, *place) / mean_total
    return adata


def _totals(adata: AnnData, layer: str | None, raw: bool) -> np.ndarray:
    total_n = total_counts(counts_of(adata, layer, raw))
    if not (total_n > 0).all():
        n_empty = int((total_n <= 0).sum())
        raise UserError(f"Cells without counts: {n_empty}. Nothing can be said about them: leave them out.")
    return total_n
