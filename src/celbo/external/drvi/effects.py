r"""What each split of the latents does to each gene: functions of a module and minibatches.

With :math:`a_{ngs}` what split s says of gene g, and :math:`a^0_{ngs}` what it says at latents of 0, the gene's
expression without the split has

.. math:: \rho^{-s}_{ng} = \mathrm{softmax}_g\Bigl(\log \sum_{t \ne s} e^{a_{ngt}} + e^{a^0_{ngs}}\Bigr)

(with the plain sum, :math:`\sum_{t \ne s} a_{ngt} + a^0_{ngs}`), and the effect of the split in the cell is
:math:`e_{ngs} = \log(L\rho_{ng} + c) - \log(L\rho^{-s}_{ng} + c)` for a library L of 10,000 and a pseudocount c.
*Within the distribution* it is averaged over cells, those with positive and those with negative latents apart. *Out of
the distribution* all latents are 0 but those of one split, which are taken to their extremes in the data.

Dims: n cells, s splits, k latents, g genes.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...posterior import evaluating
from ...posterior.passes import Batches, Minibatch, encode, on_device
from .decoder import DecoderDRVI
from .module import DRVIModule

__all__ = ["effects_at_extremes", "effects_in_cells", "reconstruction_effects"]

_LIBRARY = 1e4


def effects_in_cells(module: DRVIModule, batches: Batches, pseudocount: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Mean effect of each split over cells with positive latents, and over those with negative ones, ``(s, g)`` each.

    Parameters
    ----------
    module, batches
        The module, and minibatches of the cells.
    pseudocount
        Added to the expression per 10,000 before the logarithm.

    Returns
    -------
    Natural logarithms. A split of several latents goes by their sum. 0 where no cell has that sign.
    """
    shape = (module.n_split, module.n_input)
    sums, counts = np.zeros((2, *shape)), np.zeros((2, module.n_split, 1))
    for s, z_n, whole_ng, without_ng, _ in _per_split(module, batches):
        effect_ng = _log(whole_ng, pseudocount) - _log(without_ng, pseudocount)
        for side, chosen_n in enumerate((z_n > 0, z_n < 0)):
            sums[side, s] += (chosen_n.to(effect_ng.dtype) @ effect_ng).double().cpu().numpy()
            counts[side, s] += int(chosen_n.sum())
    means = sums / np.maximum(counts, 1)
    return means[0], means[1]


def reconstruction_effects(module: DRVIModule, batches: Batches) -> np.ndarray:
    """How much the expression of cells changes without each split, ``(s,)``.

    Returns
    -------
    Mean over cells of the total variation distance of both expressions, from 0 to 1.
    """
    totals, n_cells = np.zeros(module.n_split), 0
    for s, z_n, whole_ng, without_ng, _ in _per_split(module, batches):
        totals[s] += float((whole_ng - without_ng).abs().sum()) / 2
        n_cells += len(z_n) if s == 0 else 0
    return totals / max(n_cells, 1)


def effects_at_extremes(
    module: DRVIModule, tensors: Minibatch, low_k: np.ndarray, high_k: np.ndarray, pseudocount: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Effect of each split at its largest and at its smallest latents, all others being 0, ``(s, g)`` each.

    Parameters
    ----------
    module
        The module.
    tensors
        Cells whose covariates are decoded with; effects are averaged over them.
    low_k, high_k
        Smallest and largest value of each latent.
    pseudocount
        As in :func:`effects_in_cells`.
    """
    answers = []
    with evaluating(module):
        for cells in on_device([tensors], module):
            n = len(next(iter(cells.values())))
            zero_nk = torch.zeros(n, module.n_latent, device=module.device)
            base_ng = _log(_expression(module, cells, zero_nk), pseudocount)
            for extreme_k in (high_k, low_k):
                extreme = torch.as_tensor(extreme_k, dtype=zero_nk.dtype, device=module.device)
                parts = extreme.reshape(module.n_split, -1)
                rows = []
                for s in range(module.n_split):
                    z_sk = torch.zeros_like(parts)
                    z_sk[s] = parts[s]
                    moved_ng = _log(_expression(module, cells, z_sk.reshape(1, -1).expand(n, -1)), pseudocount)
                    rows.append((moved_ng - base_ng).mean(0).cpu().numpy())
                answers.append(np.stack(rows))
    return answers[0], answers[1]


def _log(expression_ng: Tensor, pseudocount: float) -> Tensor:
    return (_LIBRARY * expression_ng + pseudocount).log()


def _expression(module: DRVIModule, cells: Minibatch, z_nk: Tensor) -> Tensor:
    decoder, inputs, codes = _decoding(module, cells, z_nk)
    return decoder.logits("gene", inputs, *codes, use_dropout=False)[0].softmax(-1)


def _decoding(module: DRVIModule, cells: Minibatch, z_nk: Tensor) -> tuple[DecoderDRVI, Tensor, list[Tensor]]:
    bound = module._get_generative_input(cells, {"z": z_nk, "library": torch.zeros(len(z_nk), 1, device=z_nk.device)})
    covariates = (bound["batch_index"], bound.get("cont_covs"), bound.get("cat_covs"))
    decoder: Any = module.decoder
    return (decoder, *module._with_covariates(z_nk, *covariates))


def _per_split(module: DRVIModule, batches: Batches) -> Iterator[tuple[int, Tensor, Tensor, Tensor, Minibatch]]:
    """For each minibatch and split: number, sum of latents ``(n,)``, expression with it and without ``(n, g)``."""
    with evaluating(module):
        for cells in on_device(batches, module):
            z_nk = encode(module, cells)["qz"].loc
            decoder, inputs, codes = _decoding(module, cells, z_nk)
            _, at_zero, _ = _decoding(module, cells, torch.zeros_like(z_nk))
            hidden, hidden_0 = decoder.hidden(inputs, *codes), decoder.hidden(at_zero, *codes)
            head: Any = decoder.px_scale_decoder[0]
            whole_ng = decoder.logits("gene", inputs, *codes, use_dropout=False)[0]
            together = whole_ng.softmax(-1)
            z_ns = z_nk.reshape(len(z_nk), module.n_split, -1).sum(-1)
            for s in range(module.n_split):
                without_ng = _without(decoder, whole_ng, head(hidden[s]), head(hidden_0[s]))
                yield s, z_ns[:, s], together, without_ng.softmax(-1), cells


def _without(decoder: DecoderDRVI, whole_ng: Tensor, own_ng: Tensor, at_zero_ng: Tensor) -> Tensor:
    """Logits with the contribution of a split reset to that at 0."""
    if decoder.split_aggregation == "sum":
        return whole_ng - own_ng + at_zero_ng
    share_ng = (own_ng - whole_ng).exp() / decoder.n_split
    at_zero_share_ng = (at_zero_ng - whole_ng).exp() / decoder.n_split
    return whole_ng + (1 - share_ng + at_zero_share_ng).clamp(min=1e-30).log()
