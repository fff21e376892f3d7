r"""Encoder: from data to the normal posterior of a latent variable.

.. math:: q(z_n \mid x_n, c_n) = N(\mu(h_n),\; f(\sigma(h_n)) + \epsilon), \qquad h_n = \mathrm{layers}(x_n, c_n)

Dims: n cells, k latents, s samples.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from ..ops.draws import rsample
from .fc_layers import FCLayers, Linear

__all__ = ["Encoder"]


class Encoder(nn.Module):
    """Map data to the mean and variance of a normal posterior, and draw from it.

    Parameters
    ----------
    n_input, n_output
        Size of the data and of the latent variable.
    n_cat_list
        Number of categories of each categorical covariate.
    n_layers, n_hidden, dropout_rate
        See :class:`~celbo.nn.FCLayers`.
    distribution
        ``"normal"``, or ``"ln"``: the sample is sent through a softmax (logistic normal).
    var_eps
        Added to the variance, so that it stays away from 0.
    var_activation
        Makes the variance positive; ``torch.exp`` when not given.
    return_dist
        Whether :meth:`forward` returns the distribution instead of its mean and variance.
    **kwargs
        Further arguments of :class:`~celbo.nn.FCLayers`.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Iterable[int] | None = None,
        n_layers: int = 1,
        n_hidden: int = 128,
        dropout_rate: float = 0.1,
        distribution: str = "normal",
        var_eps: float = 1e-4,
        var_activation: Callable[[Tensor], Tensor] | None = None,
        return_dist: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.distribution = distribution
        self.var_eps = var_eps
        self.return_dist = return_dist
        self.encoder = FCLayers(
            n_in=n_input,
            n_out=n_hidden,
            n_cat_list=n_cat_list,
            n_layers=n_layers,
            n_hidden=n_hidden,
            dropout_rate=dropout_rate,
            **kwargs,
        )
        self._make_heads(n_hidden, n_output)
        self.z_transformation = nn.Softmax(dim=-1) if distribution == "ln" else _identity
        self.var_activation = torch.exp if var_activation is None else var_activation

    def _make_heads(self, n_hidden: int, n_output: int) -> None:
        self.mean_encoder = Linear(n_hidden, n_output)
        self.var_encoder = Linear(n_hidden, n_output)

    def _heads(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, and the variance before its activation, of the last hidden layer."""
        return self.mean_encoder(hidden), self.var_encoder(hidden)

    def forward(
        self, x: Tensor, *cat_list: Tensor | None, cont: Tensor | None = None
    ) -> tuple[Normal, Tensor] | tuple[Tensor, Tensor, Tensor]:
        """Encode and sample.

        Parameters
        ----------
        x
            ``(n, n_input)``.
        *cat_list, cont
            Covariates, see :meth:`FCLayers.forward <celbo.nn.FCLayers.forward>`.

        Returns
        -------
        ``(q, z)`` with ``return_dist``, else ``(mean, variance, z)``; ``z`` is a reparameterised sample, transformed as
        ``distribution`` says.
        """
        mean_nk, unconstrained_nk = self._heads(self.encoder(x, *cat_list, cont=cont))
        var_nk = self.var_activation(unconstrained_nk) + self.var_eps
        # The arguments are not validated: the check would make the host wait for a GPU at each step.
        q = Normal(mean_nk, var_nk.sqrt(), validate_args=False)
        z_nk = self.z_transformation(rsample(q))
        return (q, z_nk) if self.return_dist else (mean_nk, var_nk, z_nk)


def _identity(z: Tensor) -> Tensor:
    return z
