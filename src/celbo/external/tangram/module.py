r"""Where the cells of a reference lie in a tissue: a probability of each spot for each cell.

.. math::
    M_n &= \mathrm{softmax}(W_n), \qquad f_n = \sigma(F_n) \text{ (constrained, else 1)}, \qquad
    \hat G_{sg} = \sum_n M_{ns} f_n S_{ng} \\
    \mathcal{L} &= -\frac{\lambda_{g1}}{g} \sum_g \cos(\hat G_{\cdot g}, G_{\cdot g})
                   - \frac{\lambda_{g2}}{s} \sum_s \cos(\hat G_s, G_s)
                   + \lambda_d\, \mathrm{KL}(d \,\|\, \hat d) - \lambda_r \sum_{ns} M_{ns} \log M_{ns} \\
                &\quad + \lambda_{\mathrm{count}} \Bigl\lvert \sum_n f_n - T \Bigr\rvert
                   + \lambda_{f} \sum_n (f_n - f_n^2), \qquad
    \hat d_s = \sum_n M_{ns} f_n w_n \Big/ \sum_n f_n w_n

with the expression S of cells and G of spots, the density d of the tissue, the target count T, and weights w of cells
(1, or the sizes of clusters). The last line is of the constrained mode.

The product goes block by block, forwards and backwards, and a block of M is worked out twice rather than kept: beside
W, its gradient and the optimizer's two moments memory does not grow with cells times spots.

Dims: n cells, s spots, g genes.
Reference: Biancalani et al., *Deep learning and alignment of spatially resolved single-cell transcriptomes with
Tangram*, Nature Methods 2021.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import cosine_similarity

from ...core import checked
from ...core.kinds import Number, Whole
from ...module.base import BaseModuleClass, LossOutput
from ...ops.draws import randn

__all__ = ["TangramMapper"]

_NUMBERS_IN_A_BLOCK = 2**20
_ROUNDS = 30
_SMALL = 1e-8
_NOT_NEGATIVE = Number(0)


def _blocks(n_cells: int, n_spots: int) -> Iterator[slice]:
    step = max(1, _NUMBERS_IN_A_BLOCK // max(1, n_spots))
    return (slice(start, start + step) for start in range(0, n_cells, step))


class _Mapping(torch.autograd.Function):
    """From logits, shares of cells that are kept, weights and expression to what the spots then have."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, logits_ns: Tensor, kept_n: Tensor, weight_n: Tensor, expression_ng: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(logits_ns, kept_n, weight_n, expression_ng)
        n_spots = logits_ns.shape[1]
        predicted_sg = expression_ng.new_zeros(n_spots, expression_ng.shape[1])
        mass_s, entropy = logits_ns.new_zeros(n_spots), logits_ns.new_zeros(())
        for rows in _blocks(*logits_ns.shape):
            log_m = logits_ns[rows].log_softmax(1)
            m = log_m.exp()
            entropy += (m * log_m).sum()
            m *= kept_n[rows, None]
            predicted_sg.addmm_(m.T, expression_ng[rows])
            mass_s += weight_n[rows] @ m
        return predicted_sg, mass_s, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        logits_ns, kept_n, weight_n, expression_ng = ctx.saved_tensors  # type: ignore[attr-defined]
        d_predicted_sg, d_mass_s, d_entropy = gradients
        d_logits_ns, d_kept_n = torch.empty_like(logits_ns), torch.empty_like(kept_n)
        for rows in _blocks(*logits_ns.shape):
            log_m = logits_ns[rows].log_softmax(1)
            m = log_m.exp()
            d_m = expression_ng[rows] @ d_predicted_sg.T
            d_m.addr_(weight_n[rows], d_mass_s)
            d_kept_n[rows] = (d_m * m).sum(1)
            d_m *= kept_n[rows, None]
            d_m += d_entropy * (log_m + 1)
            d_m -= (d_m * m).sum(1, keepdim=True)
            torch.mul(d_m, m, out=d_logits_ns[rows])
        return d_logits_ns, d_kept_n, None, None


