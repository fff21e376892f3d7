r"""Variational autoencoder of DNA methylation (methylVI).

.. math::

    z_n &\sim N(0, I), \qquad \mu_{ncr} = \sigma(f_c(z_n, b_n))_r, \qquad
    y_{ncr} \sim \mathrm{BB}\bigl(N_{ncr},\, \mu_{ncr}\tfrac{1 - \gamma}{\gamma},\,
        (1 - \mu_{ncr})\tfrac{1 - \gamma}{\gamma}\bigr) \\
    \mathcal{L} &= \tfrac{1}{n} \sum_n \Bigl[-\textstyle\sum_{c, r} \log p(y_{ncr} \mid N_{ncr}, z_n)
        + w\, \mathrm{KL}(q(z_n \mid y_n, N_n) \,\|\, p(z_n))\Bigr]

with y methylated of N reads, in region r of context c (CpG, CpH), and :math:`\gamma` how much shares of methylated
reads vary in the region: of no reads none is methylated, so such entries add nothing, and are not computed.

Dims: n cells, g regions of all contexts, k latents, s samples.
Reference: Weinberger and Lee, *A deep generative model of single-cell methylomic data*, 2023.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from ...core import ArgumentError, checked
from ...data.fields.methylation import coverage_key, methylated_key
from ...distributions import Methylation
from ...module.base import BaseModuleClass, LossOutput, auto_move_data
from ...module.marginal import marginal_log_likelihood
from ...module.predictive import drawn
from ...nn import Encoder, FCLayers
from ...nn.fc_layers import Linear, decoded_as, with_covariates
from ...ops.draws import randn, sample

__all__ = ["METHYLVAE", "DecoderMETHYLVI", "MethylationDispersion", "MethylationLikelihood"]

_READS_OF_ALL = 4.0
_DISPERSIONS = (0.01, 0.9)

MethylationLikelihood = Literal["betabinomial", "binomial"]
MethylationDispersion = Literal["region", "region-cell"]


class DecoderMETHYLVI(nn.Module):
    """Share of methylated reads of each region of one context, and how much it varies.

    Parameters
    ----------
    n_input, n_output
        Numbers of latents and of regions.
    n_cat_list, n_layers, n_hidden, inject_covariates, use_batch_norm, use_layer_norm, **kwargs
        See :class:`~celbo.nn.FCLayers`; there is no dropout.
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
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.px_decoder = FCLayers(
            n_input,
            n_hidden,
            n_cat_list=n_cat_list,
            n_layers=n_layers,
            n_hidden=n_hidden,
            dropout_rate=0,
            inject_covariates=inject_covariates,
            use_batch_norm=use_batch_norm,
            use_layer_norm=use_layer_norm,
            **kwargs,
        )
        self.px_mu_decoder = nn.Sequential(Linear(n_hidden, n_output), nn.Sigmoid())
        self.px_gamma_decoder = nn.Sequential(Linear(n_hidden, n_output), nn.Sigmoid())

    def logits(self, dispersion: str, z: Tensor, *cat_list: Tensor) -> tuple[Tensor, Tensor | None]:
        """Log-odds of both, ``(..., g)``; the second None but for ``dispersion="region-cell"``."""
        hidden = self.px_decoder(z, *cat_list)
        gamma = self.px_gamma_decoder[0](hidden) if dispersion == "region-cell" else None
        return self.px_mu_decoder[0](hidden), gamma

    def forward(self, dispersion: str, z: Tensor, *cat_list: Tensor) -> tuple[Tensor, Tensor | None]:
        """Both themselves, between 0 and 1, of latents ``(n, k)`` and codes of covariates ``(n, 1)``."""
        mu, gamma = self.logits(dispersion, z, *cat_list)
        return mu.sigmoid(), None if gamma is None else gamma.sigmoid()


