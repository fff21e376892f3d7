"""Labels for all cells, from the labels of a few."""

from collections.abc import Mapping
from typing import Annotated, Any

import pandas as pd
from anndata import AnnData

from ..core import checked
from ..core.homes import usually
from ..core.kinds import Text
from ..model import SCANVI
from ..verbs.keys import keep, note, ready
from .fitted import KEYWORDS, MODEL, fitted, is_trained

__all__ = ["annotate", "write_labels"]


@checked
@usually(SCANVI)
def annotate(
    adata: AnnData,
    labels_key: str | None = None,
    batch_key: str | None = None,
    *,
    unlabeled_category: str | None = None,
    model: Annotated[object, MODEL] = "scanvi",
    layer: str | None = None,
    use_raw: bool = False,
    key_added: Annotated[str, Text()] = "celbo_label",
    latent_key_added: Annotated[str, Text()] = "X_celbo",
    copy: bool = False,
    seed: int | None = 0,
    model_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
    train_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
    **setup_kwargs: Any,
) -> Any:
    """Give every cell the label that is most probable, from cells of which some have one.

    Parameters
    ----------
    labels_key
        Column of ``adata.obs`` with the labels that are known; missing values are cells without. Needed unless
        ``model`` is trained.
    unlabeled_category
        Label that means "not labelled" too, as ``"Unknown"``.
    model
        ``"scanvi"``; or a class or a trained model that predicts labels.
    key_added
        Column of ``adata.obs`` for the labels.
    latent_key_added
        Where in ``adata.obsm`` to write the latents.
    adata, batch_key, layer, use_raw, copy, seed, model_kwargs, train_kwargs, **setup_kwargs
        See :func:`integrate`.

    Returns
    -------
    The trained model; with ``copy`` the copy of ``adata``. Written are ``obs[key_added]``, the label of every cell,
    known or not; ``obs[f"{key_added}_probability"]``, in [0, 1]; ``obsm[f"{key_added}_probabilities"]``, cells by
    labels, rows that sum to 1; and the latents, ``(n, k)``.

    Raises
    ------
    ValueError
        No cell has a label.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> adata.obs["known"] = adata.obs["labels"].astype(object).where(adata.obs["batch"] == "batch_0")
    >>> model = celbo.tl.annotate(adata, "known", "batch", train_kwargs={"max_epochs": 2, "verbose": 0})
    >>> adata.obs["celbo_label"].isna().sum()
    np.int64(0)
    """
    adata = ready(adata, copy)
    if labels_key is None and not is_trained(model):
        raise ValueError("labels_key= must name the column of adata.obs with the labels that are known.")
    setup: dict[str, Any] = {"labels_key": labels_key, "unlabeled_category": unlabeled_category, "batch_key": batch_key}
    setup |= {"layer": layer, "use_raw": use_raw, **setup_kwargs}
    found = fitted(adata, model, setup, model_kwargs, train_kwargs, seed, verb="predict")
    write_labels(adata, found.predict(adata, soft=True), key_added)
    keep(adata, latent_key_added, found.get_latent_representation(adata))
    for key in (key_added, latent_key_added):
        note(adata, key, "annotate", found, {"seed": seed, "model_kwargs": model_kwargs})
    return adata if copy else found


def write_labels(adata: AnnData, probability_nc: pd.DataFrame, key: str) -> None:
    """Write the most probable label of each cell, how probable it is, and all probabilities."""
    names = probability_nc.columns.astype(str)
    code_n = probability_nc.to_numpy().argmax(1)
    adata.obs[key] = pd.Categorical.from_codes(code_n, names)
    adata.obs[f"{key}_probability"] = probability_nc.to_numpy().max(1)
    adata.obsm[f"{key}_probabilities"] = probability_nc.set_axis(names, axis=1).set_axis(adata.obs_names)