class TangramMapper(BaseModuleClass):
    """A probability of each spot for each cell, and in the constrained mode how much of each cell is kept.

    Parameters
    ----------
    n_obs_sc, n_obs_sp
        Numbers of cells and of spots.
    lambda_g1, lambda_g2
        Weights of the cosine similarity of genes over spots, and of spots over genes.
    lambda_d
        Weight of the divergence from the density of the tissue.
    lambda_r
        Weight of the entropy of each cell's spots: above 0 cells spread out, as in scvi-tools.
    lambda_count, lambda_f_reg
        In the constrained mode, weights of the number of cells that are kept, and of cells that are kept in part.
    constrained
        Whether only some cells are kept.
    target_count
        How many are to be kept; None: as many as spots.
    cell_weights
        What each cell counts in the density, ``(n,)``: the sizes of clusters. None: all alike.
    """

    expression_sc: Tensor
    expression_sp: Tensor
    density: Tensor
    cell_weights: Tensor

    @checked
    def __init__(
        self,
        n_obs_sc: int,
        n_obs_sp: int,
        lambda_g1: Annotated[float, _NOT_NEGATIVE] = 1.0,
        lambda_d: Annotated[float, _NOT_NEGATIVE] = 0.0,
        lambda_g2: Annotated[float, _NOT_NEGATIVE] = 0.0,
        lambda_r: Annotated[float, Number()] = 0.0,
        lambda_count: Annotated[float, _NOT_NEGATIVE] = 1.0,
        lambda_f_reg: Annotated[float, _NOT_NEGATIVE] = 1.0,
        constrained: bool = False,
        target_count: Annotated[int | None, Whole(1)] = None,
        *,
        cell_weights: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.n_obs_sc, self.n_obs_sp = n_obs_sc, n_obs_sp
        self.lambda_g1, self.lambda_d, self.lambda_g2, self.lambda_r = lambda_g1, lambda_d, lambda_g2, lambda_r
        self.lambda_count, self.lambda_f_reg = lambda_count, lambda_f_reg
        self.constrained, self.target_count = constrained, n_obs_sp if target_count is None else target_count
        self.mapper_unconstrained = nn.Parameter(randn(n_obs_sc, n_obs_sp))
        if constrained:
            self.filter_unconstrained = nn.Parameter(randn(n_obs_sc, 1))
        weights = np.ones(n_obs_sc) if cell_weights is None else np.asarray(cell_weights)
        self._keep("cell_weights", weights)
        for name in ("expression_sc", "expression_sp", "density"):
            self._keep(name, np.zeros(0))

    def _keep(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32), persistent=False)

    def take_data(self, expression_sc: np.ndarray, expression_sp: np.ndarray, density: np.ndarray | None) -> None:
        """Keep what is to be mapped, and onto what; it does not go into archives.

        Parameters
        ----------
        expression_sc, expression_sp
            ``(n, g)`` and ``(s, g)``, of the same genes.
        density
            Share of the cells in each spot, ``(s,)``; None: none is known.
        """
        device = self.device
        self._keep("expression_sc", expression_sc)
        self._keep("expression_sp", expression_sp)
        if density is not None:
            self._keep("density", density)
        self.to(device)

    def kept(self) -> Tensor:
        """How much of each cell is kept, ``(n,)``, from 0 to 1."""
        if not self.constrained:
            return torch.ones_like(self.cell_weights)
        return self.filter_unconstrained[:, 0].sigmoid()

    def mapper(self) -> Tensor:
        """Probability of each spot for each cell, ``(n, s)``."""
        return self.mapper_unconstrained.softmax(1)

    def inference(self) -> dict[str, Any]:
        """What the spots have of the cells: expression ``(s, g)``, mass ``(s,)``, and the negative entropy."""
        kept_n = self.kept()
        found = _Mapping.apply(self.mapper_unconstrained, kept_n, self.cell_weights, self.expression_sc)
        return dict(zip(("predicted", "mass", "entropy"), found, strict=True)) | {"kept": kept_n}

    def generative(self) -> dict[str, Any]:
        """Nothing more."""
        return {}

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
    ) -> LossOutput:
        """See the top of the file; ``expression_term`` and ``regularizer_term`` are the parts of it."""
        predicted_sg, kept_n = inference_outputs["predicted"], inference_outputs["kept"]
        similarity = self.lambda_g1 * cosine_similarity(predicted_sg, self.expression_sp, dim=0).mean()
        if self.lambda_g2:
            similarity = similarity + self.lambda_g2 * cosine_similarity(predicted_sg, self.expression_sp, dim=1).mean()
        penalty = -self.lambda_r * inference_outputs["entropy"]
        if self.lambda_d and self.density.numel():
            share_s = inference_outputs["mass"] / (kept_n * self.cell_weights).sum()
            smallest = torch.finfo(share_s.dtype).tiny
            log_ratio_s = self.density.clamp_min(smallest).log() - share_s.clamp_min(smallest).log()
            penalty = penalty + self.lambda_d * (self.density * log_ratio_s).sum()
        if self.constrained:
            penalty = penalty + self.lambda_count * (kept_n.sum() - self.target_count).abs()
            penalty = penalty + self.lambda_f_reg * (kept_n - kept_n.square()).sum()
        return LossOutput(
            loss=penalty - similarity,
            n_obs_minibatch=1,
            extra_metrics={"expression_term": similarity.detach(), "regularizer_term": penalty.detach()},
        )

    @torch.no_grad()
    def start_from_least_squares(self, n_rounds: int = _ROUNDS) -> None:
        r"""Begin with the non-negative shares of cells whose sum is nearest to each spot.

        .. math:: \min_{A \ge 0} \lVert A^\top S - G \rVert

        Multiplicative steps (Lee and Seung 2001) from equal shares; genes are brought to one length, as the cosine has
        them.

        Parameters
        ----------
        n_rounds
            Steps.
        """
        length_g = self.expression_sp.norm(dim=0).clamp_min(_SMALL)
        wanted_sg, have_ng = self.expression_sp / length_g, self.expression_sc / length_g
        shares_ns = self.mapper_unconstrained.fill_(1.0)
        for _ in range(n_rounds):
            reached_sg = torch.zeros_like(wanted_sg)
            for rows in _blocks(*shares_ns.shape):
                reached_sg.addmm_(shares_ns[rows].T, have_ng[rows])
            for rows in _blocks(*shares_ns.shape):
                ratio = (have_ng[rows] @ wanted_sg.T) / (have_ng[rows] @ reached_sg.T).clamp_min(_SMALL)
                shares_ns[rows] *= ratio
        for rows in _blocks(*shares_ns.shape):
            some = shares_ns[rows]
            some /= some.mean(1, keepdim=True).clamp_min(_SMALL)
            shares_ns[rows] = some.clamp_min(_SMALL).log()
