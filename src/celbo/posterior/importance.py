r"""Importance weights of posterior samples, which make up for a posterior that is only approximate.

Samples come from the mixture of the cells' approximate posteriors; the weights turn them into samples of the mixture
of the exact ones,

.. math:: w(z_i) \propto \frac{\sum_a p(x_a \mid z_i)\,p(z_i) / p(x_a)}{\sum_a q(z_i \mid x_a)},

with :math:`p(x_a)` from importance sampling of its own and anchors :math:`a` drawn from the group.

Dims: i samples, a anchors, n cells, k latents.
Reference: Boyeau et al., PNAS 2023, doi:10.1073/pnas.2209124120.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from ..core import REGISTRY_KEYS, settings
from ..distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from ..module.base import BaseModuleClass
from ..ops.crossed import nb_log_prob_sums, poisson_log_prob_sums
from ..ops.random import fresh_seed
from .embedding import is_logistic_normal
from .likelihood import MarginalModule
from .passes import Batches, LoaderOf, Minibatch, Rows, decode, encode, evaluating, on_device, size_of

__all__ = ["importance_pool", "importance_weights", "some_cells", "weights_from_logs"]

_ROWS = 2**11
"""Samples decoded at once for one anchor."""


def weights_from_logs(
    log_prior_i: Tensor, log_px_ai: Tensor, log_evidence_a: Tensor, log_q_ai: Tensor, truncation: bool = False
) -> Tensor:
    r"""Normalized weights from log-densities.

    Parameters
    ----------
    log_prior_i
        :math:`\log p(z_i)`, ``(i,)``.
    log_px_ai, log_q_ai
        :math:`\log p(x_a \mid z_i)` and :math:`\log q(z_i \mid x_a)`, ``(a, i)``.
    log_evidence_a
        :math:`\log p(x_a)`, ``(a,)``.
    truncation
        Cut weights at :math:`\bar w \sqrt{I}` (truncated importance sampling), which bounds their variance.

    Returns
    -------
    ``(i,)`` float64, summing to 1.
    """
    log_target = log_prior_i.double() + (log_px_ai.double() - log_evidence_a.double()[:, None]).logsumexp(0)
    log_w = log_target - log_q_ai.double().logsumexp(0)
    if truncation:
        n = len(log_w)
        log_w = log_w.clamp(max=float(log_w.logsumexp(0)) - math.log(n) + math.log(n) / 2)
    return (log_w - log_w.logsumexp(0)).exp()


def importance_weights(
    module: BaseModuleClass,
    anchors: Batches,
    z_ik: Tensor,
    *,
    truncation: bool = False,
    n_mc_samples: int = 500,
    n_mc_samples_per_pass: int = 250,
    seed: int | None = None,
) -> np.ndarray:
    """Weights of samples of the latents.

    Parameters
    ----------
    module
        Has normal latents and a method ``marginal_ll``.
    anchors
        Minibatches of the cells that stand for the group.
    z_ik
        Samples from the group's posteriors, ``(i, k)``.
    truncation
        See :func:`weights_from_logs`.
    n_mc_samples, n_mc_samples_per_pass
        See :func:`~celbo.posterior.marginal_ll`.
    seed
        Seed of the anchors' marginal likelihood.

    Returns
    -------
    ``(i,)`` float64, summing to 1.

    Raises
    ------
    ValueError
        For logistic-normal latents, which have no density here.
    NotImplementedError
        When the module has no ``marginal_ll``.

    Notes
    -----
    Every sample is decoded as if it were each anchor (its library, its covariates), once for anchors of the same
    covariates, and compared with the counts of each: time is anchors times samples.
    """
    with evaluating(module, seed):
        return _weights(module, anchors, z_ik, truncation, n_mc_samples, n_mc_samples_per_pass)


def _weights(
    module: BaseModuleClass,
    anchors: Batches,
    z_ik: Tensor,
    truncation: bool,
    n_samples: int,
    per_pass: int,
) -> np.ndarray:
    evidence_of = _require_densities(module)
    log_px, log_q, log_evidence = Rows(None), Rows(None), Rows(None)
    for tensors in on_device(anchors, module):
        log_evidence.append(
            evidence_of.marginal_ll(tensors, n_mc_samples=n_samples, n_mc_samples_per_pass=min(n_samples, per_pass))
        )
        encoded = encode(module, tensors)
        for a in range(size_of(tensors)):
            qz = Normal(encoded["qz"].loc[a], encoded["qz"].scale[a])
            log_q.append(qz.log_prob(z_ik).sum(-1)[None])
        log_px.append(_log_likelihoods(module, tensors, encoded, z_ik))
    log_prior_i = Normal(0.0, 1.0).log_prob(z_ik).sum(-1).cpu()
    log_px_ai, log_evidence_a, log_q_ai = (torch.from_numpy(rows.array()) for rows in (log_px, log_evidence, log_q))
    return weights_from_logs(log_prior_i, log_px_ai, log_evidence_a, log_q_ai, truncation).numpy()


def _log_likelihoods(module: BaseModuleClass, tensors: Minibatch, encoded: dict[str, Any], z_ik: Tensor) -> Tensor:
    """Log-likelihood of each anchor's data at every sample, ``(a, i)``.

    Anchors whose counts have means that differ by the library alone share the samples' decodings.
    """
    n = size_of(tensors)
    log_px_ai = torch.empty(n, len(z_ik), dtype=torch.float64)
    own = _counts_of(module, tensors, encoded)
    for anchors in torch.arange(n).split(1) if own is None else _alike(tensors):
        for rows in _parts(len(z_ik)):
            sums = None
            if own is not None and len(anchors) > 1:
                _, decoded = _as_anchor(module, tensors, encoded, int(anchors[0]), z_ik[rows])
                sums = _sums(decoded["px"], tensors[REGISTRY_KEYS.X_KEY][anchors], own.log_library[anchors, 0])
            if sums is None:
                each = (_as_anchor(module, tensors, encoded, int(anchor), z_ik[rows]) for anchor in anchors)
                sums = torch.stack([module.log_likelihood(repeated, decoded) for repeated, decoded in each])
            log_px_ai[anchors, rows] = sums.double().cpu()
    return log_px_ai


def _as_anchor(
    module: BaseModuleClass, tensors: Minibatch, encoded: dict[str, Any], anchor: int, z_ik: Tensor
) -> tuple[Minibatch, dict[str, Any]]:
    """An anchor's data, once for each sample, and what the samples are decoded to with its library and covariates."""
    one = slice(anchor, anchor + 1)
    repeated = {key: value[one].expand(len(z_ik), *value.shape[1:]) for key, value in tensors.items()}
    drawn = {"z": z_ik}
    if "library" in encoded:
        drawn["library"] = encoded["library"][one].expand(len(z_ik), -1)
    return repeated, decode(module, repeated, drawn)


