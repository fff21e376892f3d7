r"""What a deconvolution of spots says: proportions of cell types, their states, their expression.

Dims: n spots, g genes, k latents, c cell types, t = c + extra types, m states of a type in a spot, f fine labels.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import REGISTRY_KEYS
from ..module.deconvolution.module import MRDeconv
from ..module.vaec import VAEC
from ..ops.draws import sample
from .cell_types import fine_probabilities
from .passes import Batches, Rows, evaluating, on_device

__all__ = ["fine_proportions", "spot_gamma", "spot_latents", "spot_proportions", "type_profile"]


def spot_proportions(module: MRDeconv, batches: Batches, *, n_cells: int | None = None) -> np.ndarray:
    """Proportions of the types, extra ones last, ``(n, t)``; rows sum to 1.

    Parameters
    ----------
    module
        Trained.
    batches
        Minibatches.
    n_cells
        Number of spots, if known: the answer is then allocated once.
    """
    rows = Rows(n_cells)
    with evaluating(module):
        for _, decoded in _passes(module, batches):
            rows.append(decoded["v"][0])
    return rows.array()


def spot_gamma(module: MRDeconv, batches: Batches, *, n_cells: int | None = None) -> np.ndarray:
    """Mean state of each type in each spot, ``(n, k, c)``: over its states, weighed by their shares.

    Parameters are those of :func:`spot_proportions`.
    """
    rows = Rows(n_cells)
    with evaluating(module):
        for _, decoded in _passes(module, batches):
            share_mcn = decoded["proportion_modes"][0].transpose(-1, -2)
            gamma_kcn = (decoded["gamma"][0] * share_mcn.unsqueeze(1)).sum(0)
            rows.append(gamma_kcn.permute(2, 0, 1))
    return rows.array()


def type_profile(
    module: MRDeconv, batches: Batches, label: int, *, as_counts: bool = False, n_cells: int | None = None
) -> np.ndarray:
    """Expression of one type in the state that it has in each spot, ``(n, g)``.

    Parameters
    ----------
    module, batches, n_cells
        As in :func:`spot_proportions`.
    label
        Code of the type.
    as_counts
        The counts of the spots times the share of their expectation that comes from the type, instead of the shares of
        the genes in the type.
    """
    rows = Rows(n_cells)
    with evaluating(module):
        for tensors, decoded in _passes(module, batches):
            profile_ng = decoded["px_mu"][0, :, label]
            if as_counts:
                part_ng = decoded["v"][0, :, label, None] * profile_ng
                profile_ng = tensors[REGISTRY_KEYS.X_KEY] * part_ng / decoded["px_scale"][0]
            rows.append(profile_ng)
    return rows.array()


def fine_proportions(module: MRDeconv, batches: Batches, sc_module: VAEC, *, n_cells: int | None = None) -> np.ndarray:
    """Probability of each fine label for each type in each spot, ``(n, c, f)``, averaged over the type's states.

    Parameters
    ----------
    module, batches, n_cells
        As in :func:`spot_proportions`.
    sc_module
        Conditional autoencoder with a classifier of fine labels.
    """
    rows = Rows(n_cells)
    with evaluating(module), evaluating(sc_module):
        for _, decoded in _passes(module, batches):
            gamma_mnck = decoded["gamma"][0].permute(0, 3, 2, 1).to(sc_module.device)
            m, n, c, k = gamma_mnck.shape
            label = torch.arange(c, device=gamma_mnck.device).repeat(m * n)[:, None]
            fine_mncf = fine_probabilities(sc_module, gamma_mnck.reshape(-1, k), label).view(m, n, c, -1)
            rows.append((fine_mncf * decoded["proportion_modes"][0].to(fine_mncf).unsqueeze(-1)).sum(0))
    return rows.array()


def spot_latents(
    module: MRDeconv, batches: Batches, *, draw: bool = False, n_cells: int | None = None, seed: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (or a draw) and variance of the latents between counts and networks, each ``(n, k)``.

    Parameters
    ----------
    module, batches, n_cells
        As in :func:`spot_proportions`; the module has such latents.
    draw
        Give a draw from the posterior instead of its mean.
    seed
        Of the draws, see :func:`~celbo.posterior.passes.evaluating`.
    """
    first, variance = Rows(n_cells), Rows(n_cells)
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            qz = module.inference(**module._get_inference_input(tensors))["qz"]
            first.append((sample(qz) if draw else qz.loc)[0])
            variance.append(qz.scale[0].square())
    return first.array(), variance.array()


def _passes(module: MRDeconv, batches: Batches) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
    for tensors in on_device(batches, module):
        yield tensors, module(tensors, compute_loss=False)[1]
