"""Dropout from a private generator."""

import torch
from torch import Tensor, nn

from ..ops.random import generator_for

__all__ = ["Dropout"]


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout` that draws from the generator of the running training; torch's own draws elsewhere.

    Torch's function takes no generator, so the mask is drawn here by the same operator: on the CPU the numbers are
    those of torch for the same seed.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x``, each entry dropped with probability ``p`` and the others divided by ``1 - p``; in training only."""
        generator = generator_for(x.device) if self.training and 0 < self.p < 1 else None
        if generator is None:
            return super().forward(x)
        kept = 1 - self.p
        mask = torch.empty_like(x).bernoulli_(kept, generator=generator).div_(kept)
        return x.mul_(mask) if self.inplace else x * mask
