r"""Which cells a region of the genome is open in, from its sequence.

.. math::
    h_r = \mathrm{tower}(s_r) \in \mathbb{R}^k, \qquad
    [x_{rn} > 0] \sim \mathrm{Bernoulli}\bigl(\sigma(h_r \cdot (e_n + b_{c(n)}) + a_n)\bigr) \\
    \mathcal{L} = -\frac{1}{RN} \sum_{rn} \log p(x_{rn}) + \lambda\,\overline{e^2}

with the embedding :math:`e_n` and openness :math:`a_n` of cell n, and an embedding of its batch. The tower is of
convolutions; in training each sequence is reversed and complemented in half of the cases and moved by up to 3 bases.

Dims: r regions, n cells, l bases, k dimensions of an embedding. Bases are coded 0 to 3 for A, C, G, T; 4 is any of
them.
Reference: Yuan and Kelley, *scBasset: sequence-based modeling of single-cell ATAC-seq using convolutional neural
networks*, Nature Methods 2022.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ...core import REGISTRY_KEYS, ArgumentError, checked
from ...core.kinds import Number, Whole
from ...module.base import BaseModuleClass, LossOutput, auto_move_data
from ...ops.draws import randn
from ...ops.random import generator_for
from ...ops.ranking import auroc, binned
from .layers import ConvBlock, DenseBlock, gelu, pooled

__all__ = ["ANY_BASE", "DNA_CODE_KEY", "ScBassetModule"]

DNA_CODE_KEY = "dna_code"
"""Registry key of the sequences."""

ANY_BASE = 4
"""Code of a base that is not known."""

_FARTHEST = 3
_STEM_KERNEL, _STEM_POOL = 17, 3
_KERNEL, _POOL = 5, 2
_FIRST_EMBEDDING = 0.1
_BASE_CHANCES = torch.cat([torch.eye(4), torch.full((1, 4), 0.25)])


class ScBassetModule(BaseModuleClass):
    """Tower of convolutions over sequences, and an embedding for each cell.

    Parameters
    ----------
    n_cells
        Number of cells.
    batch_ids
        Batch of each cell, ``(n,)`` or ``(n, 1)`` codes; None: no batches.
    n_filters_init, n_repeat_blocks_tower, filters_mult
        Channels of the first convolution, blocks that follow, and how many times as many channels each has.
    n_filters_pre_bottleneck, n_bottleneck_layer
        Channels after the tower, and dimensions of the embeddings.
    batch_norm
        Whether blocks have batch normalizations.
    dropout
        Share that is dropped in training after convolutions.
    l2_reg_cell_embedding
        Weight of the mean squared embedding of the cells.
    sequence_length
        Bases of each sequence.

    Raises
    ------
    ArgumentError
        Sequences that are too short for the tower.
    """

    @checked
    def __init__(
        self,
        n_cells: int,
        batch_ids: np.ndarray | None = None,
        n_filters_init: Annotated[int, Whole(1)] = 288,
        n_repeat_blocks_tower: Annotated[int, Whole(0)] = 6,
        filters_mult: Annotated[float, Number(0, above=True)] = 1.122,
        n_filters_pre_bottleneck: Annotated[int, Whole(1)] = 256,
        n_bottleneck_layer: Annotated[int, Whole(1)] = 32,
        batch_norm: bool = True,
        dropout: Annotated[float, Number(0, 1, below=True)] = 0.0,
        l2_reg_cell_embedding: Annotated[float, Number(0)] = 0.0,
        *,
        sequence_length: Annotated[int, Whole(1)] = 1344,
    ) -> None:
        super().__init__()
        self.l2_reg_cell_embedding, self.sequence_length = l2_reg_cell_embedding, sequence_length
        self.cell_embedding = nn.Parameter(randn(n_bottleneck_layer, n_cells))
        self.cell_bias = nn.Parameter(randn(n_cells))
        if batch_ids is not None:
            codes = torch.as_tensor(np.asarray(batch_ids)).long().reshape(-1, 1)
            self.register_buffer("batch_ids", codes)
            # scvi-tools' archives have it by this name
            self.batch_emdedding = nn.Embedding(int(codes.max()) + 1, n_bottleneck_layer)
        self.has_batches = batch_ids is not None
        self.stem = ConvBlock(4, n_filters_init, _STEM_KERNEL, _STEM_POOL, batch_norm, dropout)
        channels = _channels(n_filters_init, filters_mult, n_repeat_blocks_tower)
        pairs = zip([n_filters_init, *channels[:-1]], channels, strict=True)
        self.tower = nn.Sequential(*(ConvBlock(i, o, _KERNEL, _POOL, batch_norm, dropout) for i, o in pairs))
        last = channels[-1] if channels else n_filters_init
        self.pre_bottleneck = ConvBlock(last, n_filters_pre_bottleneck, 1, 1, batch_norm, dropout)
        n_positions = _positions(sequence_length, n_repeat_blocks_tower)
        self.bottleneck = DenseBlock(n_positions * n_filters_pre_bottleneck, n_bottleneck_layer)
        self.register_buffer("_base_chances", _BASE_CHANCES.clone(), persistent=False)

    @torch.no_grad()
    def start_from_counts(self, x: Tensor) -> bool:
        """Begin with the openness that each cell has in some regions, and with small embeddings.

        Under embeddings of size 1 the tower first learns to say nothing, and may not find a motif any more.
        """
        n_open = (x > 0).sum(0).float()
        self.cell_bias.copy_(((n_open + 0.5) / (len(x) - n_open + 0.5)).log())
        self.cell_embedding.mul_(_FIRST_EMBEDDING)
        return True

    def _varied(self, codes_rl: Tensor) -> Tensor:
        """The sequences, each reversed and complemented in half of the cases, and moved by up to 3 bases."""
        n, length = codes_rl.shape
        device = codes_rl.device
        draws = generator_for(device)
        turned = torch.where(codes_rl == ANY_BASE, ANY_BASE, 3 - codes_rl).flip(1)
        is_turned = torch.rand(n, 1, device=device, generator=draws) < 0.5
        codes_rl = torch.where(is_turned, turned, codes_rl)
        moves = torch.randint(-_FARTHEST, _FARTHEST + 1, (n, 1), device=device, generator=draws)
        places = torch.arange(length, device=device) - moves
        inside = (places >= 0) & (places < length)
        return torch.where(inside, codes_rl.gather(1, places.clamp(0, length - 1)), ANY_BASE)

    @auto_move_data
    def inference(self, dna_code: Tensor) -> dict[str, Any]:
        """Read sequences, ``(r, l)`` codes: ``region_embedding``, ``(r, k)``."""
        codes_rl = dna_code.long()
        if self.training:
            codes_rl = self._varied(codes_rl)
        bases: Tensor = self.get_buffer("_base_chances")
        h = self.pre_bottleneck(self.tower(self.stem(bases[codes_rl].transpose(1, 2))))
        return {"region_embedding": gelu(self.bottleneck(h.flatten(1)))}

    def embedding_of_cells(self) -> Tensor:
        """Embeddings of the cells with those of their batches, ``(k, n)``."""
        if not self.has_batches:
            return self.cell_embedding
        return self.cell_embedding + self.batch_emdedding(self.get_buffer("batch_ids").flatten()).T

    @auto_move_data
    def generative(self, region_embedding: Tensor) -> dict[str, Any]:
        """Decode regions: ``reconstruction_logits`` of being open, ``(r, n)``."""
        return {"reconstruction_logits": region_embedding @ self.embedding_of_cells() + self.cell_bias}

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        auroc_bins: int | None = None,
    ) -> LossOutput:
        """Mean negative log-likelihood of a region in a cell, and the penalty on embeddings.

        Parameters
        ----------
        auroc_bins
            Count scores in this many bins (``auroc_histogram`` among the extra metrics), which add up over minibatches;
            None: work the area of this minibatch out exactly (``auroc``).
        """
        is_open = tensors[REGISTRY_KEYS.X_KEY] > 0
        logits = generative_outputs["reconstruction_logits"]
        nll_rn = binary_cross_entropy_with_logits(logits, is_open.to(logits.dtype), reduction="none")
        loss = nll_rn.mean()
        if self.l2_reg_cell_embedding:
            loss = loss + self.l2_reg_cell_embedding * self.cell_embedding.square().mean()
        with torch.no_grad():
            ranked = (
                {"auroc": auroc(logits, is_open)}
                if auroc_bins is None
                else {"auroc_histogram": binned(logits, is_open, auroc_bins)}
            )
        return LossOutput(loss=loss, reconstruction_loss=nll_rn.sum(-1), extra_metrics=ranked)


def _channels(first: int, factor: float, n_blocks: int) -> list[int]:
    """Channels of each block of the tower: the first one keeps those of the stem."""
    sizes = [first]
    while len(sizes) < n_blocks:
        sizes.append(round(sizes[-1] * factor))
    return sizes[:n_blocks]


def _positions(length: int, n_blocks: int) -> int:
    """Positions that are left of a sequence, or an error that says how long it must be."""
    left = pooled(length, _STEM_POOL)
    for _ in range(n_blocks):
        left = left // _POOL
    if left < 1:
        least = _STEM_POOL * _POOL**n_blocks - (_STEM_POOL - 1)
        raise ArgumentError(
            f"Sequences of {length} bases are too short for a tower of {n_blocks} blocks, which takes {least} at "
            "least: give longer ones, or a smaller n_repeat_blocks_tower."
        )
    return left
