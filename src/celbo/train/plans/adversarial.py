r"""AdversarialTrainingPlan: a classifier guesses the batch from the latents, and the module learns to mislead it.

.. math::
    \text{module:} \quad & \mathcal{L} - \kappa \tfrac{1}{N} \sum_n \tfrac{1}{B - 1} \sum_{b \ne b_n} \log q(b \mid z_n)
    \\
    \text{classifier:} \quad & - \kappa \tfrac{1}{N} \sum_n \log q(b_n \mid z_n)

with :math:`\kappa` a number or one less the KL weight.

Dims: n cells, k latents, b batches.
"""

import warnings
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch.nn.functional as F
from torch import Tensor

from ...core import REGISTRY_KEYS, checked, settings
from ...core.kinds import Number
from ...module import Classifier
from ...module.base import BaseModuleClass
from ...ops.draws import initial_weights
from ..config import flatten_config
from ..optim import Adam
from .base import Step
from .elbo import TrainingPlan

__all__ = ["AdversarialTrainingPlan", "AdversarialTrainingPlanConfig", "adversary_settings"]

_WEIGHT = "adversarial_weight"

_EPS = 0.01  # of the classifier's optimizer

_RATES, _RATE_BY_CELLS = (1e-3, 5e-3), 2.0
"""Few cells are few steps: at .001, scvi-tools', it lags behind, and steps against an old guess do not mix batches."""

_NEVER_ON = (
    "scale_adversarial_loss='auto' is one less the KL weight, and without a KL warm-up that is {weight:g} throughout: "
    "the adversarial classifier would do nothing. Give scale_adversarial_loss a number, or plan a warm-up "
    "(n_epochs_kl_warmup; recipe='classic' has one)."
)


def adversary_settings(adversary: Any, recipe: str, n_cells: int) -> dict[str, Any]:
    """Settings of the plan: the adversary and, but for ``classic``, a rate of its classifier for so many cells."""
    if recipe == "classic" or not adversary:
        return {"adversarial_classifier": adversary}
    least, most = _RATES
    return {
        "adversarial_classifier": adversary,
        "classifier_lr": max(least, min(most, _RATE_BY_CELLS / max(1, n_cells))),
    }


