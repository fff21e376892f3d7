"""``scvi.data._utils``: reading, checking and marking an AnnData."""

import warnings
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse

from ...core import REGISTRY_KEYS
from ...data.access import anndata_array, put_row_major
from ...data.categories import encode, used_categories, warn_if_rare
from ...data.constants import UUID
from ...data.counts import is_count_matrix, looks_like_reads
from ...data.modalities import require_fit
from .data_constants import _ADATA_MINIFY_TYPE_UNS_KEY

__all__ = [
    "_assign_adata_uuid",
    "_check_fragment_counts",
    "_check_if_view",
    "_check_mudata_fully_paired",
    "_check_nonnegative_integers",
    "_get_adata_minify_type",
    "_is_minified",
    "_make_column_categorical",
    "_set_data_in_registry",
    "_validate_adata_dataloader_input",
    "_verify_and_correct_data_format",
    "get_anndata_attribute",
    "registry_key_to_default_dtype",
    "scipy_to_torch_sparse",
]

_INTEGER_KEYS = {
    REGISTRY_KEYS.BATCH_KEY,
    REGISTRY_KEYS.LABELS_KEY,
    REGISTRY_KEYS.CAT_COVS_KEY,
    REGISTRY_KEYS.INDICES_KEY,
}


def registry_key_to_default_dtype(key: str) -> type:
    """int64 for codes, float32 for everything else."""
    return np.int64 if key in _INTEGER_KEYS else np.float32


def scipy_to_torch_sparse(x: Any) -> torch.Tensor:
    """A scipy CSR or CSC matrix as the torch tensor of the same layout; a ``TypeError`` for anything else."""
    if not sparse.issparse(x) or x.format not in ("csr", "csc"):
        raise TypeError(f"A CSR or CSC matrix is wanted, got a {type(x).__name__}.")
    make = torch.sparse_csr_tensor if x.format == "csr" else torch.sparse_csc_tensor
    indptr, indices, values = (torch.as_tensor(part) for part in (x.indptr, x.indices, x.data))
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Sparse CS. tensor support is in beta"
        )  # the layout is what was asked
        return make(indptr, indices, values, size=x.shape, check_invariants=False)


def get_anndata_attribute(adata: Any, attr_name: str, attr_key: str | None, mod_key: str | None = None) -> Any:
    """What lies at a place of an AnnData (or of one modality of a MuData); columns as ``(n, 1)``."""
    return anndata_array(adata if mod_key is None else adata.mod[mod_key], attr_name, attr_key)


def _set_data_in_registry(adata: AnnData, data: object, attr_name: str, attr_key: str | None) -> None:
    """Put data at a place of an AnnData."""
    if attr_key is None:
        setattr(adata, attr_name, data)
    elif attr_name in ("obs", "var"):
        getattr(adata, attr_name)[attr_key] = np.asarray(data).ravel()
    else:
        getattr(adata, attr_name)[attr_key] = data


def _verify_and_correct_data_format(adata: AnnData, attr_name: str, attr_key: str | None) -> None:
    """Put a dense array of another memory layout there as a copy, row by row."""
    put_row_major(adata, attr_name, attr_key)


def _make_column_categorical(
    df: pd.DataFrame, column_key: str, alternate_column_key: str, categorical_dtype: object = None
) -> np.ndarray:
    """Write a column's codes beside it; returns the categories, ``(c,)``."""
    where = f"adata.obs[{column_key!r}]"
    column = df[column_key]
    if categorical_dtype is None:
        mapping = used_categories(column, where)
    else:
        known = categorical_dtype.categories if isinstance(categorical_dtype, pd.CategoricalDtype) else None
        mapping = np.asarray(pd.CategoricalDtype(known).categories)
    codes_n = encode(column, mapping, where)
    warn_if_rare(codes_n, mapping, where)
    df[alternate_column_key] = codes_n
    return mapping


def _assign_adata_uuid(adata: Any, overwrite: bool = False) -> None:
    """Give an AnnData the mark of its identity."""
    if overwrite or UUID not in adata.uns:
        adata.uns[UUID] = str(uuid4())


def _check_nonnegative_integers(data: object, n_to_check: int = 20) -> bool:
    """Whether a matrix holds counts; all of it is looked at, whatever ``n_to_check`` says."""
    return is_count_matrix(data.to_numpy() if isinstance(data, pd.DataFrame) else data)


def _check_fragment_counts(data: object, n_to_check: int = 100) -> bool:
    """Whether a matrix holds fragments rather than reads."""
    return not looks_like_reads(data.to_numpy() if isinstance(data, pd.DataFrame) else data)


def _check_if_view(adata: Any, copy_if_view: bool = False) -> None:
    """Refuse a view with a ``ValueError``, or make it a copy of its own."""
    if not adata.is_view:
        return
    if not copy_if_view:
        raise ValueError("This AnnData is a view of another one. Please run `adata = adata.copy()`")
    adata._init_as_actual(adata.copy())


def _check_mudata_fully_paired(mdata: object) -> None:
    """Refuse a MuData of which a modality lacks cells."""
    require_fit(mdata, paired=True, no_views=False)


def _get_adata_minify_type(adata: AnnData) -> Any:
    """What kind of minified data this is, or None."""
    return adata.uns.get(_ADATA_MINIFY_TYPE_UNS_KEY)


def _is_minified(adata: object) -> bool:
    """Whether the data are minified."""
    return _get_adata_minify_type(adata) is not None


def _validate_adata_dataloader_input(model: object, adata: object = None, dataloader: object = None) -> None:
    """Refuse data and a loader at once, with a ``ValueError``."""
    if adata is not None and dataloader is not None:
        raise ValueError("Pass adata or dataloader, not both.")
