"""Blocks that networks of MRVI are made of: residual ones, a normal distribution, normalization by sample.

Layers of at most 128 units are torch's own: for minibatches their product takes two thirds of oneDNN's time.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from ...ops.draws import randn

__all__ = ["LAYOUTS", "MLP", "Activation", "ConditionalNorm", "Layout", "NormalOutput", "ResnetBlock"]

Activation = Callable[[Tensor], Tensor]

_WIDTH = 128
"""Units inside each residual block, whatever is asked for around it."""

_SCALE_EPS = 1e-5


class Layout(NamedTuple):
    """What sets the networks of one version of scvi-tools apart.

    Attributes
    ----------
    eps
        What a layer normalization adds to the variance.
    gelu
        The activation.
    folded
        Whether queries, keys and values are each one layer, the output has half the width, and latents of z as many as
        of u go into z as they are.
    """

    eps: float
    gelu: Activation
    folded: bool


LAYOUTS = {"1.4.2": Layout(1e-5, F.gelu, False), "1.4.3": Layout(1e-6, partial(F.gelu, approximate="tanh"), True)}
"""First version of scvi-tools -> its networks."""


class ResnetBlock(nn.Module):
    """Two layers with a skip past the first, ``(..., i)`` to ``(..., o)``.

    Parameters
    ----------
    n_in, n_out
        Sizes of what comes and of what is given.
    eps, activation
        As in :class:`Layout`, the latter as ``gelu``.
    width
        Units between the two layers.
    """

    def __init__(self, n_in: int, n_out: int, eps: float, activation: Activation, width: int = _WIDTH) -> None:
        super().__init__()
        self.activation = activation
        self.fc1 = nn.Linear(n_in, width)
        self.layer_norm1 = nn.LayerNorm(width, eps)
        self.fc_match = nn.Linear(n_in, width) if n_in != width else None
        self.fc2 = nn.Linear(width, n_out)
        self.layer_norm2 = nn.LayerNorm(n_out, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to ``(..., i)``."""
        skip = x if self.fc_match is None else self.fc_match(x)
        hidden = self.activation(self.layer_norm1(self.fc1(x))) + skip
        return self.activation(self.layer_norm2(self.fc2(hidden)))


def _blocks(n_in: int, n_hidden: int, n_layers: int, eps: float, activation: Activation = F.relu) -> nn.Sequential:
    return nn.Sequential(*(ResnetBlock(n_hidden if i else n_in, n_hidden, eps, activation) for i in range(n_layers)))


class MLP(nn.Module):
    """Residual blocks and a linear layer.

    Parameters
    ----------
    n_in, n_out, n_hidden
        Sizes of what comes, of what is given, and between blocks.
    n_layers
        Number of blocks.
    layout
        See :class:`Layout`.
    """

    def __init__(self, n_in: int, n_out: int, n_hidden: int, n_layers: int, layout: Layout) -> None:
        super().__init__()
        self.resnet_blocks = _blocks(n_in, n_hidden, n_layers, layout.eps, layout.gelu)
        self.fc = nn.Linear(n_hidden, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network to ``(..., i)``."""
        return self.fc(self.resnet_blocks(x))


class NormalOutput(nn.Module):
    """Residual blocks, and a normal distribution from them.

    Parameters
    ----------
    n_in, n_out, n_hidden, n_layers
        As in :class:`MLP`.
    eps
        See :class:`Layout`.
    """

    def __init__(self, n_in: int, n_out: int, n_hidden: int, n_layers: int, eps: float) -> None:
        super().__init__()
        self.resnet_blocks = _blocks(n_in, n_hidden, n_layers, eps)
        self.fc_mean = nn.Linear(n_hidden, n_out)
        self.fc_scale = nn.Sequential(nn.Linear(n_hidden, n_out), nn.Softplus())

    def forward(self, x: Tensor) -> Normal:
        """Distribution ``(..., o)`` of what is encoded from ``(..., i)``."""
        hidden = self.resnet_blocks(x)
        return Normal(self.fc_mean(hidden), self.fc_scale(hidden) + _SCALE_EPS, validate_args=False)


class ConditionalNorm(nn.Module):
    """Layer normalization whose scale and shift belong to the sample.

    Parameters
    ----------
    n_hidden, n_sample
        Number of units and of samples.
    eps
        See :class:`Layout`.
    """

    def __init__(self, n_hidden: int, n_sample: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.gamma_embedding = nn.Embedding(n_sample, n_hidden, _weight=1 + 0.02 * randn(n_sample, n_hidden))
        self.beta_embedding = nn.Embedding(n_sample, n_hidden, _weight=torch.zeros(n_sample, n_hidden))

    def forward(self, x: Tensor, sample_n: Tensor) -> Tensor:
        """Normalize ``(n, i)`` of cells of samples ``(n,)``."""
        return self.gamma_embedding(sample_n) * self.normed(x) + self.beta_embedding(sample_n)

    def normed(self, x: Tensor) -> Tensor:
        """``x`` before scale and shift."""
        return F.layer_norm(x, x.shape[-1:], eps=self.eps)
