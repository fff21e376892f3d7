r"""Autoencoder of cells of several samples: what a cell is, and what it would be in each of the samples.

.. math::

    u_n &\sim \sum_m \pi_{nm} N(\mu_m, \sigma_m), \qquad
    z_n = A u_n + \epsilon(u_n, s_n), \qquad \epsilon \sim N(0, \sigma_\epsilon) \\
    x_{ng} &\sim \mathrm{NB}\bigl(\ell_n\, \mathrm{softmax}(f(z_n, b_n))_g,\; \theta_g\bigr) \\
    \mathcal{L}_n &= -\log p(x_n \mid z_n, b_n) + w\,[\log q(u_n \mid x_n) - \log p(u_n \mid y_n)
                     - \log N(\epsilon_n; 0, \sigma_\epsilon)]

with the sample :math:`s_n`, batch :math:`b_n`, label :math:`y_n` and total :math:`\ell_n` of the cell. A label adds 10
to the logit of its component, so that each label has its own component.

Dims: n cells, s samples, g genes, k latents, m components of the prior, t draws.
Reference: Boyeau, Hong, Gayoso, Kim, McFaline-Figueroa, Jordan, Azizi, Ergen and Yosef, *Deep generative modeling of
sample-level heterogeneity in single-cell genomics*, Nature Methods 2025.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from ...core import REGISTRY_KEYS, checked, version_numbers
from ...data.constants import SCVI_VERSION
from ...distributions import NegativeBinomial
from ...module.base import BaseModuleClass, LossOutput, auto_move_data
from ...module.base.priors import labelled_mixture
from ...nn.fc_layers import decoded_as
from ...ops.draws import initial_weights, randn, rsample
from .blocks import LAYOUTS
from .layers import DecoderZX, EncoderUZ, EncoderXU

__all__ = ["TorchMRVAE"]

_EQUAL = 0.15
"""Distance between effects that costs most to lengthen: c of :mod:`celbo.external.mrvi.plan`."""


class TorchMRVAE(BaseModuleClass):
    """Autoencoder of cells of several samples.

    Parameters
    ----------
    n_input, n_sample, n_batch, n_labels
        Numbers of genes, samples, batches and labels.
    n_latent, n_latent_u
        Dimensions of z, which a cell is in its sample, and of u, which it is apart from it.
    encoder_n_hidden, encoder_n_layers
        Width of the encoder of u, and its number of residual blocks.
    z_u_prior, z_u_prior_scale, learn_z_u_prior_scale
        Whether effects of samples have a prior, the log of its scale, and whether that is learned.
    u_prior_scale
        Log of the scale of the prior of u, and where scales of its components begin.
    u_prior_mixture, u_prior_mixture_k
        Whether it is a mixture, and of how many components without labels; with labels: one per label.
    scale_observations
        Whether each sample weighs the same in the loss, however many cells it has.
    px_kwargs, qz_kwargs, qu_kwargs
        Further arguments of the three networks, see :mod:`celbo.external.mrvi.layers`.
    n_obs_per_sample
        Cells of each sample, ``(s,)``.
    layout
        First version of scvi-tools that has the same networks, a key of :data:`~celbo.external.mrvi.blocks.LAYOUTS`.
    scvi_tools_figures
        Let each cell's loss be the mean over the labels of all cells of its minibatch, as scvi-tools has it, and not
        that of its own label. Archives of scvi-tools are read so.
    """

    @checked
    def __init__(
        self,
        n_input: int,
        n_sample: int,
        n_batch: int = 1,
        n_labels: int = 1,
        n_latent: int = 30,
        n_latent_u: int = 10,
        encoder_n_hidden: int = 128,
        encoder_n_layers: int = 2,
        z_u_prior: bool = True,
        z_u_prior_scale: float | Tensor = 0.0,
        u_prior_scale: float = 0.0,
        u_prior_mixture: bool = True,
        u_prior_mixture_k: int = 20,
        learn_z_u_prior_scale: bool = False,
        scale_observations: bool = False,
        px_kwargs: dict[str, Any] | None = None,
        qz_kwargs: dict[str, Any] | None = None,
        qu_kwargs: dict[str, Any] | None = None,
        n_obs_per_sample: Tensor | None = None,
        layout: Literal["1.4.2", "1.4.3"] = "1.4.3",
        scvi_tools_figures: bool = False,
    ) -> None:
        super().__init__()
        self.n_sample, self.n_batch, self.n_latent, self.n_latent_u = n_sample, n_batch, n_latent, n_latent_u
        self.z_u_prior, self.u_prior_mixture, self.u_prior_scale = z_u_prior, u_prior_mixture, u_prior_scale
        self.has_labels, self.takes_every_label = n_labels > 1, scvi_tools_figures
        self._decoding = (n_input, n_latent, n_batch), px_kwargs or {}
        self._moving = (n_latent, n_latent_u, n_sample), qz_kwargs or {}
        depth = {"n_hidden": encoder_n_hidden, "n_layers": encoder_n_layers}
        self._encoding = (n_input, n_latent_u, n_sample), depth | (qu_kwargs or {})
        if u_prior_mixture:
            n_components = n_labels if n_labels > 1 else u_prior_mixture_k
            self.u_prior_logits = nn.Parameter(torch.zeros(n_components))
            self.u_prior_means = nn.Parameter(randn(n_components, n_latent_u))
            self.u_prior_scales = nn.Parameter(torch.full((n_components, n_latent_u), float(u_prior_scale)))
        self._z_scale, self._learns_z_scale = torch.as_tensor(z_u_prior_scale).float(), learn_z_u_prior_scale
        self._cells_s = (
            n_obs_per_sample.float().flatten() if scale_observations and n_obs_per_sample is not None else None
        )
        self.take_layout(layout)

    def take_layout(self, layout: str) -> None:
        """Have the networks of a version of scvi-tools; with new weights."""
        self.layout, own = layout, LAYOUTS[layout]
        self.px = DecoderZX(*self._decoding[0], **self._decoding[1], layout=own)
        self.qz = EncoderUZ(*self._moving[0], **self._moving[1], layout=own)
        self.qu = EncoderXU(*self._encoding[0], **self._encoding[1], layout=own)
        scale_k = self._z_scale.expand(self.n_latent).clone()
        if self._learns_z_scale:
            self.pz_scale = nn.Parameter(scale_k)
        else:
            self.register_buffer("pz_scale", scale_k, persistent=own.folded)

    @property
    def regresses_effects(self) -> bool:
        """Whether differential expression looks at effects of samples, or at z as scvi-tools up to 1.4.2 does."""
        return LAYOUTS[self.layout].folded

    def on_load(self, model: Any, **kwargs: Any) -> None:
        """Have the networks of the version that an archive is of.

        Parameters
        ----------
        model
            The model that is being loaded.
        **kwargs
            ``scvi_version``: version that the archive names.
        """
        version = str(kwargs["scvi_version"])
        layout = layout_of(version)
        if layout != self.layout:
            with initial_weights(0):
                self.take_layout(layout)
        model.registry_ = {**model.registry_, SCVI_VERSION: version}

    @auto_move_data
    def inference(
        self,
        x: Tensor,
        sample_index: Tensor,
        mc_samples: int | None = None,
        cf_sample: Tensor | None = None,
        use_mean: bool = False,
        n_samples: int = 1,
        n_others: int = 0,
    ) -> dict[str, Any]:
        """Encode cells.

        Parameters
        ----------
        x
            Counts, ``(n, g)``.
        sample_index
            Codes, ``(n, 1)``.
        mc_samples, n_samples
            Draws, in a leading dimension; None and 1: one, without it. They are two names of the same.
        cf_sample
            Codes of the samples that the cells are put into, ``(n, 1)``; None: their own.
        use_mean
            Take means for draws.
        n_others
            Number of other cells of the minibatch whose samples' effects each cell's own is compared with; the encoder
            of u then gets no gradient.

        Returns
        -------
        ``qu``, ``u``, ``z``, ``z_base`` and ``eps``, whose posterior ``qeps`` is None for a number, and ``library``,
        the natural log of the total ``(n, 1)``; with ``n_others`` also ``differences`` ``(n,)``: what those between
        effects cost.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not n_others):
            qu = self.qu(x, sample_index.flatten().long())
        u = qu.loc if use_mean else rsample(qu, (mc_samples,) if mc_samples else (n_samples,) if n_samples > 1 else ())
        sample_n = (sample_index if cf_sample is None else cf_sample).flatten().long()
        moved = self._beside_others(u, sample_n, n_others) if n_others else self.move(u, sample_n, use_mean)
        return {"qu": qu, "u": u, "library": x.sum(-1, keepdim=True).log(), **moved}

    def _beside_others(self, u: Tensor, sample_n: Tensor, n_others: int) -> dict[str, Any]:
        """Z in the own sample, and how far its effect lies from those of the samples of other cells."""
        code_ns = torch.stack([sample_n.roll(k) for k in range(n_others + 1)], dim=1)
        moved = self.move(u[:, None], code_ns)
        eps = moved["eps"] if moved["qeps"] is None else moved["qeps"].loc
        own = {name: part[:, 0] for name, part in moved.items() if isinstance(part, Tensor)}
        square_no = (eps[:, 1:] - eps[:, :1]).square().sum(-1)
        apart_n = _EQUAL * (square_no / _EQUAL**2).log1p().mean(1)
        return moved | own | {"differences": apart_n}

    def move(self, u: Tensor, sample: Tensor, use_mean: bool = False) -> dict[str, Any]:
        """Z and its parts for cells in samples.

        Parameters
        ----------
        u
            ``(..., n, k)`` for a sample of each; ``(..., n, 1, k)`` for all samples that are given.
        sample
            Codes, ``(n,)`` or ``(s,)``.
        use_mean
            Take the mean of an effect that has a posterior.
        """
        base, effect = self.qz(u, sample)
        drawn = effect if isinstance(effect, Tensor) else effect.loc if use_mean else rsample(effect)
        return {"z": base + drawn, "z_base": base, "eps": drawn, "qeps": None if drawn is effect else effect}

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        library: Tensor,
        batch_index: Tensor,
        y: Tensor | None = None,
        transform_batch: Tensor | int | None = None,
    ) -> dict[str, Any]:
        """Decode latents.

        Parameters
        ----------
        z
            ``(..., n, k)``.
        library
            Natural log of the total, ``(n, 1)``.
        batch_index, y
            Codes of batches and labels, ``(n, 1)``.
        transform_batch
            Batch that all cells are decoded as.

        Returns
        -------
        ``px``, and the prior ``pu``.
        """
        batch_index = decoded_as(batch_index, transform_batch)
        logits = self.px(z, batch_index.flatten().long())
        px = NegativeBinomial.from_logits(logits, library.expand(*logits.shape[:-1], 1), self.px.px_r)
        return {"px": px, "pu": self.prior(y)}

    def prior(self, y: Tensor | None = None) -> Distribution:
        """Prior of u, ``(n,)`` of them where there are labels ``(n, 1)``."""
        if not self.u_prior_mixture:
            scale = torch.full_like(self.px.px_r[:1], self.u_prior_scale).exp().expand(self.n_latent_u)
            return Normal(torch.zeros_like(scale), scale, validate_args=False)
        labels = y if self.has_labels else None
        return labelled_mixture(self.u_prior_logits, self.u_prior_means, self.u_prior_scales.exp(), labels)

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
        z_kl_weight: float = 1.0,
        difference_weight: float = 0.0,
    ) -> LossOutput:
        """Negative evidence lower bound of each cell, see the head of this file.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs, kl_weight
            As everywhere.
        z_kl_weight
            Further weight of the prior of effects of samples. Less of it: what samples differ by is in z and not in u.
        difference_weight
            Weight of differences between effects of samples, where ``inference`` gave them.
        """
        nll_n = -generative_outputs["px"].log_prob_sum(tensors[REGISTRY_KEYS.X_KEY])
        kl_z_n = self._kl_z(inference_outputs)
        qu, u, pu = inference_outputs["qu"], inference_outputs["u"], generative_outputs["pu"]
        kl_n = kl_z_n + _kl_u(qu, u, pu)
        weighed_n = kl_n + (z_kl_weight - 1) * kl_z_n
        if self.takes_every_label and self.has_labels:
            log_q_n1 = qu.log_prob(u).sum(-1, keepdim=True)
            weighed_n = z_kl_weight * kl_z_n + (log_q_n1 - pu.log_prob(u[:, None])).mean(1)
        loss_n = nll_n + kl_weight * weighed_n
        if "differences" in inference_outputs:
            loss_n = loss_n + difference_weight * inference_outputs["differences"]
        if self._cells_s is not None:
            loss_n = loss_n / self._cells_s.to(loss_n)[tensors[REGISTRY_KEYS.SAMPLE_KEY].flatten().long()]
        return LossOutput(loss_n.mean(), reconstruction_loss=nll_n, kl_local=kl_n)

    def _kl_z(self, encoded: Mapping[str, Any]) -> Tensor:
        eps = encoded["eps"]
        if not self.z_u_prior:
            return torch.zeros_like(eps[..., 0])
        prior = Normal(torch.zeros_like(eps), self.pz_scale.exp().expand_as(eps), validate_args=False)
        return -prior.log_prob(eps).sum(-1)


def _kl_u(qu: Normal, u: Tensor, pu: Distribution) -> Tensor:
    if isinstance(pu, Normal):
        return kl_divergence(qu, pu).sum(-1)
    return qu.log_prob(u).sum(-1) - pu.log_prob(u)


def layout_of(version: str) -> str:
    """The networks of a version of scvi-tools: those of the last key of :data:`LAYOUTS` up to it."""
    return "1.4.3" if version_numbers(version) >= (1, 4, 3) else "1.4.2"
