r"""Decoder of split latents (DRVI): each split is decoded on its own, and the contributions are added gene by gene.

.. math::
    h_{ns} = \mathrm{layers}(M_s z_{ns}, c_n), \qquad
    a_{ng} = \log \tfrac{1}{S} \sum_s e^{(W h_{ns} + b)_g} \quad \text{or} \quad \sum_s (W h_{ns} + b)_g

with layers and head that all S splits share. The sum of exponentials is computed for some genes of all splits at a
time, so that wide data need no copy of the genes for each split; the plain sum is the head of the summed :math:`h`.

Dims: n cells, s splits, k latents, h hidden, g genes.
Reference: Moinfar and Theis, *Unsupervised deep disentangled representation of single-cell omics*, bioRxiv 2024.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ...core import ArgumentError
from ...nn import DecoderSCVI
from ...nn.decoder import Logits, UseDropout, asked
from ...nn.fc_layers import Linear, append_columns
from ...ops.draws import uniform
from ...ops.linear import linear

__all__ = ["Aggregation", "DecoderDRVI", "SplitMethod", "StackedLinear", "log_mean_exp_of_splits"]

Aggregation = Literal["logsumexp", "sum"]
SplitMethod = Literal["split_map", "split_mask"]

_BLOCK_NUMBERS = 1 << 20
"""Numbers of the splits of some genes that are computed at a time: 4 MiB."""

_KEPT_NUMBERS = 1 << 23
"""Most numbers that are kept for the gradient: 32 MiB, 128 cells x 2,000 genes of 32 splits."""

_FEWEST_GENES = 64


class StackedLinear(nn.Module):
    """A linear map for each split, without bias.

    Parameters
    ----------
    n_split, n_in, n_out
        Number of maps, and their sizes.
    """

    def __init__(self, n_split: int, n_in: int, n_out: int) -> None:
        super().__init__()
        most = 1 / math.sqrt(n_in)
        self.weight = nn.Parameter(uniform(-most, most, n_split, n_in, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(s, n, i)`` to ``(s, n, o)``."""
        return torch.bmm(x, self.weight)


class DecoderDRVI(DecoderSCVI):
    """Decoder of the file's formula, with the heads of :class:`~celbo.nn.DecoderSCVI`.

    Parameters
    ----------
    n_input, n_output
        Number of latents; number of genes.
    n_split
        Number of splits, which divides ``n_input``.
    split_method
        What of the latents a split sees: ``"split_map"``, a linear map of its own part; ``"split_mask"``, its own part,
        the others being 0.
    n_split_output
        Size of that; ``"auto"``: ``n_input``. With ``"split_mask"`` it is that.
    split_aggregation
        ``"logsumexp"`` or ``"sum"``.
    n_cat_list
        Number of categories of each categorical covariate.
    n_continuous_cov
        Dense covariates, whose columns follow the latents.
    n_layers, n_hidden, inject_covariates, use_batch_norm, use_layer_norm, **kwargs
        See :class:`~celbo.nn.DecoderSCVI`.

    Raises
    ------
    ArgumentError
        Splits that do not divide the latents.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_split: int,
        split_method: SplitMethod = "split_map",
        n_split_output: int | Literal["auto"] = "auto",
        split_aggregation: Aggregation = "logsumexp",
        n_cat_list: Iterable[int] | None = None,
        n_continuous_cov: int = 0,
        n_layers: int = 1,
        n_hidden: int = 128,
        inject_covariates: bool = True,
        use_batch_norm: bool = False,
        use_layer_norm: bool = True,
        **kwargs: Any,
    ) -> None:
        if n_input % n_split:
            raise ArgumentError(f"{n_split} splits (n_split_latent) do not divide {n_input} latents (n_latent).")
        width = n_input if n_split_output == "auto" or split_method == "split_mask" else n_split_output
        super().__init__(
            width + n_continuous_cov,
            n_output,
            n_cat_list,
            n_layers,
            n_hidden,
            inject_covariates,
            use_batch_norm,
            use_layer_norm,
            **kwargs,
        )
        self.n_latent, self.n_split, self.split_aggregation = n_input, n_split, split_aggregation
        self.split_map = StackedLinear(n_split, n_input // n_split, width) if split_method == "split_map" else None

    def hidden(self, z: Tensor, *cat_list: Tensor | None) -> Tensor:
        """What the shared layers make of each split, ``(s, ..., h)``, of latents followed by dense covariates."""
        latent, dense = z[..., : self.n_latent], z[..., self.n_latent :]
        parts = self._parts(latent.reshape(-1, self.n_latent))
        parts = append_columns(parts, dense.reshape(len(parts[0]), -1)) if dense.shape[-1] else parts
        draws = z.shape[:-2].numel()  # covariates have one row a cell, whatever the number of draws
        inputs = parts.reshape(self.n_split * draws, -1, parts.shape[-1])
        return self.px_decoder(inputs, *cat_list).reshape(self.n_split, *z.shape[:-1], -1)

    def _parts(self, z_nk: Tensor) -> Tensor:
        """What each split sees of the latents, ``(s, n, .)``."""
        own_snk = z_nk.reshape(len(z_nk), self.n_split, -1).movedim(1, 0)
        if self.split_map is not None:
            return self.split_map(own_snk)
        mask_sk = torch.eye(self.n_split, device=z_nk.device).repeat_interleave(own_snk.shape[-1], 1)
        return z_nk * mask_sk[:, None]

    def logits(
        self,
        dispersion: str,
        z: Tensor,
        *cat_list: Tensor | None,
        cont: Tensor | None = None,
        use_dropout: UseDropout = True,
    ) -> Logits:
        """As of :class:`~celbo.nn.DecoderSCVI`, put together over the splits."""
        hidden = self.hidden(z, *cat_list)
        scale_head: Any = self.px_scale_decoder[0]
        return (
            self._together(hidden, scale_head),
            self._together(hidden, self.px_r_decoder) if dispersion == "gene-cell" else None,
            asked(use_dropout, partial(self._together, hidden, self.px_dropout_decoder)),
        )

    def _together(self, hidden: Tensor, head: Linear) -> Tensor:
        if self.split_aggregation == "sum":
            return F.linear(hidden.sum(0), head.weight, self.n_split * head.bias)
        leading = hidden.shape[1:-1]
        flat = hidden.reshape(self.n_split, -1, hidden.shape[-1])
        return log_mean_exp_of_splits(flat, head.weight, head.bias).reshape(*leading, -1)


def log_mean_exp_of_splits(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""Logarithm of the mean over splits of the exponentials of a linear head, :math:`(n, g)`.

    Parameters
    ----------
    hidden
        ``(s, n, h)``.
    weight, bias
        ``(g, h)``, ``(g,)``.
    """
    return _LogMeanExp.apply(hidden, weight, bias)


