r"""Variational autoencoder of counts and cell types (scANVI).

.. math::

    y_n &\sim \mathrm{Cat}(\pi), \qquad z_{2n} \sim N(0, I), \qquad
    z_{1n} \sim N(\mu(z_{2n}, y_n), \sigma^2(z_{2n}, y_n)), \qquad x_n \sim p(x \mid z_{1n}) \text{ as in scVI} \\
    \mathcal{L} &= \tfrac{1}{N} \sum_n \Big[ -\log p(x_n \mid z_{1n}) + \log q(z_{1n} \mid x_n)
        - \textstyle\sum_y q_{ny} \log p(z_{1n} \mid z_{2ny}, y) \\
    &\quad + w \big( \textstyle\sum_y q_{ny} \mathrm{KL}(q(z_2 \mid z_{1n}, y) \,\|\, N(0, I))
        + \mathrm{KL}(q_n \,\|\, \pi) + \mathrm{KL}(q(\ell_n) \,\|\, p(\ell_n)) \big) \Big]
        - \tfrac{r}{M} \sum_m \log q(y_m \mid x_m)

with :math:`q_{ny} = q(y \mid z_{1n})` the classifier, and the last term over M labelled cells.

Dims: n cells, g genes, k latents, c classes, m labelled cells.
Reference: Xu, Lopez, Mehlman, Regier, Jordan and Yosef, Molecular Systems Biology 2021 (:cite:p:`Xu21`).
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.distributions import kl_divergence

from ..core import REGISTRY_KEYS, checked
from .base import LossOutput, auto_move_data
from .classes import ClassesModule
from .likelihoods import Dispersion, GeneLikelihood, Placement, log_likelihood, norms
from .vae import VAE

__all__ = ["SCANVAE"]

_LOGITS_SINCE = (1, 1)
"""Version of scvi-tools since which its classifiers give logits."""


class SCANVAE(ClassesModule, VAE):
    """Semi-supervised variational autoencoder: :class:`~celbo.module.VAE` with a class above the latents.

    Label codes ``0 .. n_labels - 1`` are classes; ``n_labels`` is the code of a cell without label.

    Parameters
    ----------
    n_input, n_batch, n_hidden, n_latent, n_layers, n_continuous_cov, n_cats_per_cov, dropout_rate, log_variational
        See :class:`~celbo.module.VAE`.
    n_labels
        Number of classes, cells without label apart.
    dispersion, gene_likelihood, use_observed_lib_size, use_batch_norm, use_layer_norm
        See :class:`~celbo.module.VAE`. With ``"gene-label"`` each class has a dispersion, and cells without label
        share one of their own: ``px_r`` is ``(g, c + 1)``.
    y_prior
        Prior probability of each class, ``(1, c)``; all equal when not given.
    labels_groups, use_labels_groups
        Classes in groups: not there, see Raises.
    linear_classifier
        Whether the classifier has no hidden layers.
    classifier_parameters
        Further arguments of :class:`~celbo.module.Classifier`.
    **vae_kwargs
        Further arguments of :class:`~celbo.module.VAE`.

    Raises
    ------
    ValueError
        No class at all.
    NotImplementedError
        ``use_labels_groups=True``.
    """

    @checked
    def __init__(
        self,
        n_input: int,
        n_batch: int = 0,
        n_labels: int = 0,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        n_continuous_cov: int = 0,
        n_cats_per_cov: list[int] | None = None,
        dropout_rate: float = 0.1,
        dispersion: Dispersion = "gene",
        log_variational: bool = True,
        gene_likelihood: GeneLikelihood = "zinb",
        use_observed_lib_size: bool = True,
        y_prior: Tensor | None = None,
        labels_groups: list[int] | None = None,
        use_labels_groups: bool = False,
        linear_classifier: bool = False,
        classifier_parameters: dict[str, Any] | None = None,
        use_batch_norm: Placement = "both",
        use_layer_norm: Placement = "none",
        **vae_kwargs: Any,
    ) -> None:
        if n_labels < 1:
            raise ValueError(f"SCANVAE needs n_labels of at least 1 class, got {n_labels}.")
        if use_labels_groups:
            raise NotImplementedError("use_labels_groups: classes in groups are not written. Leave the argument out.")
        super().__init__(
            n_input=n_input,
            n_batch=n_batch,
            n_labels=n_labels + 1,  # cells without label have a code, hence a dispersion, too
            n_hidden=n_hidden,
            n_latent=n_latent,
            n_layers=n_layers,
            n_continuous_cov=n_continuous_cov,
            n_cats_per_cov=n_cats_per_cov,
            dropout_rate=dropout_rate,
            dispersion=dispersion,
            log_variational=log_variational,
            gene_likelihood=gene_likelihood,
            use_observed_lib_size=use_observed_lib_size,
            use_batch_norm=use_batch_norm,
            use_layer_norm=use_layer_norm,
            **vae_kwargs,
        )
        sizes: dict[str, Any] = {"n_layers": n_layers, "n_hidden": n_hidden}
        encoding = {"dropout_rate": dropout_rate, **norms("encoder", use_batch_norm, use_layer_norm)}
        depth = {"n_layers": 0, "n_hidden": 0} if linear_classifier else sizes
        classifier = depth | encoding | {"logits": True} | (classifier_parameters or {})
        decoding = norms("decoder", use_batch_norm, use_layer_norm)
        self._make_classes(n_latent, n_labels, y_prior, classifier, sizes | encoding, sizes | decoding)

    def on_load(self, model: Any, **kwargs: Any) -> None:
        """Let a classifier saved by scvi-tools before 1.1 give probabilities, as it did there.

        Parameters
        ----------
        model
            The model that is being loaded.
        **kwargs
            ``scvi_version``: version that the archive names.
        """
        if _version(kwargs.get("scvi_version")) < _LOGITS_SINCE:
            self.classifier.append_softmax()
            model.init_params_ = _with_probabilities(model.init_params_)  # an archive made of this model names today

    @auto_move_data
    def classify(
        self,
        x: Tensor,
        batch_index: Tensor | None = None,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        use_posterior_mean: bool = True,
    ) -> Tensor:
        """Classify cells.

        Parameters
        ----------
        x
            Counts, ``(n, g)``.
        batch_index, cont_covs, cat_covs
            As in :meth:`~celbo.module.VAE.inference`; looked at where the encoder sees covariates.
        use_posterior_mean
            Classify the mean of the latents' posterior, or a draw from it.

        Returns
        -------
        What the classifier gives, ``(n, c)``: logits, or probabilities (see ``classifier.logits``).
        """
        encoded, codes = self._encoder_input(x, batch_index, cont_covs, cat_covs)
        qz, z = self.z_encoder(encoded, *codes)
        return self.classifier(qz.loc if use_posterior_mean else z)

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
        labelled_tensors: Mapping[str, Tensor] | None = None,
        classification_ratio: float | None = None,
    ) -> LossOutput:
        """Negative evidence lower bound and, for labelled cells, the classification loss; the formula is the file's.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            Minibatch, and what was made of it.
        kl_weight
            Weight of the KL divergences.
        labelled_tensors
            Minibatch of cells with a label.
        classification_ratio
            Weight of the classification loss; 1 when not given.

        Returns
        -------
        ``reconstruction_loss`` holds the terms of ``z1`` too (they are not weighted); ``kl_local`` those of ``z2``, the
        class and the library.
        """
        qz1, z1_nk, ql = inference_outputs["qz"], inference_outputs["z"], inference_outputs["ql"]
        nll_z1_n, kl_z2_n, kl_class_n = self._latent_terms(qz1, z1_nk)
        reconstruction_n = nll_z1_n - log_likelihood(generative_outputs["px"], tensors[REGISTRY_KEYS.X_KEY])
        kl_n = kl_z2_n + kl_class_n
        if ql is not None:
            kl_n = kl_n + kl_divergence(ql, generative_outputs["pl"]).sum(-1)
        loss = (reconstruction_n + kl_weight * kl_n).mean()
        weighted, classified = self._classified(labelled_tensors, classification_ratio)
        return LossOutput(
            loss=loss + weighted,
            reconstruction_loss=reconstruction_n,
            kl_local=kl_n,
            extra_metrics=self._autotune_payload(tensors, inference_outputs),
            **classified,
        )


def _with_probabilities(init_params: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of a model whose classifier gives probabilities."""
    arguments = dict(init_params["kwargs"].get("model_kwargs", {}))
    arguments["classifier_parameters"] = {**(arguments.get("classifier_parameters") or {}), "logits": False}
    return {**init_params, "kwargs": {**init_params["kwargs"], "model_kwargs": arguments}}


def _version(text: str | None) -> tuple[int, int]:
    """Major and minor number; that of today where an archive names none."""
    numbers = re.match(r"(\d+)\.(\d+)", text or "")
    return _LOGITS_SINCE if numbers is None else (int(numbers[1]), int(numbers[2]))
