r"""Variational autoencoder of counts that learns which genes are zero-inflated (AutoZI).

.. math::
    \delta_g &\sim \mathrm{Beta}(\alpha_0, \beta_0), \qquad
    x_{ng} \sim \delta_g\,\mathrm{NB}(\mu_{ng}, \theta_g)
        + (1 - \delta_g)\,\mathrm{ZINB}(\mu_{ng}, \theta_g, \pi_{ng}) \\
    \mathcal{L} &= \tfrac{N}{n} \sum_n \left[ -\log p(x_n \mid z_n, \ell_n, \delta)
        + w\,\mathrm{KL}(q(z_n) \,\|\, p(z_n)) + \mathrm{KL}(q(\ell_n) \,\|\, p(\ell_n)) \right]
        + \sum_g \mathrm{KL}(\mathrm{Beta}(\alpha_g, \beta_g) \,\|\, \mathrm{Beta}(\alpha_0, \beta_0))

Both components share their negative binomial, so the mixture is again a ZINB: it adds a zero with probability
:math:`(1 - \delta_g)\,\pi_{ng}`. All :math:`\alpha, \beta` lie in (0, 1): the densities are U-shaped, a gene is one or
the other.

Dims: n cells (N in the training set), g genes, b batches, c classes, s samples.
Reference: Clivio et al., bioRxiv 2019 (:cite:p:`Clivio19`).
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Beta, Distribution
from torch.nn.functional import logsigmoid

from ..core import checked, unknown_name
from ..distributions import ZeroInflatedNegativeBinomial
from ..nn.fc_layers import decoded_as
from ..ops.draws import randn, rsample
from ..ops.elementwise import nb_log_prob
from .base import LossOutput, auto_move_data
from .vae import VAE

__all__ = ["AutoZIVAE", "kl_between_betas"]

_KINDS = ("gene", "gene-batch", "gene-label", "gene-cell")


class AutoZIVAE(VAE):
    r""":class:`~celbo.module.VAE` whose zeros are added in some genes only.

    Parameters
    ----------
    n_input
        Number of genes.
    alpha_prior, beta_prior
        Prior of :math:`\delta`, each between 0 and 1. None: one minus the other; both None: learned.
    minimal_dropout
        Smallest probability of an added zero in the zero-inflated component, in [0, 1). At 0 the two components may
        become the same.
    zero_inflation
        What :math:`\delta` belongs to: ``"gene"``, ``"gene-batch"`` or ``"gene-label"``, with a Beta posterior each,
        ``(g,)``, ``(g, b)`` or ``(g, c)``; or ``"gene-cell"``, each count. That one needs no posterior: a
        :math:`\delta_{ng}` of its own enters linearly, so it is integrated out, and its mean takes its place.
    **kwargs
        Further arguments of :class:`~celbo.module.VAE`.

    Raises
    ------
    ValueError
        A kind that does not exist; a prior or ``minimal_dropout`` out of range; a likelihood other than ``"zinb"``.
    """

    @checked
    def __init__(
        self,
        n_input: int,
        alpha_prior: float | None = 0.5,
        beta_prior: float | None = 0.5,
        minimal_dropout: float = 0.01,
        zero_inflation: Literal["gene", "gene-batch", "gene-label", "gene-cell"] = "gene",
        **kwargs: Any,
    ) -> None:
        if zero_inflation not in _KINDS:
            raise ValueError(unknown_name("choice of zero_inflation", zero_inflation, _KINDS))
        if kwargs.get("gene_likelihood", "zinb") != "zinb":
            raise ValueError(
                f"AutoZIVAE mixes 'nb' with 'zinb', so gene_likelihood={kwargs['gene_likelihood']!r} is out."
            )
        if not 0 <= minimal_dropout < 1:
            raise ValueError(f"minimal_dropout must lie in [0, 1), got {minimal_dropout}.")
        super().__init__(n_input=n_input, **kwargs)
        self.zero_inflation = zero_inflation
        self.minimal_dropout = minimal_dropout
        if zero_inflation != "gene-cell":
            groups = {"gene": (), "gene-batch": (self.n_batch,), "gene-label": (self.n_labels,)}[zero_inflation]
            # all genes start alike: what a random start says of a gene takes hundreds of epochs to unlearn
            self.alpha_posterior_logit = nn.Parameter(torch.zeros(n_input, *groups))
            self.beta_posterior_logit = nn.Parameter(torch.zeros(n_input, *groups))
        self._keep_prior(alpha_prior, beta_prior)

    def _keep_prior(self, alpha: float | None, beta: float | None) -> None:
        """Parameters when both are learned, else buffers."""
        if alpha is None and beta is None:
            self.alpha_prior_logit = nn.Parameter(randn(1))
            self.beta_prior_logit = nn.Parameter(randn(1))
            return
        alpha = 1 - beta if alpha is None else alpha  # type: ignore[operator]  # one of the two is given
        beta = 1 - alpha if beta is None else beta
        for name, value in (("alpha_prior", alpha), ("beta_prior", beta)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie between 0 and 1, both excluded, got {value}.")
            self.register_buffer(f"{name}_logit", torch.tensor([math.log(value) - math.log1p(-value)]))

    def _prior(self) -> tuple[Tensor, Tensor]:
        return self.alpha_prior_logit.sigmoid(), self.beta_prior_logit.sigmoid()

    def _posterior(self) -> tuple[Tensor, Tensor]:
        return self.alpha_posterior_logit.sigmoid(), self.beta_posterior_logit.sigmoid()

    def get_alphas_betas(self, as_numpy: bool = True) -> dict[str, Tensor | np.ndarray]:
        """Parameters of the Beta distributions.

        Parameters
        ----------
        as_numpy
            Whether to give numpy arrays instead of tensors.

        Returns
        -------
        ``alpha_posterior``, ``beta_posterior`` ``(g,)``, ``(g, b)`` or ``(g, c)``, left out for ``"gene-cell"``;
        ``alpha_prior``, ``beta_prior`` ``(1,)``.
        """
        found = dict(zip(("alpha_prior", "beta_prior"), self._prior(), strict=True))
        if self.zero_inflation != "gene-cell":
            found = dict(zip(("alpha_posterior", "beta_posterior"), self._posterior(), strict=True)) | found
        return {name: p.detach().cpu().numpy() if as_numpy else p for name, p in found.items()}

    def sample_from_beta_distribution(
        self, alpha: Tensor, beta: Tensor, eps_gamma: float = 1e-30, eps_sample: float = 1e-7
    ) -> Tensor:
        """Reparameterised draw from a Beta distribution, kept ``eps_sample`` away from 0 and 1.

        ``eps_gamma`` is accepted for compatibility with scvi-tools.
        """
        return rsample(Beta(alpha, beta, validate_args=False)).clamp(eps_sample, 1 - eps_sample)

    def reshape_bernoulli(
        self, bernoulli_params: Tensor, batch_index: Tensor | None = None, y: Tensor | None = None
    ) -> Tensor:
        r""":math:`\delta` of each cell: ``(..., g)`` as it is, ``(..., g, b)`` or ``(..., g, c)`` to ``(..., n, g)``.

        Raises
        ------
        ValueError
            The codes that ``zero_inflation`` asks for are not given.
        """
        if self.zero_inflation not in ("gene-batch", "gene-label"):
            return bernoulli_params
        name, codes = ("batch_index", batch_index) if self.zero_inflation == "gene-batch" else ("y", y)
        if codes is None:
            raise ValueError(f"`{name}` is needed, because the module was built with {self.zero_inflation=}.")
        return bernoulli_params[..., codes.squeeze(-1)].transpose(-1, -2)

    def sample_bernoulli_params(
        self, batch_index: Tensor | None = None, y: Tensor | None = None, n_samples: int = 1
    ) -> Tensor:
        r"""Draw :math:`\delta`, the probability that a gene has no added zeros.

        Parameters
        ----------
        batch_index, y
            Codes, ``(n, 1)``.
        n_samples
            With more than 1 there is a leading dimension.

        Returns
        -------
        ``(g,)`` or ``(s, g)`` for ``"gene"``, else ``(n, g)`` or ``(s, n, g)``; for ``"gene-cell"`` the mean of the
        prior, ``(1,)``.
        """
        if self.zero_inflation == "gene-cell":
            alpha, beta = self._prior()
            return alpha / (alpha + beta)
        alpha, beta = self._posterior()
        if n_samples > 1:
            alpha, beta = (p.expand(n_samples, *p.shape) for p in (alpha, beta))
        return self.reshape_bernoulli(self.sample_from_beta_distribution(alpha, beta), batch_index, y)

    def draw_delta(self) -> tuple[Tensor, Tensor]:
        r"""Draw :math:`\delta` for a whole data set, with its importance weight.

        Returns
        -------
        :math:`\delta` in the shape of its parameters, and :math:`\log p(\delta) - \log q(\delta)`, of no dimension.
        """
        if self.zero_inflation == "gene-cell":
            return self.sample_bernoulli_params(), torch.zeros(())
        delta = self.sample_from_beta_distribution(*self._posterior())
        return delta, (Beta(*self._prior()).log_prob(delta) - Beta(*self._posterior()).log_prob(delta)).sum()

    def rescale_dropout(self, px_dropout: Tensor, eps_log: float = 1e-8) -> Tensor:
        r"""Logits of :math:`m + (1 - m)\,\mathrm{sigmoid}(\cdot)`, m being ``minimal_dropout``.

        ``eps_log`` is accepted for compatibility with scvi-tools: nothing here comes near the log of 0.
        """
        log_lost, log_kept = self._log_dropout(px_dropout)
        return log_lost - log_kept

    def _log_dropout(self, px_dropout: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities that the zero-inflated component loses a count, and that it keeps it."""
        log_share = math.log1p(-self.minimal_dropout)
        log_lost = log_share + logsigmoid(px_dropout)
        if self.minimal_dropout > 0:
            log_lost = torch.logaddexp(log_lost, px_dropout.new_full((), math.log(self.minimal_dropout)))
        return log_lost, log_share + logsigmoid(-px_dropout)

    @auto_move_data
    def generative(  # type: ignore[override]  # scvi-tools' order
        self,
        z: Tensor,
        library: Tensor,
        batch_index: Tensor | None = None,
        y: Tensor | None = None,
        size_factor: Tensor | None = None,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        n_samples: int = 1,
        eps_log: float = 1e-8,
        transform_batch: Tensor | int | None = None,
        delta: Tensor | None = None,
    ) -> dict[str, Distribution | Tensor | None]:
        r"""Decode latents.

        Parameters
        ----------
        z, library, batch_index, y, size_factor, cont_covs, cat_covs, transform_batch
            See :meth:`VAE.generative`.
        n_samples
            Draws of :math:`\delta`; with more than 1 there is a leading dimension.
        eps_log
            Accepted for compatibility with scvi-tools.
        delta
            :math:`\delta` in the shape of its parameters; None: drawn from the posterior.

        Returns
        -------
        As :meth:`VAE.generative`, where ``px`` is the mixture, a ZINB; and ``bernoulli_params``, :math:`\delta`.
        """
        outputs: dict[str, Any] = super().generative(
            z,
            library,
            batch_index,
            cont_covs,
            cat_covs,
            size_factor,
            y,
            transform_batch,  # type: ignore[arg-type]
        )
        if batch_index is not None:
            batch_index = decoded_as(batch_index, transform_batch)
        if delta is None:
            delta = self.sample_bernoulli_params(batch_index, y, n_samples)
        else:
            delta = self.reshape_bernoulli(delta, batch_index, y)
        per_cell = (
            delta[:, None] if delta.dim() == 2 and self.zero_inflation == "gene" else delta
        )  # (s, g) to (s, 1, g)
        return outputs | {"px": self._mixture(outputs["px"], per_cell), "bernoulli_params": delta}

    def _mixture(self, zinb: ZeroInflatedNegativeBinomial, delta: Tensor) -> ZeroInflatedNegativeBinomial:
        r""":math:`\delta\,\mathrm{NB} + (1 - \delta)\,\mathrm{ZINB}`, which is a ZINB."""
        log_lost, log_kept = self._log_dropout(zinb.zi_logits)
        log_delta, log_rest = delta.log(), (-delta).log1p()
        zi_logits = log_rest + log_lost - torch.logaddexp(log_delta, log_rest + log_kept)
        if zinb.scale_logits is None:
            return ZeroInflatedNegativeBinomial(mu=zinb.mu, theta=zinb.theta, zi_logits=zi_logits, scale=zinb.scale)
        return ZeroInflatedNegativeBinomial.from_logits(zinb.scale_logits, zinb.log_library, zinb.log_theta, zi_logits)

    def nb_responsibility(self, x: Tensor, px: ZeroInflatedNegativeBinomial, delta: Tensor) -> Tensor:
        r"""Probability that a count came from the component without added zeros, ``(n, g)``.

        .. math:: r_{ng} = \frac{\delta\,\mathrm{NB}(x_{ng})}
                  {\delta\,\mathrm{NB}(x_{ng}) + (1 - \delta)\,\mathrm{ZINB}(x_{ng})}

        Parameters
        ----------
        x
            Counts, ``(n, g)``.
        px, delta
            The mixture and :math:`\delta`, as :meth:`generative` gives them.
        """
        log_nb = nb_log_prob(x, px.mu, px.theta)
        return (delta.log() + log_nb - px.log_prob(x)).exp()

    def compute_global_kl_divergence(self) -> Tensor:
        """KL divergence of the Beta posteriors from their prior, summed; 0 for ``"gene-cell"``, which has none."""
        if self.zero_inflation == "gene-cell":
            return self.alpha_prior_logit.new_zeros(())
        return kl_between_betas(*self._posterior(), *self._prior()).sum()

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
        n_obs: float = 1.0,
    ) -> LossOutput:
        """Negative evidence lower bound of all ``n_obs`` training cells, estimated from a minibatch.

        Returns
        -------
        As :meth:`VAE.loss`, with ``kl_global``; ``loss`` is ``n_obs`` times the mean over cells, plus ``kl_global``.
        """
        local = super().loss(tensors, inference_outputs, generative_outputs, kl_weight)
        kl_global = self.compute_global_kl_divergence()
        return local.replace(loss=n_obs * local.loss + kl_global, kl_global=kl_global)


def kl_between_betas(alpha: Tensor, beta: Tensor, alpha_0: Tensor, beta_0: Tensor) -> Tensor:
    r"""Kullback-Leibler divergence of Beta distributions in nats, elementwise.

    .. math:: \log\frac{B(\alpha_0, \beta_0)}{B(\alpha, \beta)} + (\alpha - \alpha_0)\,\psi(\alpha)
              + (\beta - \beta_0)\,\psi(\beta) + (\alpha_0 - \alpha + \beta_0 - \beta)\,\psi(\alpha + \beta)

    Parameters
    ----------
    alpha, beta, alpha_0, beta_0
        Parameters > 0 of the first distribution and of the second.
    """
    log_ratio = _log_beta(alpha_0, beta_0) - _log_beta(alpha, beta)
    more_a, more_b = alpha - alpha_0, beta - beta_0
    moments = more_a * alpha.digamma() + more_b * beta.digamma() - (more_a + more_b) * (alpha + beta).digamma()
    return log_ratio + moments


def _log_beta(alpha: Tensor, beta: Tensor) -> Tensor:
    return alpha.lgamma() + beta.lgamma() - (alpha + beta).lgamma()
