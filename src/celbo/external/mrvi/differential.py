r"""How a cell depends on covariates of samples: a regression in each cell over the samples that it is put into.

.. math:: \frac{e_{nsk} - \bar e_{nk}}{\sigma_{nk}} \approx \sum_q X_{sq} \beta_{nqk}, \qquad
          t_{nq} = \sum_k \bigl[(X^\top X + \lambda)^{1/2} \beta_n\bigr]_{qk}^2

with :math:`e_{ns} = \epsilon(u_n, s)`, the effect of the sample, averaged over draws of u. Its tail under
:math:`\chi^2` with as many degrees of freedom as samples is the p-value, and false discovery rates are those of
Benjamini and Hochberg over all cells and covariates. Fold changes are those of the profile at
:math:`A u_n + \bar e_n + \sigma_n \beta_{nq}` over that at :math:`A u_n + \bar e_n`, averaged over batches.

Dims: n cells, s samples, k latents, q covariates, g genes, t draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import false_discovery_control
from torch import Tensor
from torch.distributions import Chi2

from ...ops.draws import rsample
from ...posterior.passes import Batches, Rows, evaluating
from .counterfactual import A_PAIR, Block, blocks, in_samples
from .module import TorchMRVAE

__all__ = ["Regression", "differential", "false_discovery_rates"]

_EPS = 1e-6


@dataclass(frozen=True)
class Regression:
    """Settings of :func:`differential`.

    Attributes
    ----------
    matrix_sq
        Design matrix of the samples.
    samples
        Their codes, ``(s,)``.
    folded
        Columns to give fold changes for.
    offsets
        Columns that are offsets of the batches, one for each; empty: no offsets.
    draws
        Draws of u.
    ridge
        Added to the diagonal of the normal equations.
    eps
        Added to profiles before their logarithm.
    delta
        Give the probability of a larger log2 fold change; None: leave it out.
    baseline
        Whether to give the profile that fold changes start from.
    """

    matrix_sq: np.ndarray
    samples: np.ndarray
    folded: Sequence[int] = ()
    offsets: Sequence[int] = ()
    draws: int = 50
    ridge: float = 0.0
    eps: float = 1e-4
    delta: float | None = 0.3
    baseline: bool = False


def differential(
    module: TorchMRVAE,
    batches: Batches,
    asked: Regression,
    *,
    is_admissible_ns: np.ndarray | None = None,
    n_cells: int | None = None,
    seed: int | None = None,
) -> dict[str, np.ndarray]:
    """Regression of each cell's effects of samples on what is known of these.

    Parameters
    ----------
    module, batches, n_cells, seed
        As everywhere.
    asked
        The settings.
    is_admissible_ns
        Whether a cell may be put into a sample, in the order of the cells and of ``asked.samples``; None: into all.

    Returns
    -------
    ``beta`` ``(n, q, k)``, ``effect_size`` and ``pvalue`` ``(n, q)``; where fold changes are wanted ``lfc``,
    ``lfc_std`` and ``pde`` ``(n, q, g)``, and ``baseline_expression`` ``(n, g)``.
    """
    rows: dict[str, Rows] = {}
    start = 0
    with evaluating(module, seed):
        device = module.device
        design = torch.from_numpy(asked.matrix_sq).to(device)
        samples = torch.from_numpy(asked.samples).to(device)
        n_genes = len(module.px.px_r) if asked.folded else 0
        numbers = asked.draws * max(A_PAIR * len(samples), 4 * n_genes)
        for block in blocks(module, batches, numbers):
            n = len(block.sample_n)
            may = torch.ones(1, len(samples), dtype=torch.bool, device=device)
            if is_admissible_ns is not None:
                may = torch.from_numpy(is_admissible_ns[start : start + n]).to(device)
            start += n
            for name, values in _of_block(module, block, design, samples, may, asked).items():
                rows.setdefault(name, Rows(n_cells)).append(values)
    return {name: values.array() for name, values in rows.items()}


def _of_block(
    module: TorchMRVAE, block: Block, design: Tensor, samples: Tensor, may_ns: Tensor, asked: Regression
) -> dict[str, Tensor]:
    part: Any = "eps" if module.regresses_effects else "z"
    effect_tnsk = in_samples(module, block.qu, samples, asked.draws, part)
    mean_tnk, sd_tnk = _moments(effect_tnsk, may_ns)
    standard_tnsk = (effect_tnsk - mean_tnk[:, :, None]) / (_EPS + sd_tnk[:, :, None])
    solve_nqs, root_nqq = _equations(design, may_ns, asked.ridge)
    beta_tnqk = torch.einsum("nqs,tnsk->tnqk", solve_nqs.expand(len(block.sample_n), -1, -1), standard_tnsk)
    size_nq = torch.einsum("npq,tnqk->tnpk", root_nqq.expand(len(block.sample_n), -1, -1), beta_tnqk)
    size_nq = size_nq.square().mean(0).sum(-1)
    beta_tnqk = beta_tnqk * sd_tnk[:, :, None]
    n_samples_n1 = may_ns.sum(1, keepdim=True).to(size_nq)
    p_nq = 1 - Chi2(n_samples_n1.clamp(min=1)).cdf(size_nq)  # where there is none the size is 0
    answers = {"beta": beta_tnqk.mean(0), "effect_size": size_nq, "pvalue": p_nq}
    if asked.folded:
        base_tnk = module.move(rsample(block.qu, (asked.draws,)), block.sample_n)["z_base"]
        answers |= _fold_changes(module, base_tnk + mean_tnk, beta_tnqk, asked)
    return answers


def _moments(values_tnsk: Tensor, may_ns: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the samples that a cell may be put into, ``(t, n, k)`` each."""
    weight = may_ns.to(values_tnsk)[..., None]
    count_n1 = weight.sum(-2)
    mean_tnk = (values_tnsk * weight).sum(-2) / count_n1.clamp(min=1)
    spread = ((values_tnsk - mean_tnk[:, :, None]) * weight).square().sum(-2)
    return mean_tnk, (spread / (count_n1 - 1).clamp(min=1)).sqrt()


