r"""Conditional autoencoder of normalized expression, with a VampPrior and a cycle through another batch.

.. math::

    z_n &\sim \text{a mixture of the posteriors of pseudo-inputs, in each dimension}, \qquad
    x_{ng} \sim N(\mu_g(z_n, b_n, c_n), \sigma_g) \\
    \mathcal{L} &= \tfrac{1}{N} \sum_n \left[ w_r\,r_n + w_k\,\mathrm{KL}(q(z_n) \,\|\, p(z_n)) + w_c\,
        \lVert \tilde z_n - \tilde z'_n \rVert^2 \right] \\
    r_n &= \tfrac12 \sum_g \left[ \log \sigma_g + (x_{ng} - \mu_{ng})^2 / \sigma_g \right]

where :math:`z'_n` is the latent of the cell after decoding and encoding it again as a cell of another batch, and
the tilde standardizes both sets of means together. :math:`\sigma_g`, which answers give as the standard deviation,
stands in the likelihood where a variance belongs: so scvi-tools' archives were trained.

Dims: n cells, g genes, k latents, m pseudo-inputs, s samples.
Reference: Hrovatin et al., *Integrating single-cell RNA-seq datasets with substantial batch effects*, bioRxiv 2023.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily
from torch.distributions import Normal as Posterior

from ...core import REGISTRY_KEYS, checked
from ...distributions import Normal
from ...module.base import BaseModuleClass, EmbeddingModuleMixin, GaussianPrior, LossOutput, auto_move_data
from ...module.base.priors import Prior, VampPrior
from ...nn import FCLayers
from ...nn.fc_layers import Linear, codes_of, decoded_as
from ...ops.draws import rsample
from ...ops.random import generator_for

__all__ = ["BATCH_WEIGHTS_KEY", "SysVAE"]

BATCH_WEIGHTS_KEY = "batch_weights"
"""Registry key of what each cell's cycle loss weighs."""

_LEAST_VARIANCE = 1e-6
_LARGEST = math.log(torch.finfo(torch.float32).max) - 1e-4
"""What the softplus of a variance sees lies between this and its negative, so that an exponential of it is finite."""

VarianceMode = Literal["sample_feature", "feature"]

_STANDARD_NORMAL = GaussianPrior()


class _CellVariance(nn.Module):
    """Variance of each feature in each cell."""

    def __init__(self, n_hidden: int, n_output: int) -> None:
        super().__init__()
        self.encoder = Linear(n_hidden, n_output)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.softplus(self.encoder(hidden).clamp(-_LARGEST, _LARGEST))


class _FeatureVariance(nn.Module):
    """Variance of each feature, the same in all cells: one row."""

    def __init__(self, n_hidden: int, n_output: int) -> None:
        super().__init__()
        self.var_param = nn.Parameter(torch.zeros(1, n_output))

    def forward(self, hidden: Tensor) -> Tensor:
        return F.softplus(self.var_param.clamp(-_LARGEST, _LARGEST))


class _NormalNetwork(nn.Module):
    """From data and covariates to a normal distribution: the encoder, and the decoder."""

    def __init__(self, n_input: int, n_output: int, n_hidden: int, var_mode: VarianceMode, **kwargs: Any) -> None:
        super().__init__()
        self.decoder_y = FCLayers(n_input, n_hidden, n_hidden=n_hidden, **kwargs)
        self.mean_encoder = Linear(n_hidden, n_output)
        variance = _CellVariance if var_mode == "sample_feature" else _FeatureVariance
        self.var_encoder = variance(n_hidden, n_output)

    def forward(self, x: Tensor, *codes: Tensor, cont: Tensor | None = None) -> Posterior:
        hidden = self.decoder_y(x, *codes, cont=cont)
        mean, scale = self.mean_encoder(hidden), self.var_encoder(hidden).sqrt() + 1e-12
        return Posterior(mean, scale.expand_as(mean), validate_args=False)


