r"""Autoencoder of genes and proteins of two kinds of cells: target cells vary like background cells, and further.

.. math::

    z_n &\sim N(0, I), \qquad s_n \sim N(0, I) \text{ in target cells}, \quad s_n = 0 \text{ in background cells} \\
    x_n, y_n &\mid (z_n, s_n) \text{ as genes and proteins in totalVI} \\
    \mathcal{L} &= \mathcal{L}_\mathrm{totalVI} + \tfrac{1}{N} \sum_n \Bigl[ w \lambda\, 1[n \in b]
        \bigl( |\mu_s(x_n, y_n)|^2 + \textstyle\sum_k \sigma^2_{sk}(x_n, y_n) \bigr) \Bigr]
        + \tfrac{r}{M} \textstyle\sum_m \mathrm{KL}\bigl(q(z \mid b_m)\, q(s \mid t_m) \,\|\, q(z, s \mid x'_m, y'_m)
        \bigr)

over N cells, half of them background cells (b), where :math:`\mathcal{L}_\mathrm{totalVI}` has the KL divergence of s
in target cells only. The term of :math:`\lambda` is the squared Wasserstein distance from 0 of the salient latents that
background cells would have. The last term, of recipes other than ``classic``, is what the encoder misses of M = N/2
recombined cells, :math:`x'_m, y'_m \sim p(x, y \mid z_{b_m}, s_{t_m})`, drawn from the latents of a background and a
target cell. It keeps the two kinds apart, as in ContrastiveVI, and has no gradient through the cells drawn.

Dims: n cells, g genes, p proteins, k latents of both kinds, s samples.
Reference: Weinberger, Lin and Lee, Nature Methods 2023 (contrastiveVI, with its extension to CITE-seq); Gayoso, Steier
et al., Nature Methods 2021 (totalVI).
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ...core import IS_TARGET, REGISTRY_KEYS, checked
from ...core.kinds import Number
from ...module import TOTALVAE
from ...module.base import LossOutput, auto_move_data
from ...module.contrasts import missed, squared_distance_from_zero
from ...nn import Encoder, EncoderTOTALVI
from ...ops.draws import sample

__all__ = ["ContrastiveTOTALVAE"]


class EncoderOfBoth(EncoderTOTALVI):
    """Encoder of totalVI for the latents that all cells have, and one of its own for the salient ones.

    Parameters
    ----------
    n_input, n_output, n_cat_list, n_layers, n_hidden, **options
        See :class:`~celbo.nn.EncoderTOTALVI`; ``n_output`` are latents of both kinds.
    n_salient
        How many of them are salient, the last ones.
    """

    def __init__(
        self,
        n_input: int,
        n_output: int,
        n_cat_list: Iterable[int] | None = None,
        n_layers: int = 1,
        n_hidden: int = 128,
        n_salient: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(n_input, n_output - n_salient, n_cat_list, n_layers, n_hidden, **options)
        self.salient = Encoder(n_input, n_salient, n_cat_list, n_layers, n_hidden, return_dist=True, **options)

    def forward(
        self, data: Tensor, *cat_list: Tensor | None
    ) -> tuple[Normal, Normal, dict[str, Tensor], dict[str, Tensor]]:
        """As that of :class:`~celbo.nn.EncoderTOTALVI`, of both kinds of latents."""
        qz, ql, latent, untransformed = super().forward(data, *cat_list)
        qs, s = self.salient(data, *cat_list)
        both = Normal(torch.cat([qz.loc, qs.loc], -1), torch.cat([qz.scale, qs.scale], -1), validate_args=False)
        z = {"z": torch.cat([latent["z"], s], -1)}
        return both, ql, latent | z, untransformed | z


class ContrastiveTOTALVAE(TOTALVAE):
    """:class:`~celbo.module.TOTALVAE` whose last latents are 0 in background cells.

    Minibatches are of any cells; the column :data:`~celbo.core.IS_TARGET` says which are target cells, and without it
    all are.

    Parameters
    ----------
    n_input_genes, n_input_proteins, n_batch, n_labels, n_hidden, n_layers_encoder, n_layers_decoder
        See :class:`~celbo.module.TOTALVAE`.
    n_background_latent, n_salient_latent
        Dimensions of the latents z that all cells have, and of those s that only target cells have.
    wasserstein_penalty
        Weight of the distance from 0 of the salient latents that background cells would have.
    n_continuous_cov, n_cats_per_cov, dropout_rate_decoder, dropout_rate_encoder, **totalvae_kwargs
        As there; latents are normal. The defaults are those of ContrastiveVI's networks.
    extra_encoder_kwargs
        Further arguments of :class:`EncoderOfBoth`.

    Raises
    ------
    ValueError
        ``n_latent``, or latents that are not normal.
    """

    _encoder_cls: ClassVar[type[EncoderTOTALVI]] = EncoderOfBoth
    counts_to_start_from = (REGISTRY_KEYS.X_KEY,)  # salient latents told types under foregrounds to begin with

    @checked
    def __init__(
        self,
        n_input_genes: int,
        n_input_proteins: int,
        n_batch: int = 0,
        n_labels: int = 0,
        n_hidden: int = 128,
        n_background_latent: int = 10,
        n_salient_latent: int = 10,
        n_layers_encoder: int = 1,
        n_layers_decoder: int = 1,
        n_continuous_cov: int = 0,
        n_cats_per_cov: list[int] | None = None,
        dropout_rate_decoder: float = 0.0,
        dropout_rate_encoder: float = 0.1,
        wasserstein_penalty: Annotated[float, Number(0)] = 0,
        extra_encoder_kwargs: dict[str, Any] | None = None,
        **totalvae_kwargs: Any,
    ) -> None:
        if "n_latent" in totalvae_kwargs or totalvae_kwargs.get("latent_distribution", "normal") != "normal":
            raise ValueError(
                "Latents are of two kinds, and normal, for 0 to mean that there is none: give n_background_latent and "
                "n_salient_latent instead of n_latent, and leave latent_distribution out."
            )
        super().__init__(
            n_input_genes,
            n_input_proteins,
            n_batch,
            n_labels,
            n_hidden,
            n_background_latent + n_salient_latent,
            n_layers_encoder,
            n_layers_decoder,
            n_continuous_cov,
            n_cats_per_cov,
            dropout_rate_decoder,
            dropout_rate_encoder,
            extra_encoder_kwargs={"n_salient": n_salient_latent} | (extra_encoder_kwargs or {}),
            **totalvae_kwargs,
        )
        self.n_background_latent, self.n_salient_latent = n_background_latent, n_salient_latent
        self.wasserstein_penalty = wasserstein_penalty

    def part_of(self, q: Normal, kind: str) -> Normal:
        """Posterior of one kind of latents, ``"background"`` or ``"salient"``, from that of ``"both"``."""
        k = self.n_background_latent
        where = {"background": slice(None, k), "salient": slice(k, None), "both": slice(None)}[kind]
        return Normal(q.loc[..., where], q.scale[..., where], validate_args=False)

    def _has(self, is_target: Tensor | None) -> Tensor | None:
        """Which latents each cell has, ``(n, k)``, 1 or 0; None: each all."""
        if is_target is None:
            return None
        ones_nk = is_target.new_ones(len(is_target), self.n_background_latent)
        return torch.cat([ones_nk, is_target.expand(-1, self.n_salient_latent)], -1)

    @auto_move_data
    def _regular_inference(  # type: ignore[override]  # one argument more
        self,
        x: Tensor,
        proteins: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        is_target: Tensor | None = None,
        n_samples: int = 1,
    ) -> dict[str, Any]:
        """Encode cells, as :class:`~celbo.module.TOTALVAE` does.

        ``qz`` and ``z`` are of both kinds of latents, those of all cells first. Latents that a cell does not have are
        as their prior in ``qz``, so that they cost nothing, and 0 in ``z``. ``q_encoded`` is what the encoder says.
        """
        encoded = super()._regular_inference(x, proteins, batch_index, cont_covs, cat_covs, n_samples)
        return self._without_absent(encoded, is_target)

    def _without_absent(self, encoded: dict[str, Any], is_target: Tensor | None) -> dict[str, Any]:
        qz, has_nk = encoded["qz"], self._has(is_target)
        if has_nk is None:
            return encoded | {"q_encoded": qz}
        known = Normal(qz.loc * has_nk, torch.where(has_nk > 0, qz.scale, 1.0), validate_args=False)
        return encoded | {"z": encoded["z"] * has_nk, "qz": known, "q_encoded": qz}

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        library: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        size_factor: Tensor | None = None,
        y: Tensor | None = None,
        transform_batch: Tensor | int | None = None,
        is_target: Tensor | None = None,
    ) -> dict[str, Any]:
        """Decode latents, as :class:`~celbo.module.TOTALVAE` does, those that a cell does not have as 0."""
        has_nk = self._has(is_target)
        z = z if has_nk is None else z * has_nk
        return super().generative(z, library, batch_index, cont_covs, cat_covs, size_factor, y, transform_batch)

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        pro_recons_weight: float = 1.0,
        kl_weight: Tensor | float = 1.0,
        recombination_weight: float = 0.0,
    ) -> LossOutput:
        """Negative evidence lower bound; the formula is the file's.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs, pro_recons_weight, kl_weight
            See :class:`~celbo.module.TOTALVAE`.
        recombination_weight
            Weight r, in training, of what the encoder misses of recombined cells; the minibatch is then as
            :class:`~celbo.dataloaders.contrasts.StackedDataSplitter` gives it.

        Returns
        -------
        As there; ``kl_local`` has ``kl_div_s``, of the salient latents, beside ``kl_div_z``.
        """
        record = super().loss(tensors, inference_outputs, generative_outputs, pro_recons_weight, kl_weight)
        kl_nk = kl_divergence(inference_outputs["qz"], Normal(0.0, 1.0, validate_args=False))
        k = self.n_background_latent
        kl_local = record.kl_local | {"kl_div_z": kl_nk[..., :k].sum(-1), "kl_div_s": kl_nk[..., k:].sum(-1)}
        loss, extra = record.loss, {}
        if IS_TARGET in tensors:
            salient = self.part_of(inference_outputs["q_encoded"], "salient")
            distance_n = squared_distance_from_zero(salient) * (1 - tensors[IS_TARGET].squeeze(-1))
            loss = loss + kl_weight * self.wasserstein_penalty * distance_n.mean()
            extra = {"wasserstein_loss_sum": distance_n.sum()}
            if recombination_weight and self.training:
                loss = loss + recombination_weight * self._missed(tensors, inference_outputs).mean()
        return record.replace(loss=loss, kl_local=kl_local, extra_metrics=record.extra_metrics | extra)

    def _missed(self, tensors: Mapping[str, Tensor], encoded: Mapping[str, Any]) -> Tensor:
        """How far latents of recombined cells are from those that they were made of, ``(n / 2,)``."""
        n, k = len(encoded["z"]) // 2, self.n_background_latent
        background = {name: rows[:n] for name, rows in tensors.items() if name != IS_TARGET}

        def recombined(both: Tensor) -> Tensor:
            return torch.cat([both[:n, :k], both[n:, k:]], -1)

        with torch.no_grad():
            latents = {"z": recombined(encoded["z"]), "library": encoded["library"][:n]}
            decoded = self.generative(**self._get_generative_input(background, latents))
            proteins = self._where_measured(sample(decoded["py"]), background, 0.0)
            drawn = background | {REGISTRY_KEYS.X_KEY: sample(decoded["px"]), REGISTRY_KEYS.PROTEIN_EXP_KEY: proteins}
        found = self.inference(**self._get_inference_input(drawn, full_forward_pass=True))["q_encoded"]
        qz = encoded["q_encoded"]
        return missed(Normal(recombined(qz.loc), recombined(qz.scale), validate_args=False), found)
