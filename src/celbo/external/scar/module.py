r"""Counts of cells in a soup: a share of each cell's counts comes from the ambient RNA, whose profile is known.

.. math::

    z_n \sim N(0, I), \qquad \rho_n = \frac{s(f(z_n))}{\sum_g s(f(z_n))_g}, \qquad
    \epsilon_n = \tfrac{1}{2}\bigl(1 + \tanh h(z_n)\bigr), \qquad
    x_{ng} \sim \mathrm{Binomial}\bigl(\ell_n,\; (1 - \epsilon_n)\,\rho_{ng} + \epsilon_n a_g\bigr)

with the cell's total :math:`\ell_n`, native profile :math:`\rho_n` and ambient share :math:`\epsilon_n`; :math:`s` cuts
the small values of a softplus to 0. The ambient profile :math:`a` is one for all cells, or that of the cell's batch.

Dims: n cells, g genes, k latents, s samples.
Reference: Sheng et al., bioRxiv 2022 (scAR).
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Binomial as TorchBinomial
from torch.distributions import Distribution, Normal

from ...core import checked, unknown_name
from ...distributions.base import CountDistribution, Shape, extended, normalized
from ...module import VAE
from ...module.likelihoods import LIKELIHOODS, LatentDistribution
from ...nn import FCLayers
from ...nn.fc_layers import Linear
from ...ops.elementwise import inverse_softplus, log_gamma_ratio
from ...ops.random import generator_or

__all__ = ["SCAR_VAE", "Binomial", "DecoderSCAR", "NativeScale", "Scale", "ScarLikelihood"]

Scale = Literal["softmax", "softplus", "softplus_sp"]
ScarLikelihood = Literal["zinb", "nb", "b", "poisson"]

_NO_DIVISION_BY_0 = 1e-5
_FIRST_NOISE = -1.0
_NOISE_BESIDE_PROFILES = -0.5
_FIRST_MEAN = 0.7
_LEAST_SCALE = 1e-3


class Binomial(TorchBinomial, CountDistribution):  # type: ignore[misc]  # same support, narrower type
    r"""Binomial distribution of a cell's counts given its total, which carries the native share of each gene.

    .. math:: \log p(x) = \log\binom{\ell}{x} + x \log p + (\ell - x) \log(1 - p)

    Parameters
    ----------
    total_count
        Totals :math:`\ell`, ``(n, 1)``, at least as large as the counts they are asked about.
    probs
        Probabilities p, ``(n, g)``.
    scale
        Native share of each gene, ``(n, g)``, only carried for :meth:`get_normalized`.
    """

    def __init__(self, total_count: Tensor, probs: Tensor, scale: Tensor | None = None) -> None:
        self.scale = scale
        super().__init__(total_count, probs=probs, validate_args=False)

    def get_normalized(self, key: str) -> Tensor:
        """The mean (``"mu"``) or the ``scale`` handed over at construction (``"scale"``)."""
        return normalized(self, key, mu=self.mean, scale=self.scale)

    @torch.no_grad()
    def sample(self, sample_shape: Shape | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Counts, ``(*sample_shape, n, g)``, drawn independently for each gene."""
        shape = extended(self, sample_shape)
        total, probs = self.total_count.expand(shape), self.probs.expand(shape)
        return torch.binomial(total, probs, generator=generator_or(generator, probs.device))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probabilities of counts in nats, ``(n, g)``."""
        smallest = torch.finfo(self.probs.dtype).eps
        p = self.probs.clamp(smallest, 1 - smallest)  # a native profile that was cut to 0 must not be impossible
        rest = (self.total_count - value).clamp(min=0)  # of a total above 1e6 the float32 logarithm may lose one
        with torch.no_grad():  # log of C(total, x) without the cancellation of three log-gammas
            ways = log_gamma_ratio(value, rest + 1) - torch.lgamma(value + 1)
        return ways + value * p.log() + rest * (-p).log1p()

    def log_prob_sum(self, value: Tensor) -> Tensor:
        """Their sum over genes, ``(...)``; on the CPU it keeps one table for the gradient of the probabilities."""
        if value.shape != self.probs.shape or self.total_count.requires_grad or value.device.type != "cpu":
            return super().log_prob_sum(value)
        return _LogProbSum.apply(self.probs, self.total_count, value)  # type: ignore[no-untyped-call, no-any-return]


class _LogProbSum(torch.autograd.Function):
    """Sum of a binomial's log-probabilities; terms that counts of 0 lack are computed of the others alone."""

    @staticmethod
    def forward(ctx: Any, probs: Tensor, total: Tensor, value: Tensor) -> Tensor:
        """Sums ``(n,)`` of tables ``(n, g)``."""
        smallest = torch.finfo(probs.dtype).eps
        p = probs.clamp(smallest, 1 - smallest)
        rest = (total - value).clamp_(min=0)
        log_p = p.neg().log1p_().mul_(rest)
        seen = value.reshape(-1).nonzero().squeeze(-1)
        x, others, p_seen = (table.reshape(-1)[seen] for table in (value, rest, p))
        ways = log_gamma_ratio(x, others + 1) - torch.lgamma(x + 1)
        log_p.view(-1)[seen] += ways + x * p_seen.log()
        if ctx.needs_input_grad[0]:
            gradient = rest.div_(p.sub_(1))
            gradient.view(-1)[seen] += x / p_seen
            ctx.save_for_backward(gradient.masked_fill_((probs < smallest) | (probs > 1 - smallest), 0.0))
        return log_p.sum(-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Gradient of the probabilities alone."""
        (gradient,) = ctx.saved_tensors
        return grads[0][..., None] * gradient, None, None


class NativeScale(nn.Module):
    r"""From a decoder's logits to the share of each gene.

    .. math:: s(u) = \max\bigl(0,\, \mathrm{softplus}(u) - \mathrm{softplus}(-10\,(1 - \text{sparsity}))\bigr)

    Parameters
    ----------
    activation
        ``"softplus_sp"``, the function above; ``"softplus"`` without a cut; ``"softmax"``. Each is divided by its sum.
    sparsity
        The closer to 1, the more is cut.

    Raises
    ------
    ValueError
        Unknown ``activation``.
    """

    def __init__(self, activation: Scale, sparsity: float) -> None:
        super().__init__()
        if activation not in Scale.__args__:  # type: ignore[attr-defined]
            raise ValueError(unknown_name("scale_activation", activation, Scale.__args__))  # type: ignore[attr-defined]
        self.activation = activation
        self.cut = F.softplus(torch.tensor(-10.0 * (1 - sparsity))).item()

    def logits_of(self, scale: Tensor) -> Tensor:
        """Logits, ``(..., g)``, of which positive numbers ``scale`` are made, before they are divided by their sum."""
        if self.activation == "softmax":
            return scale.log()
        return inverse_softplus(scale + (self.cut if self.activation == "softplus_sp" else 0.0))

    def forward(self, logits: Tensor) -> Tensor:
        """Shares ``(..., g)`` of logits ``(..., g)``."""
        if self.activation == "softmax":
            return logits.softmax(-1)
        scale = F.softplus(logits)
        if self.activation == "softplus_sp":
            kept = (scale - self.cut).relu()
            # Training keeps the gradient of what was cut: a gene that was once 0 could never come back, and the ambient
            # profile would have to explain its counts (removed at 10, 30, 50% ambient: 19, 36, 77%).
            scale = scale + (kept - scale).detach() if self.training else kept
        return scale / (scale.sum(-1, keepdim=True) + _NO_DIVISION_BY_0)


class DecoderSCAR(nn.Module):
    """Native profile and ambient share of a cell.

    Parameters
    ----------
    n_input, n_output
        Numbers of latents and genes.
    n_layers, n_hidden
        Hidden layers and their width.
    scale_activation, sparsity
        See :class:`NativeScale`.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_layers: int,
        n_hidden: int,
        scale_activation: Scale,
        sparsity: float,
    ) -> None:
        super().__init__()
        self.px_decoder = FCLayers(
            n_input,
            n_hidden,
            n_layers=n_layers,
            n_hidden=n_hidden,
            dropout_rate=0,
            use_batch_norm=True,  # whatever the encoder has
        )
        self.px_scale_decoder = nn.Sequential(Linear(n_hidden, n_output), NativeScale(scale_activation, sparsity))
        to_noise = Linear(n_hidden, 1)
        self.px_noise_decoder = nn.Sequential(to_noise, nn.Tanh())
        self.px_dropout_decoder = Linear(n_hidden, n_output)
        # Near 0.1, and the same for all cells: from the 0.5 of random weights the ambient profile takes what cells
        # have in common before there are native profiles, and the latents then stay unused.
        nn.init.zeros_(to_noise.weight)
        nn.init.constant_(to_noise.bias, _FIRST_NOISE)

    @torch.no_grad()
    def start_from_profile(self, share: Tensor) -> None:
        """Begin with the mean profile of the cells as the native one of all, and an ambient share of 0.27.

        From profiles that are even the ambient one explains the counts better at first, and takes too many at any but
        small learning rates. Weights of a gene are scaled with its share, so that all vary as much in proportion.

        Parameters
        ----------
        share
            Share of each gene in all counts, ``(g,)``.
        """
        to_scale: Any = self.px_scale_decoder[0]
        scale: Any = self.px_scale_decoder[1]
        wanted = share * len(share) * _FIRST_MEAN
        to_scale.weight.mul_((wanted[:, None] / _FIRST_MEAN).clamp(min=_LEAST_SCALE))
        to_scale.bias.copy_(scale.logits_of(wanted.clamp(min=_LEAST_SCALE)))
        to_noise: Any = self.px_noise_decoder[0]
        to_noise.bias.fill_(_NOISE_BESIDE_PROFILES)

    def forward(self, z: Tensor, use_dropout: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Native profile ``(..., g)``, ambient share ``(..., 1)``, logits of an added zero where asked for."""
        hidden = self.px_decoder(z)
        noise = (1 + self.px_noise_decoder(hidden)) / 2
        return self.px_scale_decoder(hidden), noise, self.px_dropout_decoder(hidden) if use_dropout else None


class SCAR_VAE(VAE):
    """Autoencoder whose decoder separates native from ambient counts. Its networks do not see the batch.

    Parameters
    ----------
    ambient_profile
        Share of each gene in the ambient RNA, ``(g,)`` or ``(1, g)``; ``(b, g)``: in that of each batch. Not in the
        ``state_dict``, as in scvi-tools.
    n_input, n_hidden, n_latent, n_layers, dropout_rate, log_variational, latent_distribution, use_observed_lib_size
        See :class:`~celbo.module.VAE`.
    scale_activation, sparsity
        See :class:`NativeScale`.
    gene_likelihood
        ``"b"`` (binomial: the total of a cell is given), ``"poisson"``, ``"nb"`` or ``"zinb"``.
    **vae_kwargs
        Further arguments of :class:`~celbo.module.VAE`; normalization of layers is that of the encoder.

    Raises
    ------
    ValueError
        An option that does not exist; a binomial with size factors, which are not totals.
    """

    ambient_profile: Tensor

    @checked
    def __init__(
        self,
        ambient_profile: Tensor,
        n_input: int,
        n_hidden: int = 150,
        n_latent: int = 15,
        n_layers: int = 2,
        dropout_rate: float = 0.0,
        scale_activation: Scale = "softplus_sp",
        sparsity: float = 0.9,
        log_variational: bool = True,
        gene_likelihood: ScarLikelihood = "b",
        latent_distribution: LatentDistribution = "normal",
        use_observed_lib_size: bool = True,
        **vae_kwargs: Any,
    ) -> None:
        if gene_likelihood == "b" and vae_kwargs.get("use_size_factor_key"):
            raise ValueError(
                'gene_likelihood="b" draws a cell\'s counts from its total, which a size factor is not: choose "nb" or '
                '"poisson", or leave size_factor_key out of the setup.'
            )
        super().__init__(
            n_input,
            n_hidden=n_hidden,
            n_latent=n_latent,
            n_layers=n_layers,
            dropout_rate=dropout_rate,
            log_variational=log_variational,
            gene_likelihood="poisson" if gene_likelihood == "b" else gene_likelihood,
            latent_distribution=latent_distribution,
            use_observed_lib_size=use_observed_lib_size,
            **vae_kwargs,
        )
        self.gene_likelihood = gene_likelihood  # type: ignore[assignment]  # one more than its parent has
        self.decoder = DecoderSCAR(  # type: ignore[assignment]  # its own heads
            n_latent,
            n_input,
            n_layers,
            n_hidden,
            scale_activation=scale_activation,
            sparsity=sparsity,
        )
        profile = torch.as_tensor(ambient_profile, dtype=torch.float32).reshape(-1, n_input)
        self.register_buffer("ambient_profile", profile, persistent=False)

    def start_from_counts(self, x: Tensor) -> bool:
        """Begin with the cells' mean profile, and the dispersions that the counts have; a binomial has none."""
        if not x.sum() > 0 or (self.gene_likelihood != "b" and not super().start_from_counts(x)):
            return False
        self.decoder.start_from_profile(x.sum(0) / x.sum())  # type: ignore[operator]
        return True

    def _ambient(self, batch_index: Tensor) -> Tensor:
        """Ambient profile of each cell's batch, ``(n, g)``, or the one that all have, ``(1, g)``."""
        return self.ambient_profile if len(self.ambient_profile) == 1 else self.ambient_profile[batch_index.flatten()]

    def generative(  # type: ignore[override]  # fewer arguments are used
        self,
        z: Tensor,
        library: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        size_factor: Tensor | None = None,
        y: Tensor | None = None,
        transform_batch: Tensor | int | None = None,
    ) -> dict[str, Distribution | None]:
        r"""Decode latents.

        Parameters
        ----------
        z, library, batch_index, size_factor
            See :meth:`celbo.module.VAE.generative`.
        cont_covs, cat_covs, y, transform_batch
            Accepted and not used: the decoder sees the latents alone.

        Returns
        -------
        ``px``, whose mean has the ambient counts and whose scale, :math:`(1 - \epsilon_n) \rho_n`, has not; ``pz``;
        ``pl``, None for an observed library.

        Raises
        ------
        ValueError
            The module is built for size factors, and none are given.
        """
        if self.use_size_factor_key:
            if size_factor is None:
                raise ValueError("generative() needs `size_factor`: the module was built with use_size_factor_key.")
            library = size_factor
        inflated = self.gene_likelihood == "zinb"
        native, noise, zi_logits = self.decoder(z, inflated)  # type: ignore[call-arg, arg-type, misc]
        scale = native * (1 - noise)
        expected = scale + self._ambient(batch_index) * noise
        px: Distribution
        if self.gene_likelihood == "b":
            # exp(log n) falls short of n for near half of all n: cut off, as in scvi-tools, it would lose a count
            px = Binomial(library.exp().round(), expected, scale)
        else:
            make = LIKELIHOODS[self.gene_likelihood].from_rate
            px = make(library.exp() * expected, scale, self.px_r, zi_logits)
        pz = Normal(torch.zeros_like(z), torch.ones_like(z), validate_args=False)
        return {"px": px, "pl": self._library_prior(batch_index), "pz": pz}
