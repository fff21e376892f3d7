r"""Variational autoencoder of DNA methylation and cell types (methylANVI).

.. math::

    y_n \sim \mathrm{Cat}(\pi), \quad z_{2n} \sim N(0, I), \quad z_{1n} \sim N(\mu(z_{2n}, y_n), \sigma^2(z_{2n}, y_n)),
    \quad \text{reads} \mid z_{1n} \text{ as in methylVI}

with the loss of scANVI (:mod:`celbo.module.scanvae`), without a library.

Dims: n cells, g regions of all contexts, k latents, c classes, m labelled cells.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ...core import checked
from ...module.base import LossOutput, auto_move_data
from ...module.classes import ClassesModule
from ...module.likelihoods import Placement, norms
from .module import METHYLVAE, MethylationDispersion, MethylationLikelihood

__all__ = ["METHYLANVAE"]


class METHYLANVAE(ClassesModule, METHYLVAE):
    """Semi-supervised variational autoencoder: :class:`METHYLVAE` with a class above the latents.

    Label codes ``0 .. n_labels - 1`` are classes; ``n_labels`` is the code of a cell without label.

    Parameters
    ----------
    n_input, contexts, num_features_per_context, n_batch, n_cats_per_cov, n_hidden, n_latent, n_layers, dropout_rate
        See :class:`METHYLVAE`.
    n_labels
        Number of classes, cells without label apart.
    likelihood, dispersion, log_variational
        See :class:`METHYLVAE`.
    y_prior
        Prior probability of each class, ``(1, c)``; all equal when not given.
    labels_groups, use_labels_groups
        Classes in groups: not there, see Raises.
    linear_classifier
        Whether the classifier has no hidden layers.
    classifier_parameters
        Further arguments of :class:`~celbo.module.Classifier`.
    use_batch_norm, use_layer_norm
        Where the networks between the latents and the classifier have them: ``"encoder"``, ``"decoder"``, ``"none"`` or
        ``"both"``.

    Raises
    ------
    ValueError
        No class at all.
    NotImplementedError
        ``use_labels_groups=True``.
    """

    classified_by: ClassVar[tuple[str, ...]] = ("mc", "cov", "batch_index", "cat_covs")
    attributed_to: ClassVar[tuple[str, ...]] = ("mc", "cov")

    @checked
    def __init__(
        self,
        n_input: int,
        contexts: Sequence[str],
        num_features_per_context: Sequence[int],
        n_batch: int = 0,
        n_cats_per_cov: list[int] | None = None,
        n_labels: int = 0,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        likelihood: MethylationLikelihood = "betabinomial",
        dispersion: MethylationDispersion = "region",
        y_prior: Tensor | None = None,
        labels_groups: list[int] | None = None,
        use_labels_groups: bool = False,
        linear_classifier: bool = False,
        classifier_parameters: dict[str, Any] | None = None,
        use_batch_norm: Placement = "both",
        use_layer_norm: Placement = "none",
        log_variational: bool = True,
    ) -> None:
        if n_labels < 1:
            raise ValueError(f"METHYLANVAE needs n_labels of at least 1 class, got {n_labels}.")
        if use_labels_groups:
            raise NotImplementedError("use_labels_groups: classes in groups are not written. Leave the argument out.")
        super().__init__(
            n_input,
            contexts,
            num_features_per_context,
            n_batch,
            n_cats_per_cov,
            n_hidden,
            n_latent,
            n_layers,
            dropout_rate,
            log_variational,
            likelihood,
            dispersion,
        )
        sizes: dict[str, Any] = {"n_layers": n_layers, "n_hidden": n_hidden}
        encoding = {"dropout_rate": dropout_rate, **norms("encoder", use_batch_norm, use_layer_norm)}
        depth = {"n_layers": 0, "n_hidden": 0} if linear_classifier else sizes
        classifier = depth | encoding | {"logits": True} | (classifier_parameters or {})
        decoding = norms("decoder", use_batch_norm, use_layer_norm)
        self._make_classes(n_latent, n_labels, y_prior, classifier, sizes | encoding, sizes | decoding)

    @auto_move_data
    def classify(  # type: ignore[override]  # methylated reads come first, then all
        self,
        mc: Tensor,
        cov: Tensor,
        batch_index: Tensor,
        cat_covs: Tensor | None = None,
        use_posterior_mean: bool = True,
    ) -> Tensor:
        """Classify cells.

        Parameters
        ----------
        mc, cov, batch_index, cat_covs
            As in :meth:`METHYLVAE.inference`.
        use_posterior_mean
            Classify the mean of the latents' posterior, or a draw from it.

        Returns
        -------
        What the classifier gives, ``(n, c)``: logits, or probabilities (see ``classifier.logits``).
        """
        encoded = self.inference(mc, cov, batch_index, cat_covs)
        return self.classifier(encoded["qz"].loc if use_posterior_mean else encoded["z"])

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
        labelled_tensors: Mapping[str, Tensor] | None = None,
        classification_ratio: float | None = None,
    ) -> LossOutput:
        """As :meth:`celbo.module.SCANVAE.loss`, of methylated reads.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs, kl_weight, labelled_tensors, classification_ratio
            As there.

        Returns
        -------
        ``reconstruction_loss`` holds the terms of ``z1`` too (they are not weighted); ``kl_local`` those of ``z2`` and
        the class.
        """
        nll_z1_n, kl_z2_n, kl_class_n = self._latent_terms(inference_outputs["qz"], inference_outputs["z"])
        reconstruction_n = nll_z1_n - self.log_likelihood(tensors, generative_outputs)
        kl_n = kl_z2_n + kl_class_n
        weighted, classified = self._classified(labelled_tensors, classification_ratio)
        return LossOutput(
            loss=(reconstruction_n + kl_weight * kl_n).mean() + weighted,
            reconstruction_loss=reconstruction_n,
            kl_local=kl_n,
            **classified,
        )
