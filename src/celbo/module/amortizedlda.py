r"""Latent Dirichlet allocation with an encoder: topics of cells, features of topics.

.. math::
    \beta_k &\sim \mathrm{Dir}(\eta), \qquad \theta_n \sim \mathrm{Dir}(\alpha), \qquad
    p(x_n \mid \theta_n, \beta) = \prod_g \Bigl(\sum_k \theta_{nk}\,\beta_{kg}\Bigr)^{x_{ng}} \\
    \mathcal{L} &= \tfrac{1}{n} \sum_n \left[ -\log p(x_n \mid \theta_n, \beta)
        + w\,\mathrm{KL}(q(\theta_n \mid x_n) \,\|\, p(\theta)) \right]
        + \tfrac{w}{N} \sum_k \mathrm{KL}(q(\beta_k) \,\|\, p(\beta))

Each Dirichlet is replaced by the softmax of the normal variable that is nearest to it by Laplace's approximation
(MacKay 1998); posteriors are softmaxes of normal variables too, so that both divergences have the closed form of normal
ones. Counts are an ordered bag of words: no multinomial coefficient.

Dims: n cells (N in the training set), g features, k topics, s samples.
References: Blei, Ng and Jordan, JMLR 2003 (:cite:p:`Blei03`); Srivastava and Sutton, ICLR 2017.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence
from torch.nn.functional import softplus

from ..core import REGISTRY_KEYS, checked
from ..nn import Encoder
from ..ops.draws import rsample, sample
from ..ops.elementwise import inverse_softplus
from ..ops.topics import topics_of_counts
from .base import BaseModuleClass, LossOutput, auto_move_data

__all__ = ["AmortizedLDAModule", "logistic_normal_of"]

Concentration = float | Sequence[float] | None

_SPREAD = 0.1
"""Of the posterior of topics that begin with what counts say."""


def logistic_normal_of(concentration: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mean and standard deviation of the normal variable whose softmax is near a Dirichlet distribution.

    .. math:: \mu_k = \log\alpha_k - \tfrac{1}{K} \sum_i \log\alpha_i, \qquad
              \sigma_k^2 = \tfrac{1}{\alpha_k} \bigl(1 - \tfrac{2}{K}\bigr) + \tfrac{1}{K^2} \sum_i \tfrac{1}{\alpha_i}

    Parameters
    ----------
    concentration
        :math:`\alpha > 0`, ``(k,)``.
    """
    size = len(concentration)
    log_alpha, inverse = concentration.log(), concentration.reciprocal()
    variance = inverse * (1 - 2 / size) + inverse.sum() / size**2
    return log_alpha - log_alpha.mean(), variance.sqrt()


class AmortizedLDAModule(BaseModuleClass):
    """Topic model of counts whose document posteriors come from an encoder.

    Parameters
    ----------
    n_input
        Number of features.
    n_topics
        Number of topics.
    n_hidden
        Size of the encoder's hidden layer.
    cell_topic_prior, topic_feature_prior
        Concentration of the Dirichlet priors over topics and over features: a number for all, or one each. None:
        ``1 / n_topics``.

    Raises
    ------
    ValueError
        A concentration that is not positive, or not of the right length; less than one topic.

    Notes
    -----
    The parts are named ``_model`` (priors) and ``_guide`` (posteriors), as in scvi-tools' archives.
    """

    latent_distribution = "ln"

    @checked
    def __init__(
        self,
        n_input: int,
        n_topics: int,
        n_hidden: int,
        cell_topic_prior: Concentration = None,
        topic_feature_prior: Concentration = None,
    ) -> None:
        super().__init__()
        if n_topics < 1:
            raise ValueError(f"n_topics must be at least 1, got {n_topics}.")
        self.n_input, self.n_topics, self.n_hidden = n_input, n_topics, n_hidden
        self._model = _Priors(
            _concentration("cell_topic_prior", cell_topic_prior, n_topics, n_topics),
            _concentration("topic_feature_prior", topic_feature_prior, n_input, n_topics),
        )
        self._guide = _Posteriors(self._model, n_topics, n_hidden)

    @auto_move_data
    def inference(self, x: Tensor) -> dict[str, Any]:
        r"""Encode counts, ``(n, g)``: ``qz``, the normal posterior before the softmax, and ``z``, topics of a draw."""
        qz = self._guide.cell_topics(x)
        return {"qz": qz, "z": rsample(qz).softmax(-1)}

    @auto_move_data
    def generative(self, z: Tensor) -> dict[str, Any]:
        """Decode topics, ``(n, k)``, with a draw of the topics' features.

        Returns
        -------
        ``feature_probs`` ``(n, g)``, rows sum to 1; ``pz``; ``q_topics`` and ``p_topics``, before the softmax.
        """
        q_topics = self._guide.topics()
        return {
            "feature_probs": z @ rsample(q_topics).softmax(-1),
            "pz": self._model.cell_topics(),
            "q_topics": q_topics,
            "p_topics": self._model.topic_features(),
        }

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
        n_obs: float = 1.0,
    ) -> LossOutput:
        """Negative evidence lower bound per cell, its divergences weighted by ``kl_weight``.

        Parameters
        ----------
        n_obs
            Number of training cells, which the topics' divergence is shared among.
        """
        probs_ng = generative_outputs["feature_probs"]
        tiny = torch.finfo(probs_ng.dtype).tiny  # where softmaxes underflow, 0 log 0 would be NaN
        nll_n = -(tensors[REGISTRY_KEYS.X_KEY] * probs_ng.clamp_min(tiny).log()).sum(-1)
        kl_n = kl_divergence(inference_outputs["qz"], generative_outputs["pz"]).sum(-1)
        kl_global = kl_divergence(generative_outputs["q_topics"], generative_outputs["p_topics"]).sum()
        return LossOutput(
            loss=(nll_n + kl_weight * kl_n).mean() + kl_weight * kl_global / n_obs,
            reconstruction_loss=nll_n,
            kl_local=kl_n,
            kl_global=kl_global,
        )

    @torch.no_grad()
    def start_from_counts(self, x: Tensor) -> bool:
        """Begin with topics that a short search finds: from the same beginning for all, some stay merged for good."""
        x = x[x.sum(1) > 0]
        if len(x) < self.n_topics or self.n_topics == 1 or not (x.isfinite() & (x >= 0)).all():
            return False
        topics_kg, _ = topics_of_counts(x, self.n_topics)
        by_prior = self._model.cell_topic_prior_mu.argsort(
            descending=True, stable=True
        )  # the largest is expected first
        log_kg = topics_kg.log()
        self._guide.topic_feature_posterior_mu[by_prior] = log_kg - log_kg.mean(1, keepdim=True)
        self._guide.unconstrained_topic_feature_posterior_sigma.copy_(inverse_softplus(torch.tensor(_SPREAD)))
        return True

    @torch.no_grad()
    def topic_by_feature(self, n_samples: int) -> Tensor:
        """Monte Carlo mean of the features of each topic, ``(k, g)``, rows sum to 1."""
        return _mean_on_simplex(self._guide.topics(), n_samples)

    @auto_move_data
    @torch.no_grad()
    def get_topic_distribution(self, x: Tensor, n_samples: int) -> Tensor:
        """Monte Carlo mean of the topics of each cell, ``(n, k)``, rows sum to 1."""
        return _mean_on_simplex(self._guide.cell_topics(x), n_samples)


