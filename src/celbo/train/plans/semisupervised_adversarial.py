"""SemiSupervisedAdversarialTrainingPlan: labels are learned, and the batch is taken out of the latents meanwhile."""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from ...core import REGISTRY_KEYS, checked
from ...module import Classifier
from ...module.base import BaseModuleClass
from ..config import flatten_config
from .adversarial import AdversarialTrainingPlan
from .semisupervised import SemiSupervisedTrainingPlan, full_and_labelled

__all__ = ["SemiSupervisedAdversarialTrainingPlan", "SemiSupervisedAdversarialTrainingPlanConfig"]


class SemiSupervisedAdversarialTrainingPlan(AdversarialTrainingPlan, SemiSupervisedTrainingPlan):
    """Plan of modules that classify, with an adversary that guesses the batch of all cells from their latents.

    Each pair of minibatches, of all cells and of labelled ones, is one step of the module and one of the adversary's
    classifier; see :class:`~celbo.train.AdversarialTrainingPlan` and :class:`~celbo.train.SemiSupervisedTrainingPlan`.

    Parameters
    ----------
    module, n_classes, classification_ratio
        See :class:`~celbo.train.SemiSupervisedTrainingPlan`.
    key_adversarial
        Registry key of what the adversary guesses.
    adversarial_classifier
        True makes one for the batch, or a :class:`~celbo.module.Classifier` with an output for each category.
        False: none, and the plan is a :class:`~celbo.train.SemiSupervisedTrainingPlan`.
    scale_adversarial_loss
        See :class:`~celbo.train.AdversarialTrainingPlan`.
    **plan_kwargs
        All else of :class:`~celbo.train.TrainingPlan`, with its defaults.

    Raises
    ------
    ValueError
        ``adversarial_classifier=True`` for something else than the batch, or a weight that would be 0 throughout.
    """

    _recipe = SemiSupervisedTrainingPlan._recipe  # without an adversary; models with one train by "classic"

    @checked
    def __init__(
        self,
        module: BaseModuleClass,
        n_classes: int,
        *,
        key_adversarial: str = REGISTRY_KEYS.BATCH_KEY,
        classification_ratio: float = 50,
        adversarial_classifier: bool | Classifier = False,
        scale_adversarial_loss: float | Literal["auto"] = "auto",
        **plan_kwargs: Any,
    ) -> None:
        if adversarial_classifier is True and key_adversarial != REGISTRY_KEYS.BATCH_KEY:
            raise ValueError(
                f"adversarial_classifier=True guesses the batch: for key_adversarial={key_adversarial!r} pass a "
                "Classifier with an output for each category."
            )
        super().__init__(
            module,
            n_classes=n_classes,
            classification_ratio=classification_ratio,
            adversarial_classifier=adversarial_classifier,
            scale_adversarial_loss=scale_adversarial_loss,
            **plan_kwargs,
        )
        self.key_adversarial = key_adversarial

    def _batches_of(self, batch: Any) -> Tensor:
        full, _ = full_and_labelled(batch)
        return full[self.key_adversarial]


@checked
@dataclass
class SemiSupervisedAdversarialTrainingPlanConfig:
    """Arguments of :class:`SemiSupervisedAdversarialTrainingPlan`, with scvi-tools' defaults; see there."""

    key_adversarial: str = REGISTRY_KEYS.BATCH_KEY
    optimizer: Literal["Adam", "AdamW", "Custom"] = "Adam"
    optimizer_creator: Any = None
    classification_ratio: float = 50
    lr: float = 1e-3
    weight_decay: float = 1e-6
    n_steps_kl_warmup: int | None = None
    n_epochs_kl_warmup: int | None = 400
    reduce_lr_on_plateau: bool = False
    lr_factor: float = 0.6
    lr_patience: int = 30
    lr_threshold: float = 0.0
    lr_scheduler_metric: Literal["elbo_validation", "reconstruction_loss_validation", "kl_local_validation"] = (
        "elbo_validation"
    )
    lr_min: float = 0.0
    adversarial_classifier: bool | Any = False
    scale_adversarial_loss: float | Literal["auto"] = "auto"
    loss_kwargs: dict[str, Any] = field(default_factory=dict)

    def to_kwargs(self) -> dict[str, Any]:
        """As keyword arguments of the plan."""
        return flatten_config(self, "loss_kwargs")
