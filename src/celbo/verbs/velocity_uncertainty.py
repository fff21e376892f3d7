"""VelocityUncertaintyMixin: how sure velocities are. No logic here: :mod:`celbo.verbs.directions` has it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ..core import REGISTRY_KEYS, checked_methods, unknown_name
from ..data.access import dense
from ..module.kinetics import UNSPLICED_KEY
from .directions import directional_statistics, permuted_within, t_statistics, transitions
from .keys import offers_key
from .velocity import VelocityMixin

__all__ = ["VelocityUncertaintyMixin"]

_CELLS_COMPARED = 200


@checked_methods
class VelocityUncertaintyMixin(VelocityMixin):
    """Intrinsic and extrinsic uncertainty of directions, and permutation scores."""

    @offers_key(parts=("", "cosines"))
    def get_directional_uncertainty(
        self,
        adata: AnnData | None = None,
        n_samples: int = 50,
        gene_list: Iterable[str] | None = None,
        n_jobs: int = -1,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> tuple[pd.DataFrame, np.ndarray]:
        """How much the direction of each cell's velocity varies over draws: intrinsic uncertainty.

        Parameters
        ----------
        adata, n_samples, gene_list, seed, key_added
            See the class.
        n_jobs
            Accepted for compatibility with scvi-tools: cells are computed together.

        Returns
        -------
        A frame of cells by statistics, see :func:`~celbo.verbs.directions.directional_statistics`, and the
        cosine of each draw with the cell's mean velocity, ``(n, s)``.

        Examples
        --------
        >>> table, cosines = model.get_directional_uncertainty(n_samples=5)
        >>> table.shape, cosines.shape
        ((60, 5), (60, 5))
        """
        adata = self._validate_anndata(adata)
        genes = None if gene_list is None else list(gene_list)
        return directional_statistics(self._velocities(adata, genes, n_samples, seed), adata.obs_names)

    @offers_key(parts=("", "cosines"))
    def get_extrinsic_uncertainty(
        self,
        adata: AnnData | None = None,
        n_samples: int = 25,
        gene_list: Iterable[str] | None = None,
        n_neighbors: int = 30,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> tuple[pd.DataFrame, np.ndarray]:
        """How much the direction in which each cell's neighbours lie that it moves to varies over draws.

        Parameters
        ----------
        adata, n_samples, gene_list, seed, key_added
            See the class.
        n_neighbors
            Neighbours of each cell, in spliced RNA, that it may move to.

        Returns
        -------
        As :meth:`get_directional_uncertainty`, of the mean step to a neighbour, each weighted by how well the velocity
        points to it (:func:`~celbo.verbs.directions.transitions`). A method of celbo's own.

        Examples
        --------
        >>> table, cosines = model.get_extrinsic_uncertainty(n_samples=5, n_neighbors=10)
        >>> table.shape, cosines.shape
        ((60, 5), (60, 5))
        """
        adata = self._validate_anndata(adata)
        genes = None if gene_list is None else list(gene_list)
        velocities = self._velocities(adata, genes, n_samples, seed)
        kept = dense(adata.layers[self._layer_of(REGISTRY_KEYS.X_KEY)])
        kept = kept[:, self._columns(genes)]
        steps = transitions(kept, velocities, n_neighbors)
        return directional_statistics(steps, adata.obs_names)

    def get_permutation_scores(
        self, labels_key: str, adata: AnnData | None = None, *, seed: int | None = None
    ) -> tuple[pd.DataFrame, AnnData]:
        """How much worse each gene is fitted once its values are permuted among the cells of a type.

        Parameters
        ----------
        labels_key
            Column of ``adata.obs`` with the type of each cell.
        adata, seed
            See the class.

        Returns
        -------
        Student's t of permuted against own errors, genes by types, each by the first 200 cells of the type: small for
        genes without a path. And the permuted data.

        Raises
        ------
        KeyError
            ``adata.obs`` has no column ``labels_key``; the nearest is named.

        Examples
        --------
        >>> scores, permuted = model.get_permutation_scores("labels", seed=0)
        >>> scores.shape
        (20, 3)
        """
        adata = self._validate_anndata(adata)
        if labels_key not in adata.obs:
            raise KeyError(unknown_name("column of adata.obs (labels_key)", labels_key, map(str, adata.obs)))
        labels = adata.obs[labels_key].to_numpy().astype(str)
        rng = np.random.default_rng(seed)
        permuted = adata.copy()
        for key in (REGISTRY_KEYS.X_KEY, UNSPLICED_KEY):
            layer = self._layer_of(key)
            permuted.layers[layer] = permuted_within(dense(adata.layers[layer]), labels, rng)
        own, other = (self._errors(cells, seed) for cells in (adata, permuted))
        types = np.unique(labels)
        scores = {
            one: t_statistics(*(errors[labels == one][:_CELLS_COMPARED] for errors in (other, own))) for one in types
        }
        return pd.DataFrame(scores, index=self.get_var_names()), permuted

    def _velocities(self, adata: AnnData, gene_list: list[str] | None, n_samples: int, seed: int | None) -> np.ndarray:
        """Draws, ``(s, n, g)``."""
        options: dict[str, Any] = {"return_mean": False, "return_numpy": True, "seed": seed}
        velocities = self.get_velocity(adata, gene_list=gene_list, n_samples=n_samples, **options)
        return np.asarray(velocities).reshape(n_samples, adata.n_obs, -1)

    def _layer_of(self, key: str) -> str:
        """Layer with the data of a registry key."""
        return self.registry_["field_registries"][key]["data_registry"]["attr_key"]

    def _errors(self, adata: AnnData, seed: int | None) -> np.ndarray:
        """Absolute errors of the fit, of both kinds of RNA, ``(n, g)``."""
        fit = self.get_expression_fit(adata, return_numpy=True, seed=seed)
        layers = [adata.layers[self._layer_of(key)] for key in (REGISTRY_KEYS.X_KEY, UNSPLICED_KEY)]
        return sum(np.abs(dense(x) - np.asarray(one)) for x, one in zip(layers, fit, strict=True))  # type: ignore[return-value]