class METHYLVAE(BaseModuleClass):
    """Variational autoencoder of methylated reads among all reads, in several contexts.

    Parameters
    ----------
    n_input
        Regions of all contexts together.
    contexts, num_features_per_context
        Names of the contexts, and numbers of their regions.
    n_batch, n_cats_per_cov
        Number of batches; number of categories of each further covariate.
    n_hidden, n_latent, n_layers
        Size of the hidden layers and of the latent space; hidden layers of encoder and decoders.
    dropout_rate
        Dropout of the encoder.
    log_variational
        Encode the logarithm of the numbers of reads (plus one).
    likelihood
        ``"betabinomial"`` or ``"binomial"``.
    dispersion
        Whether a region varies alike in all cells (``"region"``), or the decoders say how much (``"region-cell"``).

    Raises
    ------
    ArgumentError
        Not one number of regions for each context, or numbers that do not add up to ``n_input``.
    """

    @checked
    def __init__(
        self,
        n_input: int,
        contexts: Sequence[str],
        num_features_per_context: Sequence[int],
        n_batch: int = 0,
        n_cats_per_cov: list[int] | None = None,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        log_variational: bool = True,
        likelihood: MethylationLikelihood = "betabinomial",
        dispersion: MethylationDispersion = "region",
    ) -> None:
        super().__init__()
        self.contexts, sizes = list(contexts), list(num_features_per_context)
        self.num_features_per_context = sizes
        if len(sizes) != len(self.contexts) or sum(sizes) != n_input:
            raise ArgumentError(
                f"{len(self.contexts)} contexts need as many num_features_per_context, which add up to "
                f"n_input={n_input}, got {sizes}."
            )
        self.n_latent, self.n_batch, self.log_variational = n_latent, n_batch, log_variational
        self.likelihood, self.dispersion = likelihood, dispersion
        shared: dict[str, Any] = {
            "n_cat_list": [n_batch, *(n_cats_per_cov or [])],
            "n_layers": n_layers,
            "n_hidden": n_hidden,
        }
        self.z_encoder = Encoder(
            2 * n_input,
            n_latent,
            dropout_rate=dropout_rate,
            var_activation=F.softplus,
            return_dist=True,
            **shared,
        )
        self._names = _attribute_names(self.contexts)
        self.decoders = nn.ModuleDict(
            {name: DecoderMETHYLVI(n_latent, size, **shared) for name, size in zip(self._names, sizes, strict=True)}
        )
        of_region = zip(self._names, sizes, strict=True) if dispersion == "region" else ()
        self.px_gamma = nn.ParameterDict({name: nn.Parameter(randn(size)) for name, size in of_region})

    def _get_inference_input(self, tensors: Mapping[str, Tensor], **kwargs: Any) -> dict[str, Any]:
        def beside(key_of: Any) -> Tensor:
            return torch.cat([tensors[key_of(context)] for context in self.contexts], dim=-1)

        known = {"mc": beside(methylated_key), "cov": beside(coverage_key)}
        return self._inference_binding.collect(known, tensors)

    @auto_move_data
    def inference(
        self, mc: Tensor, cov: Tensor, batch_index: Tensor, cat_covs: Tensor | None = None, n_samples: int = 1
    ) -> dict[str, Tensor | Distribution]:
        """Encode cells.

        Parameters
        ----------
        mc, cov
            Methylated reads and all reads of the contexts beside each other, ``(n, g)`` each.
        batch_index, cat_covs
            Codes, ``(n, 1)`` and ``(n, .)``.
        n_samples
            With more than 1 the samples get a leading dimension, without gradient.

        Returns
        -------
        ``z`` ``(n, k)`` and ``qz``.
        """
        reads = torch.cat([mc, cov], dim=-1)
        reads, codes = with_covariates(reads.log1p() if self.log_variational else reads, batch_index, None, cat_covs)
        qz, z = self.z_encoder(reads, *codes)
        return {"z": sample(qz, (n_samples,)) if n_samples > 1 else z, "qz": qz}

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        batch_index: Tensor,
        cat_covs: Tensor | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        transform_batch: Tensor | int | None = None,
    ) -> dict[str, Distribution]:
        """Decode latents.

        Parameters
        ----------
        z
            ``(n, k)`` or ``(s, n, k)``.
        batch_index, cat_covs
            Codes, ``(n, 1)`` and ``(n, .)``.
        tensors
            Minibatch with all reads of each context; without it shares are known, numbers of reads are not.
        transform_batch
            Batch that all cells are decoded as.

        Returns
        -------
        A :class:`~celbo.distributions.Methylation` under the registry key of each context's methylated reads; ``pz``.
        """
        batch_index = decoded_as(batch_index, transform_batch)
        latent, codes = with_covariates(z, batch_index, None, cat_covs)
        decoded: dict[str, Distribution] = {"pz": Normal(torch.zeros_like(z), torch.ones_like(z), validate_args=False)}
        for context, name in zip(self.contexts, self._names, strict=True):
            decoder: Any = self.decoders[name]
            mu, gamma = decoder.logits(self.dispersion, latent, *codes)
            gamma = self.px_gamma[name] if gamma is None else gamma
            total = (tensors or {}).get(coverage_key(context))
            decoded[methylated_key(context)] = Methylation(mu, gamma if self.likelihood != "binomial" else None, total)
        return decoded

    @property
    def counts_to_start_from(self) -> Sequence[str]:  # type: ignore[override]  # by the contexts
        """Methylated reads of all contexts, then all reads."""
        return [key_of(context) for key_of in (methylated_key, coverage_key) for context in self.contexts]

    @torch.no_grad()
    def start_from_counts(self, x: Tensor) -> bool:
        """Begin with the share of methylated reads of each region, and with how much it varies over the cells.

        Parameters
        ----------
        x
            Methylated reads of all contexts beside each other, and all reads.
        """
        mc, cov = x.chunk(2, dim=-1)
        sizes = self.num_features_per_context
        if not cov.sum() > 0:
            return False
        for name, y, total in zip(self._names, mc.split(sizes, -1), cov.split(sizes, -1), strict=True):
            mu_logits, gamma_logits = _by_moments(y.double(), total.double())
            decoder: Any = self.decoders[name]
            decoder.px_mu_decoder[0].bias.copy_(mu_logits)
            (self.px_gamma[name] if self.dispersion == "region" else decoder.px_gamma_decoder[0].bias).copy_(
                gamma_logits
            )
        return True

    def log_likelihood(self, tensors: Mapping[str, Tensor], generative_outputs: Mapping[str, Any]) -> Tensor:
        """Log-likelihood of each cell's methylated reads in nats, given all reads: ``(n,)`` or ``(s, n)``.

        Parameters
        ----------
        tensors, generative_outputs
            Minibatch, and what :meth:`generative` gave for it.
        """
        keys = map(methylated_key, self.contexts)
        return torch.stack([generative_outputs[key].log_prob_sum(tensors[key]) for key in keys]).sum(0)

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
    ) -> LossOutput:
        """Loss of the file's formula, w being ``kl_weight``."""
        nll_n = -self.log_likelihood(tensors, generative_outputs)
        kl_n = kl_divergence(inference_outputs["qz"], generative_outputs["pz"]).sum(-1)
        return LossOutput(
            (nll_n + kl_weight * kl_n).mean(), reconstruction_loss=nll_n, kl_local={"kl_divergence_z": kl_n}
        )

    @torch.no_grad()
    def sample(self, tensors: Mapping[str, Tensor], n_samples: int = 1) -> dict[str, Tensor]:
        """Draw methylated reads from the posterior predictive distribution, as many reads as there are.

        Parameters
        ----------
        tensors
            Minibatch.
        n_samples
            Samples per cell, each with its own latents.

        Returns
        -------
        By context ``(n, g)``, or ``(n, g, s)`` for more than one sample, on the CPU.
        """
        decoded = self.forward(tensors, inference_kwargs={"n_samples": n_samples}, compute_loss=False)[1]
        return {context: drawn(decoded[methylated_key(context)], n_samples) for context in self.contexts}

    @torch.no_grad()
    def marginal_ll(
        self,
        tensors: Mapping[str, Tensor],
        n_mc_samples: int,
        return_mean: bool = False,
        n_mc_samples_per_pass: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor | float:
        """As :meth:`celbo.module.VAE.marginal_ll`."""
        sizes = (n_mc_samples, n_mc_samples_per_pass)
        ll_n = marginal_log_likelihood(self, self.z_encoder.z_transformation, tensors, *sizes, generator).cpu()
        return ll_n.mean().item() if return_mean else ll_n


def _by_moments(y: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    r"""Log-odds of the share of methylated reads and of its dispersion, ``(g,)`` each, if all cells were alike.

    .. math:: \gamma_r = \frac{\sum_n (y_{nr} - N_{nr}\mu_r)^2 - N_{nr}\mu_r(1 - \mu_r)}
              {\sum_n N_{nr} (N_{nr} - 1)\, \mu_r(1 - \mu_r)}

    Regions of few reads are drawn to what the context has in all.
    """
    overall = ((y.sum() + 0.5) / (total.sum() + 1)).clamp(1e-4, 1 - 1e-4)
    mu_g = (y.sum(0) + _READS_OF_ALL * overall) / (total.sum(0) + _READS_OF_ALL)
    spread_g = mu_g * (1 - mu_g)
    excess_g = ((y - total * mu_g).square() - total * spread_g).sum(0)
    pairs_g = (total * (total - 1).clamp(min=0)).sum(0) * spread_g
    usual = (excess_g.sum() / pairs_g.sum().clamp(min=1e-8)).clamp(*_DISPERSIONS)
    unit = pairs_g.mean() + 1e-8
    gamma_g = ((excess_g + unit * usual) / (pairs_g + unit)).clamp(*_DISPERSIONS)
    return mu_g.logit().float(), gamma_g.logit().float()


def _attribute_names(contexts: Sequence[str]) -> list[str]:
    """What networks of contexts are called: as these, but for names that torch does not take as such."""
    taken = set(dir(nn.ModuleDict())) | set(dir(nn.ParameterDict()))
    names: list[str] = []
    for context in contexts:
        name = context.replace(".", "_") or "_"
        while name in taken or name in names or (name != context and name in contexts):
            name += "_"
        names.append(name)
    return names