class _Priors(nn.Module):
    """Normal variables whose softmaxes are the priors."""

    cell_topic_prior_mu: Tensor
    cell_topic_prior_sigma: Tensor
    topic_feature_prior_mu: Tensor
    topic_feature_prior_sigma: Tensor

    def __init__(self, cell_topic: Tensor, topic_feature: Tensor) -> None:
        super().__init__()
        self.register_buffer("_dummy", torch.zeros(1))  # in scvi-tools' archives
        for name, concentration in (("cell_topic", cell_topic), ("topic_feature", topic_feature)):
            mean, scale = logistic_normal_of(concentration)
            self.register_buffer(f"{name}_prior_mu", mean)
            self.register_buffer(f"{name}_prior_sigma", scale)

    def cell_topics(self) -> Normal:
        return _normal(self.cell_topic_prior_mu, self.cell_topic_prior_sigma)

    def topic_features(self) -> Normal:
        return _normal(self.topic_feature_prior_mu, self.topic_feature_prior_sigma)


class _Posteriors(nn.Module):
    """Encoder of cells, and the topics' features."""

    def __init__(self, priors: _Priors, n_topics: int, n_hidden: int) -> None:
        super().__init__()
        mean_g, scale_g = priors.topic_feature_prior_mu, priors.topic_feature_prior_sigma
        self.topic_feature_posterior_mu = nn.Parameter(mean_g.repeat(n_topics, 1))
        self.unconstrained_topic_feature_posterior_sigma = nn.Parameter((scale_g / 2).repeat(n_topics, 1))
        self.encoder = Encoder(len(mean_g), n_topics, n_hidden=n_hidden, distribution="ln")

    def cell_topics(self, x: Tensor) -> Normal:
        """Posterior of cells; what the encoder calls a variance is the standard deviation, as in scvi-tools."""
        mean_nk, scale_nk, _ = self.encoder(x)
        return _normal(mean_nk, scale_nk)

    def topics(self) -> Normal:
        return _normal(self.topic_feature_posterior_mu, softplus(self.unconstrained_topic_feature_posterior_sigma))


def _normal(mean: Any, scale: Any) -> Normal:
    return Normal(mean, scale, validate_args=False)


def _concentration(argument: str, given: Concentration, size: int, n_topics: int) -> Tensor:
    value = torch.as_tensor(1 / n_topics if given is None else given, dtype=torch.float32, device="cpu")
    if value.dim() > 1 or (value.dim() == 1 and len(value) != size):
        raise ValueError(f"{argument} must be one number or {size} of them, got shape {tuple(value.shape)}.")
    if not bool((value > 0).all()):
        raise ValueError(f"{argument} is the concentration of a Dirichlet distribution: above 0, got {given!r}.")
    return value.expand(size)


_DRAWS = 2**22
"""Numbers drawn at once for a mean: 16 MiB."""


def _mean_on_simplex(q: Distribution, n_samples: int) -> Tensor:
    step = max(1, _DRAWS // max(1, q.mean.numel()))
    total = torch.zeros_like(q.mean)
    for start in range(0, n_samples, step):
        total += sample(q, (min(step, n_samples - start),)).softmax(-1).sum(0)
    return total / n_samples
