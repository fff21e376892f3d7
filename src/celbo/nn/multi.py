r"""Networks of several data sets at once: layers of their own, then layers that all share (gimVI).

Dims: n cells, k latents, h hidden, g genes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from ..ops.draws import rsample
from ..ops.linear import linear
from .fc_layers import FCLayers, Linear

__all__ = ["MultiDecoder", "MultiEncoder"]


class MultiEncoder(nn.Module):
    """Encoder with a head for each data set in front of shared layers.

    Parameters
    ----------
    n_heads
        Number of data sets.
    n_input_list
        Number of features of each.
    n_output
        Number of latents.
    n_hidden, n_cat_list, dropout_rate
        See :class:`~celbo.nn.FCLayers`; covariates enter heads and shared layers.
    n_layers_individual, n_layers_shared
        Layers of each head, and behind them.
    distribution
        ``"normal"``, or ``"ln"``: the sample is sent through a softmax (logistic normal).
    return_dist
        Whether :meth:`forward` returns the distribution instead of its mean and variance.
    **kwargs
        Further arguments of :class:`~celbo.nn.FCLayers`.

    Raises
    ------
    ValueError
        ``n_input_list`` does not have one number for each of the heads.
    """

    def __init__(
        self,
        n_heads: int,
        n_input_list: Sequence[int],
        n_output: int,
        n_hidden: int = 128,
        n_layers_individual: int = 1,
        n_layers_shared: int = 2,
        n_cat_list: Iterable[int] | None = None,
        distribution: str = "normal",
        dropout_rate: float = 0.1,
        return_dist: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if len(n_input_list) != n_heads:
            raise ValueError(f"n_input_list has {len(n_input_list)} sizes for {n_heads} heads: one each is wanted.")
        options: dict[str, Any] = {
            "n_cat_list": list(n_cat_list or []),
            "n_hidden": n_hidden,
            "dropout_rate": dropout_rate,
            **kwargs,
        }
        self.return_dist = return_dist
        self.encoders = nn.ModuleList(
            FCLayers(n_input, n_hidden, n_layers=n_layers_individual, **options) for n_input in n_input_list
        )
        self.encoder_shared = FCLayers(n_hidden, n_hidden, n_layers=n_layers_shared, **options)
        self.mean_encoder = Linear(n_hidden, n_output)
        self.var_encoder = Linear(n_hidden, n_output)
        self.z_transformation = nn.Softmax(dim=-1) if distribution == "ln" else nn.Identity()

    def forward(
        self, x: Tensor, head_id: int, *cat_list: Tensor | None
    ) -> tuple[Normal, Tensor] | tuple[Tensor, Tensor, Tensor]:
        """Encode cells of one data set and sample.

        Parameters
        ----------
        x
            ``(n, n_input_list[head_id])``.
        head_id
            Number of the data set.
        *cat_list
            Categorical covariates, see :meth:`FCLayers.forward <celbo.nn.FCLayers.forward>`.

        Returns
        -------
        ``(q, z)`` with ``return_dist``, else ``(mean, variance, z)``, each ``(n, k)``.
        """
        hidden_nh = self.encoder_shared(self.encoders[head_id](x, *cat_list), *cat_list)
        mean_nk = self.mean_encoder(hidden_nh)
        var_nk = torch.exp(self.var_encoder(hidden_nh))
        q = Normal(mean_nk, var_nk.sqrt(), validate_args=False)
        z_nk = self.z_transformation(rsample(q))
        return (q, z_nk) if self.return_dist else (mean_nk, var_nk, z_nk)


class MultiDecoder(nn.Module):
    """Decoder with layers that see which data set a cell is of, behind them layers that do not.

    Parameters
    ----------
    n_input, n_output
        Number of latents and of genes.
    n_hidden_conditioned, n_hidden_shared
        Hidden size of the layers that see the data set, and of those that do not.
    n_layers_conditioned, n_layers_shared
        Their numbers; 0 conditioned layers leave that part out.
    n_cat_list, dropout_rate
        See :class:`~celbo.nn.FCLayers`; the first covariate is the data set.
    **kwargs
        Further arguments of :class:`~celbo.nn.FCLayers`.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_hidden_conditioned: int = 32,
        n_hidden_shared: int = 128,
        n_layers_conditioned: int = 1,
        n_layers_shared: int = 1,
        n_cat_list: Iterable[int] | None = None,
        dropout_rate: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        n_cats = list(n_cat_list or [])
        self.px_decoder_conditioned: FCLayers | None = None
        self.px_decoder_final: FCLayers | None = None
        if n_layers_conditioned:
            self.px_decoder_conditioned = FCLayers(
                n_input,
                n_hidden_conditioned,
                n_cat_list=n_cats,
                n_layers=n_layers_conditioned,
                n_hidden=n_hidden_conditioned,
                dropout_rate=dropout_rate,
                **kwargs,
            )
        width = n_hidden_conditioned if n_layers_conditioned else n_input
        if n_layers_shared:
            self.px_decoder_final = FCLayers(
                width,
                n_hidden_shared,
                n_cat_list=[],
                n_layers=n_layers_shared,
                n_hidden=n_hidden_shared,
                dropout_rate=dropout_rate,
                **kwargs,
            )
            width = n_hidden_shared
        self.px_scale_decoder = nn.Sequential(Linear(width, n_output), nn.Softmax(dim=-1))
        self.px_r_decoder = Linear(width, n_output)
        self.px_dropout_decoder = Linear(width, n_output)

    def forward(
        self, z: Tensor, dataset_id: int, library: Tensor, dispersion: str, *cat_list: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Parameters of a count distribution.

        Parameters
        ----------
        z
            Latents, ``(n, k)``.
        dataset_id
            Number of the data set; the layers read it from ``cat_list``.
        library
            Natural log of the library size, ``(n, 1)``.
        dispersion
            ``"gene-cell"`` asks for ``px_r``; with any other it is None.
        *cat_list
            The data set's codes and further covariates.

        Returns
        -------
        ``(px_scale, px_r, px_rate, px_dropout)``, each ``(n, g)``.
        """
        logits_ng, log_theta, zi_logits_ng = self.logits(z, dispersion, *cat_list)
        scale_ng = self.px_scale_decoder[1](logits_ng)
        return scale_ng, log_theta, torch.exp(library) * scale_ng, zi_logits_ng

    def logits(
        self,
        z: Tensor,
        dispersion: str,
        *cat_list: Tensor | None,
        genes: Tensor | None = None,
        zero_inflated: bool = True,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What a count distribution's fused form takes: :meth:`forward` before the softmax and without the library.

        Parameters
        ----------
        z, dispersion, *cat_list
            As there.
        genes
            Places of those that are asked for; None: all.
        zero_inflated
            Whether logits of an added zero are asked for.

        Returns
        -------
        Logits of the scale, ``px_r`` and logits of an added zero, or None, each ``(n, g)``.
        """
        hidden = z if self.px_decoder_conditioned is None else self.px_decoder_conditioned(z, *cat_list)
        hidden = hidden if self.px_decoder_final is None else self.px_decoder_final(hidden)

        def of_genes(head: Any) -> Tensor:
            if genes is None:
                return head(hidden)
            # rows of the weights are far fewer numbers than columns of what they give for each cell
            return linear(hidden, head.weight.index_select(0, genes), head.bias.index_select(0, genes))

        log_theta = of_genes(self.px_r_decoder) if dispersion == "gene-cell" else None
        return (
            of_genes(self.px_scale_decoder[0]),
            log_theta,
            of_genes(self.px_dropout_decoder) if zero_inflated else None,
        )
