"""``scvi.external.mrvi_torch._components``: the layers of MRVI by scvi-tools' names and arguments."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ...external.mrvi import blocks, layers
from ...external.mrvi.blocks import LAYOUTS, Activation
from ...nn.fc_layers import Linear as Dense

__all__ = ["MLP", "AttentionBlock", "ConditionalNormalization", "Dense", "NormalDistOutputNN", "ResnetBlock"]

_LAYOUT = LAYOUTS["1.4.2"]


class ResnetBlock(blocks.ResnetBlock):
    """Two layers with a skip past the first, ``(..., n_in)`` to ``(..., n_out)``."""

    def __init__(self, n_in: int, n_out: int, n_hidden: int = 128, internal_activation: Activation = F.relu) -> None:
        super().__init__(n_in, n_out, _LAYOUT.eps, internal_activation, n_hidden)


class MLP(blocks.MLP):
    """Residual blocks and a linear layer, ``(..., n_in)`` to ``(..., n_out)``."""

    def __init__(
        self, n_in: int, n_out: int, n_hidden: int = 128, n_layers: int = 1, activation: Activation = F.relu
    ) -> None:
        super().__init__(n_in, n_out, n_hidden, n_layers, _LAYOUT._replace(gelu=activation))


class NormalDistOutputNN(blocks.NormalOutput):
    """Residual blocks, and a normal distribution ``(..., n_out)`` from them."""

    def __init__(self, n_in: int, n_out: int, n_hidden: int = 128, n_layers: int = 1) -> None:
        super().__init__(n_in, n_out, n_hidden, n_layers, _LAYOUT.eps)


class ConditionalNormalization(blocks.ConditionalNorm):
    """Normalization of batches or of cells, whose scale and shift belong to the condition of each cell."""

    def __init__(
        self, n_features: int, n_conditions: int, normalization_type: Literal["batch", "layer"] = "layer"
    ) -> None:
        super().__init__(n_features, n_conditions, _LAYOUT.eps)
        by_batch = nn.BatchNorm1d(n_features, affine=False)
        self.norm_layer = by_batch if normalization_type == "batch" else None

    def forward(self, x: Tensor, condition: Tensor, training: bool | None = None) -> Tensor:
        """Normalize ``(n, n_features)`` of conditions ``(n,)`` or ``(n, 1)``."""
        return super().forward(x, condition.flatten().long())

    def normed(self, x: Tensor) -> Tensor:
        """``x`` before scale and shift."""
        return super().normed(x) if self.norm_layer is None else self.norm_layer(x)


class AttentionBlock(layers.Attention):
    """Effect ``(..., out_dim)`` of an embedding on latents."""

    def __init__(
        self,
        query_dim: int,
        kv_dim: int,
        out_dim: int,
        *,
        n_channels: int = 4,
        n_heads: int = 2,
        dropout_rate: float = 0.0,
        n_hidden_mlp: int = 32,
        n_layers_mlp: int = 1,
        stop_gradients_mlp: bool = False,
    ) -> None:
        of_attention = (n_channels, n_heads, dropout_rate, n_hidden_mlp, n_layers_mlp, stop_gradients_mlp)
        super().__init__(query_dim, kv_dim, out_dim, _LAYOUT, *of_attention)
