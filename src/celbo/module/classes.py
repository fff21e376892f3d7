r"""A class above the latents (scANVI): what semi-supervised autoencoders share.

.. math:: y_n \sim \mathrm{Cat}(\pi), \qquad z_{2n} \sim N(0, I), \qquad
          z_{1n} \sim N(\mu(z_{2n}, y_n), \sigma^2(z_{2n}, y_n))

Dims: n cells, k latents, c classes, m labelled cells.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from ..core import REGISTRY_KEYS
from ..nn import Decoder, Encoder
from .base import BaseModuleClass
from .classifier import Classifier

__all__ = ["ClassesModule"]


class ClassesModule(BaseModuleClass):
    """Mixin of modules whose latents have a class above them.

    A subclass calls :meth:`_make_classes` in its constructor and has ``classify``, whose arguments, bound to the
    minibatch as those of ``inference``, are named in ``classified_by``. Those in ``attributed_to``, ``(n, g)`` each,
    are what a class is explained by, feature by feature.
    """

    classified_by: ClassVar[tuple[str, ...]] = ("x", "batch_index", "cont_covs", "cat_covs")
    attributed_to: ClassVar[tuple[str, ...]] = ("x",)

    n_labels: int
    y_prior: Tensor

    def _make_classes(
        self,
        n_latent: int,
        n_labels: int,
        y_prior: Tensor | None,
        classifier: Mapping[str, Any],
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
    ) -> None:
        """Make the prior of the classes, the classifier, and the networks between the two latents.

        Parameters
        ----------
        n_latent, n_labels
            Size of the latents; number of classes, cells without label apart.
        y_prior
            Prior probability of each class, ``(1, c)``; all equal when not given.
        classifier, encoder, decoder
            Arguments of the networks.
        """
        self.n_labels = n_labels
        prior_1c = torch.full((1, n_labels), 1 / n_labels) if y_prior is None else torch.as_tensor(y_prior)
        self.y_prior = nn.Parameter(prior_1c.float().reshape(1, n_labels), requires_grad=False)
        self.classifier = Classifier(n_latent, n_labels=n_labels, **classifier)
        seen: dict[str, Any] = {"n_cat_list": [n_labels]}
        self.encoder_z2_z1 = Encoder(n_latent, n_latent, return_dist=True, **seen, **encoder)
        self.decoder_z1_z2 = Decoder(n_latent, n_latent, **seen, **decoder)

    def classify(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What the classifier gives for cells, ``(n, c)``; see the class."""
        raise NotImplementedError(f"{type(self).__name__} must define classify().")

    def classify_helper(self, z: Tensor) -> Tensor:
        """What the classifier gives for latents ``(n, k)``."""
        return self.classifier(z)

    def classification_loss(self, labelled_dataset: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy of the labels of a labelled minibatch, at the mean of the latents' posterior.

        Parameters
        ----------
        labelled_dataset
            Minibatch by registry key; each label is a class.

        Returns
        -------
        The labels ``(m, 1)``; the mean cross-entropy in nats; the log-probabilities' logits ``(m, c)``.
        """
        inputs = self._get_inference_input(labelled_dataset, full_forward_pass=True)  # what is stored does not learn
        output_mc = self.classify(**{name: inputs[name] for name in self.classified_by if name in inputs})
        labels_m1 = labelled_dataset[REGISTRY_KEYS.LABELS_KEY]
        logits_mc = output_mc if self.classifier.logits else self.classifier.log_probs_of(output_mc)
        return labels_m1, F.cross_entropy(logits_mc, labels_m1.reshape(-1).long()), logits_mc

    def _classified(
        self, labelled_tensors: Mapping[str, Tensor] | None, ratio: float | None
    ) -> tuple[Tensor | float, dict[str, Any]]:
        """The weighted classification loss, and its part of the record; 0 and nothing without labelled cells."""
        if labelled_tensors is None:
            return 0.0, {}
        labels, cross_entropy, logits = self.classification_loss(labelled_tensors)
        record = {"classification_loss": cross_entropy, "true_labels": labels, "logits": logits}
        return (1.0 if ratio is None else ratio) * cross_entropy, record

    def _latent_terms(self, qz1: Any, z1_nk: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""What latents and class add to the loss of each cell, ``(n,)`` each: of ``z1``, of ``z2`` and of the class.

        .. math:: \log q(z_{1n}) - \textstyle\sum_y q_{ny} \log p(z_{1n} \mid z_{2ny}, y), \qquad
                  \textstyle\sum_y q_{ny} \mathrm{KL}(q(z_2 \mid z_{1n}, y) \,\|\, N(0, I)), \qquad
                  \mathrm{KL}(q_n \,\|\, \pi)
        """
        log_q_nc = self.classifier.log_probs(z1_nk)
        q_nc = log_q_nc.exp()
        nll_z1_nc, kl_z2_nc = self._class_terms(z1_nk)
        nll_z1_n = qz1.log_prob(z1_nk).sum(-1) + (q_nc * nll_z1_nc).sum(-1)
        return nll_z1_n, (q_nc * kl_z2_nc).sum(-1), (q_nc * (log_q_nc - self.y_prior.log())).sum(-1)

    def _class_terms(self, z1_nk: Tensor) -> tuple[Tensor, Tensor]:
        """For each class, ``(n, c)``: negative log-likelihood of ``z1``, and KL of ``z2``; samples may stand before."""
        leading, c = z1_nk.shape[:-1], self.n_labels
        n = leading.numel()
        z1_cn_k = z1_nk.reshape(n, -1).repeat(c, 1)
        class_cn = torch.arange(c, device=z1_nk.device).repeat_interleave(n)
        qz2, z2_cn_k = self.encoder_z2_z1(z1_cn_k, class_cn)
        mean_cn_k, var_cn_k = self.decoder_z1_z2(z2_cn_k, class_cn)
        pz1 = Normal(mean_cn_k, var_cn_k.sqrt(), validate_args=False)
        pz2 = Normal(torch.zeros_like(z2_cn_k), torch.ones_like(z2_cn_k), validate_args=False)
        nll_cn = -pz1.log_prob(z1_cn_k).sum(-1)
        kl_cn = kl_divergence(qz2, pz2).sum(-1)
        return nll_cn.view(c, n).t().reshape(*leading, c), kl_cn.view(c, n).t().reshape(*leading, c)
