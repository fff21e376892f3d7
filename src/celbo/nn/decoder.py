r"""Decoders: from a latent variable to the parameters of the data's distribution.

Dims: n cells, k latents, h hidden, g genes, s samples.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import unknown_name
from .fc_layers import FCLayers, Linear

__all__ = ["AccessibilityDecoder", "Decoder", "DecoderSCVI", "LinearDecoderSCVI", "UseDropout", "asked"]

_SCALE_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "softmax": lambda: nn.Softmax(dim=-1),
    "softplus": nn.Softplus,
}

Later = Callable[[], Tensor]
"""Gives a table that may not be wanted."""

UseDropout = bool | Literal["later"]

Logits = tuple[Tensor, Tensor | None, Tensor | Later | None]
"""``(scale_logits, log_theta, dropout_logits)``; None where not asked for."""

Parameters = tuple[Tensor, Tensor | None, Tensor, Tensor | None]
"""``(px_scale, px_r, px_rate, px_dropout)``."""


class Decoder(nn.Module):
    r"""Mean and variance of a normal distribution: :math:`N(\mu(h_n), \exp(\sigma(h_n)))`.

    Parameters
    ----------
    n_input, n_output
        Size of the latent variable and of the data.
    n_cat_list, n_layers, n_hidden
        See :class:`~celbo.nn.FCLayers`.
    **kwargs
        Further arguments of :class:`~celbo.nn.FCLayers`, without ``dropout_rate``: there is no dropout.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Iterable[int] | None = None,
        n_layers: int = 1,
        n_hidden: int = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.decoder = FCLayers(
            n_input, n_hidden, n_cat_list=n_cat_list, n_layers=n_layers, n_hidden=n_hidden, dropout_rate=0, **kwargs
        )
        self.mean_decoder = Linear(n_hidden, n_output)
        self.var_decoder = Linear(n_hidden, n_output)

    def forward(self, x: Tensor, *cat_list: Tensor | None, cont: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and variance, each ``(n, n_output)``, of latents ``(n, n_input)`` and covariates."""
        hidden = self.decoder(x, *cat_list, cont=cont)
        return self.mean_decoder(hidden), self.var_decoder(hidden).exp()


class DecoderSCVI(nn.Module):
    r"""Parameters of a count distribution.

    .. math:: \rho_n = \mathrm{softmax}(W_\rho h_n), \quad \mu_n = \ell_n \rho_n, \quad
              \log \theta_n = W_\theta h_n, \quad \mathrm{logit}\,\pi_n = W_\pi h_n,
              \qquad h_n = \mathrm{layers}(z_n, c_n)

    Parameters
    ----------
    n_input, n_output
        Size of the latent variable and number of genes.
    n_cat_list, n_layers, n_hidden, inject_covariates, use_batch_norm, use_layer_norm
        See :class:`~celbo.nn.FCLayers`.
    scale_activation
        ``"softmax"``, or ``"softplus"`` where size factors take the place of the library.
    **kwargs
        Further arguments of :class:`~celbo.nn.FCLayers`, without ``dropout_rate``: there is no dropout.

    Raises
    ------
    ValueError
        Unknown ``scale_activation``.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Iterable[int] | None = None,
        n_layers: int = 1,
        n_hidden: int = 128,
        inject_covariates: bool = True,
        use_batch_norm: bool = False,
        use_layer_norm: bool = False,
        scale_activation: Literal["softmax", "softplus"] = "softmax",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if scale_activation not in _SCALE_ACTIVATIONS:
            raise ValueError(unknown_name("scale_activation", scale_activation, _SCALE_ACTIVATIONS))
        self.px_decoder = FCLayers(
            n_in=n_input,
            n_out=n_hidden,
            n_cat_list=n_cat_list,
            n_layers=n_layers,
            n_hidden=n_hidden,
            dropout_rate=0,
            inject_covariates=inject_covariates,
            use_batch_norm=use_batch_norm,
            use_layer_norm=use_layer_norm,
            **kwargs,
        )
        self.px_scale_decoder = nn.Sequential(Linear(n_hidden, n_output), _SCALE_ACTIVATIONS[scale_activation]())
        self.px_r_decoder = Linear(n_hidden, n_output)
        self.px_dropout_decoder = Linear(n_hidden, n_output)

    def logits(
        self,
        dispersion: str,
        z: Tensor,
        *cat_list: Tensor | None,
        cont: Tensor | None = None,
        use_dropout: UseDropout = True,
    ) -> Logits:
        """What the heads say before any activation; only the heads that are asked for are computed.

        Parameters
        ----------
        dispersion
            ``"gene-cell"`` asks for ``log_theta``; with any other it is None.
        z
            Latents, ``(n, n_input)`` or ``(s, n, n_input)``.
        *cat_list, cont
            Covariates, see :meth:`FCLayers.forward <celbo.nn.FCLayers.forward>`.
        use_dropout
            Whether the logits of an added zero are asked for; ``"later"``: as a function that computes them.

        Returns
        -------
        ``(scale_logits, log_theta, dropout_logits)``, each ``(..., g)`` or None.
        """
        hidden = self.px_decoder(z, *cat_list, cont=cont)
        return (
            self.px_scale_decoder[0](hidden),
            self.px_r_decoder(hidden) if dispersion == "gene-cell" else None,
            asked(use_dropout, partial(self.px_dropout_decoder, hidden)),
        )

    def scale(self, scale_logits: Tensor) -> Tensor:
        """Expected share of each gene (softmax), or rate per unit of size factor (softplus), from ``scale_logits``."""
        return self.px_scale_decoder[1](scale_logits)

    @property
    def is_softmax(self) -> bool:
        """Whether the scales of a cell sum to 1."""
        return isinstance(self.px_scale_decoder[1], nn.Softmax)

    @property
    def profile(self) -> Tensor | None:
        """Log shares of the genes where latents say nothing, but for a constant; None where scales are no shares."""
        return self.px_scale_decoder[0].bias if self.is_softmax else None  # type: ignore[return-value]

    def forward(
        self, dispersion: str, z: Tensor, library: Tensor, *cat_list: Tensor | None, cont: Tensor | None = None
    ) -> Parameters:
        """Parameters of the distribution.

        Parameters
        ----------
        dispersion
            ``"gene-cell"`` asks for ``px_r``; with any other it is None.
        z
            Latents, ``(n, n_input)`` or ``(s, n, n_input)``.
        library
            Natural log of the library size (or of the size factor), ``(n, 1)``.
        *cat_list, cont
            Covariates, see :meth:`FCLayers.forward <celbo.nn.FCLayers.forward>`.

        Returns
        -------
        ``(px_scale, px_r, px_rate, px_dropout)``: scale, log of the inverse dispersion, mean, logits of an added zero.
        """
        scale_logits, log_theta, dropout_logits = self.logits(dispersion, z, *cat_list, cont=cont)
        return _parameters(self.scale(scale_logits), log_theta, library, dropout_logits)


class LinearDecoderSCVI(nn.Module):
    r"""Linear decoder, its weights being loadings of genes on factors.

    .. math:: \rho_n = \mathrm{softmax}(\mathrm{norm}(W\,[z_n, c_n])), \quad \mu_n = \ell_n \rho_n

    Parameters
    ----------
    n_input, n_output
        Size of the latent variable and number of genes.
    n_cat_list, use_batch_norm, use_layer_norm, bias
        See :class:`~celbo.nn.FCLayers`.
    **kwargs
        Further arguments of :class:`~celbo.nn.FCLayers`.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Iterable[int] | None = None,
        use_batch_norm: bool = False,
        use_layer_norm: bool = False,
        bias: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        n_cats = list(n_cat_list or [])

        def linear() -> FCLayers:
            return FCLayers(
                n_in=n_input,
                n_out=n_output,
                n_cat_list=n_cats,
                n_layers=1,
                use_activation=False,
                use_batch_norm=use_batch_norm,
                use_layer_norm=use_layer_norm,
                bias=bias,
                dropout_rate=0,
                **kwargs,
            )

        self.factor_regressor = linear()
        self.px_dropout_decoder = linear()

    def logits(
        self,
        dispersion: str,
        z: Tensor,
        *cat_list: Tensor | None,
        cont: Tensor | None = None,
        use_dropout: UseDropout = True,
    ) -> Logits:
        """As :meth:`DecoderSCVI.logits`; there is no head for the dispersion, so the second is None."""
        scale_logits = self.factor_regressor(z, *cat_list, cont=cont)
        return scale_logits, None, asked(use_dropout, partial(self.px_dropout_decoder, z, *cat_list, cont=cont))

    def scale(self, scale_logits: Tensor) -> Tensor:
        """Expected share of each gene from ``scale_logits``."""
        return F.softmax(scale_logits, dim=-1)

    @property
    def is_softmax(self) -> bool:
        """Whether the scales of a cell sum to 1: always."""
        return True

    @property
    def profile(self) -> Tensor | None:
        """As :attr:`DecoderSCVI.profile`; None for layers that have no bias and do not normalize their output."""
        return self.factor_regressor.last_bias

    def forward(
        self, dispersion: str, z: Tensor, library: Tensor, *cat_list: Tensor | None, cont: Tensor | None = None
    ) -> Parameters:
        """As :meth:`DecoderSCVI.forward`, with ``px_r`` always None."""
        scale_logits, log_theta, dropout_logits = self.logits(dispersion, z, *cat_list, cont=cont)
        return _parameters(self.scale(scale_logits), log_theta, library, dropout_logits)


class AccessibilityDecoder(nn.Module):
    r"""Probabilities: :math:`p_n = \mathrm{sigmoid}(W h_n)`, one for each output; no dropout.

    Parameters
    ----------
    n_input, n_output
        Size of the input and number of probabilities.
    n_cat_list, n_layers, n_hidden, use_batch_norm, use_layer_norm
        See :class:`~celbo.nn.FCLayers`; the activation is a leaky ReLU.
    deep_inject_covariates
        Covariates enter each layer (True) or the first only.
    activation
        In place of the sigmoid, for outputs that are no probabilities.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Iterable[int] | None = None,
        n_layers: int = 2,
        n_hidden: int = 128,
        use_batch_norm: bool = False,
        use_layer_norm: bool = True,
        deep_inject_covariates: bool = False,
        activation: Callable[[], nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.px_decoder = FCLayers(
            n_input,
            n_hidden,
            n_cat_list=n_cat_list,
            n_layers=n_layers,
            n_hidden=n_hidden,
            dropout_rate=0,
            use_batch_norm=use_batch_norm,
            use_layer_norm=use_layer_norm,
            inject_covariates=deep_inject_covariates,
            activation_fn=nn.LeakyReLU,
        )
        self.output = nn.Sequential(Linear(n_hidden, n_output), activation())

    def logits(self, z: Tensor, *cat_list: Tensor | None) -> Tensor:
        """Log-odds ``(..., n_output)`` of input ``(..., n_input)`` and covariates."""
        return self.output[0](self.px_decoder(z, *cat_list))

    def forward(self, z: Tensor, *cat_list: Tensor | None) -> Tensor:
        """Probabilities ``(..., n_output)`` of input ``(..., n_input)`` and covariates."""
        return self.output[1](self.logits(z, *cat_list))


def asked(use_dropout: UseDropout, compute: Later) -> Tensor | Later | None:
    """The logits of an added zero as they were asked for: now, later or not at all."""
    if use_dropout == "later":
        return compute
    return compute() if use_dropout else None


def _parameters(scale: Tensor, log_theta: Tensor | None, library: Tensor, dropout_logits: Any) -> Parameters:
    return scale, log_theta, torch.exp(library) * scale, dropout_logits