def _alike(tensors: Minibatch) -> Iterator[Tensor]:
    """Numbers of the anchors that have the same covariates, for each combination of these."""
    own = (REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.SIZE_FACTOR_KEY, REGISTRY_KEYS.INDICES_KEY)
    shared = [value.flatten(1).double() for key, value in tensors.items() if key not in own]
    if not shared:
        return iter([torch.arange(size_of(tensors))])
    _, group_a = torch.cat(shared, 1).unique(dim=0, return_inverse=True)
    return (torch.nonzero(group_a == group)[:, 0] for group in range(int(group_a.max()) + 1))


def _counts_of(
    module: BaseModuleClass, tensors: Minibatch, encoded: Mapping[str, Any]
) -> NegativeBinomial | Poisson | None:
    """The distribution of all the module's data, where these are counts about shares times a library."""
    if type(module).log_likelihood is not BaseModuleClass.log_likelihood:
        return None
    px = decode(module, tensors, encoded)["px"]  # which that likelihood is of
    if not isinstance(px, NegativeBinomial | Poisson) or px.scale_logits is None:
        return None
    return px if px.scale_logits.dim() == 2 else None


def _sums(px: NegativeBinomial | Poisson, x_ag: Tensor, log_library_a: Tensor) -> Tensor | None:
    """Log-likelihoods ``(a, i)``; None where each sample has dispersions of its own."""
    if isinstance(px, Poisson):
        return poisson_log_prob_sums(x_ag, log_library_a, px.scale_logits)
    theta = px.log_theta.reshape(-1, x_ag.shape[1])
    if not bool((theta == theta[:1]).all()):
        return None
    zi_logits = px.zi_logits if isinstance(px, ZeroInflatedNegativeBinomial) else None
    return nb_log_prob_sums(x_ag, log_library_a, px.scale_logits, theta[0], zi_logits)


