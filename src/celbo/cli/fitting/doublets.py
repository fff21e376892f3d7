"""SOLO on the command line: an SCVI is trained first, and is kept with it.

Dims: n cells, k latents.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import unknown_name
from ...external import SOLO
from ...model import SCVI
from ..errors import UserError
from ..kind import Fitted, Kind
from ..kind import fit as fit_plain
from ..options import TrainOptions

__all__ = ["PART", "check", "embed", "fit", "predict"]

PART = "scvi"
"""Name of the SCVI among the parts."""

_OF_THE_FIRST = ("recipe", "resume", "checkpoint_every", "checkpoint_dir")
"""Arguments of ``train`` that are the SCVI's alone: training the classifier takes seconds."""


def check(options: TrainOptions) -> None:
    """Refuse a batch without a column of batches, with a ``UserError``."""
    if options.restrict_to_batch is not None and options.batch_key is None:
        raise UserError("--restrict-to-batch needs --batch-key: the column of obs with the batch of each cell.")


def fit(kind: Kind, adata: AnnData, options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """Train an SCVI on all cells, then the classifier on those of the batch asked for."""
    scvi = fit_plain(replace(kind, cls=SCVI), adata, options, training).model
    batch: Any = options.restrict_to_batch  # of the type that the column of batches has
    model: Any = SOLO.from_scvi_model(scvi, restrict_to_batch=batch)
    model.restrict_to_batch_ = batch  # goes with the archive
    of_classifier = {name: value for name, value in training.items() if name not in _OF_THE_FIRST}
    model.train(**(of_classifier | {"seed": scvi.seed_}))
    return Fitted(model, {PART: scvi})


def embed(fitted: Fitted, adata: AnnData | None = None, indices: np.ndarray | None = None) -> np.ndarray:
    """Latent representation of the SCVI, ``(n, k)``."""
    return fitted.parts[PART].get_latent_representation(adata, indices)


def predict(fitted: Fitted, adata: AnnData | None = None) -> pd.DataFrame:
    """Probability of being a doublet, or none, of the cells of the batch that the model is of; cells by these two."""
    if adata is not None:
        fitted.model.adata = _described(fitted, adata)
    return fitted.model.predict()


def _described(fitted: Fitted, adata: AnnData) -> AnnData:
    """Latents and log library size of cells, as the classifier takes them."""
    scvi, model = fitted.parts[PART], fitted.model
    cells_n = _cells_of_batch(adata, scvi.get_setup_arg("batch_key"), model.restrict_to_batch_)
    latent_nk = scvi.get_latent_representation(adata, indices=cells_n)
    is_mean = not scvi.module.use_observed_lib_size
    library_n1 = scvi.get_latent_library_size(adata, indices=cells_n, give_mean=is_mean)
    features_nk = np.concatenate([latent_nk, np.log(library_n1)], axis=1).astype(np.float32)
    kind_n = pd.Series("singlet", adata.obs_names[cells_n], dtype=object, name=model.get_setup_arg("labels_key"))
    return AnnData(features_nk, obs=kind_n.to_frame())


def _cells_of_batch(adata: AnnData, key: str | None, batch: object) -> np.ndarray:
    if batch is None or key is None:
        return np.arange(adata.n_obs)
    if key not in adata.obs:
        raise UserError(unknown_name("column of obs", key, adata.obs.columns))
    cells_n = np.flatnonzero(adata.obs[key].to_numpy() == batch)
    if not len(cells_n):
        found = sorted({str(name) for name in adata.obs[key]})
        raise UserError(
            f"This model calls doublets of batch {batch!r}. " + unknown_name("batch of the input", batch, found)
        )
    return cells_n
