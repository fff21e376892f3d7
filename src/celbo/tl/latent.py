"""One latent space for the cells of all batches."""

from collections.abc import Mapping
from typing import Annotated, Any

from anndata import AnnData

from ..core import checked
from ..core.kinds import Text
from ..verbs.keys import keep, note, ready
from .fitted import KEYWORDS, MODEL, fitted

__all__ = ["integrate"]


@checked
def integrate(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    model: Annotated[object, MODEL] = "scvi",
    layer: str | None = None,
    use_raw: bool = False,
    key_added: Annotated[str, Text()] = "X_celbo",
    copy: bool = False,
    seed: int | None = 0,
    model_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
    train_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
    **setup_kwargs: Any,
) -> Any:
    """Bring the cells of several batches into one latent space, written to ``adata.obsm``.

    Go on with ``sc.pp.neighbors(adata, use_rep="X_celbo")``.

    Parameters
    ----------
    adata
        Cells by genes, with raw counts in ``X``, a layer or ``raw``; in memory or backed. A view becomes an AnnData of
        its own.
    batch_key
        Column of ``adata.obs`` with the batch of each cell; None: one for all.
    model
        ``"scvi"``, or another name of :data:`celbo.tl.fitted.NAMES`; a class of models, also of your own; or a trained
        model, which then only answers.
    layer
        Layer with the counts; None: ``X``.
    use_raw
        Take the counts of ``adata.raw``, with its genes.
    key_added
        Where in ``adata.obsm`` to write.
    copy
        Give a copy with the results, and leave ``adata`` as it is.
    seed
        Of the training; None: fresh randomness.
    model_kwargs, train_kwargs
        Arguments of the model's class, such as ``{"n_latent": 20}``, and of its ``train``, such as
        ``{"max_epochs": 50}``.
    **setup_kwargs
        Further arguments of the model's ``setup_anndata``, such as ``categorical_covariate_keys``.

    Returns
    -------
    The trained model; with ``copy`` the copy of ``adata``. Written is ``adata.obsm[key_added]``, ``(n, k)`` float32:
    the means of the cells' latents.

    Raises
    ------
    ValueError
        An unknown model; or data with negative, infinite or NaN values: the message says where there are counts.

    Warns
    -----
    UserWarning
        Some values are not whole numbers, as after ``log1p``. The model trains on them all the same: give it counts.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> model = celbo.tl.integrate(adata, "batch", train_kwargs={"max_epochs": 2, "verbose": 0})
    >>> adata.obsm["X_celbo"].shape
    (400, 10)
    >>> adata.uns["celbo"]["X_celbo"]["model"]
    'SCVI'
    """
    adata = ready(adata, copy)
    setup = {"batch_key": batch_key, "layer": layer, "use_raw": use_raw, **setup_kwargs}
    found = fitted(adata, model, setup, model_kwargs, train_kwargs, seed, verb="get_latent_representation")
    keep(adata, key_added, found.get_latent_representation(adata))
    note(adata, key_added, "integrate", found, {"seed": seed, "model_kwargs": model_kwargs})
    return adata if copy else found
