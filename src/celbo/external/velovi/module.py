r"""Autoencoder of spliced and unspliced RNA whose decoder places each cell on each gene's path of transcription.

.. math::

    \dot u_g &= \alpha_g - \beta_g u_g, \qquad \dot s_g = \beta_g u_g - \gamma_g s_g \qquad \text{from } (0, 0)
        \text{ until } t^s_g; \text{ then } \alpha_g = 0 \\
    z_n &\sim N(0, I), \qquad \pi_{ng} \sim \mathrm{Dirichlet}(c), \qquad
        k_{ng} \in \{\text{induction, its end, repression, its end}\} \sim \pi_{ng} \\
    t_{ng} &= t^s_g\, \rho_g(z_n) \text{ or } t^s_g + (t_{\max} - t^s_g)\, \tau_g(z_n), \qquad
        (u, s)_{ng} \sim N\bigl((u, s)_g(t_{ng}),\ \sigma_{gk}\bigr)

The loss adds a penalty on where induction ends: at the unspliced and spliced RNA of the cells that have most of it.

Dims: n cells, g genes, k latents, s samples; 4 states.
Reference: Gayoso et al., *Deep generative modeling of transcriptional dynamics for RNA velocity analysis in single
cells*, Nature Methods 2024 (veloVI).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Dirichlet, Distribution, Normal, kl_divergence

from ...core import REGISTRY_KEYS, checked
from ...module.base import BaseModuleClass, LossOutput, auto_move_data
from ...module.kinetics import STATES, UNSPLICED_KEY, Kinetics
from ...nn import Encoder, FCLayers
from ...nn.fc_layers import Linear
from ...ops.draws import randn, rsample
from .states import OfStates

__all__ = ["VELOVAE"]

_FASTEST = 50.0
_POLE = 1e-6  # keeps scvi-tools' difference of rates from zero
_STEADY_SPREAD = 0.1  # of the end of repression, where there is nothing, as a multiple of the others'
_STANDARD = Normal(0.0, 1.0)
NormUse = Literal["encoder", "decoder", "none", "both"]


class DecoderVELOVI(nn.Module):
    """From latents to states and to the shares of induction and repression that are over.

    Parameters
    ----------
    n_input, n_output, n_hidden
        Numbers of latents and genes, and width.
    n_layers, dropout_rate, use_batch_norm, use_layer_norm
        See :class:`~celbo.nn.FCLayers`.
    linear
        Whether times are linear in the latents, before a sigmoid.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_hidden: int,
        n_layers: int,
        dropout_rate: float,
        use_batch_norm: bool,
        use_layer_norm: bool,
        linear: bool,
    ) -> None:
        super().__init__()
        self.n_output, self.linear = n_output, linear
        layers: dict[str, Any] = {"n_hidden": n_hidden, "dropout_rate": dropout_rate, "use_batch_norm": use_batch_norm}
        deep = {"n_layers": n_layers, "use_layer_norm": use_layer_norm} | layers
        flat = {"n_layers": 1, "use_layer_norm": False, "use_activation": False, "bias": False} | layers
        self.rho_first_decoder = FCLayers(n_input, n_output if linear else n_hidden, **(flat if linear else deep))
        self.pi_first_decoder = FCLayers(n_input, n_hidden, **deep)
        self.px_pi_decoder = Linear(n_hidden, len(STATES) * n_output)
        self.px_rho_decoder = nn.Sequential(Linear(n_hidden, n_output), nn.Sigmoid())
        self.px_tau_decoder = nn.Sequential(Linear(n_hidden, n_output), nn.Sigmoid())
        self.linear_scaling_tau = nn.Parameter(torch.zeros(n_output))
        self.linear_scaling_tau_intercept = nn.Parameter(torch.zeros(n_output))

    def forward(self, z: Tensor, latent_dim: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Decode latents ``(n, k)``.

        Parameters
        ----------
        z
            Latents.
        latent_dim
            The one latent that times are decoded from, the others at 0; None: all.

        Returns
        -------
        Concentrations of the states, ``(n, g, 4)``, and the shares of induction and of repression, ``(n, g)``.
        """
        of_time = z
        if latent_dim is not None:
            of_time = torch.zeros_like(z)
            of_time[..., latent_dim] = z[..., latent_dim]
        hidden = self.rho_first_decoder(of_time)
        if self.linear:
            slope = self.linear_scaling_tau.exp()
            rho, tau = hidden.sigmoid(), (-hidden * slope - self.linear_scaling_tau_intercept).sigmoid()
        else:
            rho, tau = self.px_rho_decoder(hidden), self.px_tau_decoder(hidden)
        states = self.px_pi_decoder(self.pi_first_decoder(z))
        return F.softplus(states.reshape(*z.shape[:-1], self.n_output, len(STATES))), rho, tau


class VELOVAE(BaseModuleClass):
    """Networks and loss of VELOVI.

    Parameters
    ----------
    n_input
        Number of genes.
    true_time_switch
        Switch times to keep instead of learning them, ``(g,)``.
    n_hidden, n_latent, n_layers, dropout_rate
        Width, latents, hidden layers and dropout of encoder and decoder.
    log_variational
        Encode the logarithm of 0.01 more than the RNA.
    latent_distribution
        ``"normal"`` or ``"ln"``.
    use_batch_norm, use_layer_norm
        Where.
    use_observed_lib_size
        Not used: there is no library.
    var_activation
        Makes variances of latents positive.
    model_steady_states
        Not used, as in scvi-tools: there are four states.
    gamma_unconstr_init, alpha_unconstr_init, alpha_1_unconstr_init, lambda_alpha_unconstr_init
        Rates to begin with, before the softplus, ``(g,)``.
    switch_spliced, switch_unspliced
        Where induction ends, by the cells with most unspliced RNA, ``(g,)``.
    t_max
        When repression ends.
    penalty_scale
        Weight of the penalty on the end of induction; it goes as the KL weight comes.
    dirichlet_concentration
        Of the prior of states.
    linear_decoder
        Whether times are linear in the latents.
    time_dep_transcription_rate
        Whether transcription depends on time.
    scvi_tools_figures
        Take switch times beyond ``t_max`` in times and velocities, where the likelihood takes ``t_max``, and
        scvi-tools' difference of rates, for its figures.
    """

    switch_spliced: Tensor
    switch_unspliced: Tensor

    @checked
    def __init__(
        self,
        n_input: int,
        true_time_switch: np.ndarray | None = None,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        log_variational: bool = False,
        latent_distribution: Literal["normal", "ln"] = "normal",
        use_batch_norm: NormUse = "both",
        use_layer_norm: NormUse = "both",
        use_observed_lib_size: bool = True,
        var_activation: Callable[[Tensor], Tensor] | None = F.softplus,
        model_steady_states: bool = True,
        gamma_unconstr_init: np.ndarray | None = None,
        alpha_unconstr_init: np.ndarray | None = None,
        alpha_1_unconstr_init: np.ndarray | None = None,
        lambda_alpha_unconstr_init: np.ndarray | None = None,
        switch_spliced: np.ndarray | None = None,
        switch_unspliced: np.ndarray | None = None,
        t_max: float = 20,
        penalty_scale: float = 0.2,
        dirichlet_concentration: float = 0.25,
        linear_decoder: bool = False,
        time_dep_transcription_rate: bool = False,
        *,
        scvi_tools_figures: bool = False,
    ) -> None:
        super().__init__()
        self.n_input, self.n_latent, self.t_max = n_input, n_latent, t_max
        self.latent_distribution = latent_distribution
        self.log_variational, self.penalty_scale = log_variational, penalty_scale
        self.dirichlet_concentration = dirichlet_concentration
        self.time_dep_transcription_rate, self.scvi_tools_figures = time_dep_transcription_rate, scvi_tools_figures
        self._make_rates(true_time_switch, alpha_unconstr_init, gamma_unconstr_init)
        self.alpha_1_unconstr = nn.Parameter(_start(alpha_1_unconstr_init, n_input, 0.0))
        self.lambda_alpha_unconstr = nn.Parameter(_start(lambda_alpha_unconstr_init, n_input, 0.0))
        self.alpha_1_unconstr.requires_grad = self.lambda_alpha_unconstr.requires_grad = time_dep_transcription_rate
        self.scale_unconstr = nn.Parameter(torch.full((2 * n_input, len(STATES)), -1.0))
        self.register_buffer("switch_spliced", _start(switch_spliced, n_input, 0.0))
        self.register_buffer("switch_unspliced", _start(switch_unspliced, n_input, 0.0))
        layers: dict[str, Any] = {"n_hidden": n_hidden, "n_layers": n_layers, "dropout_rate": dropout_rate}
        self.z_encoder = Encoder(
            *(2 * n_input, n_latent),
            distribution=latent_distribution,
            use_batch_norm=use_batch_norm in ("encoder", "both"),
            use_layer_norm=use_layer_norm in ("encoder", "both"),
            var_activation=var_activation,
            activation_fn=nn.ReLU,
            return_dist=True,
            **layers,
        )
        self.decoder = DecoderVELOVI(
            *(n_latent, n_input),
            use_batch_norm=use_batch_norm in ("decoder", "both"),
            use_layer_norm=use_layer_norm in ("decoder", "both"),
            linear=linear_decoder,
            **layers,
        )

    def _make_rates(self, switch: Any, alpha: Any, gamma: Any) -> None:
        n = self.n_input
        drawn = _start(switch, n, 0.0) if switch is not None else 7 + 0.5 * randn(n)
        self.switch_time_unconstr = nn.Parameter(drawn, requires_grad=switch is None)
        self.gamma_mean_unconstr = nn.Parameter(_start(gamma, n, -1.0))
        self.beta_mean_unconstr = nn.Parameter(torch.full((n,), 0.5))
        self.alpha_unconstr = nn.Parameter(_start(alpha, n, 0.0))

    def kinetics(self, *, of_figures: bool = False) -> Kinetics:
        """The rates as they stand.

        Parameters
        ----------
        of_figures
            They are for times and velocities: scvi-tools bounds switch times in the likelihood only.
        """
        unbounded = of_figures and self.scvi_tools_figures
        switch_time = F.softplus(self.switch_time_unconstr)
        varying = (self.alpha_1_unconstr, self.lambda_alpha_unconstr)
        if self.time_dep_transcription_rate:
            varying = tuple(_rate(one) for one in varying)  # type: ignore[assignment]
        return Kinetics(
            _rate(self.alpha_unconstr),
            _rate(self.beta_mean_unconstr),
            _rate(self.gamma_mean_unconstr),
            *varying,
            switch_time if unbounded else switch_time.clamp(0, self.t_max),
            self.t_max,
            self.time_dep_transcription_rate,
            _POLE if self.scvi_tools_figures else 0.0,
        )

    def _get_inference_input(self, tensors: Mapping[str, Tensor], **kwargs: Any) -> dict[str, Any]:
        return {"spliced": tensors[REGISTRY_KEYS.X_KEY], "unspliced": tensors[UNSPLICED_KEY]}

    @auto_move_data
    def inference(self, spliced: Tensor, unspliced: Tensor, n_samples: int = 1) -> dict[str, Any]:
        """Encode cells.

        Parameters
        ----------
        spliced, unspliced
            RNA, ``(n, g)``.
        n_samples
            With more than 1 the samples get a leading dimension.

        Returns
        -------
        ``z`` ``(n, k)`` and ``qz``.
        """
        columns = torch.cat([spliced, unspliced], -1)
        qz, z = self.z_encoder((0.01 + columns).log() if self.log_variational else columns)
        if n_samples > 1:
            z = self.z_encoder.z_transformation(rsample(qz, (n_samples,)))
        return {"z": z, "qz": qz}

    @auto_move_data
    def generative(self, z: Tensor, latent_dim: int | None = None) -> dict[str, Any]:
        """Decode latents.

        Parameters
        ----------
        z
            Latents, ``(n, k)`` or ``(s, n, k)``.
        latent_dim
            The one latent that times are decoded from; None: all.

        Returns
        -------
        ``p_pi``, the posterior of states, a draw ``px_pi`` ``(..., n, g, 4)`` of it, shares ``px_rho`` and ``px_tau``
        ``(..., n, g)`` of induction and repression, and the distributions ``px`` of spliced and ``pu`` of unspliced
        RNA.
        """
        shape = z.shape[:-1]
        decoded = self.decoder(z.reshape(-1, z.shape[-1]), latent_dim)
        concentration, rho, tau = (part.reshape(*shape, *part.shape[1:]) for part in decoded)
        p_pi = Dirichlet(concentration, validate_args=False)
        pi = rsample(p_pi)
        px, pu = self._mixtures(pi, rho, tau)
        return {"p_pi": p_pi, "px_pi": pi, "px_rho": rho, "px_tau": tau, "px": px, "pu": pu}

    def _mixtures(self, pi: Tensor, rho: Tensor, tau: Tensor) -> tuple[Distribution, Distribution]:
        """Distributions of spliced and of unspliced RNA, one component each state."""
        kinetics = self.kinetics()
        time_up, time_down = kinetics.times(rho, tau)
        up, down = kinetics.induction(time_up), kinetics.repression(time_down)
        last = kinetics.transcription_at_last
        means = []
        for kind, rate in ((1, kinetics.gamma), (0, kinetics.beta)):
            steady = (last / rate).expand_as(rho)
            means.append(torch.stack([up[kind], steady, down[kind], torch.zeros_like(rho)], -1))
        unspliced_g1, spliced_g1 = F.softplus(self.scale_unconstr[:, :1]).sqrt().split(self.n_input)
        spread_4 = rho.new_tensor([1.0, 1.0, 1.0, _STEADY_SPREAD])
        states = Categorical(probs=pi, validate_args=False)
        return tuple(  # type: ignore[return-value]
            OfStates(states, Normal(mean, scale_g1 * spread_4, validate_args=False), validate_args=False)
            for mean, scale_g1 in zip(means, (spliced_g1, unspliced_g1), strict=True)
        )

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
        n_obs: float = 1.0,
    ) -> LossOutput:
        """Negative evidence lower bound, and the penalty on the end of induction.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            As everywhere.
        kl_weight
            Weight of the KL divergence of latents; that of states weighs 1 throughout.
        n_obs
            Not used.
        """
        nll_n = -self.log_likelihood(tensors, generative_outputs).sum(-1)
        kl_z_n = kl_divergence(inference_outputs["qz"], _STANDARD).sum(-1)
        p_pi: Dirichlet = generative_outputs["p_pi"]
        prior = Dirichlet(torch.full_like(p_pi.concentration, self.dirichlet_concentration), validate_args=False)
        kl_pi_n = kl_divergence(p_pi, prior).sum(-1)
        kinetics = self.kinetics()
        u_0, s_0 = kinetics.induction(kinetics.switch_time)
        penalty = (u_0 - self.switch_unspliced).square().sum() + (s_0 - self.switch_spliced).square().sum()
        loss = (nll_n + kl_weight * kl_z_n + kl_pi_n).mean() + self.penalty_scale * (1 - kl_weight) * penalty
        return LossOutput(loss, reconstruction_loss=nll_n, kl_local=kl_z_n + kl_pi_n)

    def log_likelihood(self, tensors: Mapping[str, Tensor], decoded: Mapping[str, Any]) -> Tensor:
        """Log-likelihood of the RNA of each gene in each cell, ``(..., n, g)``, in nats."""
        spliced, unspliced = tensors[REGISTRY_KEYS.X_KEY], tensors[UNSPLICED_KEY]
        return decoded["px"].log_prob(spliced) + decoded["pu"].log_prob(unspliced)

    def get_loadings(self) -> np.ndarray:
        """Change of each gene's time along each latent, ``(g, k)``, of a linear decoder; else a ``ValueError``."""
        if not self.decoder.linear:
            raise ValueError("Only a linear decoder has loadings: VELOVI(adata, linear_decoder=True).")
        layers: Any = self.decoder.rho_first_decoder.fc_layers[0]
        weights_gk: Tensor = layers[0].weight
        norm: Any = layers[1]
        if norm is not None:
            weights_gk = weights_gk * (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None]
        return weights_gk.detach().cpu().numpy()


def _rate(unconstrained: Tensor) -> Tensor:
    return F.softplus(unconstrained).clamp(0, _FASTEST)


def _start(given: Sequence[float] | np.ndarray | None, n: int, otherwise: float) -> Tensor:
    return torch.full((n,), otherwise) if given is None else torch.as_tensor(np.asarray(given), dtype=torch.float32)
