r"""Marginal log-likelihood of a variational autoencoder by importance sampling.

.. math:: \log p(x_n) \approx \log \tfrac{1}{S} \sum_s
          \frac{p(x_n \mid z_s, \ell_s)\,p(z_s)\,p(\ell_s)}{q(z_s \mid x_n)\,q(\ell_s \mid x_n)},
          \qquad z_s, \ell_s \sim q

Dims: n cells, k latents, s samples.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..ops.random import generator_or
from .base import BaseModuleClass

__all__ = ["marginal_log_likelihood"]


def marginal_log_likelihood(
    module: BaseModuleClass,
    transformation: Callable[[Tensor], Tensor],
    tensors: Mapping[str, Tensor],
    n_mc_samples: int,
    n_mc_samples_per_pass: int,
    generator: torch.Generator | None = None,
    weigh_transformed: bool = False,
) -> Tensor:
    """Marginal log-likelihood of each cell, ``(n,)``, in nats; see :meth:`celbo.module.VAE.marginal_ll`.

    Parameters
    ----------
    module
        The autoencoder: encodes the minibatch, and decodes what is drawn.
    transformation
        From a draw of the latents' normal distribution to what the decoder takes: softmax for a logistic normal.
    tensors, n_mc_samples, n_mc_samples_per_pass, generator
        As there.
    weigh_transformed
        Weigh latents after the transformation, as scvi-tools' TOTALVI does. A logistic normal is normal before it, and
        is weighted there otherwise.
    """
    encoded = module.inference(**module._get_inference_input(tensors))
    done = range(0, n_mc_samples, n_mc_samples_per_pass)
    sizes = [min(n_mc_samples_per_pass, n_mc_samples - start) for start in done]
    options = (generator, weigh_transformed)
    parts = [_log_weights(module, transformation, tensors, encoded, size, *options) for size in sizes]
    return torch.cat(parts).logsumexp(0) - math.log(n_mc_samples)


def _log_weights(
    module: BaseModuleClass,
    transformation: Callable[[Tensor], Tensor],
    tensors: Mapping[str, Tensor],
    encoded: Mapping[str, Any],
    n_samples: int,
    generator: torch.Generator | None,
    weigh_transformed: bool,
) -> Tensor:
    """Log of the importance weights, ``(s, n)``."""
    qz, ql = encoded["qz"], encoded.get("ql")
    z_snk = _draw(qz, n_samples, generator)
    drawn = {**encoded, "z": transformation(z_snk)}
    if "library" in encoded:
        drawn["library"] = (
            encoded["library"].expand(n_samples, -1, -1) if ql is None else _draw(ql, n_samples, generator)
        )
    decoded = module.generative(**module._get_generative_input(tensors, drawn))
    data = {key: table.to(z_snk.device) for key, table in tensors.items()}
    log_weights_sn = module.log_likelihood(data, decoded) + _log_ratio(
        decoded["pz"], qz, drawn["z"] if weigh_transformed else z_snk
    )
    return log_weights_sn if ql is None else log_weights_sn + _log_ratio(decoded["pl"], ql, drawn["library"])


def _log_ratio(p: Distribution, q: Distribution, value: Tensor) -> Tensor:
    return _summed(p, value) - _summed(q, value)


def _summed(p: Distribution, value: Tensor) -> Tensor:
    """Log-probability of all latents of a cell; a mixture is a distribution over vectors already."""
    return p.log_prob(value) if p.event_shape else p.log_prob(value).sum(-1)


def _draw(q: Any, n_samples: int, generator: torch.Generator | None) -> Tensor:
    """``(s, *q.shape)`` samples of a normal distribution."""
    generator = generator_or(generator, q.loc.device)
    noise = torch.randn((n_samples, *q.loc.shape), dtype=q.loc.dtype, device=q.loc.device, generator=generator)
    return q.loc + q.scale * noise
