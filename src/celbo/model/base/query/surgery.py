r"""Architecture surgery (scArches): a trained module that takes cells of new batches, and what of it may move.

A new category needs a new column in every linear layer that sees it (or a new row of an embedding),

.. math:: W' = [W_x, W_{c_1}, \dots, W_{c_m}, \underbrace{\bar W, \dots}_{\text{new}}, \dots],
          \qquad \bar W = \tfrac{1}{m} \sum_i W_{c_i},

set into the block of its own covariate, and starting at the mean of the known categories. Two rules say what training
on a query may move: *what is new moves; of what was learnt only what the options free*. So a reference cell, whose
categories are all known, keeps its latents to the last bit unless an option frees a part of the encoder.

Reference: Lotfollahi et al., Nature Biotechnology 2022 (:cite:p:`Lotfollahi21`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ....core.rules import rules
from ....nn import FCLayers

__all__ = ["Freezing", "block_free", "covariates_of", "extended_state", "frees_encoder", "operate"]

Free = bool | Tensor
"""What of a parameter may move: all, nothing, or the entries where a mask that broadcasts over it is true."""

_LIBRARY, _CLASSIFIER = "l_encoder", "classifier"
_ENCODERS, _DECODERS = ("z_encoder", "encoder", "d_encoder"), ("decoder", "z_decoder")
_OF_MODALITIES = ("l_encoder", "z_encoder", "z_decoder")
"""Networks of which a module of several modalities has one each: ``z_encoder_expression``, ..."""
_FIRST_LINEAR = ".fc_layers.Layer 0.0."


@dataclass(frozen=True)
class Freezing:
    """Options of surgery; see :meth:`celbo.model.base.ArchesMixin.load_query_data`."""

    unfrozen: bool = False
    freeze_dropout: bool = False
    freeze_expression: bool = True
    freeze_decoder_first_layer: bool = True
    freeze_batchnorm_encoder: bool = True
    freeze_batchnorm_decoder: bool = False
    freeze_classifier: bool = True


# -- growing -----------------------------------------------------------------------------------------------------------


def covariates_of(module: nn.Module) -> dict[str, list[int]]:
    """Columns that categorical covariates take in each weight, in their order: ``{name of the weight: widths}``."""
    return {
        f"{path}.fc_layers.Layer {i}.0.weight": layers.n_cat_list if layers.inject_into_layer(i) else []
        for path, layers in module.named_modules(remove_duplicate=False)  # a prior may share the encoder
        if isinstance(layers, FCLayers)
        for i in range(len(layers.fc_layers))
    }


def extended_state(
    old: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
    old_widths: Mapping[str, list[int]],
    fresh_widths: Mapping[str, list[int]],
    buffers: frozenset[str] = frozenset(),
    of_cells: frozenset[str] = frozenset(),
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of a reference, extended to the shapes of a module with more categories.

    Parameters
    ----------
    old, fresh
        ``state_dict`` of the reference, and of the new module.
    old_widths, fresh_widths
        :func:`covariates_of` both modules.
    buffers
        Names whose new entries are taken from ``fresh`` (figures of the query's own data), not from the mean.
    of_cells
        Names with an entry for each cell: those of the query's are all new, as in ``fresh``.

    Returns
    -------
    The new state; and for each name that grew a mask of its new entries that broadcasts over it.

    Raises
    ------
    ValueError
        A tensor that only one of the two has, or whose shape differs by more than new categories.
    """
    if old.keys() != fresh.keys():
        odd = sorted(old.keys() ^ fresh.keys())
        raise ValueError(f"The reference has other weights than this model: {', '.join(odd[:5])}.")
    state, new = {}, {}
    for name, tensor in old.items():
        if name in of_cells:
            state[name], new[name] = fresh[name], torch.ones(1, dtype=torch.bool)
        elif tensor.shape == fresh[name].shape:
            state[name] = tensor
        elif name in fresh_widths:
            state[name], new[name] = _with_columns(name, tensor, fresh[name], old_widths[name], fresh_widths[name])
        else:
            state[name], new[name] = _with_entries(name, tensor, fresh[name], from_fresh=name in buffers)
    return state, new


def _with_columns(
    name: str, old_hi: Tensor, fresh_hi: Tensor, old_widths: list[int], fresh_widths: list[int]
) -> tuple[Tensor, Tensor]:
    """New columns in the block of each covariate, and a mask ``(1, i)`` of them."""
    n_dense = old_hi.shape[1] - sum(old_widths)
    blocks = list(old_hi.split([n_dense, *old_widths], dim=1))
    if n_dense != fresh_hi.shape[1] - sum(fresh_widths) or any(map(int.__gt__, old_widths, fresh_widths)):
        raise ValueError(_cannot_extend(name, old_hi, fresh_hi))
    grown, is_new = [blocks[0]], [False] * n_dense
    for block_hc, width in zip(blocks[1:], fresh_widths, strict=True):
        # One category alone has no column, which is the same as a column of zeros: so it stays once there are others.
        known_hc = block_hc if block_hc.shape[1] or not width else old_hi.new_zeros(len(old_hi), 1)
        n_new = width - known_hc.shape[1]
        grown += [known_hc, known_hc.mean(1, keepdim=True).expand(-1, n_new)] if n_new else [known_hc]
        is_new += [False] * known_hc.shape[1] + [True] * n_new
    return torch.cat(grown, dim=1), torch.tensor([is_new], device=old_hi.device)


