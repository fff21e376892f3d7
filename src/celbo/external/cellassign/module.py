r"""CellAssign: a mixture model whose components are cell types that over-express their marker genes.

.. math:: y_n \sim \mathrm{Cat}(\pi), \qquad x_{ng} \mid y_n = c \sim \mathrm{NB}(\mu_{ngc}, \phi(\mu_{ngc})), \\
          \log \mu_{ngc} = \log s_n + \beta_{g0} + \sum_p \beta_{gp} d_{np} + \rho_{gc} \delta_{gc}, \qquad
          \phi(\mu) = \sum_i a_i e^{-b (\mu - v_i)^2}

with :math:`\pi \sim \mathrm{Dirichlet}(0.01)` and :math:`\log \delta_{gc} \sim N(\bar\delta, \sigma^2)` for markers
(:math:`\rho_{gc} = 1`). The type of a cell is summed over: its posterior, the responsibilities, has a closed form,

.. math:: \gamma_{nc} = \mathrm{softmax}_c\bigl(\log \pi_c + \textstyle\sum_g \log p(x_{ng} \mid y_n = c)\bigr).

Dims: n cells, g genes, c cell types, p columns of the design matrix, i basis functions of the dispersion.
Reference: Zhang et al., Nature Methods 2019.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.functional import log_softmax, one_hot

from ...core import REGISTRY_KEYS, checked
from ...distributions import NegativeBinomial
from ...module.base import BaseModuleClass, LossOutput, auto_move_data
from ...ops.draws import randn, uniform
from ...ops.elementwise import nb_log_prob
from ...ops.quasi_newton import Extent

__all__ = ["CellAssignModule"]

DIRICHLET_CONCENTRATION = 0.01
_SMALLEST_LOG_SHARE = math.log(1e-20)  # the Dirichlet density has no bound: a type without cells would run away
_SMALLEST_DISPERSION = 1e-10
_PEERS_UNUSED = ("px_r", "z_encoder.", "l_encoder.", "decoder.")


class CellAssignModule(BaseModuleClass):
    """The mixture model; see the formulas of this file.

    Parameters
    ----------
    n_genes
        Number of marker genes.
    rho
        Which gene marks which type, ``(g, c)`` of 0 and 1.
    basis_means
        Centres :math:`v_i` of the dispersion's basis functions, evenly spaced over the counts, ``(i,)``.
    b_g_0
        Initial log base expression, ``(g,)``, where ``random_b_g_0`` is False.
    random_b_g_0
        Begin with standard normal draws instead.
    n_batch, n_cats_per_cov, n_continuous_cov
        Sizes of the covariates.

    Raises
    ------
    ValueError
        ``rho`` does not have one row for each gene, or ``random_b_g_0=False`` comes without ``b_g_0``.
    """

    search_tolerance = 1e-4  # of 8 to 100 nats per cell

    min_delta = 2
    """Smallest log fold change of a marker; training keeps to it."""

    rho: Tensor
    basis_means: Tensor
    dirichlet_concentration: Tensor

    @checked
    def __init__(
        self,
        n_genes: int,
        rho: Tensor,
        basis_means: Tensor,
        b_g_0: Tensor | None = None,
        random_b_g_0: bool = True,
        n_batch: int = 0,
        n_cats_per_cov: Iterable[int] | None = None,
        n_continuous_cov: int = 0,
    ) -> None:
        super().__init__()
        rho_gc, n_labels = torch.as_tensor(rho, dtype=torch.float32), rho.shape[1]
        if rho_gc.shape[0] != n_genes:
            raise ValueError(f"rho has {rho_gc.shape[0]} rows, wanted one for each of the {n_genes} genes.")
        if b_g_0 is None and not random_b_g_0:
            raise ValueError("random_b_g_0=False needs b_g_0, the initial log base expression of each gene.")
        self.n_genes, self.n_labels, self.n_batch = n_genes, n_labels, n_batch
        self.n_cats_per_cov, self.n_continuous_cov = tuple(n_cats_per_cov or ()), n_continuous_cov
        n_columns = n_batch + sum(self.n_cats_per_cov) + n_continuous_cov
        self.b_g_0 = nn.Parameter(randn(n_genes) if random_b_g_0 else torch.as_tensor(b_g_0).float())
        self.theta_logit = nn.Parameter(randn(n_labels))
        self.delta_log = nn.Parameter(uniform(-2, 2, n_genes, n_labels))
        self.delta_log_mean = nn.Parameter(torch.zeros(1))
        self.delta_log_log_scale = nn.Parameter(torch.zeros(1))
        self.log_a = nn.Parameter(torch.zeros(len(basis_means)))
        if n_columns:
            self.beta = nn.Parameter(torch.zeros(n_genes, n_columns))
        self.register_buffer("rho", rho_gc)
        self.register_buffer("dirichlet_concentration", torch.full((n_labels,), DIRICHLET_CONCENTRATION))
        self.register_buffer("basis_means", torch.as_tensor(basis_means, dtype=torch.float32))

    def search_extents(self) -> Mapping[str, Extent]:
        """Log fold changes of markers end at ``min_delta``."""
        return {"delta_log": Extent(lower=math.log(self.min_delta))}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Weights by name; those of the autoencoder that scvi-tools' class derives from and never runs are left out."""
        own = {name: value for name, value in state_dict.items() if not name.startswith(_PEERS_UNUSED)}
        return super().load_state_dict(own, strict=strict, assign=assign)

    def _get_generative_input(
        self, tensors: Mapping[str, Tensor], inference_outputs: Mapping[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        bound = super()._get_generative_input(tensors, inference_outputs, **kwargs)
        return bound | {"design_matrix": self._design_matrix(tensors)}

    def _design_matrix(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Covariates as columns of numbers, ``(n, p)``: batch, continuous ones, categorical ones."""
        columns = []
        if self.n_batch:
            columns.append(one_hot(tensors[REGISTRY_KEYS.BATCH_KEY][:, 0], self.n_batch))
        if self.n_continuous_cov:
            columns.append(tensors[REGISTRY_KEYS.CONT_COVS_KEY])
        if self.n_cats_per_cov:
            codes = tensors[REGISTRY_KEYS.CAT_COVS_KEY].unbind(1)
            columns += [one_hot(code_n, size) for code_n, size in zip(codes, self.n_cats_per_cov, strict=True)]
        return torch.cat(columns, dim=1).float() if columns else None

    def inference(self) -> dict[str, Any]:
        """Nothing is encoded: types are inferred in closed form."""
        return {}

    @auto_move_data
    def generative(
        self, x: Tensor, size_factor: Tensor, batch_index: Tensor | None = None, design_matrix: Tensor | None = None
    ) -> dict[str, Any]:
        """Likelihood under each type, and the responsibilities.

        Parameters
        ----------
        x, size_factor
            Counts ``(n, g)``, size factors ``(n, 1)``.
        batch_index
            Not used: batches are columns of the design matrix.
        design_matrix
            Covariates, ``(n, p)``.

        Returns
        -------
        ``mu`` and ``phi``, mean and inverse dispersion under each type, ``(n, g, c)``; ``p_x_c``, the log joint
        probability of counts and type, ``(n, c)``; ``gamma``, responsibilities, ``(n, c)``; ``px``, counts with mean
        and inverse dispersion averaged over the types; ``s``, the size factors.
        """
        base_ng = size_factor.log() + self.b_g_0
        if design_matrix is not None:
            base_ng = base_ng + design_matrix @ self.beta.T
        mu_ngc = (base_ng[:, :, None] + self.rho * self.delta_log.exp()).exp()
        phi_ngc = self._dispersion(mu_ngc)
        log_joint_nc = nb_log_prob(x[:, :, None], mu_ngc, phi_ngc).sum(1) + log_softmax(self.theta_logit, 0)
        gamma_nc = log_joint_nc.softmax(-1)
        mean_ng, theta_ng = ((gamma_nc[:, None] * of_type).sum(-1) for of_type in (mu_ngc, phi_ngc))
        px = NegativeBinomial(mu=mean_ng, theta=theta_ng, scale=mean_ng / mean_ng.sum(-1, keepdim=True))
        return {"mu": mu_ngc, "phi": phi_ngc, "gamma": gamma_nc, "p_x_c": log_joint_nc, "px": px, "s": size_factor}

    def _dispersion(self, mu: Tensor) -> Tensor:
        width = self.basis_means[1] - self.basis_means[0]
        bumps = torch.exp(-((mu[..., None] - self.basis_means) ** 2) / (2 * width**2))
        return bumps @ self.log_a.exp() + _SMALLEST_DISPERSION

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        n_obs: int = 1,
        em: bool = False,
    ) -> LossOutput:
        r"""Loss of a minibatch: negative expected log-likelihood, and the priors' share.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            As everywhere.
        n_obs
            Cells trained on: each bears :math:`1/N` of the negative log-prior, which is ``kl_global``.
        em
            False, as in scvi-tools: :math:`-\sum_c \gamma_{nc} \log p(x_n, y_n = c)`, differentiated through
            :math:`\gamma`. True: an EM step. :math:`\gamma` is a constant, the loss is
            :math:`-\sum_c \gamma_{nc} \log p(x_n \mid c) + \mathrm{KL}(\gamma_n \| \pi)`, which is
            :math:`-\log p(x_n)`; its gradient is that of the expected log-likelihood under fixed responsibilities.
        """
        log_joint_nc, gamma_nc = generative_outputs["p_x_c"], generative_outputs["gamma"]
        prior = self._negative_log_prior()
        if not em:
            nll_n = -(gamma_nc * log_joint_nc).sum(-1)
            return LossOutput(loss=nll_n.mean() + prior / n_obs, reconstruction_loss=nll_n, kl_global=prior)
        log_gamma_nc, log_pi = log_joint_nc.log_softmax(-1).detach(), log_softmax(self.theta_logit, 0)
        gamma_nc = log_gamma_nc.exp()
        nll_n = -(gamma_nc * (log_joint_nc - log_pi)).sum(-1)
        kl_n = (gamma_nc * (log_gamma_nc - log_pi)).sum(-1)
        return LossOutput(
            loss=(nll_n + kl_n).mean() + prior / n_obs, reconstruction_loss=nll_n, kl_local=kl_n, kl_global=prior
        )

    def _negative_log_prior(self) -> Tensor:
        alpha_c = self.dirichlet_concentration
        log_pi = log_softmax(self.theta_logit, 0).logaddexp(torch.full_like(alpha_c, _SMALLEST_LOG_SHARE))
        log_share = ((alpha_c - 1) * log_pi).sum() + alpha_c.sum().lgamma() - alpha_c.lgamma().sum()
        scale = (0.5 * self.delta_log_log_scale).exp()  # scvi-tools' name: it is the log variance
        log_delta = Normal(self.delta_log_mean, scale, validate_args=False).log_prob(self.delta_log)
        return -log_share - (log_delta * (self.rho > 0)).sum()
