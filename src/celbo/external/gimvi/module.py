r"""Autoencoder of dissociated and spatial cells: one latent space, and one decoder of all genes.

.. math::

    z_n &\sim N(0, I), \qquad \ell_n = \text{total count, or } \log \ell_n \sim N(\mu_{b_n}, \sigma^2_{b_n}) \\
    \rho_{ng} &= \frac{\exp f_g(z_n)}{\sum_{h \in G_d} \exp f_h(z_n)}, \qquad
    x_{ng} \sim \mathrm{ZINB,\ NB\ or\ Poisson}(\ell_n \rho_{ng}, \theta_{g b_n}, \pi_{ng}), \quad g \in G_d

for a cell of data set d, whose genes are :math:`G_d`: all genes for dissociated cells, those that were measured for
spatial ones. The likelihood is a softmax over :math:`G_d`; genes outside it are imputed on the same scale.

Dims: n cells, g genes, k latents, b batches, c classes, s samples.
Reference: Lopez et al., *A joint model of unpaired data from scRNA-seq and spatial transcriptomics for imputing missing
gene expression measurements*, ICML workshop on computational biology 2019 (gimVI).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from ...core import REGISTRY_KEYS, checked
from ...core.kinds import Instance
from ...module.base import BaseModuleClass, LossOutput, auto_move_data
from ...module.likelihoods import LIKELIHOODS, dispersion_shape, log_likelihood, log_theta_of
from ...nn import Encoder, MultiDecoder, MultiEncoder
from ...nn.fc_layers import decoded_as
from ...ops.draws import randn, sample

__all__ = ["JVAE", "OneSet"]

Dispersion = Literal["gene", "gene-batch", "gene-label", "gene-cell"]
Genes = np.ndarray | slice
_MOMENTS = Instance("a list of arrays, or of None", lambda value: isinstance(value, list | tuple))
Moments = Annotated[Sequence[np.ndarray | None], _MOMENTS]
_STANDARD = Normal(0.0, 1.0)
_FLOOR, _SMALL, _FEW_ZEROS, _SURE = 1e-2, 0.1, -3.0, -4.6
"""Where training begins: a gene's least level, of the mean one; what weights are multiplied by; log-odds of an added
zero; log variance of a latent library."""

_LARGEST_LIBRARY = 60.0
"""Natural log of the most that is decoded: latent libraries can run off, and from 88 on counts are infinite."""


class JVAE(BaseModuleClass):
    """Networks and loss of GIMVI. Each method is told the number of the data set (``mode``) of the cells it gets.

    Parameters
    ----------
    dim_input_list
        Number of genes of each data set.
    total_genes
        Number of genes that are decoded.
    indices_mappings
        Which of them each data set has, as places in its order of genes.
    gene_likelihoods
        ``"zinb"``, ``"nb"`` or ``"poisson"`` for each data set.
    model_library_bools
        Whether the library of each data set is a latent variable; otherwise it is the total count.
    library_log_means, library_log_vars
        Mean and variance of the log library in each batch, ``(1, b)``; None where it is the total count.
    n_latent
        Number of latents.
    n_layers_encoder_individual, n_layers_encoder_shared, dim_hidden_encoder
        Layers of the encoder that each data set has for itself, layers that all share, and their width.
    n_layers_decoder_individual, n_layers_decoder_shared
        The same of the decoder; without any of them each gene is linear in the latents.
    dim_hidden_decoder_individual, dim_hidden_decoder_shared
        Width of its layers.
    dropout_rate_encoder, dropout_rate_decoder
        Dropout.
    n_batch, n_labels
        Number of batches and of labels of all data sets together.
    dispersion
        Whether inverse dispersions belong to the gene, or are one each batch, label or cell.
    log_variational
        Encode the logarithm of one more than the counts.
    batch_codes, label_codes
        For each data set the numbers, among those of all, of its own batches and labels; None: they are the same.
    """

    @checked
    def __init__(
        self,
        dim_input_list: list[int],
        total_genes: int,
        indices_mappings: list[Genes],
        gene_likelihoods: list[str],
        model_library_bools: list[bool],
        library_log_means: Moments,
        library_log_vars: Moments,
        n_latent: int = 10,
        n_layers_encoder_individual: int = 1,
        n_layers_encoder_shared: int = 1,
        dim_hidden_encoder: int = 64,
        n_layers_decoder_individual: int = 0,
        n_layers_decoder_shared: int = 0,
        dim_hidden_decoder_individual: int = 64,
        dim_hidden_decoder_shared: int = 64,
        dropout_rate_encoder: float = 0.2,
        dropout_rate_decoder: float = 0.2,
        n_batch: int = 0,
        n_labels: int = 0,
        dispersion: Dispersion = "gene-batch",
        log_variational: bool = True,
        *,
        batch_codes: Sequence[Sequence[int]] | None = None,
        label_codes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        self.n_latent, self.n_batch, self.n_labels = n_latent, n_batch, n_labels
        self.gene_likelihoods, self.model_library_bools = list(gene_likelihoods), list(model_library_bools)
        self.dispersion, self.log_variational = dispersion, log_variational
        if dispersion != "gene-cell":
            self.px_r = nn.Parameter(randn(*dispersion_shape(dispersion, total_genes, n_batch, n_labels)))
        places = [np.arange(total_genes)[genes] for genes in indices_mappings]
        self._keep("genes", places)
        self._has_all = [np.array_equal(genes, np.arange(total_genes)) for genes in places]
        self._keep_codes(batch_codes, label_codes)
        self._put_library(library_log_means, library_log_vars)
        self.z_encoder = MultiEncoder(
            *(len(dim_input_list), dim_input_list, n_latent),
            n_hidden=dim_hidden_encoder,
            n_layers_individual=n_layers_encoder_individual,
            n_layers_shared=n_layers_encoder_shared,
            dropout_rate=dropout_rate_encoder,
            return_dist=True,
        )
        self.l_encoders = nn.ModuleList(
            Encoder(n_input, 1, dropout_rate=dropout_rate_encoder, return_dist=True) if is_latent else nn.Identity()
            for n_input, is_latent in zip(dim_input_list, self.model_library_bools, strict=True)
        )
        self.decoder = MultiDecoder(
            n_latent,
            total_genes,
            n_hidden_conditioned=dim_hidden_decoder_individual,
            n_hidden_shared=dim_hidden_decoder_shared,
            n_layers_conditioned=n_layers_decoder_individual,
            n_layers_shared=n_layers_decoder_shared,
            n_cat_list=[n_batch],
            dropout_rate=dropout_rate_decoder,
        )

    @torch.no_grad()
    def start_from(self, x: np.ndarray) -> None:
        """Begin with the level of each gene and of the libraries, few added zeros, and latents that change little.

        From random weights the first steps send latent libraries far off, and the latents then stand for how deeply
        a cell was sequenced: hidden genes follow that, not the type.

        Parameters
        ----------
        x
            Counts of some dissociated cells, ``(n, g)``.
        """
        mean_g = torch.as_tensor(x).mean(0)
        level_g = (mean_g + _FLOOR * mean_g.mean()).log()
        scale: Any = self.decoder.px_scale_decoder[0]
        if level_g.isfinite().all():  # there is a count
            scale.bias.copy_(level_g - level_g.mean())
        scale.weight.mul_(_SMALL)
        self.decoder.px_dropout_decoder.bias.fill_(_FEW_ZEROS)
        for mode, is_latent in enumerate(self.model_library_bools):
            if is_latent:
                self._start_library(self.l_encoders[mode], self.get_buffer(f"library_log_means_{mode}"))

    def _start_library(self, encoder: Any, mean_1b: Tensor) -> None:
        is_own_1b = mean_1b != 0  # batches of the other data set have none
        encoder.mean_encoder.bias.fill_(float(mean_1b.sum() / is_own_1b.sum().clamp(min=1)))
        encoder.mean_encoder.weight.mul_(_SMALL)
        encoder.var_encoder.bias.fill_(_SURE)

    def _keep(self, name: str, numbers: Sequence[Any] | None) -> None:
        """Whole numbers of each data set that move with the module. They follow from the data, so none is saved."""
        for mode, of_set in enumerate(numbers or ()):
            table = torch.as_tensor(np.asarray(of_set), dtype=torch.long)
            self.register_buffer(f"{name}_{mode}", table, persistent=False)

    def _keep_codes(self, batches: Sequence[Any] | None, labels: Sequence[Any] | None) -> None:
        self._keep("batch_codes", batches)
        self._keep("label_codes", labels)

    def _put_library(self, means: Sequence[np.ndarray | None], variances: Sequence[np.ndarray | None]) -> None:
        for name, moments in (("means", means), ("vars", variances)):
            for mode, is_latent in enumerate(self.model_library_bools):
                if is_latent:
                    values = torch.as_tensor(np.asarray(moments[mode]), dtype=torch.float32)
                    self.register_buffer(f"library_log_{name}_{mode}", values)

    def _code(self, kind: str, codes_n1: Tensor | None, mode: int) -> Tensor | None:
        """Numbers among the batches or labels of all data sets, from those of one."""
        table: Tensor | None = getattr(self, f"{kind}_codes_{mode}", None)
        return codes_n1 if codes_n1 is None or table is None else table[codes_n1.long()]

    @auto_move_data
    def inference(
        self, x: Tensor, mode: int | None = 0, n_samples: int | None = 1, batch_index: Tensor | None = None
    ) -> dict[str, Any]:
        """Encode cells of one data set.

        Parameters
        ----------
        x
            Counts of its genes, ``(n, g)``.
        mode
            Number of the data set.
        n_samples
            With more than 1 the samples get a leading dimension, without gradient.
        batch_index
            Not used.

        Returns
        -------
        Posteriors ``qz`` and ``ql`` (None for an observed library), a draw ``z`` ``(n, k)``, and ``library``
        ``(n, 1)``, the natural log.
        """
        mode = mode or 0
        columns_ng = x.log1p() if self.log_variational else x
        qz, z = self.z_encoder(columns_ng, mode)
        ql, library = None, x.sum(-1, keepdim=True).log()
        if self.model_library_bools[mode]:
            ql, library = self.l_encoders[mode](columns_ng)
        if n_samples is not None and n_samples > 1:
            z = sample(qz, (n_samples,))
            library = library.expand(n_samples, -1, -1) if ql is None else sample(ql, (n_samples,))
        return {"z": z, "library": library, "qz": qz, "ql": ql}

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        library: Tensor,
        batch_index: Tensor | None = None,
        y: Tensor | None = None,
        mode: int | None = 0,
        transform_batch: Tensor | int | None = None,
    ) -> dict[str, Distribution]:
        """Distribution ``px`` of the counts of one data set's genes.

        Parameters
        ----------
        z
            Latents, ``(n, k)`` or ``(s, n, k)``.
        library
            Natural log of the library, ``(n, 1)`` or ``(s, n, 1)``.
        batch_index, y
            Batch and label of each cell among those of its data set, ``(n, 1)``.
        mode
            Number of the data set.
        transform_batch
            Number of a batch, among those of all data sets, that all cells are decoded as.
        """
        mode = mode or 0
        batch_n1 = self._code("batch", batch_index, mode)
        if batch_n1 is not None:
            batch_n1 = decoded_as(batch_n1, transform_batch)
        likelihood = LIKELIHOODS[self.gene_likelihoods[mode]]
        genes = None if self._has_all[mode] else self.get_buffer(f"genes_{mode}")
        logits_ng, log_theta, zi_logits_ng = self.decoder.logits(
            z, self.dispersion, batch_n1, genes=genes, zero_inflated=likelihood.zero_inflated
        )
        if log_theta is None:
            px_r = self.px_r if genes is None else self.px_r.index_select(0, genes)
            log_theta = log_theta_of(px_r, self.dispersion, batch_n1, self._code("label", y, mode))
        px = likelihood(logits_ng, library.clamp_max(_LARGEST_LIBRARY), log_theta, zi_logits_ng, _softmax, True)
        return {"px": px}

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        mode: int | None = None,
        kl_weight: Tensor | float = 1.0,
    ) -> LossOutput:
        """Negative evidence lower bound of cells of one data set.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            As everywhere.
        mode
            Number of the data set; None: 0.
        kl_weight
            Weight of the KL divergences of latents and library.
        """
        nll_n = -log_likelihood(generative_outputs["px"], tensors[REGISTRY_KEYS.X_KEY])
        kl = {"kl_divergence_z": kl_divergence(inference_outputs["qz"], _STANDARD).sum(-1)}
        ql: Normal | None = inference_outputs["ql"]
        if ql is not None:
            prior = self._library_prior(tensors[REGISTRY_KEYS.BATCH_KEY], mode or 0)
            kl["kl_divergence_l"] = kl_divergence(ql, prior).sum(-1)
        kl_n = LossOutput.dict_sum(kl)
        return LossOutput((nll_n + kl_weight * kl_n).mean(), reconstruction_loss=nll_n, kl_local=kl_n)

    def _library_prior(self, batch_index: Tensor, mode: int) -> Normal:
        batch_n1 = self._code("batch", batch_index, mode)
        mean, variance = (self.get_buffer(f"library_log_{name}_{mode}")[0][batch_n1] for name in ("means", "vars"))
        return Normal(mean, variance.sqrt(), validate_args=False)

    # What cells of one data set are, also as cells of another.

    def sample_from_posterior_z(self, x: Tensor, mode: int | None = None, deterministic: bool = False) -> Tensor:
        """Latents, ``(n, k)``: their mean where ``deterministic``, else a draw."""
        encoded = self.inference(x, mode)
        return encoded["qz"].loc if deterministic else encoded["z"]

    def sample_from_posterior_l(self, x: Tensor, mode: int | None = None, deterministic: bool = False) -> Tensor:
        """Log library, ``(n, 1)``: observed, or the mean of its posterior where ``deterministic``, else a draw."""
        encoded = self.inference(x, mode)
        return encoded["ql"].loc if deterministic and encoded["ql"] is not None else encoded["library"]

    @auto_move_data
    def sample_scale(
        self,
        x: Tensor,
        mode: int,
        batch_index: Tensor,
        y: Tensor | None = None,
        deterministic: bool = False,
        decode_mode: int | None = None,
    ) -> Tensor:
        r"""Expression :math:`\rho` of all genes, ``(n, g)``.

        Parameters
        ----------
        x
            Counts of the genes of data set ``mode``, ``(n, g)``.
        mode
            Number of the data set.
        batch_index, y
            Batch of each cell within its data set, ``(n, 1)``; labels are not used.
        deterministic
            Decode the mean of the latents, or a draw.
        decode_mode
            Data set over whose genes the expression sums to 1; None: the cells' own.
        """
        z_nk = self.sample_from_posterior_z(x, mode, deterministic)
        logits_ng, _, _ = self.decoder.logits(z_nk, self.dispersion, self._code("batch", batch_index, mode))
        own_ng = logits_ng[..., self.get_buffer(f"genes_{mode if decode_mode is None else decode_mode}")]
        return (logits_ng - own_ng.logsumexp(-1, keepdim=True)).exp()

    def sample_rate(
        self,
        x: Tensor,
        mode: int,
        batch_index: Tensor,
        y: Tensor | None = None,
        deterministic: bool = False,
        decode_mode: int | None = None,
    ) -> Tensor:
        """Expected counts of all genes, ``(n, g)``; arguments as in :meth:`sample_scale`."""
        scale_ng = self.sample_scale(x, mode, batch_index, y, deterministic, decode_mode)
        return scale_ng * self.sample_from_posterior_l(x, mode, deterministic).to(scale_ng).exp()


class OneSet(BaseModuleClass):
    """A :class:`JVAE` on cells of one of its data sets, as if there were no other.

    Parameters
    ----------
    whole
        The module.
    mode
        Number of the data set.
    """

    def __init__(self, whole: JVAE, mode: int) -> None:
        super().__init__()
        self.whole, self.mode = whole, mode

    def _get_inference_input(self, tensors: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self.whole._get_inference_input(tensors) | {"mode": self.mode}

    def _get_generative_input(
        self, tensors: Mapping[str, Any], inference_outputs: Mapping[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        return self.whole._get_generative_input(tensors, inference_outputs) | {"mode": self.mode}

    def inference(self, **cells: Any) -> dict[str, Any]:
        """See :meth:`JVAE.inference`."""
        return self.whole.inference(**cells)

    def generative(self, **latents: Any) -> dict[str, Distribution]:
        """See :meth:`JVAE.generative`."""
        return self.whole.generative(**latents)


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1)
