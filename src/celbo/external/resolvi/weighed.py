r"""Draws of latents in proportion to how well they explain a cell's counts.

.. math:: w_{ns} \propto \frac{p(x_n \mid z_{ns})\, p(z_{ns})}{q(z_{ns} \mid x_n)}, \qquad z_{ns} \sim q(z \mid x_n)

with the counts :math:`x_n` of the cell as a mixture of its own, its neighbours' and background.

Dims: n cells, s draws.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Poisson

from ...core import REGISTRY_KEYS
from ...module.base import BaseModuleClass
from ...ops.draws import sample
from ...posterior.passes import decode, encode
from .module import RESOLVAE

__all__ = ["BestOf", "weighed_draw"]


def weighed_draw(module: RESOLVAE, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], Tensor]:
    """What is encoded with one draw of the latents, and the log of its weight, ``(n,)``.

    Parameters
    ----------
    module, tensors
        The module, and a minibatch with the neighbours' counts.
    """
    encoded = encode(module, tensors)
    decoded = decode(module, tensors, encoded)
    counts, z = tensors[REGISTRY_KEYS.X_KEY], encoded["z"]
    mean = module.parts(tensors, encoded, decoded).mean
    log_p_n = Poisson(mean + 1e-9, validate_args=False).log_prob(counts).sum(-1) + decoded["pz"].log_prob(z)
    return encoded, log_p_n - encoded["qz"].log_prob(z).sum(-1)


class BestOf(BaseModuleClass):
    """A RESOLVAE whose latents are one of several draws, taken in proportion to their weights.

    Parameters
    ----------
    whole
        The module.
    n_draws
        Draws to take from.
    """

    def __init__(self, whole: RESOLVAE, n_draws: int) -> None:
        super().__init__()
        self.whole, self.n_draws = whole, n_draws

    def _get_inference_input(self, tensors: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"tensors": tensors}

    def _get_generative_input(
        self, tensors: Mapping[str, Any], inference_outputs: Mapping[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        return self.whole._get_generative_input(tensors, inference_outputs)

    def inference(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """What is encoded, with the draw that was taken."""
        draws, logs = zip(*(weighed_draw(self.whole, tensors) for _ in range(self.n_draws)), strict=True)
        chosen_n = sample(Categorical(logits=torch.stack(logs, -1), validate_args=False))
        z_snk = torch.stack([encoded["z"] for encoded in draws])
        return {**draws[0], "z": z_snk[chosen_n, torch.arange(len(chosen_n), device=chosen_n.device)]}

    def generative(self, **latents: Any) -> dict[str, Any]:
        """See :meth:`RESOLVAE.generative`."""
        return self.whole.generative(**latents)
