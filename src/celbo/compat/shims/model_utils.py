"""``scvi.model._utils``: epochs, devices, batches, library sizes, raw counts."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ...core import REGISTRY_KEYS
from ...data import AnnDataManager
from ...data.library import library_size_moments
from ...model.base.archives.archive import pick_device
from ...posterior.names import batch_codes
from ...posterior.raw_counts import group_means
from ...train.plans.schedules import max_epochs_classic as get_max_epochs_heuristic
from ...utils.docstrings import devices_dsp

__all__ = [
    "_get_batch_code_from_category",
    "_get_var_names_from_manager",
    "_init_library_size",
    "cite_seq_raw_counts_properties",
    "devices_dsp",
    "get_max_epochs_heuristic",
    "parse_device_args",
    "scatac_raw_counts_properties",
    "scrna_raw_counts_properties",
    "use_distributed_sampler",
]


def use_distributed_sampler(strategy: object) -> bool:
    """Whether a strategy runs several processes that must share the cells."""
    return "ddp" in (strategy if isinstance(strategy, str) else type(strategy).__name__).lower()


def parse_device_args(
    accelerator: str = "auto",
    devices: int | list[int] | str = "auto",
    return_device: Literal["torch", "jax"] | None = None,
    validate_single_device: bool = False,
) -> Any:
    """Accelerator and devices as a trainer takes them and, with ``return_device="torch"``, the device.

    Raises
    ------
    ValueError
        More than one device where a single one is wanted.
    """
    if return_device == "jax":
        raise NotImplementedError("celbo computes on torch devices: pass return_device='torch'.")
    many = isinstance(devices, list | tuple) and len(devices) > 1
    if validate_single_device and (many or devices == -1):
        raise ValueError(f"One device is wanted, got devices={devices!r}.")
    index = devices[0] if isinstance(devices, list | tuple) else "auto" if devices == -1 else devices
    device = pick_device(accelerator, index)
    count = 1 if device.type == "cpu" and devices == "auto" else [device.index or 0] if devices == "auto" else devices
    return (device.type, count) if return_device is None else (device.type, count, device)


def _get_batch_code_from_category(adata_manager: AnnDataManager, category: object) -> list[int | None]:
    """Codes of batches by their names; None stays None.

    Raises
    ------
    ValueError
        A name that is no batch.
    """
    mapping = adata_manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
    return batch_codes(category, mapping)


def _init_library_size(adata_manager: AnnDataManager, n_batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the log total counts in each batch, each ``(1, b)``."""
    batch_n = np.asarray(adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY))
    return library_size_moments(adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY), batch_n, n_batch)


def _get_var_names_from_manager(adata_manager: AnnDataManager, registry_key: str = REGISTRY_KEYS.X_KEY) -> np.ndarray:
    """Names of the variables of a field."""
    return np.asarray(adata_manager.get_state_registry(registry_key)["column_names"])


def scrna_raw_counts_properties(
    adata_manager: AnnDataManager,
    idx1: Sequence[int] | np.ndarray,
    idx2: Sequence[int] | np.ndarray,
    var_idx: Sequence[int] | np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Mean, share of nonzeros and depth-normalized mean of every gene in two groups of cells, each ``(g,)``."""
    x = adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
    groups = [_rows(idx, x.shape[0]) for idx in (idx1, idx2)]
    means = group_means(x, groups, adata_manager.get_column_indexer(REGISTRY_KEYS.X_KEY))
    chosen: Any = slice(None) if var_idx is None else np.asarray(var_idx)
    columns = {"raw_mean": means.mean, "non_zeros_proportion": means.nonzero, "raw_normalized_mean": means.normalized}
    return {f"{name}{i + 1}": values_mg[i][chosen] for name, values_mg in columns.items() for i in (0, 1)}


def scatac_raw_counts_properties(
    adata_manager: AnnDataManager,
    idx1: Sequence[int] | np.ndarray,
    idx2: Sequence[int] | np.ndarray,
    var_idx: Sequence[int] | np.ndarray | None = None,
    registry_key: str = REGISTRY_KEYS.X_KEY,
) -> dict[str, np.ndarray]:
    """Share of cells in which each region is open, in two groups, and the second minus the first, each ``(r,)``."""
    x = adata_manager.get_from_registry(registry_key)
    groups = [_rows(idx, x.shape[0]) for idx in (idx1, idx2)]
    open_mr = group_means(x, groups, adata_manager.get_column_indexer(registry_key)).nonzero
    chosen: Any = slice(None) if var_idx is None else np.asarray(var_idx)
    first, second = open_mr[0][chosen], open_mr[1][chosen]
    return {"emp_mean1": first, "emp_mean2": second, "emp_effect": first - second}


def cite_seq_raw_counts_properties(
    adata_manager: AnnDataManager,
    idx1: Sequence[int] | np.ndarray,
    idx2: Sequence[int] | np.ndarray,
    use_field: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """As :func:`scrna_raw_counts_properties`, genes (``"rna"``) first, then proteins (``"protein"``).

    There is no normalized mean of proteins: it is NaN.
    """
    fields = ("rna", "protein") if use_field is None else use_field
    parts = [scrna_raw_counts_properties(adata_manager, idx1, idx2)] if "rna" in fields else []
    if "protein" in fields:
        key = REGISTRY_KEYS.PROTEIN_EXP_KEY
        x = np.asarray(adata_manager.get_from_registry(key))
        means = group_means(x, [_rows(i, len(x)) for i in (idx1, idx2)], adata_manager.get_column_indexer(key))
        columns = {"raw_mean": means.mean, "non_zeros_proportion": means.nonzero}
        columns["raw_normalized_mean"] = np.full_like(means.mean, np.nan)
        parts.append({f"{name}{i + 1}": values_mp[i] for name, values_mp in columns.items() for i in (0, 1)})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _rows(chosen: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    array = np.asarray(chosen)
    return np.flatnonzero(array) if array.dtype == bool and len(array) == n else array.astype(np.int64)
