r"""Networks of SCVIVA: an encoder with one head, and decoders of a cell's surroundings.

Dims: n cells, k latents, c cell types, e dimensions of the niche's embedding.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Dirichlet, Normal

from ...nn import Decoder, Encoder, FCLayers
from ...nn.fc_layers import Linear

__all__ = ["DirichletDecoder", "NicheDecoder", "OneHeadEncoder"]


class OneHeadEncoder(Encoder):
    """An :class:`~celbo.nn.Encoder` whose mean and variance come from one layer, the variance by a softplus."""

    def __init__(
        self, n_input: int, n_output: int, var_activation: Callable[[Tensor], Tensor] | None = None, **kwargs: Any
    ) -> None:
        activation = F.softplus if var_activation is None else var_activation
        super().__init__(n_input, n_output, var_activation=activation, **kwargs)

    def _make_heads(self, n_hidden: int, n_output: int) -> None:
        self.dist_encoder = Linear(n_hidden, 2 * n_output)

    def _heads(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        mean_nk, unconstrained_nk = self.dist_encoder(hidden).chunk(2, dim=-1)
        return mean_nk, unconstrained_nk


class NicheDecoder(nn.Module):
    r"""State of the neighbours of each type: :math:`N(\mu_c(z_n), \sigma_c(z_n))`.

    Parameters
    ----------
    n_input
        Latents and dense covariates.
    n_output
        Dimensions of the embedding of cells that niches are described in, e.
    n_niche_components
        Cell types, c.
    n_cat_list, n_layers, n_hidden, dropout_rate, **kwargs
        See :class:`~celbo.nn.FCLayers`.
    var_eps
        Added to the standard deviation, so that it stays away from 0.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_niche_components: int,
        n_cat_list: Iterable[int] | None = None,
        n_layers: int = 1,
        n_hidden: int = 128,
        dropout_rate: float = 0.1,
        var_eps: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.shape = (n_niche_components, n_output)
        self.var_eps = var_eps
        layers = {"n_layers": n_layers, "n_hidden": n_hidden, "dropout_rate": dropout_rate, **kwargs}
        self.decoder = FCLayers(n_input, n_hidden, n_cat_list=n_cat_list, **layers)
        self.dist_decoder = Linear(n_hidden, 2 * n_output * n_niche_components)

    def forward(self, x: Tensor, *cat_list: Tensor | None, cont: Tensor | None = None) -> Normal:
        """Distribution over ``(..., c, e)`` of latents ``(..., k)`` and covariates."""
        mean, unconstrained = self.dist_decoder(self.decoder(x, *cat_list, cont=cont)).chunk(2, dim=-1)
        # scvi-tools names the head for a variance, and uses it as the standard deviation, too.
        scale = F.softplus(unconstrained) + self.var_eps
        return Normal(mean.unflatten(-1, self.shape), scale.unflatten(-1, self.shape), validate_args=False)


class DirichletDecoder(Decoder):
    r"""Shares of the cell types around a cell: :math:`\mathrm{Dirichlet}(\mathrm{softplus}(W h_n) + \epsilon)`.

    Parameters
    ----------
    n_input, n_output
        Latents and dense covariates; cell types.
    n_cat_list, n_layers, n_hidden, **kwargs
        See :class:`~celbo.nn.Decoder`, whose second head is there, as in scvi-tools' archives, but not used.
    concentration_eps
        Added to the concentrations.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Iterable[int] | None = None,
        n_layers: int = 1,
        n_hidden: int = 128,
        concentration_eps: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_input, n_output, n_cat_list, n_layers, n_hidden, **kwargs)
        self.concentration_eps = concentration_eps

    def forward(  # type: ignore[override]  # a distribution in place of a mean and a variance
        self, x: Tensor, *cat_list: Tensor | None, cont: Tensor | None = None
    ) -> Dirichlet:
        """Distribution over ``(..., c)`` of latents ``(..., k)`` and covariates."""
        hidden = self.decoder(x, *cat_list, cont=cont)
        return Dirichlet(F.softplus(self.mean_decoder(hidden)) + self.concentration_eps, validate_args=False)