class AdversarialTrainingPlan(TrainingPlan):
    """Plan that takes the batch out of the latents by means of an adversary.

    Each minibatch is one step of the module, which is told to let the classifier guess every wrong batch alike, and
    one of the classifier. The history has ``fool_loss_train`` and ``adversarial_loss_train``, what either gets, not yet
    weighted, while there is weight; ``train_loss`` has the weighted fool loss in it.

    Parameters
    ----------
    module
        Its ``inference`` gives latents ``z`` ``(n, k)``; it has ``n_latent`` and ``n_batch``.
    adversarial_classifier
        True makes a classifier of two hidden layers of 32; or a :class:`~celbo.module.Classifier` with an output a
        batch. False, or data of one batch: none, and the plan is a :class:`~celbo.train.TrainingPlan`.
    scale_adversarial_loss
        Weight of the adversary, or ``"auto"``: one less the KL weight. Much more than 3 makes latents swing instead of
        mix: the module overshoots what it is told.
    classifier_lr
        Learning rate of the classifier, throughout. One that is slow beside the module's lags behind latents that move.
    **plan_kwargs
        All else of :class:`~celbo.train.TrainingPlan`, with its defaults.

    Raises
    ------
    ValueError
        A weight that would be 0 throughout.

    Warns
    -----
    UserWarning
        A classifier was asked for, and there is one batch only.

    Notes
    -----
    In scvi-tools each minibatch counts as two steps, so that ``n_steps_kl_warmup`` ends after half as many; here it
    counts as one.
    """

    _recipe = "classic"  # the adversary weighs one less the KL weight, and one_cycle has no warm-up of that

    @checked
    def __init__(
        self,
        module: BaseModuleClass,
        *,
        adversarial_classifier: bool | Classifier = False,
        scale_adversarial_loss: float | Literal["auto"] = "auto",
        classifier_lr: Annotated[float, Number(0, above=True)] = 1e-3,
        **plan_kwargs: Any,
    ) -> None:
        super().__init__(module, **plan_kwargs)
        self.scale_adversarial_loss, self.classifier_lr = scale_adversarial_loss, classifier_lr
        self.adversarial_classifier = _as_classifier(adversarial_classifier, module)
        if self.adversarial_classifier is False:
            return
        if not (self.n_epochs_kl_warmup or self.n_steps_kl_warmup) and self.adversarial_weight <= 0:
            raise ValueError(_NEVER_ON.format(weight=self.adversarial_weight))
        # a run that diverged starts again from these
        self._initial = {name: value.clone() for name, value in self.adversarial_classifier.state_dict().items()}

    @property
    def adversarial_weight(self) -> float:
        """Weight of the adversary in the current step."""
        return 1 - self.kl_weight if self.scale_adversarial_loss == "auto" else float(self.scale_adversarial_loss)

    def numbers(self) -> dict[str, float]:
        """The weight of the adversary too."""
        return super().numbers() | {_WEIGHT: self.adversarial_weight}

    def form(self) -> Hashable | None:
        """Whether the adversary has a weight."""
        form = super().form()
        return None if form is None else self.adversarial_weight > 0

    def loss_adversarial_classifier(self, z: Tensor, batch_index: Tensor, predict_true_class: bool = True) -> Tensor:
        """Cross-entropy of the batch as the classifier guesses it.

        Parameters
        ----------
        z
            Latents, ``(n, k)``.
        batch_index
            Codes, ``(n, 1)``.
        predict_true_class
            Whether the target is the true batch, or all others alike.

        Returns
        -------
        Mean over cells in nats.
        """
        assert isinstance(self.adversarial_classifier, Classifier)
        log_q_nb = self.adversarial_classifier.log_probs(z)
        n_batch = log_q_nb.shape[1]
        true_nb = F.one_hot(batch_index.reshape(-1).long(), n_batch)
        target_nb = true_nb if predict_true_class else (1 - true_nb) / (n_batch - 1)
        return -(target_nb * log_q_nb).sum(1).mean()

    def _batches_of(self, batch: Any) -> Tensor:
        """What the classifier is to guess, ``(n, 1)``: the batch of each cell of a minibatch."""
        return batch[REGISTRY_KEYS.BATCH_KEY]

    def steps(self, batch: Any, batch_idx: int) -> Iterator[Step]:
        """A step of the module under the current weights of KL and adversary, and one of the classifier."""
        if self.adversarial_classifier is False:
            yield from super().steps(batch, batch_idx)
            return
        self.begin_step()
        is_on, weight = self.adversarial_weight > 0, self.on_device.get(_WEIGHT, self.adversarial_weight)
        outputs, record = self._passed(batch)
        z_nk, batch_index = outputs["z"], self._batches_of(batch)
        if is_on:
            fool = self.loss_adversarial_classifier(z_nk, batch_index, predict_true_class=False)
            extra = record.extra_metrics | {"fool_loss": fool.detach()}
            record = record.replace(loss=record.loss + weight * fool, extra_metrics=extra)
        self.last_loss_output = record
        yield Step(record.loss, record, optimizer=0)
        if is_on:
            guess = self.loss_adversarial_classifier(z_nk.detach(), batch_index)
            yield Step(weight * guess, optimizer=1)
            record = record.replace(extra_metrics=record.extra_metrics | {"adversarial_loss": guess.detach()})
        if self.on_step:
            self.step_values["train_loss"] = record.loss.detach()
        self.compute_and_log_metrics(record, self.train_metrics, "train")

    def configure_optimizers(self) -> Any:
        """The module's optimizer with its schedule and, where there is one, the classifier's."""
        of_module = super().configure_optimizers()
        if self.adversarial_classifier is False:
            return of_module
        assert isinstance(self.adversarial_classifier, Classifier)
        self.adversarial_classifier.load_state_dict(self._initial)
        parameters = [p for p in self.adversarial_classifier.parameters() if p.requires_grad]
        settings_of_it = {"lr": self.classifier_lr, "eps": _EPS, "weight_decay": self.weight_decay}
        return [of_module, {"optimizer": Adam(parameters, **settings_of_it)}]


def _as_classifier(asked: bool | Classifier, module: Any) -> Classifier | Literal[False]:
    if asked is False:
        return False
    if module.n_batch < 2:
        warnings.warn(
            "There is one batch only: training goes without the adversarial classifier.",
            UserWarning,
            stacklevel=settings.warnings_stacklevel + 2,
        )
        return False
    if asked is not True:
        return asked
    with initial_weights(settings.seed):
        return Classifier(module.n_latent, n_hidden=32, n_labels=module.n_batch, n_layers=2, logits=True)


@checked
@dataclass
class AdversarialTrainingPlanConfig:
    """Arguments of :class:`AdversarialTrainingPlan`, with scvi-tools' defaults; see there."""

    optimizer: Literal["Adam", "AdamW", "Custom"] = "Adam"
    optimizer_creator: Any = None
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
    compile: bool = False
    compile_kwargs: dict[str, Any] | None = None
    loss_kwargs: dict[str, Any] = field(default_factory=dict)

    def to_kwargs(self) -> dict[str, Any]:
        """As keyword arguments of the plan."""
        return flatten_config(self, "loss_kwargs")
