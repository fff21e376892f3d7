"""ImputingMixin: categories and RNA, transferred from the cells of a reference to similar cells.

Cells are compared in a latent space, each with its nearest cells of the reference by Euclidean distance.

Dims: n cells, m neighbours, g genes.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.spatial import cKDTree

from ...core import REGISTRY_KEYS, ArgumentError, checked_methods, unknown_name
from ...verbs.base import Model

__all__ = ["ImputingMixin", "nearest", "vote"]

_LATENT = "X_CytoVI"
_CELLS_AT_ONCE = 4096


def nearest(reference_rk: np.ndarray, query_nk: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Rows of the nearest cells of a reference, ``(n, m)``, all of them where there are fewer.

    Parameters
    ----------
    reference_rk, query_nk
        Where cells lie.
    n_neighbors
        m.
    """
    m = min(n_neighbors, len(reference_rk))
    return cKDTree(reference_rk).query(query_nk, np.arange(1, m + 1))[1]


def vote(codes_nm: np.ndarray, n_categories: int) -> tuple[np.ndarray, np.ndarray]:
    """The most frequent code of each row, the first of several, and the share of the others, ``(n,)`` each.

    Parameters
    ----------
    codes_nm
        Codes of neighbours; -1: none.
    n_categories
        Number of codes.
    """
    counts_nc = np.stack([(codes_nm == code).sum(1) for code in range(n_categories)], axis=1)
    chosen_n = counts_nc.argmax(1)
    return chosen_n, 1 - counts_nc[np.arange(len(chosen_n)), chosen_n] / codes_nm.shape[1]


