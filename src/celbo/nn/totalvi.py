r"""Encoder and decoder of counts of genes and proteins (totalVI, :cite:p:`Gayoso21`).

Dims: n cells, k latents, g genes, p proteins, h hidden, s samples.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from ..core import unknown_name
from ..ops.draws import rsample
from ..ops.elementwise import inverse_softplus
from .fc_layers import FCLayers, Linear
from .protein import WakingReLU, beside_latents, head

__all__ = ["DecoderTOTALVI", "EncoderTOTALVI", "ExpActivation"]

_VAR_EPS = 1e-4
_MOST_LOG_LIBRARY = 15.0
_BACKGROUND_EPS = 1e-8
_LEAST_LEVEL, _LEAST_TIMES, _LEAST_SHARE = 0.05, 2.0, 0.05


class ExpActivation(nn.Module):
    """Exponential as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """``exp(x)``."""
        return x.exp()


class EncoderTOTALVI(nn.Module):
    """Map genes and proteins to the posteriors of the latents and of the gene library.

    Parameters
    ----------
    n_input, n_output
        Number of features (genes and proteins together) and of latents.
    n_cat_list, n_layers, n_hidden, dropout_rate, use_batch_norm, use_layer_norm
        See :class:`~celbo.nn.FCLayers`.
    distribution
        ``"ln"``: latents are sent through a softmax (logistic normal); ``"normal"``: they are not.

    Raises
    ------
    ValueError
        Unknown ``distribution``.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Iterable[int] | None = None,
        n_layers: int = 2,
        n_hidden: int = 256,
        dropout_rate: float = 0.1,
        distribution: str = "ln",
        use_batch_norm: bool = True,
        use_layer_norm: bool = False,
    ) -> None:
        super().__init__()
        if distribution not in ("ln", "normal"):
            raise ValueError(unknown_name("distribution", distribution, ("ln", "normal")))
        n_cats = list(n_cat_list or [])
        options: dict[str, Any] = {
            "n_cat_list": n_cats,
            "n_hidden": n_hidden,
            "dropout_rate": dropout_rate,
            "use_batch_norm": use_batch_norm,
            "use_layer_norm": use_layer_norm,
        }
        self.distribution = distribution
        self.encoder = FCLayers(n_input, n_hidden, n_layers=n_layers, **options)
        self.z_mean_encoder = Linear(n_hidden, n_output)
        self.z_var_encoder = Linear(n_hidden, n_output)
        self.l_gene_encoder = FCLayers(n_input, n_hidden, n_layers=1, **options)
        self.l_gene_mean_encoder = Linear(n_hidden, 1)
        self.l_gene_var_encoder = Linear(n_hidden, 1)
        self.z_transformation = nn.Softmax(dim=-1) if distribution == "ln" else nn.Identity()
        self.l_transformation = torch.exp

    def reparameterize_transformation(self, mu: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised draw from ``N(mu, var)``: transformed as ``distribution`` says, and untransformed."""
        untransformed = rsample(Normal(mu, var.sqrt(), validate_args=False))
        return self.z_transformation(untransformed), untransformed

    def forward(
        self, data: Tensor, *cat_list: Tensor | None
    ) -> tuple[Normal, Normal, dict[str, Tensor], dict[str, Tensor]]:
        """Encode and sample.

        Parameters
        ----------
        data
            ``(n, n_input)``, on a logarithmic scale.
        *cat_list
            Categorical covariates, see :meth:`FCLayers.forward <celbo.nn.FCLayers.forward>`.

        Returns
        -------
        ``(qz, ql, latent, untransformed_latent)``: normal posteriors of the latents ``(n, k)`` and of the logarithm of
        the library ``(n, 1)``; draws ``{"z", "l"}``, the library on the scale of counts; the same draws before softmax
        and exponential.
        """
        hidden_nh = self.encoder(data, *cat_list)
        qz = _normal(self.z_mean_encoder(hidden_nh), self.z_var_encoder(hidden_nh))
        z_nk, untransformed_z_nk = self.reparameterize_transformation(qz.loc, qz.scale.square())
        hidden_nh = self.l_gene_encoder(data, *cat_list)
        ql = _normal(self.l_gene_mean_encoder(hidden_nh), self.l_gene_var_encoder(hidden_nh))
        log_library_n1 = rsample(ql).clamp(max=_MOST_LOG_LIBRARY)
        latent = {"z": z_nk, "l": self.l_transformation(log_library_n1)}
        return qz, ql, latent, {"z": untransformed_z_nk, "l": log_library_n1}


