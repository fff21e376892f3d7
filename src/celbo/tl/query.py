"""New cells on a trained reference."""

from collections.abc import Mapping
from typing import Annotated, Any

from anndata import AnnData

from ..core import checked
from ..core.kinds import Instance, Text
from ..model.base import ArchesMixin, SemisupervisedTrainingMixin
from ..verbs.keys import keep, note, ready
from .fitted import KEYWORDS
from .labels import write_labels

__all__ = ["map_query"]

_REFERENCE = Instance(
    "a trained model that takes queries",
    lambda value: isinstance(value, ArchesMixin),
    "Load a saved one first: celbo.model.SCVI.load(folder, adata=False).",
)


@checked
def map_query(
    adata: AnnData,
    reference: Annotated[Any, _REFERENCE],
    *,
    key_added: Annotated[str, Text()] = "X_celbo",
    labels_key_added: Annotated[str, Text()] = "celbo_label",
    copy: bool = False,
    seed: int | None = 0,
    query_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
    train_kwargs: Annotated[Mapping[str, Any] | None, KEYWORDS] = None,
) -> Any:
    """Map new cells onto the latent space of a trained model; with a reference of labelled cells, label them too.

    Cells of the reference stay where they are. Genes are matched by name; those that the query lacks count as zero.
    The reference adapts to a new batch if it was trained with ``encode_covariates=True`` (SCVI, SCANVI).

    Parameters
    ----------
    adata
        The query, with counts and the batch column where the reference has them. Its genes stay as they are.
    reference
        Trained model, such as SCVI, SCANVI, TOTALVI or PEAKVI. It is not changed.
    key_added
        Where in ``adata.obsm`` to write the latents.
    labels_key_added
        Column of ``adata.obs`` for the labels of a reference that predicts some.
    copy, seed, train_kwargs
        See :func:`integrate`.
    query_kwargs
        Arguments of ``load_query_data``: what may move, such as ``{"freeze_dropout": True}``.

    Returns
    -------
    The model of the query; with ``copy`` the copy of ``adata``. Written are ``obsm[key_added]``, ``(n, k)``, in the
    space of the reference's latents, and where it predicts labels what :func:`annotate` writes of them.

    Raises
    ------
    ValueError
        No gene of the reference is in the query.

    Examples
    --------
    >>> import celbo
    >>> reference = celbo.tl.integrate(
    ...     celbo.data.synthetic_iid(seed=0),
    ...     "batch",
    ...     model_kwargs={"encode_covariates": True},
    ...     train_kwargs={"max_epochs": 2, "verbose": 0},
    ... )
    >>> query = celbo.data.synthetic_iid(seed=1)
    >>> query.obs["batch"] = "new"
    >>> model = celbo.tl.map_query(query, reference, train_kwargs={"max_epochs": 2, "verbose": 0})
    >>> query.obsm["X_celbo"].shape
    (400, 10)
    """
    adata = ready(adata, copy)
    prepared = type(reference).prepare_query_anndata(
        adata.to_memory() if adata.isbacked else adata, reference, inplace=False
    )
    model = type(reference).load_query_data(prepared, reference, **(query_kwargs or {}))
    model.train(**({"seed": seed} | dict(train_kwargs or {})))
    keep(adata, key_added, model.get_latent_representation())
    note(adata, key_added, "map_query", model, {"seed": seed, "query_kwargs": query_kwargs})
    if isinstance(model, SemisupervisedTrainingMixin):
        write_labels(adata, model.predict(soft=True), labels_key_added)
        note(adata, labels_key_added, "map_query", model, {"seed": seed, "query_kwargs": query_kwargs})
    return adata if copy else model