class _LogMeanExp(Function):
    """Some genes of all splits at a time: a matrix product each way, and tables that stay in the cache.

    What the splits contribute to a gene, as shares, is kept for the gradient while it is small, and computed again
    where it is not: that of many genes would be as many copies of the genes as there are splits.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        s, n, _ = hidden.shape
        flat, total = hidden.flatten(0, 1), hidden.new_empty(n, len(weight))
        keeps = any(ctx.needs_input_grad) and s * n * len(weight) <= _KEPT_NUMBERS
        ctx.shares = []
        for genes in _gene_blocks(s * n, len(weight)):
            said_sng = linear(flat, weight[genes], bias[genes]).unflatten(0, (s, n))
            most_ng = said_sng.amax(0)
            sum_ng = said_sng.sub_(most_ng).exp_().sum(0)
            total[:, genes] = sum_ng.log().add_(most_ng)
            if keeps:
                ctx.shares.append(said_sng.div_(sum_ng))
        ctx.save_for_backward(hidden, weight, bias, total)
        return total - math.log(s)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream_ng: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight, bias, total = ctx.saved_tensors
        s, n, _ = hidden.shape
        flat, turned = hidden.flatten(0, 1), hidden.flatten(0, 1).t().contiguous()
        d_hidden, d_weight, d_bias = torch.zeros_like(flat), torch.empty_like(weight), torch.empty_like(bias)
        for i, genes in enumerate(_gene_blocks(s * n, len(weight))):
            if ctx.shares:
                share_sng = ctx.shares[i] * upstream_ng[:, genes]
            else:
                said_sng = linear(flat, weight[genes], bias[genes]).unflatten(0, (s, n))
                share_sng = said_sng.sub_(total[:, genes]).exp_().mul_(upstream_ng[:, genes])
            share = share_sng.flatten(0, 1)
            d_hidden += linear(share, weight[genes].t())
            d_weight[genes] = linear(share.t(), turned)
            d_bias[genes] = share.sum(0)
        return d_hidden.unflatten(0, (s, n)), d_weight, d_bias


def _gene_blocks(n_rows: int, n_genes: int) -> list[slice]:
    width = max(_FEWEST_GENES, _BLOCK_NUMBERS // max(1, n_rows))
    return [slice(start, start + width) for start in range(0, n_genes, width)]