def _normal(mean: Tensor, log_variance: Tensor) -> Normal:
    return Normal(mean, (torch.exp(log_variance) + _VAR_EPS).sqrt(), validate_args=False)


class DecoderTOTALVI(nn.Module):
    r"""Parameters of the counts of genes and of the mixture of background and foreground of proteins.

    Genes: :math:`\mu = \ell \rho` with :math:`\rho` of the scale head, and logits of an added zero. Proteins: the
    background rate :math:`\beta` is drawn from :math:`\mathrm{LogNormal}(\alpha, \beta_0)`, the foreground rate is
    :math:`\beta (1 + \epsilon + \mathrm{ReLU}(\cdot))` and so never below it; ``mixing`` are logits of background.

    Parameters
    ----------
    n_input, n_output_genes, n_output_proteins
        Number of latents, genes and proteins.
    n_cat_list, n_layers, n_hidden, dropout_rate, use_batch_norm, use_layer_norm
        See :class:`~celbo.nn.FCLayers`.
    scale_activation
        Of the genes' scale: ``"softmax"``, or ``"softplus"`` where size factors take the place of the library.
    activation_function_bg
        Makes the spread of the background positive; ``"exp"`` in models of scvi-tools before 1.2.
    foreground_wakes
        Whether the foreground's ReLU is a :class:`~celbo.nn.protein.WakingReLU`.

    Raises
    ------
    ValueError
        Unknown activation.
    """

    def __init__(
        self,
        n_input: int,
        n_output_genes: int,
        n_output_proteins: int,
        n_cat_list: Iterable[int] | None = None,
        n_layers: int = 1,
        n_hidden: int = 256,
        dropout_rate: float = 0,
        use_batch_norm: float = True,
        use_layer_norm: float = False,
        scale_activation: Literal["softmax", "softplus"] = "softmax",
        activation_function_bg: Literal["exp", "softplus"] = "softplus",
        foreground_wakes: bool = False,
    ) -> None:
        super().__init__()
        scales: dict[str, nn.Module] = {"softmax": nn.Softmax(dim=-1), "softplus": nn.Softplus()}
        spreads: dict[str, nn.Module] = {"exp": ExpActivation(), "softplus": nn.Softplus()}
        if scale_activation not in scales:
            raise ValueError(unknown_name("scale_activation", scale_activation, scales))
        if activation_function_bg not in spreads:
            raise ValueError(unknown_name("activation_function_bg", activation_function_bg, spreads))
        self.n_output_genes, self.n_output_proteins = n_output_genes, n_output_proteins
        n_cats = list(n_cat_list or [])

        def hidden() -> FCLayers:
            return FCLayers(
                n_input,
                n_hidden,
                n_cat_list=n_cats,
                n_layers=n_layers,
                n_hidden=n_hidden,
                dropout_rate=dropout_rate,
                use_batch_norm=bool(use_batch_norm),
                use_layer_norm=bool(use_layer_norm),
            )

        head_of = partial(head, n_input, n_hidden, n_cats)
        self.px_decoder = hidden()
        self.px_scale_decoder = head_of(n_output_genes)
        self.px_scale_activation = scales[scale_activation]
        self.py_back_decoder = hidden()
        self.py_back_mean_log_alpha = head_of(n_output_proteins)
        self.py_back_mean_log_beta = head_of(n_output_proteins)
        self.activation_function_bg = spreads[activation_function_bg]
        self.py_fore_decoder = hidden()
        self.py_fore_scale_decoder = head_of(n_output_proteins, WakingReLU if foreground_wakes else nn.ReLU)
        self.sigmoid_decoder = hidden()
        self.px_dropout_decoder_gene = head_of(n_output_genes)
        self.py_background_decoder = head_of(n_output_proteins)

    def forward(
        self, z: Tensor, library_gene: Tensor, *cat_list: Tensor | None
    ) -> tuple[dict[str, Any], dict[str, Tensor], Tensor]:
        """Parameters of both distributions.

        Parameters
        ----------
        z
            Latents, ``(n, k)`` or ``(s, n, k)``.
        library_gene
            Library size on the scale of counts, ``(n, 1)``.
        *cat_list
            Categorical covariates, see :meth:`FCLayers.forward <celbo.nn.FCLayers.forward>`.

        Returns
        -------
        ``(px_, py_, log_pro_back_mean)``. ``px_``: ``scale``, ``rate``, ``dropout`` ``(n, g)``. ``py_``:
        ``back_alpha``, ``back_beta``, ``rate_back``, ``rate_fore``, ``fore_scale``, ``mixing``, ``scale`` ``(n, p)``.
        The last is the drawn logarithm of the background ``(n, p)``.
        """
        scale_logits, dropout, py = self.logits(z, *cat_list)
        scale_ng = self.px_scale_activation(scale_logits)
        py["rate_back"] = torch.exp(py["log_back"])
        py["rate_fore"] = py["rate_back"] * py["fore_scale"]
        py["scale"] = F.normalize(torch.sigmoid(-py["mixing"]) * py["rate_fore"], p=1, dim=-1)
        return {"scale": scale_ng, "rate": library_gene * scale_ng, "dropout": dropout}, py, py.pop("log_back")

    @torch.no_grad()
    def start_background(self, log_mean_p: Tensor, spread_p: Tensor) -> None:
        """Let the background of every cell begin with this log mean and spread, ``(p,)`` each, whatever its latents."""
        is_softplus = isinstance(self.activation_function_bg, nn.Softplus)
        before_activation_p = inverse_softplus(spread_p) if is_softplus else spread_p.log()
        heads = {self.py_back_mean_log_alpha: log_mean_p, self.py_back_mean_log_beta: before_activation_p}
        for head_of_background, value_p in heads.items():
            for layer in head_of_background.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight.zero_()
                    layer.bias.copy_(value_p)

    @torch.no_grad()
    def start_foreground(self, low_p: Tensor, high_p: Tensor, share_p: Tensor, log_background_pb: Tensor) -> None:
        """Let the foreground begin at the upper level of each protein's counts, and no background above it.

        Parameters
        ----------
        low_p, high_p, share_p
            Levels of the counts, and the share of cells at the upper one, ``(p,)``; NaN: as drawn. The lower one may be
            foreground in every cell and is not looked at.
        log_background_pb
            Log mean of the background of each panel, ``(p, b)``, which is changed.
        """
        high_p = high_p + _LEAST_LEVEL
        capped_bp = torch.minimum(log_background_pb.t(), high_p.log())
        log_background_pb.copy_(torch.where(high_p.isnan(), log_background_pb.t(), capped_bp).t())
        times_p = (high_p / log_background_pb.mean(1).exp()).clamp(min=_LEAST_TIMES)
        share_p = share_p.clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
        heads = {self.py_fore_scale_decoder: times_p - 1, self.py_background_decoder: -share_p.logit()}
        for head_of_foreground, value_p in heads.items():
            bias = head_of_foreground.last_bias
            if bias is not None:
                bias.copy_(torch.where(value_p.isnan(), bias, value_p))

    def logits(
        self, z: Tensor, *cat_list: Tensor | None, use_dropout: bool = True
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """What the heads give, before activations, for distributions that go on from logits.

        Parameters
        ----------
        z, *cat_list
            See :meth:`forward`.
        use_dropout
            Whether logits of an added zero are wanted.

        Returns
        -------
        Logits of the genes' scale ``(n, g)``, of an added zero ``(n, g)`` or None, and of the proteins ``(n, p)``:
        ``back_alpha``, ``back_beta``, the draw ``log_back`` from the normal distribution of these, ``fore_scale``, and
        ``mixing``.
        """
        scale_logits = self.px_scale_decoder(beside_latents(self.px_decoder, z, cat_list), *cat_list)
        background = beside_latents(self.py_back_decoder, z, cat_list)
        shared = beside_latents(self.sigmoid_decoder, z, cat_list)
        alpha_np = self.py_back_mean_log_alpha(background, *cat_list)
        beta_np = self.activation_function_bg(self.py_back_mean_log_beta(background, *cat_list)) + _BACKGROUND_EPS
        log_back_np = rsample(Normal(alpha_np, beta_np, validate_args=False))
        foreground = beside_latents(self.py_fore_decoder, z, cat_list)
        py = {
            "back_alpha": alpha_np,
            "back_beta": beta_np,
            "log_back": log_back_np,
            "fore_scale": self.py_fore_scale_decoder(foreground, *cat_list) + 1 + _BACKGROUND_EPS,
            "mixing": self.py_background_decoder(shared, *cat_list),
        }
        return scale_logits, self.px_dropout_decoder_gene(shared, *cat_list) if use_dropout else None, py
