"""Decoder of proteins alone: background and foreground rates, and which of the two a count comes from.

Dims: n cells, k latents, p proteins, h hidden, s samples.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from ..ops.draws import rsample
from .fc_layers import FCLayers

__all__ = ["ProteinDecoder"]

_EPS = 1e-8


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
    ) -> None:
        super().__init__()
        n_cats = list(n_cat_list or [])
        layers: dict[str, Any] = {"n_cat_list": n_cats, "n_layers": n_layers, "n_hidden": n_hidden}
        layers |= {
            "dropout_rate": dropout_rate,
            "use_batch_norm": use_batch_norm,
            "use_layer_norm": use_layer_norm,
        }

        def head(rectified: bool = False) -> FCLayers:
            """A linear layer that sees the hidden layer, the latents again and the covariates."""
            single: dict[str, Any] = {"n_layers": 1, "use_batch_norm": False, "dropout_rate": 0}
            return FCLayers(n_hidden + n_input, n_output, n_cat_list=n_cats, use_activation=rectified, **single)

        self.py_fore_decoder = FCLayers(n_input, n_hidden, **layers)
        self.py_fore_scale_decoder = head(rectified=True)
        self.py_background_decoder = head()
        self.sigmoid_decoder = FCLayers(n_input, n_hidden, **layers)
        self.py_back_mean_log_alpha = head()
        self.py_back_mean_log_beta = head()
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

        def hidden(layers: FCLayers) -> Tensor:
            return torch.cat([layers(z, *cat_list), z], dim=-1)

        background = hidden(self.py_back_decoder)
        mean_np = self.py_back_mean_log_alpha(background, *cat_list)
        sd_np = self.py_back_mean_log_beta(background, *cat_list).exp()
        rate_np = rsample(Normal(mean_np, sd_np, validate_args=False)).exp()
        times_np = self.py_fore_scale_decoder(hidden(self.py_fore_decoder), *cat_list) + 1 + _EPS
        return rate_np, rate_np * times_np, self.py_background_decoder(hidden(self.sigmoid_decoder), *cat_list)