class _VampPriorByDimension(VampPrior):
    """A mixture in each dimension by itself, with the root of each standard deviation for one: that of scvi-tools."""

    def get_prior(self, *args: Any, **kwargs: Any) -> Distribution:
        q = self.components()
        weights = Categorical(logits=self.w.flatten().expand(q.loc.shape[1], -1), validate_args=False)
        parts = Posterior(q.loc.T, q.scale.T.sqrt(), validate_args=False)
        return Independent(MixtureSameFamily(weights, parts, validate_args=False), 1)


class SysVAE(EmbeddingModuleMixin, BaseModuleClass):
    """Conditional autoencoder of normalized expression.

    Parameters
    ----------
    n_input, n_batch
        Numbers of genes and batches; the cycle needs two batches.
    n_continuous_cov, n_cats_per_cov
        Number of continuous covariates; number of categories of each categorical one (the batch apart).
    embed_categorical_covariates
        Whether these are learned embeddings instead of one-hot columns.
    prior
        ``"vamp"``, or ``"standard_normal"``.
    n_prior_components
        Number of pseudo-inputs of the VampPrior.
    trainable_priors
        Whether pseudo-inputs are learned.
    pseudoinput_data
        Minibatch of the cells that they begin as; None: zeros, for weights that are loaded.
    n_latent, n_hidden, n_layers, dropout_rate
        Size of the latent space and of hidden layers, their number and dropout, in encoder and decoder each.
    out_var_mode
        Whether the scale belongs to the gene (``"feature"``) or is decoded for each cell (``"sample_feature"``).
    encoder_decoder_kwargs, embedding_kwargs
        Further arguments of :class:`~celbo.nn.FCLayers` and of
        :meth:`~celbo.module.base.EmbeddingModuleMixin.init_embedding`.
    """

    @checked
    def __init__(
        self,
        n_input: int,
        n_batch: int,
        n_continuous_cov: int = 0,
        n_cats_per_cov: list[int] | None = None,
        embed_categorical_covariates: bool = False,
        prior: Literal["standard_normal", "vamp"] = "vamp",
        n_prior_components: int = 5,
        trainable_priors: bool = True,
        pseudoinput_data: dict[str, Tensor] | None = None,
        n_latent: int = 15,
        n_hidden: int = 256,
        n_layers: int = 2,
        dropout_rate: float = 0.1,
        out_var_mode: VarianceMode = "feature",
        encoder_decoder_kwargs: dict[str, Any] | None = None,
        embedding_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.n_batch, self.n_latent = n_batch, n_latent
        self.embed_categorical_covariates = embed_categorical_covariates
        n_cats, n_cont, n_cat_list = list(n_cats_per_cov or []), n_continuous_cov, [n_batch]
        if embed_categorical_covariates:
            for i, n_cat in enumerate(n_cats):
                self.init_embedding(f"cov{i}", n_cat, **(embedding_kwargs or {}))
                n_cont += self.get_embedding(f"cov{i}").embedding_dim
        else:
            n_cat_list += n_cats
        layers: dict[str, Any] = {"n_hidden": n_hidden, "n_layers": n_layers, "dropout_rate": dropout_rate}
        layers |= {"n_cat_list": n_cat_list, "n_cont": n_cont} | (encoder_decoder_kwargs or {})
        self.encoder = _NormalNetwork(n_input, n_latent, var_mode="sample_feature", **layers)
        self.decoder = _NormalNetwork(n_latent, n_input, var_mode=out_var_mode, **layers)
        if prior == "standard_normal":
            self.prior: Prior = GaussianPrior()
            return
        data = pseudoinput_data or _zeros(n_prior_components, n_input, n_continuous_cov, len(n_cats))
        bound = self._inference_binding.collect(data)
        x = bound.pop("x")
        codes, columns = self._covariates(**bound)
        self.prior = _VampPriorByDimension(
            n_prior_components, self.encoder, x, n_cat_list, codes, columns, trainable_priors
        )

    def _covariates(
        self, batch_index: Tensor, cont_covs: Tensor | None = None, cat_covs: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Codes that the layers gather, and dense columns, ``(n, c)``: continuous covariates, then embeddings."""
        _, *codes = codes_of(batch_index, cat_covs)
        columns = [] if cont_covs is None else [cont_covs]
        if self.embed_categorical_covariates:
            columns += [self.compute_embedding(f"cov{i}", code_n1) for i, code_n1 in enumerate(codes)]
            codes = []
        return [batch_index, *codes], torch.cat(columns, dim=1) if columns else None

    @auto_move_data
    def inference(
        self,
        x: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        n_samples: int = 1,
    ) -> dict[str, Any]:
        """Encode cells.

        Parameters
        ----------
        x
            Normalized expression, ``(n, g)``.
        batch_index
            Codes, ``(n, 1)``.
        cont_covs, cat_covs
            ``(n, k)`` each.
        n_samples
            With more than 1 the samples get a leading dimension.

        Returns
        -------
        ``z`` ``(n, k)`` and ``qz``.
        """
        codes, columns = self._covariates(batch_index, cont_covs, cat_covs)
        qz = self.encoder(x, *codes, cont=columns)
        return {"z": rsample(qz, (n_samples,) if n_samples > 1 else ()), "qz": qz}

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        cycle_batch: Tensor | None = None,
        compute_original: bool = True,
        compute_cycle: bool = True,
        y: Tensor | None = None,
        transform_batch: Tensor | int | None = None,
    ) -> dict[str, Any]:
        """Decode latents, as another batch too where one is given.

        Parameters
        ----------
        z
            ``(n, k)`` or ``(s, n, k)``.
        batch_index
            Codes, ``(n, 1)``.
        cont_covs, cat_covs
            ``(n, k)`` each.
        cycle_batch
            Another batch for each cell, ``(n, 1)``.
        compute_original, compute_cycle
            Whether to decode as the own batch, and as the other one.
        y
            Not used: labels have no part in this model.
        transform_batch
            Batch that all cells are decoded as.

        Returns
        -------
        ``px``, and ``px_cycle``, as the other batch. The loss has no need of that one.
        """
        outputs: dict[str, Any] = {}
        batch_index = decoded_as(batch_index, transform_batch)
        if compute_original:
            outputs["px"] = self._decoded(z, *self._covariates(batch_index, cont_covs, cat_covs))
        if compute_cycle and cycle_batch is not None:
            outputs["px_cycle"] = self._decoded(z, *self._covariates(cycle_batch, cont_covs, cat_covs))
        return outputs

    def _decoded(self, z: Tensor, codes: list[Tensor], columns: Tensor | None) -> Normal:
        px = self.decoder(z, *codes, cont=columns)
        return Normal(px.loc, px.scale, validate_args=False, normal_mu=px.loc)

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
        reconstruction_weight: float = 1.0,
        z_distance_cycle_weight: float = 2.0,
        compute_cycle: bool = True,
        decode_as_other: bool = False,
        in_units_of_draws: bool = False,
        standard_normal_weight: float = 0.0,
    ) -> LossOutput:
        """Loss of a minibatch.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            As everywhere.
        kl_weight, reconstruction_weight, z_distance_cycle_weight
            Weights of the three terms. More weight on the cycle: batches mix better, and fine differences go.
        compute_cycle
            Whether the cycle's term is there.
        decode_as_other
            Whether the cell goes into the cycle decoded as one of the other batch, as the paper has it, or of its own,
            as scvi-tools has it.
        in_units_of_draws
            Whether the cycle's distances are in units of the spread of latents or, as in scvi-tools, of their means. In
            a dimension that says little, means lie close together, and the latter makes its noise count in full.
        standard_normal_weight
            Weight of the divergence from a standard normal beside that from the prior. A VampPrior shrinks with the
            latents, so that batches leave them only after some thousand steps. 0 is scvi-tools' loss.
        """
        x_ng, px, qz = tensors[REGISTRY_KEYS.X_KEY], generative_outputs["px"], inference_outputs["qz"]
        of_genes = isinstance(self.decoder.var_encoder, _FeatureVariance)  # all rows are the first
        variance = px.scale[..., :1, :] if of_genes else px.scale
        nll_n = _GaussianNll.apply(px.loc, x_ng, variance)  # type: ignore[no-untyped-call]
        kl_n = self.prior.kl(qz, z=inference_outputs["z"])
        cycle_n = torch.zeros_like(nll_n)
        if compute_cycle and z_distance_cycle_weight:
            bound = self._get_inference_input(tensors)
            bound["batch_index"] = self.random_select_batch(bound["batch_index"])
            codes, columns = self._covariates(**{name: bound[name] for name in bound if name != "x"})
            as_other = self.decoder(inference_outputs["z"], *codes, cont=columns) if decode_as_other else px
            qz_cycle = self.encoder(as_other.loc, *codes, cont=columns)
            cycle_n = self.latent_cycle_consistency(qz, qz_cycle, in_units_of_draws)
            if BATCH_WEIGHTS_KEY in tensors:
                cycle_n = cycle_n * tensors[BATCH_WEIGHTS_KEY].flatten()
        loss_n = reconstruction_weight * nll_n + kl_weight * kl_n + z_distance_cycle_weight * cycle_n
        if standard_normal_weight:
            loss_n = loss_n + kl_weight * standard_normal_weight * _STANDARD_NORMAL.kl(qz)
        cycle = {"cycle_loss": cycle_n.mean()}
        return LossOutput(loss_n.mean(), reconstruction_loss=nll_n, kl_local=kl_n, extra_metrics=cycle)

    def random_select_batch(self, batch: Tensor) -> Tensor:
        """Another batch for each cell, drawn uniformly from the others.

        Parameters
        ----------
        batch
            Codes, ``(n, 1)``.

        Raises
        ------
        ValueError
            There is no other.
        """
        if self.n_batch < 2:
            raise ValueError(
                "The cycle decodes each cell as one of another batch, and there is only one: name a batch_key with two "
                "batches or more, or train with plan_kwargs={'z_distance_cycle_weight': 0}."
            )
        generator = generator_for(batch.device)
        step = torch.randint(1, self.n_batch, batch.shape, device=batch.device, generator=generator)
        return (batch + step) % self.n_batch

    @staticmethod
    def latent_cycle_consistency(qz: Posterior, qz_cycle: Posterior, in_units_of_draws: bool = False) -> Tensor:
        r"""Squared distance of two sets of latent means, summed over dimensions, ``(n,)``.

        It is in units of the spread of the means of both, :math:`\mathrm{Var}[\mu]`, or of their draws,
        :math:`\mathrm{Var}[\mu] + \mathrm{E}[\sigma^2]`. In others it would shrink with the latents, and say nothing.
        """
        variance_k = torch.cat([qz.loc, qz_cycle.loc]).var(0)
        if in_units_of_draws:
            variance_k = variance_k + torch.cat([qz.scale, qz_cycle.scale]).square().mean(0)
        return ((qz.loc - qz_cycle.loc) / variance_k.sqrt()).square().sum(-1)


def _zeros(n: int, n_genes: int, n_continuous: int, n_categorical: int) -> dict[str, Tensor]:
    """A minibatch of the right shapes."""
    data = {REGISTRY_KEYS.X_KEY: torch.zeros(n, n_genes), REGISTRY_KEYS.BATCH_KEY: torch.zeros(n, 1).long()}
    if n_continuous:
        data[REGISTRY_KEYS.CONT_COVS_KEY] = torch.zeros(n, n_continuous)
    if n_categorical:
        data[REGISTRY_KEYS.CAT_COVS_KEY] = torch.zeros(n, n_categorical).long()
    return data


class _GaussianNll(torch.autograd.Function):
    """:func:`torch.nn.functional.gaussian_nll_loss` summed over genes, with one table of cells by genes kept for
    gradients, and without the look for negative variances, which waits for a GPU.
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, x: Tensor, variance: Tensor) -> Tensor:
        """Sums ``(..., n)`` of tables ``(..., n, g)``; the variance may have one row for all cells."""
        variance, apart = variance.clamp(min=_LEAST_VARIANCE), mean - x
        ctx.save_for_backward(apart, variance)
        return 0.5 * (apart.square().div_(variance).sum(-1) + variance.log().sum(-1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor]:
        """Gradients of mean and variance; where the variance is cut, as if it were not, as torch has it."""
        apart, variance = ctx.saved_tensors
        grad = grads[0][..., None]
        of_mean = grad * apart / variance
        of_variance = (0.5 * (grad - of_mean * apart)).sum_to_size(variance.shape) / variance
        return of_mean, None, of_variance
