r"""The training plan of two data sets in one latent space.

.. math:: \frac{1}{N_1 + N_2} \sum_d N_d\, \mathcal{L}_d - \kappa\, \frac{1}{N_1 + N_2} \sum_n \log q(\bar d_n \mid z_n)

with :math:`N_d` cells of data set d in a minibatch, and :math:`\bar d_n` the data set that cell n is not of.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ...core import checked, settings
from ...module import Classifier
from ...module.base import LossOutput
from ...ops.draws import initial_weights
from ...train.plans.adversarial import AdversarialTrainingPlan
from .module import JVAE

__all__ = ["TwoSetsPlan"]

Parts = Sequence[Mapping[str, Tensor] | None]


class TwoSetsPlan(AdversarialTrainingPlan):
    """Plan for minibatches of two data sets, with an adversary that guesses which of them a cell is of.

    Parameters
    ----------
    module
        The module.
    adversarial_classifier
        True makes a classifier of three hidden layers of 32, with an output each data set.
    scale_adversarial_loss
        Weight of the adversary; 0 leaves it out.
    **plan_kwargs
        All else of :class:`~celbo.train.TrainingPlan`, with its defaults.
    """

    @checked
    def __init__(
        self,
        module: JVAE,
        *,
        adversarial_classifier: bool | Classifier = True,
        scale_adversarial_loss: float | Literal["auto"] = 5,
        **plan_kwargs: Any,
    ) -> None:
        if adversarial_classifier is True:
            with initial_weights(settings.seed):
                adversarial_classifier = Classifier(module.n_latent, n_hidden=32, n_labels=2, n_layers=3, logits=True)
        super().__init__(
            module,
            adversarial_classifier=scale_adversarial_loss != 0 and adversarial_classifier,
            scale_adversarial_loss=scale_adversarial_loss,
            **plan_kwargs,
        )

    def _batches_of(self, batch: Parts) -> Tensor:
        cells = [next(iter(part.values())) for part in batch if part is not None]
        return torch.cat([one.new_full((len(one), 1), place, dtype=torch.long) for place, one in enumerate(cells)])

    def forward(self, batch: Parts, *, loss_kwargs: Mapping[str, Any], **kwargs: Any) -> Any:
        """Pass the minibatch of each data set through the module, and take the mean over all cells.

        Parameters
        ----------
        batch
            A minibatch of each data set, or None.
        loss_kwargs, **kwargs
            As for the module.
        """
        passed = [
            super(TwoSetsPlan, self).forward(
                tensors,
                inference_kwargs={"mode": mode},
                generative_kwargs={"mode": mode},
                loss_kwargs={**loss_kwargs, "mode": mode},
            )
            for mode, tensors in enumerate(batch)
            if tensors is not None
        ]
        z_nk = torch.cat([encoded["z"] for encoded, _, _ in passed])
        return {"z": z_nk}, [decoded for _, decoded, _ in passed], _joined([record for _, _, record in passed])


def _joined(records: Sequence[LossOutput]) -> LossOutput:
    n = [record.n_obs_minibatch or 0 for record in records]
    loss = sum(record.loss * n_cells for record, n_cells in zip(records, n, strict=True)) / sum(n)
    terms = [(record.reconstruction_loss, record.kl_local) for record in records]
    nll_n, kl_n = (torch.cat([next(iter(term.values())) for term in kind]) for kind in zip(*terms, strict=True))
    return LossOutput(loss, reconstruction_loss=nll_n, kl_local=kl_n)
