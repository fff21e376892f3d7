"""SCAR on the command line: the ambient profile is that of the raw droplets, which stay on disk.

Dims: n cells, g genes, b batches.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData

from ...core import unknown_name
from ...data import align_genes
from ...data.inputs import input_paths
from ...external import SCAR
from ...external.scar.ambient import FEWEST_DROPLETS, FewDropletsError
from ..counts import genes_of, opened_on_disk
from ..errors import UserError
from ..kind import Fitted, Kind
from ..kind import fit as fit_plain
from ..multimodal import modality_with
from ..options import TrainOptions

__all__ = ["check", "fit"]

_SHOWN = 5
_UNFILTERED = "give the unfiltered file of the same run (10x: raw_feature_bc_matrix.h5)"


def check(options: TrainOptions) -> None:
    """Look for the file of droplets before the cells are read; ``UserError`` for ``--ambient-prob`` without one."""
    if options.ambient is not None:
        input_paths(options.ambient)
    elif options.ambient_prob is not None:
        raise UserError("--ambient-prob is of the droplets that --ambient names: give that too.")


def fit(kind: Kind, adata: AnnData, options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """Estimate the ambient profile where droplets are named, and train with it."""
    profile = None if options.ambient is None else _profile(kind, adata, Path(options.ambient), options)
    return fit_plain(kind, adata, options, training, made_with={"ambient_profile": profile})


def _profile(kind: Kind, adata: AnnData, path: Path, options: TrainOptions) -> pd.DataFrame:
    """Share of each gene in the ambient RNA, ``(g, 1)``; with batches a column each, ``(g, b)``."""
    droplets = opened_on_disk([path], modality_with([path], kind))
    if droplets.X is None:
        raise UserError(f"--ambient {path} has no X with the counts of the droplets: {_UNFILTERED}.")
    genes, key = pd.Index(genes_of(adata, options.raw)), options.batch_key
    _require_genes(path, droplets, genes)
    if key is not None:
        _require_batches(path, droplets, adata.obs[key], key)
    cells = AnnData(obs=adata.obs[[] if key is None else [key]].copy(), var=pd.DataFrame(index=genes))
    given: dict[str, Any] = {} if options.ambient_prob is None else {"prob": options.ambient_prob}
    try:
        SCAR.get_ambient_profile(cells, droplets, batch_key=key, seed=0, **given)
    except FewDropletsError as error:
        batches = "" if key is None else f" in one of the batches of {key!r}"
        raise UserError(
            f"--ambient {path} has {error.n_droplets:,} droplets of {error.least} counts and more that look "
            f"empty{batches}, of {droplets.n_obs:,} in all, and {FEWEST_DROPLETS} are needed: {_UNFILTERED}, or, of "
            "few genes, lower --ambient-prob (0.995)."
        ) from None
    return pd.DataFrame(cells.varm["ambient_profile"], index=genes)


def _require_genes(path: Path, droplets: AnnData, genes: pd.Index) -> None:
    missing = align_genes(droplets.var_names, genes, where=f"--ambient {path}").missing
    if len(missing):
        named = ", ".join(repr(str(name)) for name in missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise UserError(
            f"--ambient {path} lacks {len(missing):,} of the {len(genes):,} genes of the cells: {named}. Its own are "
            f"called {', '.join(repr(str(name)) for name in droplets.var_names[:2])}, ...: {_UNFILTERED}, with the "
            "same kind of names (symbols or identifiers) as the cells'."
        )


def _require_batches(path: Path, droplets: AnnData, batch_n: pd.Series, key: str) -> None:
    """Refuse droplets without the batches of the cells: each batch has a soup of its own."""
    if key not in droplets.obs:
        raise UserError(
            f"--ambient {path}: {unknown_name('column of obs', key, droplets.obs.columns)} With --batch-key each batch "
            "has a soup of its own: leave it out to take one for all cells."
        )
    there = set(droplets.obs[key].astype(str))
    if lacking := sorted(set(batch_n.astype(str)) - there):
        raise UserError(f"--ambient {path}: {unknown_name(f'batch in {key!r}', lacking[0], sorted(there))}")
