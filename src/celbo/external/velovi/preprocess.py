"""From counts of spliced and unspliced RNA to what VELOVI takes: smoothed over neighbours, and between 0 and 1.

Dims: n cells, g genes.
"""

from typing import Annotated, Any

import numpy as np
from anndata import AnnData
from scipy.spatial import cKDTree

from ...core import ArgumentError, checked
from ...core.kinds import Whole
from ...data.access import dense

__all__ = ["layer", "moments", "preprocess_data"]

_LEAST_R2 = 0.01
_LEAST_GAMMA = 0.01
_EXTREME = 5.0
_COUNTS = (
    "Velocity needs spliced and unspliced counts, as velocyto, kallisto or STARsolo make them; name their layers ('X' "
    "for adata.X)."
)


@checked
def moments(
    adata: AnnData,
    n_neighbors: Annotated[int, Whole(1)] = 30,
    n_pcs: Annotated[int, Whole(1)] = 30,
    spliced_layer: str = "spliced",
    unspliced_layer: str = "unspliced",
) -> AnnData:
    """Smooth spliced and unspliced RNA over each cell's neighbours.

    Parameters
    ----------
    adata
        Counts in both layers. Gets the layers ``"Ms"`` and ``"Mu"``: each cell's mean over itself and its neighbours,
        of counts scaled to the median total of all cells.
    n_neighbors
        Nearest cells, in principal components of log-transformed spliced RNA.
    n_pcs
        How many components.
    spliced_layer, unspliced_layer
        Names of the layers; ``"X"`` for ``adata.X``.

    Returns
    -------
    ``adata``.

    Raises
    ------
    ArgumentError
        A layer that is not there.
    """
    spliced, unspliced = (_scaled(_counts(adata, name)) for name in (spliced_layer, unspliced_layer))
    logged = np.log1p(spliced)
    centred = logged - logged.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    where = (left * size)[:, :n_pcs]
    _, neighbours = cKDTree(where).query(where, min(n_neighbors + 1, adata.n_obs))
    for name, x in (("Ms", spliced), ("Mu", unspliced)):
        adata.layers[name] = x[neighbours.reshape(adata.n_obs, -1)].mean(1).astype(np.float32)
    return adata


def _counts(adata: AnnData, name: str) -> np.ndarray:
    return dense(adata.X if name == "X" else layer(adata, name, _COUNTS), np.float32)


def _scaled(x: np.ndarray) -> np.ndarray:
    total_n = x.sum(1, keepdims=True)
    return x * (np.median(total_n[total_n > 0]) / np.maximum(total_n, 1e-9)) if (total_n > 0).any() else x


@checked
def preprocess_data(
    adata: AnnData,
    spliced_layer: str | None = "Ms",
    unspliced_layer: str | None = "Mu",
    min_max_scale: bool = True,
    filter_on_r2: bool = True,
) -> AnnData:
    r"""Scale smoothed RNA to between 0 and 1, and keep the genes that a steady state fits.

    Parameters
    ----------
    adata
        With smoothed layers, of :func:`moments` or of scvelo; they are changed.
    spliced_layer, unspliced_layer
        Their names.
    min_max_scale
        Scale each gene of each layer to between 0 and 1.
    filter_on_r2
        Keep genes whose unspliced RNA is :math:`\gamma_g` times the spliced, with :math:`\gamma_g > 0.01` by the cells
        with least and most of both, and a coefficient of determination above 0.01.

    Returns
    -------
    The AnnData, or a copy with the genes that are kept.

    Raises
    ------
    ArgumentError
        A layer that is not there; no gene is left.
    """
    names = (spliced_layer or "Ms", unspliced_layer or "Mu")
    for name in names:
        x = _counts(adata, name)
        if min_max_scale:
            low_g, high_g = x.min(0), x.max(0)
            x = (x - low_g) / np.where(high_g > low_g, high_g - low_g, 1)
        adata.layers[name] = x
    if not filter_on_r2:
        return adata
    kept_g = _has_a_steady_state(*(np.asarray(adata.layers[name]) for name in names))
    if not kept_g.any():
        raise ArgumentError(
            "No gene's unspliced RNA goes with its spliced RNA: look at the layers, or filter_on_r2=False."
        )
    return adata[:, kept_g].copy()


def _has_a_steady_state(spliced: np.ndarray, unspliced: np.ndarray) -> np.ndarray:
    """Whether unspliced RNA is a multiple of the spliced, ``(g,)``; the multiple is that of the extreme cells."""
    both = sum(x / np.maximum(x.max(0), 1e-9) for x in (spliced, unspliced))
    low_g, high_g = np.percentile(both, [_EXTREME, 100 - _EXTREME], axis=0)
    extreme = (both <= low_g) | (both >= high_g)
    s, u = spliced * extreme, unspliced * extreme
    gamma_g = (s * u).sum(0) / np.maximum((s * s).sum(0), 1e-9)
    left_g = np.square(unspliced - gamma_g * spliced).sum(0)
    total_g = np.square(unspliced - unspliced.mean(0)).sum(0)
    return (gamma_g > _LEAST_GAMMA) & (1 - left_g / np.maximum(total_g, 1e-9) > _LEAST_R2)


def layer(adata: AnnData, name: str, advice: str) -> Any:
    """A layer by name, as it lies in the AnnData.

    Raises
    ------
    ArgumentError
        It is not there; ``advice`` says what should be.
    """
    if not isinstance(name, str) or name not in adata.layers:
        there = ", ".join(map(repr, adata.layers)) or "none"
        raise ArgumentError(f"adata.layers has no {name!r}; there are: {there}. {advice}")
    return adata.layers[name]
