"""Models of cells in tissue on the command line: coordinates lie in ``obsm``, neighbours are found before training."""

from collections.abc import Mapping
from typing import Any

from anndata import AnnData

from ...external import SCVIVA
from ...external.resolvi.neighbors import FEWEST_GENES
from ..errors import UserError
from ..kind import Fitted, Kind
from ..kind import fit as fit_plain
from ..options import TrainOptions

__all__ = ["fit_resolvi", "fit_scviva", "with_niches"]

_OF_NICHES = ("sample_key", "labels_key", "cell_coordinates_key", "expression_embedding_key")


def fit_resolvi(kind: Kind, adata: AnnData, options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """Set RESOLVI up with the neighbours of each cell, and train it; with labels it learns these, too.

    Raises a ``UserError`` where the data have too few genes to tell the background from.
    """
    if adata.n_vars < FEWEST_GENES:
        raise UserError(
            f"resolvi tells the background from one gene in {FEWEST_GENES}, and these are {adata.n_vars} genes. In "
            "Python, celbo.external.RESOLVI(adata, background_ratio=0.1) takes fewer."
        )
    where = {"prepare_data_kwargs": {"spatial_rep": options.spatial_key}}
    labels = {"semisupervised": True} if options.labels_key is not None else {}
    return fit_plain(kind, adata, options, training, setup=where, made_with=labels)


def fit_scviva(kind: Kind, adata: AnnData, options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """Find the niches, set SCVIVA up with them, and train it."""
    arguments = kind.setup_arguments(options)
    SCVIVA.preprocessing_anndata(adata, **{name: arguments[name] for name in _OF_NICHES if name in arguments})
    return fit_plain(kind, adata, options, training)


def with_niches(model: Any, adata: AnnData) -> AnnData:
    """Cells with their niches, by the types that the model knows."""
    given = model.registry_["setup_args"]
    keys = {name: given[name] for name in _OF_NICHES}
    return SCVIVA.preprocessing_query_anndata(adata, model, inplace=False, **keys)
