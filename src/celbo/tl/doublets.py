"""Droplets that hold two cells."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from anndata import AnnData

from ..core import REGISTRY_KEYS, checked
from ..core.homes import usually
from ..core.kinds import Number, Text
from ..external import SOLO
from ..model import SCVI
from ..verbs.keys import note, ready
from .fitted import KEYWORDS, fitted

__all__ = ["doublets"]


@checked
@usually(SCVI)
def doublets(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    threshold: Annotated[float, Number(0, 1)] = 0.5,
    layer: str | None = None,
    use_raw: bool = False,
    key_added: Annotated[str, Text()] = "doublet",
    copy: bool = False,
    seed: int | None = 0,
    model_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
    train_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
    solo_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
    **setup_kwargs: Any,
) -> Any:
    """Score each droplet for holding two cells: an SCVI of all cells, then a SOLO for each batch.

    Doublets arise within one run of the machine: give ``batch_key`` where there are several.

    Parameters
    ----------
    threshold
        Probability above which a cell is called a doublet.
    key_added
        What the columns of ``adata.obs`` are named by.
    solo_kwargs
        Arguments of SOLO's ``train``.
    adata, batch_key, layer, use_raw, copy, seed, model_kwargs, train_kwargs, **setup_kwargs
        See :func:`integrate`; of the SCVI.

    Returns
    -------
    The SOLO of each batch by the batch's name; with ``copy`` the copy of ``adata``. Written are
    ``obs[f"{key_added}_score"]``, a probability, and ``obs[f"predicted_{key_added}"]``, the names that scanpy's
    ``scrublet`` takes.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> quick = {"max_epochs": 2, "verbose": 0}
    >>> models = celbo.tl.doublets(adata, "batch", train_kwargs=quick, solo_kwargs=quick)
    >>> sorted(models)
    ['batch_0', 'batch_1']
    >>> adata.obs["predicted_doublet"].dtype
    dtype('bool')
    """
    adata = ready(adata, copy)
    setup = {"batch_key": batch_key, "layer": layer, "use_raw": use_raw, **setup_kwargs}
    scvi = fitted(adata, SCVI, setup, model_kwargs, train_kwargs, seed, verb="get_latent_representation")
    score_n, models = np.full(adata.n_obs, np.nan), {}
    code_n = np.asarray(scvi.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)).ravel()
    for code, batch in enumerate(scvi.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]):
        solo = SOLO.from_scvi_model(scvi, restrict_to_batch=batch)
        solo.train(**({"seed": seed} | dict(solo_kwargs or {})))
        score_n[code_n == code] = solo.predict()["doublet"]  # cells in their order
        models[str(batch)] = solo
    adata.obs[f"{key_added}_score"] = score_n
    adata.obs[f"predicted_{key_added}"] = score_n > threshold
    note(adata, f"{key_added}_score", "doublets", scvi, {"seed": seed, "threshold": threshold})
    return adata if copy else models