def _parts(n: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS) for start in range(0, n, _ROWS))


def _require_densities(module: BaseModuleClass) -> MarginalModule:
    if is_logistic_normal(module):
        raise ValueError(
            "weights='importance' needs the density of the latents, which a logistic normal "
            "(latent_distribution='ln') does not have here: use weights='uniform'."
        )
    if not isinstance(module, MarginalModule):
        raise NotImplementedError(f"{type(module).__name__} has no marginal_ll, which importance weights need.")
    return module


def some_cells(cells_n: np.ndarray, limit: int, seed: int | None = None) -> np.ndarray:
    """At most ``limit`` of the cells, drawn without replacement; see :func:`~celbo.posterior.passes.evaluating`."""
    rng = np.random.default_rng(fresh_seed(settings.seed if seed is None else seed))
    return _some(cells_n, limit, rng)


def _some(cells_n: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(cells_n, limit, replace=False) if len(cells_n) > limit else cells_n


def importance_pool(
    module: BaseModuleClass,
    loader_of: LoaderOf,
    cells_n: np.ndarray,
    n_rows: int,
    rng: np.random.Generator,
    *,
    max_cells: int,
    truncation: bool,
    n_mc_samples: int,
    n_mc_samples_per_pass: int,
) -> tuple[np.ndarray, Tensor]:
    """Draw latents of a group in proportion to their importance weights; inside ``evaluating``.

    Parameters
    ----------
    module, truncation, n_mc_samples, n_mc_samples_per_pass
        See :func:`importance_weights`.
    loader_of, cells_n, n_rows
        See :func:`~celbo.posterior.sampled`. The pool has ``n_rows // n + 1`` samples of each cell, or one
        of each of ``n_rows`` cells where there are more cells than that.
    rng
        Source of randomness.
    max_cells
        Anchors at most.

    Returns
    -------
    Cell ``(n_rows,)`` and latents ``(n_rows, k)`` of each draw.

    Raises
    ------
    ValueError
        There are no cells, or the latents have no density here (logistic normal).
    """
    if not len(cells_n):
        raise ValueError("There are no cells to draw from.")
    _require_densities(module)
    pool = _some(cells_n, n_rows, rng)
    n_samples = 1 if len(cells_n) > n_rows else n_rows // len(cells_n) + 1
    latents = Rows(len(pool), axis=1)
    for tensors in on_device(loader_of(pool), module):
        z = encode(module, tensors, n_samples)["z"]
        latents.append(z.reshape(n_samples, -1, z.shape[-1]))
    z_ik = torch.from_numpy(latents.array()).flatten(0, 1).to(module.device)
    anchors = loader_of(_some(cells_n, max_cells, rng))
    weights_i = _weights(module, anchors, z_ik, truncation, n_mc_samples, n_mc_samples_per_pass)
    chosen = rng.choice(len(weights_i), n_rows, p=weights_i / weights_i.sum())
    return np.tile(pool, n_samples)[chosen], z_ik[torch.from_numpy(chosen).to(z_ik.device)]