def _with_entries(name: str, old: Tensor, fresh: Tensor, from_fresh: bool) -> tuple[Tensor, Tensor]:
    """New entries behind the old along the one axis that grew, and a mask of them along it."""
    grew = [axis for axis in range(old.dim()) if old.dim() == fresh.dim() and old.shape[axis] != fresh.shape[axis]]
    if len(grew) != 1 or old.shape[grew[0]] > fresh.shape[grew[0]]:
        raise ValueError(_cannot_extend(name, old, fresh))
    axis = grew[0]
    n_old, n_all = old.shape[axis], fresh.shape[axis]
    added = fresh.narrow(axis, n_old, n_all - n_old)
    if not from_fresh:
        added = old.mean(axis, keepdim=True).expand_as(added)
    shape = [n_all if i == axis else 1 for i in range(old.dim())]
    is_new = (torch.arange(n_all, device=old.device) >= n_old).reshape(shape)
    return torch.cat([old, added.to(old)], dim=axis), is_new


def _cannot_extend(name: str, old: Tensor, fresh: Tensor) -> str:
    return (
        f"{name} is {tuple(old.shape)} in the reference and {tuple(fresh.shape)} here, which new categories alone do "
        "not explain: the query must have the genes and the covariates that the reference was trained with."
    )


# -- freezing ----------------------------------------------------------------------------------------------------------


def _network(name: str) -> str:
    """Which network a parameter is of, whatever the modality."""
    network = name.partition(".")[0]
    return next((one for one in _OF_MODALITIES if network.startswith(f"{one}_")), network)


def block_free(name: str, is_batch_norm: bool, options: Freezing) -> bool:
    """Whether the old entries of a parameter may move.

    Parameters
    ----------
    name
        In the module's ``state_dict``.
    is_batch_norm
        Whether it is scale or shift of a batch normalization.
    options
        What is to be frozen.
    """
    network = _network(name)
    if options.unfrozen or network == _LIBRARY:
        return True
    if network == _CLASSIFIER:
        return not options.freeze_classifier
    if is_batch_norm:
        frozen = options.freeze_batchnorm_encoder if "encoder" in network else options.freeze_batchnorm_decoder
        return not frozen
    if _FIRST_LINEAR in name:
        return (network in _ENCODERS and not options.freeze_expression) or (
            network in _DECODERS and not options.freeze_decoder_first_layer
        )
    return False


def operate(module: nn.Module, new: Mapping[str, Tensor], options: Freezing) -> dict[str, Free]:
    """Freeze a module but for what is new and what the options free.

    Parameters
    ----------
    module
        Module with the extended weights; changed in place.
    new
        Masks of the new entries, from :func:`extended_state`.
    options
        What is to be frozen.

    Returns
    -------
    What may move, by name of the parameter.
    """
    _hold_batch_norms(module, options)
    norms = {path for path, part in module.named_modules() if isinstance(part, nn.BatchNorm1d)}
    free: dict[str, Free] = {}
    for name, parameter in module.named_parameters():
        # A parameter that was frozen in the reference too (a prior) is one by design.
        whole = parameter.requires_grad and block_free(name, name.rpartition(".")[0] in norms, options)
        free[name] = True if whole else new.get(name, False)
        masked = _masked(name, free[name])
        parameter.requires_grad_(masked is not False)
        if isinstance(masked, Tensor):
            parameter.register_hook(_Only(masked))
    if options.freeze_dropout:
        for path, part in module.named_modules():
            if isinstance(part, nn.Dropout) and not path.startswith(_LIBRARY):
                part.p = 0.0
    return free


def _masked(name: str, free: Free) -> Free:
    """What of a parameter has gradients: what may move, and by scvi-tools' rules all of first layers, as zeros."""
    first = _FIRST_LINEAR in name and _network(name) in _ENCODERS + _DECODERS
    return torch.zeros(1, dtype=torch.bool) if free is False and first and rules().zero_gradients else free


def frees_encoder(free: Mapping[str, Free], sees_covariates: bool) -> bool:
    """Whether anything that the latents depend on may move: the encoder, or an embedding that it sees.

    Parameters
    ----------
    free
        From :func:`operate`.
    sees_covariates
        Whether the encoder sees the covariates.
    """
    seen = ("z_encoder", "encoder", "qu", "qz", *(["_embeddings_dict"] if sees_covariates else []))
    return any(_network(name) in seen and part is not False for name, part in free.items())


class _Only:
    """Gradient hook that sets all entries to zero but those where ``free`` is true."""

    def __init__(self, free: Any) -> None:
        self.free: Tensor = free

    def __call__(self, grad: Tensor) -> Tensor:
        if self.free.device != grad.device:
            self.free = self.free.to(grad.device)
        return grad.masked_fill(~self.free, 0.0)


class _HeldBatchNorm1d(nn.BatchNorm1d):
    """Batch normalization with the reference's mean and variance, in training too: they neither move nor vary."""

    @classmethod
    def of(cls, layer: nn.BatchNorm1d) -> "_HeldBatchNorm1d":
        held = cls(layer.num_features, eps=layer.eps, momentum=0.0)
        held.load_state_dict(layer.state_dict())
        return held.to(layer.weight.device).eval()

    def train(self, mode: bool = True) -> "_HeldBatchNorm1d":
        return super().train(False)


def _hold_batch_norms(module: nn.Module, options: Freezing) -> None:
    for path, part in list(module.named_modules()):
        if isinstance(part, nn.BatchNorm1d) and not block_free(f"{path}.weight", True, options):
            parent, _, child = path.rpartition(".")
            setattr(module.get_submodule(parent), child, _HeldBatchNorm1d.of(part))
