r"""Conditional variational autoencoder of counts (CondSCVI): what varies within cell types.

.. math::

    z_n &\sim N(0, I) \;\text{ or a mixture of normals of the cell type}, \qquad
    \rho_n = \mathrm{softmax}(f(z_n, c_n, e_{b_n}) + \beta_{c_n}), \qquad
    x_{ng} \sim \mathrm{NB}(\ell_n \rho_{ng}, \theta_g) \\
    \mathcal{L} &= \tfrac{1}{N} \sum_n w_{c_n} \left[ -\log p(x_n \mid z_n, c_n) + r\,\mathrm{CE}
        + w\,\mathrm{KL}(q(z_n \mid x_n, c_n) \,\|\, p(z_n \mid c_n)) \right]

with the label (cell type) :math:`c_n` of each cell, learned embeddings :math:`e_b` of the batches, a weight :math:`w_c`
a cell type and, where there are fine labels, the mean cross-entropy of those that are known.

Dims: n cells, g genes, k latents, b batches, c labels, f fine labels, m mixture components, s samples.
Reference: Lopez et al., Nature Biotechnology 2022 (:cite:p:`Lopez22`).
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, MixtureSameFamily

from ..core import REGISTRY_KEYS, checked, unknown_name
from ..distributions import NegativeBinomial
from ..nn import Encoder, FCLayers
from ..nn.fc_layers import Linear, append_columns, decoded_as
from ..ops.draws import randn, sample
from .base import BaseModuleClass, EmbeddingModuleMixin, LossOutput, auto_move_data
from .base.priors import GaussianPrior, mixture_kl, normal_mixture
from .classifier import Classifier

__all__ = ["VAEC"]

FINE_LABELS_KEY = "fine_labels"
_PRIORS = ("normal", "mog")


class VAEC(EmbeddingModuleMixin, BaseModuleClass):
    """Variational autoencoder of counts given the cell type.

    Parameters
    ----------
    n_input, n_batch, n_labels
        Numbers of genes, batches and labels.
    n_fine_labels
        Number of fine labels, that of cells without one (the last) included; None: no classifier.
    n_hidden, n_latent, n_layers
        Size of hidden layers, size of the latent space, number of hidden layers of encoder and decoder each.
    log_variational
        Whether the encoder sees ``log(1 + x)``.
    ct_weight
        Weight of the cells of each label in the loss, ``(c,)``; None: 1.
    dropout_rate
        Dropout of encoder and decoder.
    encode_covariates
        Whether the encoder sees the batch.
    extra_encoder_kwargs, extra_decoder_kwargs
        Further arguments of :class:`~celbo.nn.Encoder` and of the decoder's :class:`~celbo.nn.FCLayers`.
    prior
        ``"normal"``, or ``"mog"``: for each label a mixture of normal distributions, learned.
    num_classes_mog
        Number of its components.
    scvi_tools_figures
        Ignore size factors, learn "no label" as a fine label, and report that term with its weight, as scvi-tools does:
        set for its archives.

    Raises
    ------
    ValueError
        A prior that does not exist.
    """

    ct_weight: Tensor

    @checked
    def __init__(
        self,
        n_input: int,
        n_batch: int = 0,
        n_labels: int = 0,
        n_fine_labels: int | None = None,
        n_hidden: int = 128,
        n_latent: int = 5,
        n_layers: int = 2,
        log_variational: bool = True,
        ct_weight: np.ndarray | None = None,
        dropout_rate: float = 0.05,
        encode_covariates: bool = False,
        extra_encoder_kwargs: dict[str, Any] | None = None,
        extra_decoder_kwargs: dict[str, Any] | None = None,
        prior: Literal["normal", "mog"] = "normal",
        num_classes_mog: int | None = 10,
        scvi_tools_figures: bool = False,
    ) -> None:
        super().__init__()
        self.scvi_tools_figures = scvi_tools_figures
        if prior not in _PRIORS:
            raise ValueError(unknown_name("prior", prior, _PRIORS))
        self.dispersion, self.gene_likelihood, self.latent_distribution = "gene", "nb", "normal"
        self.n_latent, self.n_layers, self.n_hidden, self.dropout_rate = n_latent, n_layers, n_hidden, dropout_rate
        self.n_batch, self.n_labels, self.n_fine_labels = n_batch, n_labels, n_fine_labels
        self.log_variational, self.encode_covariates = log_variational, encode_covariates
        self.prior, self.num_classes_mog = prior, num_classes_mog

        self.px_r = nn.Parameter(randn(n_input))
        self.per_ct_bias = nn.Parameter(torch.zeros(n_labels, n_input))
        if prior == "mog":
            n_components = 10 if num_classes_mog is None else num_classes_mog
            self.prior_means = nn.Parameter(randn(n_labels, n_components, n_latent))
            self.prior_log_std = nn.Parameter(torch.zeros(n_labels, n_components, n_latent) - 2.0)
            self.prior_logits = nn.Parameter(torch.zeros(n_labels, n_components))
        weight_c = np.ones(n_labels) if ct_weight is None else np.asarray(ct_weight)
        self.register_buffer("ct_weight", torch.as_tensor(weight_c, dtype=torch.float32))

        self.init_embedding(REGISTRY_KEYS.BATCH_KEY, n_batch)
        n_embedding = self.get_embedding(REGISTRY_KEYS.BATCH_KEY).embedding_dim
        sizes: dict[str, Any] = {"n_layers": n_layers, "n_hidden": n_hidden, "dropout_rate": dropout_rate}
        norm = {"use_batch_norm": False, "use_layer_norm": True}
        self.z_encoder = Encoder(
            n_input + n_embedding * encode_covariates,
            n_latent,
            n_cat_list=[n_labels],
            return_dist=True,
            **(sizes | norm | (extra_encoder_kwargs or {})),
        )
        self._add_classifier()
        self.decoder = FCLayers(
            n_in=n_latent + n_embedding,
            n_out=n_hidden,
            n_cat_list=[n_labels],
            **(sizes | norm | (extra_decoder_kwargs or {})),
        )
        self.px_decoder = Linear(n_hidden, n_input)

    def _add_classifier(self) -> None:
        self.classifier = None
        if self.n_fine_labels is None:
            return
        self.linear_mapping = FCLayers(
            n_in=self.n_latent, n_out=self.n_hidden, n_cat_list=[self.n_labels], dropout_rate=0.0, use_layer_norm=True
        )
        self.classifier = Classifier(self.n_hidden, n_labels=self.n_fine_labels, n_layers=0, n_hidden=0, logits=True)

    @auto_move_data
    def inference(
        self, x: Tensor, y: Tensor, batch_index: Tensor | None = None, n_samples: int = 1
    ) -> dict[str, Tensor | Distribution]:
        """Encode cells.

        Parameters
        ----------
        x
            Counts, ``(n, g)``.
        y
            Codes of the labels, ``(n, 1)``.
        batch_index
            Codes, ``(n, 1)``; looked at with ``encode_covariates``.
        n_samples
            With more than 1 the samples get a leading dimension, without gradient.

        Returns
        -------
        ``z`` ``(n, k)``; ``qz``; ``library`` ``(n, 1)``, the total count (not its logarithm).

        Raises
        ------
        ValueError
            The encoder sees the batch, and ``batch_index`` is not given.
        """
        encoded = x.log1p() if self.log_variational else x
        if self.encode_covariates:
            if batch_index is None:
                raise ValueError("This module's encoder sees the batch (encode_covariates=True): give `batch_index`.")
            encoded = append_columns(encoded, self.compute_embedding(REGISTRY_KEYS.BATCH_KEY, batch_index))
        qz, z = self.z_encoder(encoded, y)
        library = x.sum(-1, keepdim=True)
        if n_samples > 1:
            z, library = sample(qz, (n_samples,)), library.expand(n_samples, -1, -1)
        return {"z": z, "qz": qz, "library": library}

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        library: Tensor,
        y: Tensor,
        batch_index: Tensor | None = None,
        transform_batch: Tensor | int | None = None,
        size_factor: Tensor | None = None,
    ) -> dict[str, Distribution]:
        """Decode latents.

        Parameters
        ----------
        z
            ``(n, k)`` or ``(s, n, k)``.
        library
            Total count, ``(n, 1)`` or ``(s, n, 1)``.
        y, batch_index
            Codes, ``(n, 1)``; no batch: that of code 0.
        transform_batch
            Batch that all cells are decoded as.
        size_factor
            Numbers that take the place of the library, ``(n, 1)`` (scvi-tools 1.4.2 registers and ignores them).

        Returns
        -------
        ``px``; ``pz``.
        """
        batch_index = torch.zeros_like(y) if batch_index is None else batch_index
        batch_index = decoded_as(batch_index, transform_batch)
        decoded = append_columns(z, self.compute_embedding(REGISTRY_KEYS.BATCH_KEY, batch_index))
        scale_logits = self.px_decoder(self.decoder(decoded, y)) + self.per_ct_bias[y.squeeze(-1)]
        amount = library if size_factor is None or self.scvi_tools_figures else size_factor
        px = NegativeBinomial.from_logits(scale_logits, amount.log(), self.px_r)
        return {"px": px, "pz": self.latent_prior(z, y)}

    def latent_prior(self, z: Tensor, y: Tensor) -> Distribution:
        """Prior of the latents of cells with labels ``y`` ``(n, 1)``: standard normal, or mixtures over ``(k,)``."""
        if self.prior == "normal":
            return GaussianPrior().get_prior(z)
        label_n = y.squeeze(-1)
        return normal_mixture(
            self.prior_logits[label_n], self.prior_means[label_n], self.prior_log_std[label_n].exp() + 1e-4
        )

    @auto_move_data
    def classify(self, z: Tensor, label_index: Tensor | None = None) -> Tensor:
        """Logits of the fine labels, ``(n, f)``, of latents ``(n, k)`` and labels ``(n, 1)``; the last is "no label".

        Raises
        ------
        ValueError
            A module without fine labels.
        """
        if self.classifier is None:
            raise ValueError("There are no fine labels: set up the data with fine_labels_key to classify cells.")
        return self.classifier(self.linear_mapping(z, label_index))

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
        labelled_tensors: Mapping[str, Tensor] | None = None,
        classification_ratio: float = 5.0,
    ) -> LossOutput:
        """Negative evidence lower bound and the cross-entropy of fine labels, if any; the formula is the file's.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            Minibatch, and what was made of it.
        kl_weight
            Weight of the KL divergence.
        labelled_tensors
            Minibatch whose fine labels are learnt; None: ``tensors``.
        classification_ratio
            Weight of the cross-entropy.
        """
        qz, label_n = inference_outputs["qz"], tensors[REGISTRY_KEYS.LABELS_KEY].squeeze(-1)
        nll_n = -generative_outputs["px"].log_prob_sum(tensors[REGISTRY_KEYS.X_KEY])
        pz = generative_outputs["pz"]
        kl_n = mixture_kl(qz, pz) if isinstance(pz, MixtureSameFamily) else GaussianPrior().kl(qz)
        loss_n = nll_n + kl_weight * kl_n
        classified: dict[str, Any] = {}
        if self.classifier is not None:
            labelled = tensors if labelled_tensors is None else labelled_tensors
            q_labelled = qz if labelled_tensors is None else self.inference(**self._get_inference_input(labelled))["qz"]
            classified = self._classification(labelled, q_labelled.loc)
            weighted = classification_ratio * classified["classification_loss"]
            loss_n = loss_n + weighted
            if self.scvi_tools_figures:
                classified["classification_loss"] = weighted
        loss = (self.ct_weight[label_n] * loss_n).mean()
        return LossOutput(loss=loss, reconstruction_loss=nll_n, kl_local=kl_n, **classified)

    def _classification(self, tensors: Mapping[str, Tensor], z_nk: Tensor) -> dict[str, Tensor]:
        """Mean cross-entropy of the known fine labels (0 where none is), logits, and labels.

        With ``scvi_tools_figures`` "no label" is one to learn, as there.
        """
        assert self.n_fine_labels is not None
        fine_n = tensors[FINE_LABELS_KEY].squeeze(-1).long()
        logits_nf = self.classify(z_nk, tensors[REGISTRY_KEYS.LABELS_KEY])
        unlabelled = self.n_fine_labels if self.scvi_tools_figures else self.n_fine_labels - 1
        total = F.cross_entropy(logits_nf, fine_n, ignore_index=unlabelled, reduction="sum")
        n_known = (fine_n != unlabelled).sum().clamp(min=1)
        return {"classification_loss": total / n_known, "logits": logits_nf, "true_labels": fine_n}

    @torch.no_grad()
    def sample(
        self, tensors: Mapping[str, Tensor], n_samples: int = 1, generative_kwargs: dict[str, Any] | None = None
    ) -> Tensor:
        """Draw counts from the posterior predictive distribution: ``(n, g)`` or ``(n, g, s)``, on the CPU.

        Parameters
        ----------
        tensors
            Minibatch by registry key.
        n_samples
            Samples per cell, each with its own latents.
        generative_kwargs
            Further arguments of :meth:`generative`.
        """
        inference_kwargs = {"n_samples": n_samples}
        _, outputs = self.forward(
            tensors, inference_kwargs=inference_kwargs, generative_kwargs=generative_kwargs, compute_loss=False
        )[:2]
        x = sample(outputs["px"]).cpu()
        return x.permute(1, 2, 0) if n_samples > 1 else x

    def learned_mixture(self) -> dict[str, np.ndarray]:
        """The prior of a module with ``prior="mog"`` in the form of :meth:`celbo.model.CondSCVI.get_vamp_prior`."""
        parts = {
            "mean_vprior": self.prior_means,
            "var_vprior": (2 * self.prior_log_std).exp(),
            "weights_vprior": self.prior_logits.softmax(-1),
        }
        return {name: part.detach().cpu().numpy() for name, part in parts.items()}