@checked_methods
class ImputingMixin(Model):
    """Categories and RNA of a reference, transferred by nearest neighbours.

    ``use_rep`` is a key of ``obsm`` with a space that cells of both data sets lie in; None: ``"X_CytoVI"`` where both
    have it, else the model's latents.
    """

    def impute_categories_from_reference(
        self,
        adata_reference: AnnData,
        cat_key: str,
        use_rep: str | None = None,
        n_neighbors: int = 20,
        return_uncertainty: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The category that most of each cell's neighbours in a reference have.

        Parameters
        ----------
        adata_reference
            Cells of known category.
        cat_key
            Column of its ``obs``; cells with NaN are ignored.
        use_rep
            See the class.
        n_neighbors
            Neighbours of each cell.
        return_uncertainty
            Also give the share of neighbours with another category.

        Returns
        -------
        Categories ``(n,)`` of the model's own cells, and their uncertainty ``(n,)``.

        Raises
        ------
        ArgumentError
            ``obs`` of the reference has no column ``cat_key``; the nearest is named.

        Examples
        --------
        >>> model.impute_categories_from_reference(adata, "labels").shape
        (400,)
        """
        if cat_key not in adata_reference.obs:
            raise ArgumentError(unknown_name("column of the reference's obs (cat_key)", cat_key, adata_reference.obs))
        category = adata_reference.obs[cat_key].astype("category").cat
        known = np.flatnonzero(category.codes >= 0)
        where_rk, where_nk = self._spaces(adata_reference, use_rep)
        neighbours_nm = nearest(where_rk[known], where_nk, n_neighbors)
        chosen_n, uncertain_n = vote(category.codes.to_numpy()[known][neighbours_nm], len(category.categories))
        names_n = category.categories.to_numpy()[chosen_n]
        return (names_n, uncertain_n) if return_uncertainty else names_n

    def impute_rna_from_reference(
        self,
        reference_batch: str,
        adata_rna: AnnData,
        layer_key: str,
        use_rep: str | None = None,
        n_neighbors: int = 20,
        compute_uncertainty: bool = False,
        return_query_only: bool = False,
    ) -> AnnData:
        """RNA of each cell, as the mean of its neighbours in the one batch whose RNA is known.

        Parameters
        ----------
        reference_batch
            Batch of the model's data whose cells have RNA, as in CITE-seq.
        adata_rna
            RNA of these cells, found by their names in any order.
        layer_key
            Layer of ``adata_rna`` with the expression.
        use_rep
            See the class; of the model's data.
        n_neighbors
            Neighbours of each cell.
        compute_uncertainty
            Also give their standard deviation, in the layer ``{layer_key}_sd``; 0 for cells of the reference.
        return_query_only
            Leave out the cells of the reference, whose RNA is measured.

        Returns
        -------
        Cells of the model's data by genes, in ``X`` and in the layer ``layer_key``.

        Examples
        --------
        >>> rna = celbo.data.synthetic_iid(seed=0)[adata.obs["batch"] == "batch_0"].copy()
        >>> rna.layers["log1p"] = np.log1p(rna.X)
        >>> model.impute_rna_from_reference("batch_0", rna, "log1p").shape
        (400, 100)
        """
        adata, where_nk = self._own_space(use_rep)
        is_reference_n, rows = self._rows_of_reference(adata, reference_batch, adata_rna, layer_key)
        measured_rg = sp.csr_matrix(adata_rna.layers[layer_key])[rows]
        query = np.flatnonzero(~is_reference_n)
        neighbours_nm = nearest(where_nk[is_reference_n], where_nk[query], n_neighbors)
        mean_ng = np.zeros((adata.n_obs, adata_rna.n_vars), np.float32)
        spread_ng = np.zeros_like(mean_ng) if compute_uncertainty else None
        mean_ng[is_reference_n] = measured_rg.toarray()
        for start in range(0, len(query), _CELLS_AT_ONCE):
            part = slice(start, start + _CELLS_AT_ONCE)
            average = _averaging(neighbours_nm[part], measured_rg.shape[0])
            mean_ng[query[part]] = (average @ measured_rg).toarray()
            if spread_ng is not None:
                square_ng = (average @ measured_rg.power(2)).toarray()
                spread_ng[query[part]] = np.sqrt((square_ng - np.square(mean_ng[query[part]])).clip(0))
        layers = {layer_key: mean_ng} | ({} if spread_ng is None else {f"{layer_key}_sd": spread_ng})
        imputed = AnnData(
            mean_ng.copy(),
            adata.obs.copy(),
            pd.DataFrame(index=adata_rna.var_names),
            layers=layers,
            obsm={_LATENT: where_nk},
        )
        return imputed[query].copy() if return_query_only else imputed

    def _rows_of_reference(
        self, adata: AnnData, batch: str, adata_rna: AnnData, layer_key: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which cells are of the reference, ``(n,)``, and the row of each of them in its RNA."""
        batches = list(self.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"])
        if batch not in batches:
            raise ArgumentError(unknown_name("batch (reference_batch)", batch, batches))
        if layer_key not in adata_rna.layers:
            raise ArgumentError(unknown_name("layer of adata_rna (layer_key)", layer_key, adata_rna.layers))
        manager: Any = self.get_anndata_manager(adata, required=True)
        codes_n = np.asarray(manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY))
        is_reference_n = codes_n.ravel() == batches.index(batch)
        rows = adata_rna.obs_names.get_indexer(adata.obs_names[is_reference_n])
        if (rows < 0).any():
            raise ArgumentError(
                f"adata_rna lacks {(rows < 0).sum():,} of the {len(rows):,} cells of batch {batch!r}, the first being "
                f"{adata.obs_names[is_reference_n][rows < 0][0]!r}: it must have the RNA of all, by the same obs_names."
            )
        return is_reference_n, rows

    def _own_space(self, use_rep: str | None) -> tuple[AnnData, np.ndarray]:
        """The model's data, and where its cells lie."""
        adata = self._validate_anndata(None)
        return adata, self._where(adata, adata.obsm if use_rep is None else [], use_rep)

    def _spaces(self, reference: AnnData, use_rep: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Where cells of a reference lie, and the model's own, in the same space."""
        adata = self._validate_anndata(None)
        shared = [key for key in reference.obsm if key in adata.obsm]
        return self._where(reference, shared, use_rep), self._where(adata, shared, use_rep)

    def _where(self, adata: AnnData, shared: Iterable[str], use_rep: str | None) -> np.ndarray:
        key = use_rep or (_LATENT if _LATENT in shared else None)
        if key is None:
            answer: Any = self.get_latent_representation(adata)  # type: ignore[attr-defined]
            return answer
        if key not in adata.obsm:
            raise ArgumentError(unknown_name("entry of obsm (use_rep)", key, adata.obsm))
        return np.asarray(adata.obsm[key])


def _averaging(neighbours_nm: np.ndarray, n_reference: int) -> sp.csr_matrix:
    """Matrix ``(n, r)`` whose product with the reference is the mean over neighbours."""
    n, m = neighbours_nm.shape
    shares = np.full(n * m, 1 / m, np.float32)
    return sp.csr_matrix((shares, neighbours_nm.ravel(), np.arange(0, n * m + 1, m)), (n, n_reference))
