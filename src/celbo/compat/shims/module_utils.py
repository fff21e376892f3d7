"""``scvi.module._constants`` and ``scvi.module._utils``."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["MODULE_KEYS", "_MODULE_KEYS", "_move_data_to_device", "broadcast_labels", "masked_softmax"]


class _MODULE_KEYS(NamedTuple):
    X_KEY: str = "x"
    Z_KEY: str = "z"
    QZ_KEY: str = "qz"
    QZM_KEY: str = "qzm"
    QZV_KEY: str = "qzv"
    LIBRARY_KEY: str = "library"
    QL_KEY: str = "ql"
    BATCH_INDEX_KEY: str = "batch_index"
    Y_KEY: str = "y"
    CONT_COVS_KEY: str = "cont_covs"
    CAT_COVS_KEY: str = "cat_covs"
    SIZE_FACTOR_KEY: str = "size_factor"
    PX_KEY: str = "px"
    PL_KEY: str = "pl"
    PZ_KEY: str = "pz"
    KL_L_KEY: str = "kl_divergence_l"
    KL_Z_KEY: str = "kl_divergence_z"


MODULE_KEYS = _MODULE_KEYS()


def _move_data_to_device(batch: Any, device: torch.device) -> Any:
    """A minibatch, also nested, on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: _move_data_to_device(value, device) for key, value in batch.items()}
    if type(batch) in (list, tuple):
        return type(batch)(_move_data_to_device(value, device) for value in batch)
    return batch


def broadcast_labels(o: Tensor, n_broadcast: int = -1) -> tuple[Tensor, Tensor]:
    """Every observation under every label.

    Parameters
    ----------
    o
        ``(n, d)`` observations.
    n_broadcast
        Number of labels c.

    Returns
    -------
    One-hot labels ``(c * n, c)``, label by label, and the observations repeated ``(c * n, d)``.
    """
    n = o.shape[-2]
    labels_cc = torch.eye(n_broadcast, dtype=o.dtype, device=o.device)
    return labels_cc.repeat_interleave(n, 0), o.repeat(n_broadcast, *([1] * (o.ndim - 1)))


def masked_softmax(weights: Tensor, mask: Tensor, dim: int = -1, eps: float = 1e-30) -> Tensor:
    """Softmax over the entries where ``mask`` is not 0; the others are 0."""
    exped = torch.exp(weights - weights.amax(dim, keepdim=True)) * mask.to(weights.dtype)
    return exped / (exped.sum(dim, keepdim=True) + eps)
