"""Decoder of proteins alone: background and foreground rates, and which of the two a count comes from.

Dims: n cells, k latents, p proteins, h hidden, s samples.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributions import Normal

from ..ops.draws import rsample
from .fc_layers import FCLayers

__all__ = ["ProteinDecoder", "WakingReLU", "beside_latents", "head"]

_EPS = 1e-8


class _Projected(Function):
    """``max(x, 0)``; the gradient passes where x is positive, and where it is not if the step would raise it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,), (grad,) = ctx.saved_tensors, grads
        return torch.where((x > 0) | (grad < 0), grad, 0)


class WakingReLU(nn.ReLU):
    r"""A ReLU that a step of descent can wake, of the same values.

    With ReLU a unit that is negative in every cell has no gradient, and is lost. Here the gradient of the loss
    :math:`\mathcal{L}` with respect to the input is

    .. math:: \frac{\partial \mathcal{L}}{\partial x} = \frac{\partial \mathcal{L}}{\partial y}
              \Big[x > 0 \text{ or } \frac{\partial \mathcal{L}}{\partial y} < 0\Big], \qquad y = \max(x, 0),

    that of projected descent under :math:`y \ge 0`: it is zero where y at its bound is best, and there only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``max(x, 0)``."""
        return _Projected.apply(x)  # type: ignore[no-any-return]


def head(
    n_latent: int,
    n_hidden: int,
    n_cats: list[int],
    n_output: int,
    cut_off: type[nn.Module] | None = None,
) -> FCLayers:
    """A linear layer that sees what :func:`beside_latents` gives, and the covariates.

    Parameters
    ----------
    n_latent, n_hidden, n_output
        Sizes.
    n_cats
        Number of categories of each covariate.
    cut_off
        What cuts the outputs off at 0, a ReLU; None: nothing does.
    """
    single: dict[str, Any] = {"n_layers": 1, "use_batch_norm": False, "dropout_rate": 0}
    single |= {"use_activation": cut_off is not None, "activation_fn": cut_off or nn.Identity}
    return FCLayers(n_hidden + n_latent, n_output, n_cat_list=n_cats, **single)


def beside_latents(layers: FCLayers, z: Tensor, cat_list: Iterable[Tensor | None]) -> Tensor:
    """A hidden layer ``(..., h)``, and beside it the latents ``(..., k)`` that went into it."""
    return torch.cat([layers(z, *cat_list), z], dim=-1)


class ProteinDecoder(nn.Module):
    r"""Parameters of the mixture of background and foreground of proteins, as in MultiVI.

    The background rate :math:`\beta` is drawn from :math:`\mathrm{LogNormal}(\alpha, e^{b})`, the foreground rate is
    :math:`\beta (1 + \epsilon + \mathrm{ReLU}(\cdot))`. Covariates enter each layer.

    Parameters
    ----------
    n_input, n_output
        Number of latents and of proteins.
    n_cat_list, n_layers, n_hidden, dropout_rate, use_batch_norm, use_layer_norm
        See :class:`~celbo.nn.FCLayers`.
    foreground_wakes
        Whether the foreground's ReLU is a :class:`~celbo.nn.protein.WakingReLU`.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Iterable[int] | None = None,
        n_layers: int = 2,
        n_hidden: int = 128,
        dropout_rate: float = 0.1,
        use_batch_norm: bool = False,
        use_layer_norm: bool = True,
        foreground_wakes: bool = False,
    ) -> None:
        super().__init__()
        n_cats = list(n_cat_list or [])
        layers: dict[str, Any] = {"n_cat_list": n_cats, "n_layers": n_layers, "n_hidden": n_hidden}
        layers |= {
            "dropout_rate": dropout_rate,
            "use_batch_norm": use_batch_norm,
            "use_layer_norm": use_layer_norm,
        }
        head_of = partial(head, n_input, n_hidden, n_cats, n_output)
        self.py_fore_decoder = FCLayers(n_input, n_hidden, **layers)
        self.py_fore_scale_decoder = head_of(cut_off=WakingReLU if foreground_wakes else nn.ReLU)
        self.py_background_decoder = head_of()
        self.sigmoid_decoder = FCLayers(n_input, n_hidden, **layers)
        self.py_back_mean_log_alpha = head_of()
        self.py_back_mean_log_beta = head_of()
        self.py_back_decoder = FCLayers(n_input, n_hidden, **layers)

    def forward(self, z: Tensor, *cat_list: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Rates and log-odds.

        Parameters
        ----------
        z
            Latents and continuous covariates, ``(n, k)`` or ``(s, n, k)``.
        *cat_list
            Categorical covariates, see :meth:`FCLayers.forward <celbo.nn.FCLayers.forward>`.

        Returns
        -------
        Rate of the background and of the foreground, log-odds of the background: ``(..., n, p)`` each.
        """
        background = beside_latents(self.py_back_decoder, z, cat_list)
        mean_np = self.py_back_mean_log_alpha(background, *cat_list)
        sd_np = self.py_back_mean_log_beta(background, *cat_list).exp()
        rate_np = rsample(Normal(mean_np, sd_np, validate_args=False)).exp()
        foreground = beside_latents(self.py_fore_decoder, z, cat_list)
        times_np = self.py_fore_scale_decoder(foreground, *cat_list) + 1 + _EPS
        mixing_np = self.py_background_decoder(beside_latents(self.sigmoid_decoder, z, cat_list), *cat_list)
        return rate_np, rate_np * times_np, mixing_np
