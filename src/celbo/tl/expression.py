"""Expression without the noise of counting."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from anndata import AnnData

from ..core import checked, unknown_name
from ..core.homes import usually
from ..core.kinds import Text
from ..model import SCVI
from ..verbs.keys import keep, note, ready
from .fitted import KEYWORDS, MODEL, fitted

__all__ = ["denoise"]


@checked
@usually(SCVI)
def denoise(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    model: Annotated[object, MODEL] = "scvi",
    genes: Sequence[str] | None = None,
    library_size: float | Literal["latent"] = 1e4,
    transform_batch: Sequence[float | str] | float | str | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    key_added: Annotated[str, Text()] = "denoised",
    copy: bool = False,
    seed: int | None = 0,
    model_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
    train_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
    **setup_kwargs: Any,
) -> Any:
    """Write the expression that a model expects of every cell, without the noise of counting, into a layer.

    It is for pictures and for a look at single genes. To test for differences use :func:`rank_genes`: denoised values
    of neighbouring cells are not independent.

    Parameters
    ----------
    model
        ``"scvi"``, another name of :data:`celbo.tl.fitted.NAMES` whose model gives expression, a class, or a trained
        model, such as :func:`integrate` gave.
    genes
        Genes to write, as a table in ``adata.obsm``; None: all of ``adata.var_names``, as a layer.
    library_size
        What each cell sums to over all genes, 10,000 by default as in ``sc.pp.normalize_total(adata, 1e4)``;
        ``"latent"``: the model's library of the cell. Take ``log1p`` of it for pictures.
    transform_batch
        Decode all cells as of this batch, or as the mean of several; None: each as of its own.
    key_added
        Name of the layer, or of the table.
    adata, batch_key, layer, use_raw, copy, seed, model_kwargs, train_kwargs, **setup_kwargs
        See :func:`integrate`.

    Returns
    -------
    The trained model; with ``copy`` the copy of ``adata``. Written is ``adata.layers[key_added]``, ``(n, g)`` dense
    float32, or ``adata.obsm[key_added]``, cells by the genes named.

    Raises
    ------
    ValueError
        Genes that the model does not know, or an unknown batch.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> model = celbo.tl.denoise(adata, "batch", train_kwargs={"max_epochs": 2, "verbose": 0})
    >>> adata.layers["denoised"].shape
    (400, 100)
    >>> model = celbo.tl.denoise(adata, model=model, genes=["gene_3", "gene_1"], key_added="two_genes")
    >>> list(adata.obsm["two_genes"].columns)
    ['gene_3', 'gene_1']
    """
    adata = ready(adata, copy)
    setup = {"batch_key": batch_key, "layer": layer, "use_raw": use_raw, **setup_kwargs}
    found = fitted(adata, model, setup, model_kwargs, train_kwargs, seed, verb="get_normalized_expression")
    wanted = list(adata.var_names if genes is None else genes)
    known = set(found.get_var_names())
    for name in wanted:
        if name not in known:
            raise ValueError(unknown_name("gene of the model", name, found.get_var_names()))
    given = found.get_normalized_expression(
        adata, gene_list=wanted, library_size=library_size, transform_batch=transform_batch, seed=seed
    )
    table = (given[0] if isinstance(given, tuple) else given)[wanted]  # TOTALVI gives genes and proteins
    keep(adata, key_added, table, "features" if genes is None else "rows")
    how = {"seed": seed, "library_size": library_size, "transform_batch": transform_batch}
    note(adata, key_added, "denoise", found, how | {"model_kwargs": model_kwargs})
    return adata if copy else found
