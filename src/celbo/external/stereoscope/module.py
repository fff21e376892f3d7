r"""Stereoscope: profiles of cell types from single cells, and how they mix in spots.

.. math:: x_{ng} \sim \mathrm{NB}\bigl(r_{ng}, o_g\bigr), \qquad
          r_{ng} = \ell_n\, \mathrm{softplus}(W_{g y_n}) \quad \text{for a cell of type } y_n, \\
          r_{sg} = \mathrm{softplus}(\beta_g) \sum_c \mathrm{softplus}(V_{cs})\, \mathrm{softplus}(W_{gc})
                   + \mathrm{softplus}(V_{Cs})\, \mathrm{softplus}(\eta_g) \quad \text{for a spot},

with ``NB(r, o)`` of total count ``r`` and log-odds ``o``: mean :math:`r e^{o}`, inverse dispersion ``r``.

Dims: n cells, s spots of the minibatch, g genes, c cell types.
Reference: Andersson et al., Communications Biology 2020.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.functional import softplus

from ...core import REGISTRY_KEYS, checked, unknown_name
from ...distributions import NegativeBinomial
from ...module.base import BaseModuleClass, LossOutput, auto_move_data
from ...ops.draws import randn
from ...ops.elementwise import inverse_softplus
from ...ops.quasi_newton import Extent
from .sums import sum_by_type

__all__ = ["RNADeconv", "SpatialDeconv"]

PRIOR_WEIGHTS = ("n_obs", "minibatch")


_PRIOR_COUNT = 0.1
_ODDS_BETWEEN = 0.02, 1e3  # of a success: variance over mean, less 1
_SHARE_OF_NOISE = 0.01
_SCALE_BETWEEN = 0.1, 10.0
_NOTHING = -5.0  # before the softplus


def _root_scale(amount: Tensor) -> Tensor:
    return (amount.mean() / amount).sqrt().clamp(*_SCALE_BETWEEN)


def _counts_of(rate: Tensor, px_o: Tensor) -> NegativeBinomial:
    return NegativeBinomial(mu=rate * px_o.exp(), theta=rate)


class RNADeconv(BaseModuleClass):
    r"""Profile of each cell type, by maximum likelihood.

    .. math:: \mathcal{L} = -\sum_n w_{y_n} \log \mathrm{NB}(x_n;\, \ell_n\, \mathrm{softplus}(W_{\cdot y_n}), o)

    Parameters
    ----------
    n_genes, n_labels
        Sizes.
    ct_weight
        Weight of the cells of each type, ``(c,)``; None: 1.

    Raises
    ------
    ValueError
        ``ct_weight`` does not have one weight for each type.
    """

    ct_weight: Tensor
    loss_adds_up = True

    @checked
    def __init__(self, n_genes: int, n_labels: int, *, ct_weight: np.ndarray | None = None) -> None:
        super().__init__()
        self.n_genes, self.n_labels = n_genes, n_labels
        weight_c = torch.ones(n_labels) if ct_weight is None else torch.as_tensor(ct_weight, dtype=torch.float32)
        if weight_c.shape != (n_labels,):
            raise ValueError(f"ct_weight has shape {tuple(weight_c.shape)}, wanted one weight a type: ({n_labels},).")
        self.px_o = nn.Parameter(randn(n_genes))
        self.W = nn.Parameter(randn(n_genes, n_labels))
        self.register_buffer("ct_weight", weight_c)

    @torch.no_grad()
    def start_from_cells(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        r"""Begin with moments: shares of counts by type, and the excess of the variance over the mean.

        .. math:: \hat\pi_{gc} = \frac{\sum_{n: y_n = c} x_{ng}}{\sum_{n: y_n = c} \ell_n}, \qquad
                  e^{o_g} = \frac{\sum_n (x_{ng} - \ell_n \hat\pi_{g y_n})^2}{\sum_n x_{ng}} - 1
        """
        sums = sum_by_type(batches, self.n_labels)
        share_gc = (sums.counts_gc + _PRIOR_COUNT) / (sums.library_c + 1)
        square_g = sums.square_g + (share_gc**2 * sums.library2_c - 2 * share_gc * sums.by_library_gc).sum(1)
        odds_g = (square_g / sums.counts_gc.sum(1).clamp(min=1) - 1).clamp(*_ODDS_BETWEEN)
        self.px_o.copy_(odds_g.log())
        self.W.copy_(inverse_softplus(share_gc / odds_g[:, None]))

    def search_extents(self) -> Mapping[str, Extent]:
        """The more counts a type has of a gene, the narrower its maximum."""
        share_gc = softplus(self.W.detach()) * self.px_o.detach().exp()[:, None]
        return {"W": Extent(_root_scale(share_gc)), "px_o": Extent(_root_scale(share_gc.sum(1)))}

    @torch.no_grad()
    def get_params(self) -> tuple[np.ndarray, np.ndarray]:
        """What spots need to know: ``W``, ``(g, c)``, before the softplus, and the log-odds ``px_o``, ``(g,)``."""
        return self.W.cpu().numpy(), self.px_o.cpu().numpy()

    def inference(self) -> dict[str, Any]:
        """Nothing is inferred for a cell."""
        return {}

    @auto_move_data
    def generative(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        """Counts of cells, given the types ``y``, ``(n, 1)``."""
        library = x.sum(1, keepdim=True)
        scale_ng = softplus(self.W).T[y[:, 0]]
        rate_ng = library * scale_ng
        px = _counts_of(rate_ng, self.px_o)
        return {"px": px, "px_scale": scale_ng, "px_o": self.px_o, "px_rate": rate_ng, "library": library}

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: float = 1.0,
    ) -> LossOutput:
        """Negative log-likelihood, summed over the minibatch; there is nothing for ``kl_weight`` to weigh."""
        nll_n = -generative_outputs["px"].log_prob_sum(tensors[REGISTRY_KEYS.X_KEY])
        weight_n = self.ct_weight[tensors[REGISTRY_KEYS.LABELS_KEY][:, 0]]
        return LossOutput(loss=(weight_n * nll_n).sum(), reconstruction_loss=nll_n)


class SpatialDeconv(BaseModuleClass):
    r"""Abundance of each cell type in each spot, by maximum a posteriori under :math:`\eta_g \sim N(0, 1)`.

    .. math:: \mathcal{L} = N \cdot \frac{1}{|S|} \sum_{s \in S} -\log \mathrm{NB}(x_s; r_s, o)
              - \sum_g \log N(\eta_g; 0, 1)

    Parameters
    ----------
    n_spots
        Spots of the data, N.
    sc_params
        ``W`` ``(g, c)`` and ``px_o`` ``(g,)`` of :meth:`RNADeconv.get_params`.
    prior_weight
        ``"n_obs"``: the formula above. ``"minibatch"``: the likelihood is summed over the minibatch and not scaled up
        to all spots, so that the prior counts for more.

    Raises
    ------
    ValueError
        There is no such ``prior_weight``; the nearest is named.
    """

    W: Tensor
    px_o: Tensor

    @checked
    def __init__(
        self,
        n_spots: int,
        sc_params: tuple[np.ndarray, np.ndarray],
        prior_weight: Literal["n_obs", "minibatch"] = "n_obs",
    ) -> None:
        super().__init__()
        if prior_weight not in PRIOR_WEIGHTS:
            raise ValueError(unknown_name("prior_weight", prior_weight, PRIOR_WEIGHTS))
        w_gc, px_o = (torch.tensor(np.asarray(values), dtype=torch.float32) for values in sc_params)
        self.n_spots, self.n_genes, self.n_labels, self.prior_weight = n_spots, *w_gc.shape, prior_weight
        self.eta = nn.Parameter(randn(self.n_genes))
        self.V = nn.Parameter(randn(self.n_labels + 1, n_spots))
        self.beta = nn.Parameter(0.01 * randn(self.n_genes))
        self.register_buffer("W", w_gc)
        self.register_buffer("px_o", px_o)

    @property
    def loss_adds_up(self) -> bool:  # type: ignore[override]
        """Whether losses of minibatches are sums."""
        return self.prior_weight == "minibatch"

    @torch.no_grad()
    def start_from_cells(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Begin with equal shares of the types that make up the count of each spot, and a hundredth of noise."""
        self.eta.zero_()
        self.beta.copy_(inverse_softplus(torch.ones_like(self.beta)))
        odds_g = self.px_o.exp()
        a_type = self.n_labels * (softplus(self.W) * odds_g[:, None]).sum(0).mean()
        a_noise = (softplus(self.eta) * odds_g).sum() / _SHARE_OF_NOISE
        for tensors in batches:
            total_s = tensors[REGISTRY_KEYS.X_KEY].sum(1).to(self.V).clamp(min=1)
            row_s = tensors[REGISTRY_KEYS.INDICES_KEY][:, 0].long().to(self.V.device)
            self.V[:-1, row_s] = inverse_softplus(total_s / a_type).expand(self.n_labels, -1)
            self.V[-1, row_s] = inverse_softplus(total_s / a_noise)

    def search_extents(self) -> Mapping[str, Extent]:
        """Abundances are in the tens of thousands, or near 0, below which they do not matter any more."""
        abundance_cs = softplus(self.V.detach())
        abundance_cs[:-1] = abundance_cs[:-1].mean(0)
        scale_cs = (abundance_cs * abundance_cs.mean(1, keepdim=True)).sqrt().clamp(min=1)
        return {"V": Extent(scale_cs, lower=_NOTHING)}

    @torch.no_grad()
    def get_proportions(self, keep_noise: bool = False) -> np.ndarray:
        """Share of each type in each spot, ``(s, c)``, or ``(s, c + 1)`` with the noise; rows sum to 1."""
        abundance_sc = softplus(self.V).T
        abundance_sc = abundance_sc if keep_noise else abundance_sc[:, :-1]
        return (abundance_sc / abundance_sc.sum(1, keepdim=True)).cpu().numpy()

    @torch.no_grad()
    @auto_move_data
    def get_ct_specific_expression(self, y: Tensor) -> Tensor:
        """Expected counts of one unit of each of the types ``y``, ``(n, 1)``, as spots have them: ``(n, g)``."""
        return self.px_o.exp() * self._profiles_gc().T[y[:, 0]]

    def _profiles_gc(self) -> Tensor:
        return softplus(self.beta)[:, None] * softplus(self.W)

    def inference(self) -> dict[str, Any]:
        """Nothing is inferred for a spot: its abundances are parameters."""
        return {}

    @auto_move_data
    def generative(self, x: Tensor, ind_x: Tensor) -> dict[str, Any]:
        """Counts of the spots with the row numbers ``ind_x``, ``(s, 1)``."""
        sources_gc = torch.cat([self._profiles_gc(), softplus(self.eta)[:, None]], dim=1)
        abundance_sc = softplus(self.V[:, ind_x[:, 0].long()]).T
        rate_sg = abundance_sc @ sources_gc.T
        px = _counts_of(rate_sg, self.px_o)
        return {"px": px, "px_o": self.px_o, "px_rate": rate_sg, "px_scale": sources_gc, "abundance": abundance_sc}

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: float = 1.0,
        n_obs: int = 1,
    ) -> LossOutput:
        """Negative log-posterior; ``kl_global`` is the prior's term, ``noise_proportion`` what no type explains."""
        nll_s = -generative_outputs["px"].log_prob_sum(tensors[REGISTRY_KEYS.X_KEY])
        standard = Normal(torch.zeros_like(self.eta), torch.ones_like(self.eta), validate_args=False)
        prior = -standard.log_prob(self.eta).sum()
        nll = n_obs * nll_s.mean() if self.prior_weight == "n_obs" else nll_s.sum()
        abundance_sc = generative_outputs["abundance"].detach()
        noise = (abundance_sc[:, -1] / abundance_sc.sum(1)).mean()
        return LossOutput(
            loss=nll + prior,
            reconstruction_loss=nll_s,
            kl_global=prior,
            extra_metrics={"noise_proportion": noise},
        )