def _equations(design_sq: Tensor, may_ns: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """What solves the regression, ``(n, q, s)``, and the root of its normal matrix, ``(n, q, q)``; float32."""
    x_nsq = design_sq * may_ns.to(design_sq)[..., None]
    eye = torch.eye(x_nsq.shape[-1], dtype=x_nsq.dtype, device=x_nsq.device)
    normal_nqq = x_nsq.mT @ x_nsq + ridge * eye
    values_nq, vectors_nqq = torch.linalg.eigh(normal_nqq)
    root_nqq = vectors_nqq @ torch.diag_embed(values_nq.clamp(min=0).sqrt()) @ vectors_nqq.mT
    return (torch.linalg.pinv(normal_nqq, hermitian=True) @ x_nsq.mT).float(), root_nqq.float()


def _fold_changes(module: TorchMRVAE, start_tnk: Tensor, beta_tnqk: Tensor, asked: Regression) -> dict[str, Tensor]:
    """Fold changes (base 2) of profiles, over draws and batches."""
    sums: dict[str, Any] = dict.fromkeys(("lfc", "variance", "pde", "baseline"), 0)
    for batch in range(module.n_batch):
        from_tnk = start_tnk + beta_tnqk[:, :, asked.offsets[batch]] if asked.offsets else start_tnk
        before = _profile(module, from_tnk, batch)
        sums["baseline"] = sums["baseline"] + before.mean(0) / module.n_batch
        per_column: dict[str, list[Tensor]] = {"lfc": [], "variance": [], "pde": []}
        for column in asked.folded:
            after = _profile(module, from_tnk + beta_tnqk[:, :, column], batch)
            lfc_tng = (after + asked.eps).log2() - (before + asked.eps).log2()
            per_column["lfc"].append(lfc_tng.mean(0))
            per_column["variance"].append((lfc_tng - lfc_tng[:1]).var(0, unbiased=False))
            per_column["pde"].append((lfc_tng.abs() >= (asked.delta or 0)).float().mean(0))
        for name, values in per_column.items():
            sums[name] = sums[name] + torch.stack(values, dim=1) / module.n_batch
    answers = {"lfc": sums["lfc"], "lfc_std": sums["variance"].sqrt()}
    if asked.delta is not None:
        answers["pde"] = sums["pde"]
    return answers | ({"baseline_expression": sums["baseline"]} if asked.baseline else {})


def _profile(module: TorchMRVAE, z_tnk: Tensor, batch: int) -> Tensor:
    return module.px(z_tnk, torch.full((1,), batch, device=z_tnk.device)).softmax(-1)


def false_discovery_rates(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's, of p-values of any shape taken together."""
    return false_discovery_control(p.ravel().astype(float)).reshape(p.shape).astype(np.float32)
