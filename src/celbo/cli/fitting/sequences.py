"""SCBASSET on the command line: cells by regions as other models take them, and the genome as a FASTA file.

Dims: n cells, g regions, l bases.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from ...external.scbasset import add_dna_sequence
from ..errors import UserError
from ..kind import Fitted, Kind
from ..options import TrainOptions

__all__ = ["check", "embed", "fit", "refuse"]

_CODES = "dna_code"
_PLACE = ("chr", "start", "end")
_NAME = re.compile(r"(.+)[:\-_](\d+)[\-_](\d+)")


def check(options: TrainOptions) -> None:
    """Look for the genome before the data are read; a ``UserError`` where it is not there."""
    if not Path(str(options.fasta)).is_file():
        raise UserError(f"--fasta {options.fasta}: there is no such file.")


def fit(kind: Kind, adata: AnnData, options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """Look the sequences of the regions up, and train on regions by cells."""
    x_ng = adata.X if options.layer is None else adata.layers[options.layer]
    regions = AnnData(sp.csr_matrix(x_ng).T.tocsr(), obs=pd.DataFrame(index=adata.var_names), var=adata.obs)
    places = AnnData(obs=pd.DataFrame(index=adata.obs_names[:0]), var=_places(adata.var))
    add_dna_sequence(places, int(options.seq_len or 0), fasta=options.fasta)
    regions.obsm[_CODES] = np.asarray(places.varm[_CODES])
    kind.cls.setup_anndata(regions, dna_code_key=_CODES, batch_key=options.batch_key)
    model = kind.cls(regions, **kind.model_arguments(options))
    model.train(**training)
    return Fitted(model)


def _places(var: pd.DataFrame) -> pd.DataFrame:
    """Chromosome, start and end of each region: columns of these names, or what the regions are called."""
    if all(name in var for name in _PLACE):
        return var[list(_PLACE)]
    found = [_NAME.fullmatch(str(name)) for name in var.index]
    if None in found:
        other = var.index[found.index(None)]
        raise UserError(
            f"Where is region {other!r}? The input has no columns chr, start and end of var, and regions are not all "
            "called like chr1:100-200."
        )
    table = pd.DataFrame([one.groups() for one in found if one is not None], var.index, list(_PLACE))
    return table.astype({"start": int, "end": int})


def embed(fitted: Fitted, adata: AnnData | None = None, indices: np.ndarray | None = None) -> np.ndarray:
    """Embedding of the cells that the model was trained on, ``(n, k)``."""
    embedding_nk = fitted.model.get_latent_representation()
    return embedding_nk if indices is None else embedding_nk[indices]


def refuse(model: object, adata: AnnData) -> NoReturn:
    """Say by a ``UserError`` that other data are no question for this model."""
    raise UserError(
        "scbasset knows the cells that it was trained on and no others: embedding.h5ad and report.html of the run are "
        "about them."
    )
