r"""Variational autoencoder of genes, proteins and cell types (totalANVI).

.. math::

    y_n \sim \mathrm{Cat}(\pi), \quad z_{2n} \sim N(0, I), \quad z_{1n} \sim N(\mu(z_{2n}, y_n), \sigma^2(z_{2n}, y_n)),
    \quad x_n, p_n \mid z_{1n} \text{ as in totalVI} \\
    \mathcal{L} = \mathcal{L}_\mathrm{totalVI} + \tfrac{1}{N} \sum_n \Big[\log q(z_{1n})
        - \textstyle\sum_y q_{ny} \log p(z_{1n} \mid z_{2ny}, y) + w \big(\textstyle\sum_y q_{ny} \mathrm{KL}(z_{2ny})
        + \mathrm{KL}(q_n \,\|\, \pi)\big)\Big] - \tfrac{r}{M} \sum_m \log q(y_m)

where the KL divergence of the latents in :math:`\mathcal{L}_\mathrm{totalVI}` gives way to those of :math:`z_2` and
the class.

Dims: n cells, g genes, p proteins, k latents, c classes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.distributions import kl_divergence

from ...core import REGISTRY_KEYS, checked
from ...module import TOTALVAE
from ...module.base import LossOutput, auto_move_data
from ...module.classes import ClassesModule
from ...module.likelihoods import Placement, log_likelihood, norms

__all__ = ["TOTALANVAE"]

_BETWEEN_LATENTS = {"dropout_rate": 0.05}


class TOTALANVAE(ClassesModule, TOTALVAE):
    """Semi-supervised variational autoencoder: :class:`~celbo.module.TOTALVAE` with a class above the latents.

    Label codes ``0 .. n_labels - 1`` are classes; ``n_labels`` is the code of a cell without label.

    Parameters
    ----------
    n_input_genes, n_input_proteins, n_batch, n_hidden, n_latent, n_layers_encoder, n_layers_decoder
        See :class:`~celbo.module.TOTALVAE`.
    n_labels
        Number of classes, cells without label apart.
    dropout_rate_encoder, use_batch_norm, use_layer_norm
        See :class:`~celbo.module.TOTALVAE`.
    y_prior
        Prior probability of each class, ``(1, c)``; all equal when not given.
    linear_classifier
        Whether the classifier has no hidden layers.
    classifier_parameters
        Further arguments of :class:`~celbo.module.Classifier`.
    **totalvae_kwargs
        Further arguments of :class:`~celbo.module.TOTALVAE`.

    Raises
    ------
    ValueError
        No class at all.
    """

    n_labels: int
    classified_by: ClassVar[tuple[str, ...]] = ("x", "proteins", "batch_index", "cont_covs", "cat_covs")

    @checked
    def __init__(
        self,
        n_input_genes: int,
        n_input_proteins: int,
        n_batch: int = 0,
        n_labels: int = 0,
        n_hidden: int = 256,
        n_latent: int = 20,
        n_layers_encoder: int = 2,
        n_layers_decoder: int = 1,
        dropout_rate_encoder: float = 0.2,
        use_batch_norm: Placement = "both",
        use_layer_norm: Placement = "none",
        y_prior: Tensor | None = None,
        linear_classifier: bool = False,
        classifier_parameters: dict[str, Any] | None = None,
        n_continuous_cov: int = 0,
        n_cats_per_cov: list[int] | None = None,
        **totalvae_kwargs: Any,
    ) -> None:
        if n_labels < 1:
            raise ValueError(f"TOTALANVAE needs n_labels of at least 1 class, got {n_labels}.")
        super().__init__(
            n_input_genes,
            n_input_proteins,
            n_batch,
            n_labels + 1,  # cells without label have a code, hence a dispersion, too
            n_hidden,
            n_latent,
            n_layers_encoder,
            n_layers_decoder,
            n_continuous_cov,
            n_cats_per_cov,
            dropout_rate_encoder=dropout_rate_encoder,
            use_batch_norm=use_batch_norm,
            use_layer_norm=use_layer_norm,
            **totalvae_kwargs,
        )
        encoding, decoding = (norms(one, use_batch_norm, use_layer_norm) for one in ("encoder", "decoder"))
        encoder = {"n_layers": n_layers_encoder, "n_hidden": n_hidden} | encoding
        classifier = encoder | {"dropout_rate": dropout_rate_encoder, "logits": True}
        classifier |= ({"n_layers": 0, "n_hidden": 0} if linear_classifier else {}) | (classifier_parameters or {})
        decoder = {"n_layers": n_layers_decoder, "n_hidden": n_hidden} | decoding
        self._make_classes(n_latent, n_labels, y_prior, classifier, encoder | _BETWEEN_LATENTS, decoder)

    @auto_move_data
    def classify(  # type: ignore[override]  # proteins come second
        self,
        x: Tensor,
        proteins: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        use_posterior_mean: bool = True,
    ) -> Tensor:
        """Classify cells.

        Parameters
        ----------
        x, proteins
            Counts of genes ``(n, g)`` and of proteins ``(n, p)``.
        batch_index, cont_covs, cat_covs
            As in :meth:`~celbo.module.TOTALVAE.inference`.
        use_posterior_mean
            Classify the mean of the latents' posterior, or a draw from it.

        Returns
        -------
        What the classifier gives, ``(n, c)``: logits, or probabilities (see ``classifier.logits``).
        """
        encoded = self._regular_inference(x, proteins, batch_index, cont_covs, cat_covs)
        return self.classifier(encoded["qz"].loc if use_posterior_mean else encoded["z"])

    def loss(  # type: ignore[override]
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        pro_recons_weight: float = 1.0,
        kl_weight: Tensor | float = 1.0,
        labelled_tensors: Mapping[str, Tensor] | None = None,
        classification_ratio: float | None = None,
    ) -> LossOutput:
        """Loss of the file's formula.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs, pro_recons_weight, kl_weight
            As of :class:`~celbo.module.TOTALVAE`.
        labelled_tensors
            Minibatch of cells with a label.
        classification_ratio
            Weight of the classification loss; 1 when not given.

        Returns
        -------
        ``reconstruction_loss`` is that of genes and proteins, without the terms of ``z1``; ``kl_local`` has the entries
        ``kl_div_back_pro``, ``kl_divergence`` (of ``z2``) and ``kl_divergence_class``.
        """
        qz1, z1_nk, ql = (inference_outputs[name] for name in ("qz", "z", "ql"))
        nll_gene_n = -log_likelihood(generative_outputs["px"], tensors[REGISTRY_KEYS.X_KEY])
        nll_protein_n = -self._protein_log_likelihood(tensors, generative_outputs["py"])
        nll_z1_n, kl_z2_n, kl_class_n = self._latent_terms(qz1, z1_nk)
        kl_background_n = self._background_divergence(tensors, generative_outputs)
        kl_l_n = 0.0 if ql is None else kl_divergence(ql, generative_outputs["pl"]).sum(-1)
        under_weight_n = pro_recons_weight * nll_protein_n + kl_z2_n + kl_class_n + kl_background_n
        weighted, classified = self._classified(labelled_tensors, classification_ratio)
        return LossOutput(
            loss=(nll_gene_n + nll_z1_n + kl_l_n + kl_weight * under_weight_n).mean() + weighted,
            reconstruction_loss={"reconst_loss_gene": nll_gene_n, "reconst_loss_protein": nll_protein_n},
            kl_local={
                "kl_div_back_pro": kl_background_n,
                "kl_divergence": kl_z2_n,
                "kl_divergence_class": kl_class_n,
            },
            extra_metrics=self._autotune_payload(tensors, inference_outputs),
            **classified,
        )
