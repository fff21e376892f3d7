r"""Networks of MRVI: an encoder of the state of a cell, an attention to its sample or batch, a decoder.

Queries and keys of this attention are single numbers, a position each: with :math:`q_i = a_i w_q + c_q`,
:math:`k_j = b_j w_k + c_k` and :math:`v_j = b_j w_v + c_v` a head gives

.. math:: o_i = w_v \sum_j p_{ij} b_j + c_v \sum_j p_{ij}, \qquad
          p_{ij} = \mathrm{softmax}_j\, \frac{(a_i\,w_q^\top w_k + c_q^\top w_k)\, b_j}{\sqrt d}

since a term that is the same for all j cancels in a softmax. So no position needs a vector, whatever the number of
channels, and what depends on the cell alone or on the sample alone is computed once, not for each pair of both.

Dims: n cells, s samples, g genes, k latents, h heads, d channels of a head, i and j positions.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from ...nn.fc_layers import Dropout, Linear
from ...ops.draws import randn, uniform
from .blocks import MLP, ConditionalNorm, Layout, NormalOutput

__all__ = ["Attention", "DecoderZX", "EncoderUZ", "EncoderXU"]

_POSITIONS = 16


class EncoderXU(nn.Module):
    """Posterior of u, the state of a cell apart from its sample.

    Parameters
    ----------
    n_input, n_latent, n_sample
        Numbers of genes, latents and samples.
    n_hidden, n_layers
        Width, and number of residual blocks.
    layout
        See :class:`Layout`.
    """

    def __init__(
        self, n_input: int, n_latent: int, n_sample: int, n_hidden: int, n_layers: int, *, layout: Layout
    ) -> None:
        super().__init__()
        self.gelu = layout.gelu
        self.fc1 = Linear(n_input, n_hidden)
        self.conditional_norm1 = ConditionalNorm(n_hidden, n_sample, layout.eps)
        self.fc2 = nn.Linear(n_hidden, n_hidden)
        self.conditional_norm2 = ConditionalNorm(n_hidden, n_sample, layout.eps)
        self.sample_embed = nn.Embedding(n_sample, n_hidden, _weight=0.1 * randn(n_sample, n_hidden))
        self.output_nn = NormalOutput(n_hidden, n_latent, n_hidden, n_layers, layout.eps)

    def forward(self, x: Tensor, sample_n: Tensor) -> Normal:
        """Posterior of counts ``(n, g)`` of cells of samples ``(n,)``."""
        hidden = self.gelu(self.conditional_norm1(self.fc1(x.log1p()), sample_n))
        hidden = self.gelu(self.conditional_norm2(self.fc2(hidden), sample_n))
        return self.output_nn(hidden + self.sample_embed(sample_n))


class _Heads(NamedTuple):
    """Weight and shift ``(h, d)`` that make a query, a key or a value of a number."""

    weight: Tensor
    bias: Tensor


class _MultiheadWeights(nn.Module):
    """Weights of ``torch.nn.MultiheadAttention``, by its names."""

    def __init__(self, n: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / (4 * n))
        self.in_proj_weight = nn.Parameter(uniform(-bound, bound, 3 * n, n))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * n))
        self.out_proj = Linear(n, n)
        nn.init.zeros_(self.out_proj.bias)


class Attention(nn.Module):
    """From the latents of cells and an embedding of what they are in to an effect of that on them.

    Parameters
    ----------
    n_query, n_embed, n_out
        Sizes of latents, of the embedding and of the effect.
    layout
        See :class:`Layout`.
    n_channels, n_heads, dropout_rate
        Of the attention.
    n_hidden, n_layers
        Of the networks behind it.
    stop_gradients_mlp
        Whether latents get no gradient through the attention.
    """

    def __init__(
        self,
        n_query: int,
        n_embed: int,
        n_out: int,
        layout: Layout,
        n_channels: int = 4,
        n_heads: int = 2,
        dropout_rate: float = 0.03,
        n_hidden: int = 32,
        n_layers: int = 1,
        stop_gradients_mlp: bool = True,
    ) -> None:
        super().__init__()
        self.stops_gradients, self.n_heads = stop_gradients_mlp, n_heads
        n = n_channels * n_heads
        self.query_proj = Linear(n_query, _POSITIONS, bias=False)
        self.kv_proj = Linear(n_embed, _POSITIONS, bias=False)
        self.attention: _MultiheadWeights | None = None
        if layout.folded:
            self.q_proj, self.k_proj, self.v_proj = (Linear(1, n) for _ in range(3))
            self.out_proj = Linear(n, n_channels)
        else:
            self.embed_dim_proj_query, self.embed_dim_proj_kv = (Linear(1, n, bias=False) for _ in range(2))
            self.attention = _MultiheadWeights(n)
        n_flat = _POSITIONS * (n_channels if layout.folded else n)
        self.dropout = Dropout(dropout_rate)
        self.mlp_eps = MLP(n_flat, _POSITIONS, n_hidden, n_layers, layout)
        self.mlp_residual = MLP(n_query + _POSITIONS, n_out, n_hidden, n_layers, layout)

    def forward(self, query: Tensor, embed: Tensor) -> Tensor:
        """Effect ``(..., o)`` of embeddings ``(..., e)`` on cells ``(..., q)``, whose leading dimensions broadcast."""
        a_i = self.query_proj(query.detach() if self.stops_gradients else query)
        heads = self._attended(a_i, self.kv_proj(embed))
        out_proj = self.out_proj if self.attention is None else self.attention.out_proj
        effect = self.mlp_eps(out_proj(heads).flatten(-2))
        return self.mlp_residual(torch.cat([query.expand(*effect.shape[:-1], -1), effect], dim=-1))

    def _attended(self, a_i: Tensor, b_j: Tensor) -> Tensor:
        """Heads beside each other, ``(..., i, h d)``; see the head of this file."""
        q, k, v = self._projections()
        slope_h, shift_h = (q.weight * k.weight).sum(-1), (q.bias * k.weight).sum(-1)
        b_j = b_j[..., None, None, :]
        t_hi = (a_i[..., None, :] * slope_h[:, None] + shift_h[:, None]) / math.sqrt(q.weight.shape[-1])
        p_hij = (t_hi[..., None] * b_j).softmax(-1)
        p_hij = self.dropout(p_hij)
        mean_hi = (p_hij * b_j).sum(-1)
        o_hid = mean_hi[..., None] * v.weight[:, None] + p_hij.sum(-1, keepdim=True) * v.bias[:, None]
        return o_hid.transpose(-3, -2).flatten(-2)

    def _projections(self) -> list[_Heads]:
        if self.attention is None:
            layers = (self.q_proj, self.k_proj, self.v_proj)
            parts: list[tuple[Tensor, Tensor]] = [(layer.weight[:, 0], layer.bias) for layer in layers]
        else:
            numbers = (self.embed_dim_proj_query, self.embed_dim_proj_kv, self.embed_dim_proj_kv)
            weights = self.attention.in_proj_weight.chunk(3)
            biases = self.attention.in_proj_bias.chunk(3)
            parts = [(w @ one.weight[:, 0], b) for w, one, b in zip(weights, numbers, biases, strict=True)]
        return [_Heads(*(part.unflatten(0, (self.n_heads, -1)) for part in pair)) for pair in parts]


class EncoderUZ(nn.Module):
    """From u and a sample to z: what u becomes in the sample.

    Parameters
    ----------
    n_latent, n_latent_u, n_sample
        Numbers of latents of z and of u, and of samples.
    layout
        See :class:`Layout`.
    use_map
        Whether the effect of the sample is a number; otherwise it has a posterior.
    stop_gradients, stop_gradients_mlp
        Whether u gets no gradient through the effect, and none through the attention.
    n_latent_sample
        Size of the embedding of a sample.
    **attention
        ``n_channels``, ``n_heads``, ``dropout_rate``, ``n_hidden``, ``n_layers``.
    """

    def __init__(
        self,
        n_latent: int,
        n_latent_u: int,
        n_sample: int,
        *,
        layout: Layout,
        use_map: bool = True,
        stop_gradients: bool = False,
        n_latent_sample: int = 16,
        **attention: Any,
    ) -> None:
        super().__init__()
        self.use_map, self.stops_gradients = use_map, stop_gradients
        self.layer_norm = nn.LayerNorm(n_latent_u, layout.eps)
        self.embedding = nn.Embedding(n_sample, n_latent_sample, _weight=0.1 * randn(n_sample, n_latent_sample))
        self.layer_norm_embed = nn.LayerNorm(n_latent_sample, layout.eps)
        n_out = n_latent if use_map else 2 * n_latent
        self.attention_block = Attention(n_latent_u, n_latent_sample, n_out, layout, **attention)
        self.fc = None if layout.folded and n_latent == n_latent_u else Linear(n_latent_u, n_latent)

    def forward(self, u: Tensor, sample: Tensor) -> tuple[Tensor, Tensor | Normal]:
        """Base of z ``(..., k)``, and the effect of the sample on it or its posterior.

        Parameters
        ----------
        u
            ``(..., n, k)``, or ``(..., n, 1, k)`` for all of several samples.
        sample
            Codes, ``(n,)`` or ``(s,)``.
        """
        base = u if self.fc is None else self.fc(u)
        query = self.layer_norm(u.detach() if self.stops_gradients else u)
        effect = self.attention_block(query, self.layer_norm_embed(self.embedding(sample)))
        if self.use_map:
            return base, effect
        loc, scale = effect.chunk(2, dim=-1)
        return base, Normal(loc, F.softplus(scale) + 1e-3, validate_args=False)


class DecoderZX(nn.Module):
    """From z and a batch to the logits of genes, whose softmax is the profile.

    Parameters
    ----------
    n_input, n_latent, n_batch
        Numbers of genes, latents and batches.
    layout
        See :class:`Layout`.
    stop_gradients, stop_gradients_mlp
        Whether z gets no gradient through the effect of the batch, and none through the attention.
    n_latent_sample
        Size of the embedding of a batch.
    low_dim_batch
        Whether the batch moves z; otherwise it moves the logits.
    **attention
        As in :class:`EncoderUZ`.
    """

    def __init__(
        self,
        n_input: int,
        n_latent: int,
        n_batch: int,
        *,
        layout: Layout,
        stop_gradients: bool = False,
        n_latent_sample: int = 16,
        low_dim_batch: bool = True,
        **attention: Any,
    ) -> None:
        super().__init__()
        self.stops_gradients, self.low_dim_batch, self.has_batches = stop_gradients, low_dim_batch, n_batch > 1
        self.px_r = nn.Parameter(randn(n_input))
        self.layer_norm = nn.LayerNorm(n_latent, layout.eps)
        self.layer_norm_batch_embed = nn.LayerNorm(n_latent_sample, layout.eps)
        self.batch_embedding = nn.Embedding(n_batch, n_latent_sample, _weight=0.1 * randn(n_batch, n_latent_sample))
        n_out = n_latent if low_dim_batch else n_input
        self.attention_block = Attention(n_latent, n_latent_sample, n_out, layout, **attention)
        self.fc = Linear(n_latent, n_input)

    def forward(self, z: Tensor, batch_n: Tensor) -> Tensor:
        """Logits ``(..., n, g)`` of latents ``(..., n, k)`` in batches ``(n,)``, or one batch ``(1,)``."""
        query = self.layer_norm(z.detach() if self.stops_gradients else z)
        if not self.has_batches:
            return self.fc(query)
        effect = self.attention_block(query, self.layer_norm_batch_embed(self.batch_embedding(batch_n)))
        return self.fc(z + effect) if self.low_dim_batch else self.fc(z) + effect
