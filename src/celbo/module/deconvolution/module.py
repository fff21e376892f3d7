r"""Multi-resolution deconvolution of spots (DestVI): proportions of cell types, and the state of each type.

.. math::

    x_{sg} &\sim \mathrm{NB}\Bigl(\ell_s \sum_c v_{sc}\, h_{scg},\ \theta_g\Bigr), \qquad
    h_{sc} = \sum_m \pi_{smc}\, \mathrm{softmax}\bigl(f(\gamma_{smc}, c, e_{b_s}) + a_c + \beta\bigr), \qquad
    h_{s,\mathrm{extra}} = \mathrm{softmax}(\eta) \\
    \gamma_{smc} &\sim \sum_p w_{cp}\, N(\mu_{cp}, \sigma^2_{cp}), \qquad \beta_g \sim N(0, 1)

with the decoder :math:`f, a` of a conditional autoencoder (:mod:`celbo.module.vaec`) held fixed, and its :math:`\theta`
to begin with; several states :math:`m` a cell type of shares :math:`\pi`, and extra types for what the single cells
lack. Proportions :math:`v` and states :math:`\gamma` are found at the maximum of the posterior, as parameters of each
spot or by networks of its counts:

.. math::

    \mathcal{L} = \tfrac{1}{N} \sum_s \left[ 3\,(-\log p(x_s)) - w \log p(\gamma_s) \right]
        + w \Bigl(\tfrac{2}{N} \sum_s \mathrm{H}(v_s) + \sum_s v_{s,\mathrm{extra}}\Bigr) - \log p(\beta)
        + 100\,\mathrm{KL}(v^\star \,\|\, v(x^\star)) + 100\,\mathrm{KL}(v(\tilde x) \,\|\, v(x))

The fifth term teaches the networks on spots :math:`x^\star` simulated from the decoder with proportions
:math:`v^\star`; in the sixth :math:`\tilde x` are counts smoothed over neighbouring spots.

Dims: n spots, g genes, k latents, c cell types, t = c + extra types, m states of a type in a spot, p prior components,
a augmentations (the spots themselves first, then the smoothed, then the simulated and the mixed).
Reference: Lopez et al., Nature Biotechnology 2022 (:cite:p:`Lopez22`).
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from ...core import REGISTRY_KEYS, checked
from ...distributions import NegativeBinomial
from ...nn import Encoder, FCLayers
from ...nn.fc_layers import Linear, append_columns
from ...ops.draws import randn
from ..base import BaseModuleClass, EmbeddingModuleMixin, LossOutput, auto_move_data
from ..base.priors import GaussianPrior
from .simulation import with_simulated_spots
from .states import StatesPrior, check_amortization, divergence, entropy

__all__ = ["SMOOTHED_KEY", "MRDeconv"]

SMOOTHED_KEY = "x_smoothed"
_ABSENT_TYPE = 1e-3  # what the states of a type that is not in the spot weigh


class MRDeconv(EmbeddingModuleMixin, BaseModuleClass):
    """Deconvolution of spots under the decoder of a conditional autoencoder.

    Parameters
    ----------
    n_spots, n_labels, n_batch, n_genes
        Numbers of spots, cell types, batches and genes.
    n_hidden, n_layers, n_latent, dropout_decoder
        Sizes of the decoder, and its dropout.
    decoder_state_dict, px_decoder_state_dict, px_r, per_ct_bias
        Weights of the conditional autoencoder: they are copied, and but for ``px_r`` not trained.
    dropout_amortization
        Dropout of the networks that give proportions and states.
    augmentation
        Whether training sees simulated spots. It needs a prior to simulate from.
    n_samples_augmentation
        Number of augmentations: the first is wholly simulated, each further one a mixture with the spots.
    n_states_per_label
        States of a type in one spot; 1 unless ``prior_mode`` is ``"mog"``.
    eps_v
        Added to each proportion in training, so that none gets stuck at 0.
    mean_vprior, var_vprior, mp_vprior
        Prior of each type's states: means and variances ``(c, p, k)``, weights ``(c, p)``; None: N(0, I).
    amortization
        What networks give: ``"latent"`` (the states), ``"proportion"``, ``"both"`` or ``"none"``; the rest are
        parameters of each spot.
    prior_mode
        ``"mog"``: several states, weighed by the proportion of their type; ``"normal"``: one state.
    add_celltypes
        Number of extra types.
    n_latent_amortization
        Size of latents between the counts and the networks; None: the networks see the counts.
    extra_encoder_kwargs, extra_decoder_kwargs
        Further arguments of the networks' and of the decoder's :class:`~celbo.nn.FCLayers`.

    Raises
    ------
    ValueError
        An option that does not exist; ``prior_mode="mog"`` with states that are not amortized.
    """

    per_ct_bias: Tensor
    mean_vprior: Tensor | None
    var_vprior: Tensor | None
    mp_vprior: Tensor | None

    @checked
    def __init__(
        self,
        n_spots: int,
        n_labels: int,
        n_batch: int,
        n_hidden: int,
        n_layers: int,
        n_latent: int,
        n_genes: int,
        decoder_state_dict: Mapping[str, Tensor],
        px_decoder_state_dict: Mapping[str, Tensor],
        px_r: Tensor,
        per_ct_bias: Tensor,
        dropout_decoder: float,
        dropout_amortization: float = 0.03,
        augmentation: bool = True,
        n_samples_augmentation: int = 2,
        n_states_per_label: int = 3,
        eps_v: float = 2e-3,
        mean_vprior: Tensor | None = None,
        var_vprior: Tensor | None = None,
        mp_vprior: Tensor | None = None,
        amortization: Literal["none", "latent", "proportion", "both"] = "both",
        prior_mode: Literal["mog", "normal"] = "mog",
        add_celltypes: int = 1,
        n_latent_amortization: int | None = None,
        extra_encoder_kwargs: dict[str, Any] | None = None,
        extra_decoder_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_amortization(amortization, prior_mode)
        self.n_spots, self.n_batch, self.n_labels, self.n_genes = n_spots, n_batch, n_labels, n_genes
        self.n_hidden, self.n_latent, self.dropout_decoder = n_hidden, n_latent, dropout_decoder
        self.dropout_amortization, self.eps_v, self.add_celltypes = dropout_amortization, eps_v, add_celltypes
        self.augmentation, self.n_samples_augmentation = augmentation, n_samples_augmentation
        self.n_states_per_label = n_states_per_label if prior_mode == "mog" else 1
        self.amortization, self.prior_mode = amortization, prior_mode
        self.n_latent_amortization = n_latent_amortization

        self.px_r = nn.Parameter(_copy(px_r))
        self.V = nn.Parameter(randn(n_labels + add_celltypes, n_spots))
        self.gamma = nn.Parameter(randn(n_latent, n_labels, n_spots))
        self.eta = nn.Parameter(torch.zeros(add_celltypes, n_genes))
        self.beta = nn.Parameter(torch.zeros(n_genes))
        self.register_buffer("per_ct_bias", _copy(per_ct_bias))
        self.register_buffer("mean_vprior", _copy(mean_vprior))
        self.register_buffer("var_vprior", _copy(var_vprior))
        self.register_buffer("mp_vprior", _copy(mp_vprior))
        self.init_embedding(REGISTRY_KEYS.BATCH_KEY, n_batch)
        self._add_decoder(n_layers, extra_decoder_kwargs or {})
        self.decoder.load_state_dict(decoder_state_dict)
        self.px_decoder.load_state_dict(px_decoder_state_dict)
        self.decoder.requires_grad_(False)
        self.px_decoder.requires_grad_(False)
        self._add_networks(n_layers, extra_encoder_kwargs or {})

    def _add_decoder(self, n_layers: int, extra: dict[str, Any]) -> None:
        sizes: dict[str, Any] = {"n_layers": n_layers, "n_hidden": self.n_hidden, "dropout_rate": self.dropout_decoder}
        sizes |= {"use_batch_norm": False, "use_layer_norm": True} | extra
        n_in = self.n_latent + self.get_embedding(REGISTRY_KEYS.BATCH_KEY).embedding_dim
        self.decoder = FCLayers(n_in=n_in, n_out=self.n_hidden, n_cat_list=[self.n_labels], **sizes)
        self.px_decoder = Linear(self.n_hidden, self.n_genes)

    def _add_networks(self, n_layers: int, extra: dict[str, Any]) -> None:
        norm: dict[str, Any] = {"use_batch_norm": False, "use_layer_norm": True}
        sizes: dict[str, Any] = {"n_layers": n_layers, "n_hidden": self.n_hidden, **norm} | extra
        n_in = self.n_genes
        if self.n_latent_amortization is not None:
            n_in = self.n_latent_amortization
            dropout = {"dropout_rate": self.dropout_amortization}
            self.z_encoder = Encoder(
                self.n_genes,
                n_in,
                n_cat_list=[self.n_batch],
                return_dist=True,
                var_activation=F.softplus,
                **(dropout | sizes),
            )
        n_gamma = self.n_latent * self.n_labels + (self.n_labels if self.prior_mode == "mog" else 0)

        def network(n_out: int, dropout_rate: float, **depth: int) -> nn.Sequential:
            layers = FCLayers(n_in=n_in, n_out=self.n_hidden, **({"dropout_rate": dropout_rate} | sizes | depth))
            return nn.Sequential(layers, Linear(self.n_hidden, n_out))

        self.gamma_encoder = network(self.n_states_per_label * n_gamma, self.dropout_amortization, n_layers=2)
        self.V_encoder = network(self.n_labels + self.add_celltypes, 0.0)

    def _get_inference_input(self, tensors: Mapping[str, Tensor], **kwargs: Any) -> dict[str, Any]:
        """The spots, their smoothed form, and in training the simulated ones, as ``x_augmented`` ``(a, n, g)``."""
        smoothed = [tensors[SMOOTHED_KEY]] if SMOOTHED_KEY in tensors else []
        observed_ang = torch.stack([tensors[REGISTRY_KEYS.X_KEY], *smoothed])
        bound: dict[str, Any] = {"x_augmented": observed_ang, "batch_index": tensors[REGISTRY_KEYS.BATCH_KEY]}
        if self.training and self.augmentation and self.n_samples_augmentation > 0:
            bound |= with_simulated_spots(self, observed_ang, bound["batch_index"], self.n_samples_augmentation)
        return bound

    def states_prior(self) -> StatesPrior:
        """Prior of the states of each type."""
        like_ck = self.gamma[..., 0].t()
        return StatesPrior.of(self.mean_vprior, self.var_vprior, self.mp_vprior, self.prior_mode, like_ck)

    @auto_move_data
    def inference(
        self,
        x_augmented: Tensor,
        batch_index: Tensor,
        n_samples: int = 1,
        prior_sampled: Tensor | None = None,
        ratios_ct_augmentation: Tensor | None = None,
        ratio_augmentation: Tensor | None = None,
    ) -> dict[str, Any]:
        """What the networks see.

        Parameters
        ----------
        x_augmented
            Counts, ``(a, n, g)``; the spots themselves first.
        batch_index
            Codes, ``(n, 1)``.
        n_samples
            Accepted for compatibility with scvi-tools.
        prior_sampled, ratios_ct_augmentation, ratio_augmentation
            States ``(a, n * c, k)`` and proportions ``(a, n, c)`` of simulated spots, and their share in the counts
            ``(a, n, 1)``; handed on.

        Returns
        -------
        ``z`` ``(a, n, g)`` or latents; ``qz``, None without latents; ``library`` ``(a, n, 1)``; what was handed on.
        """
        encoded = x_augmented.log1p()
        qz, z = None, encoded
        if self.n_latent_amortization is not None:
            qz, z = self.z_encoder(encoded, batch_index)
            z = z if self.training else qz.loc
        return {
            "z": z,
            "qz": qz,
            "library": x_augmented.sum(-1, keepdim=True),
            "x_augmented": x_augmented,
            "prior_sampled": prior_sampled,
            "ratios_ct_augmentation": ratios_ct_augmentation,
            "ratio_augmentation": ratio_augmentation,
        }

    @auto_move_data
    def generative(self, z: Tensor, ind_x: Tensor, library: Tensor, batch_index: Tensor) -> dict[str, Tensor]:
        """Proportions, states and the expected counts.

        Parameters
        ----------
        z, library
            As :meth:`inference` gives them.
        ind_x
            Row numbers of the spots, ``(n, 1)`` or ``(n,)``.
        batch_index
            Codes, ``(n, 1)``.

        Returns
        -------
        ``px_r`` ``(g,)``; ``px_rate`` and ``px_scale`` ``(a, n, g)``; ``px_mu`` ``(a, n, t, g)``, the profile of each
        type; ``v`` ``(a, n, t)``; ``gamma`` ``(a, m, k, c, n)``; ``proportion_modes`` and their logits
        ``(a, m, n, c)``.
        """
        row_n = ind_x.reshape(-1).long()
        v_ant = self._proportions(z, row_n)
        gamma_amkcn, logits_amnc = self._states(z, row_n)
        share_amnc = logits_amnc.softmax(1)
        profile_amncg = self.profiles(gamma_amkcn.permute(0, 1, 4, 3, 2), batch_index)
        mu_ancg = (share_amnc.unsqueeze(-1) * profile_amncg).sum(1)
        extra_ntg = self.eta.softmax(-1).expand(*mu_ancg.shape[:2], -1, -1)
        mu_antg = torch.cat([mu_ancg, extra_ntg], dim=2)
        weight_ant = v_ant + self.eps_v if self.training else v_ant
        scale_ang = (weight_ant.unsqueeze(-1) * mu_antg).sum(2)
        return {
            "px_r": self.px_r.exp(),
            "px_rate": library * scale_ang,
            "px_scale": scale_ang,
            "px_mu": mu_antg,
            "gamma": gamma_amkcn,
            "v": v_ant,
            "proportion_modes": share_amnc,
            "proportion_modes_logits": logits_amnc,
        }

    def _proportions(self, z: Tensor, row_n: Tensor) -> Tensor:
        """``(a, n, t)``, by the network or the parameters of the spots."""
        if self.amortization in ("both", "proportion"):
            return self.V_encoder(z).softmax(-1)
        return self.V[:, row_n].t().softmax(-1).expand(len(z), -1, -1)

    def _states(self, z: Tensor, row_n: Tensor) -> tuple[Tensor, Tensor]:
        """States ``(a, m, k, c, n)``, and the logits of their shares ``(a, m, n, c)``."""
        a, n, m, k, c = len(z), len(row_n), self.n_states_per_label, self.n_latent, self.n_labels
        if self.amortization not in ("both", "latent"):
            return self.gamma[:, :, row_n].expand(a, 1, -1, -1, -1), z.new_zeros(a, 1, n, c)
        output = self.gamma_encoder(z)
        gamma_amkcn = output[..., : m * k * c].reshape(a, n, m, k, c).permute(0, 2, 3, 4, 1)
        if self.prior_mode == "normal":
            return gamma_amkcn, z.new_zeros(a, 1, n, c)
        return gamma_amkcn, output[..., m * k * c :].reshape(a, n, m, c).permute(0, 2, 1, 3)

    def profiles(self, gamma: Tensor, batch_index: Tensor) -> Tensor:
        """Expression of each type in states ``(..., n, c, k)``: shares of the genes, ``(..., n, c, g)``."""
        *lead, n, c, _ = gamma.shape
        embedded_nc = self.compute_embedding(REGISTRY_KEYS.BATCH_KEY, batch_index).unsqueeze(1).expand(n, c, -1)
        decoded = append_columns(gamma, embedded_nc.expand(*lead, n, c, -1)).flatten(0, -2)
        label = torch.arange(c, device=gamma.device).repeat(len(decoded) // c)
        logits = self.px_decoder(self.decoder(decoded, label)).view(*lead, n, c, -1)
        return (logits + self.per_ct_bias + self.beta).softmax(-1)

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Tensor],
        kl_weight: Tensor | float = 1.0,
        ct_sparsity_weight: float = 2.0,
        weighting_augmentation: float = 100.0,
        weighting_smoothing: float = 100.0,
        eta_reg: float = 1.0,
        beta_reg: float = 1.0,
        weighting_kl_latent: float = 1e-3,
        reconst_weight: float = 3.0,
    ) -> LossOutput:
        """Negative log-posterior and what teaches the networks; the formula is the file's.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            Minibatch, and what was made of it.
        kl_weight
            Weight of the priors of states and proportions.
        ct_sparsity_weight, eta_reg, beta_reg
            Weights of the proportions' entropy, of the sum of the extra types' proportions, and of the prior of
            ``beta``.
        weighting_augmentation, weighting_smoothing
            Weights of the divergences on simulated and on smoothed spots.
        weighting_kl_latent
            Weight of the KL divergence of the latents between counts and networks, where there are any.
        reconst_weight
            Weight of the reconstruction.

        Returns
        -------
        ``reconstruction_loss``: mean over the augmentations. ``kl_local``: negative log-prior of the states of the
        spots themselves, ``(n,)``. ``kl_global``: that of ``beta``. Extra metrics: ``v_sparsity``, ``augmentation``.
        """
        v_ant, counts_ang = generative_outputs["v"], inference_outputs["x_augmented"]
        px = NegativeBinomial(mu=generative_outputs["px_rate"], theta=generative_outputs["px_r"])
        nll_n = -px.log_prob_sum(counts_ang).mean(0)
        penalty_an = self._states_penalty(inference_outputs, generative_outputs)
        if inference_outputs["qz"] is not None:
            qz = inference_outputs["qz"]
            penalty_an = penalty_an + weighting_kl_latent * GaussianPrior().kl(qz)
        sparsity = ct_sparsity_weight * entropy(v_ant[0]).mean() + eta_reg * v_ant[0][:, self.n_labels :].sum()
        beta_penalty = -beta_reg * Normal(0.0, 1.0, validate_args=False).log_prob(self.beta).sum()
        augmentation = self._augmentation_loss(tensors, inference_outputs, v_ant, weighting_augmentation)
        if SMOOTHED_KEY in tensors:
            augmentation = augmentation + weighting_smoothing * divergence(v_ant[1], v_ant[0]).mean()
        loss = reconst_weight * nll_n.mean() + kl_weight * (penalty_an.mean() + sparsity) + beta_penalty + augmentation
        return LossOutput(
            loss=loss,
            reconstruction_loss=nll_n,
            kl_local=penalty_an[0],
            kl_global=beta_penalty,
            extra_metrics={"v_sparsity": sparsity.detach(), "augmentation": augmentation.detach()},
        )

    def _augmentation_loss(
        self, tensors: Mapping[str, Tensor], inference_outputs: Mapping[str, Any], v_ant: Tensor, weight: float
    ) -> Tensor:
        """Divergence of the proportions found in the wholly simulated spots from those they were made with."""
        target_anc = inference_outputs["ratios_ct_augmentation"]
        if target_anc is None:
            return v_ant.new_zeros(())
        simulated = 2 if SMOOTHED_KEY in tensors else 1
        return weight * divergence(target_anc[simulated], v_ant[simulated][:, : self.n_labels]).mean()

    def _states_penalty(self, inference_outputs: Mapping[str, Any], generative_outputs: Mapping[str, Tensor]) -> Tensor:
        """Negative log-prior of the states, ``(a, n)``; in ``"mog"`` mode weighed by the shares of states and types.

        In simulated spots the states they were made with are a further component, of their share in the counts.
        """
        gamma_amnck = generative_outputs["gamma"].permute(0, 1, 4, 3, 2)
        a, _, n, c, k = gamma_amnck.shape
        true_anck = inference_outputs["prior_sampled"]
        true_anck = None if true_anck is None else true_anck.view(a, n, c, k)
        penalty_amnc = self.states_prior().penalty(gamma_amnck, true_anck, inference_outputs["ratio_augmentation"])
        if self.prior_mode == "normal":
            return penalty_amnc.sum((1, 3))
        penalty_anc = (penalty_amnc * generative_outputs["proportion_modes"]).sum(1)
        return ((generative_outputs["v"][..., : self.n_labels] + _ABSENT_TYPE) * penalty_anc).sum(-1)


def _copy(value: object) -> Any:
    """A float32 tensor of its own, from an array or a tensor; None from None."""
    return None if value is None else torch.as_tensor(value).detach().clone().float()
