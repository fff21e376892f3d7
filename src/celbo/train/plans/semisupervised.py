"""SemiSupervisedTrainingPlan: pairs of minibatches, all cells and those with a label."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from ...core import checked
from ...module.base import BaseModuleClass, LossOutput
from ..config import flatten_config
from .classification import METRIC_KEYS, classification_metrics
from .elbo import TrainingPlan

__all__ = ["SemiSupervisedTrainingPlan", "SemiSupervisedTrainingPlanConfig", "full_and_labelled"]


class SemiSupervisedTrainingPlan(TrainingPlan):
    """Plan of modules that classify.

    A minibatch is a pair, of all cells and of labelled ones (see :class:`~celbo.dataloaders.SemiSupervisedDataLoader`);
    where it is a single one, or the second is None, there is no classification loss. The history has
    ``train_classification_loss``, ``train_accuracy``, ``train_f1_score`` and ``train_calibration_error`` (micro
    averages of each labelled minibatch, averaged with the number of all cells as weight), and the same for
    ``validation_``.

    Parameters
    ----------
    module
        Its ``loss`` takes ``labelled_tensors`` and ``classification_ratio``.
    n_classes
        Number of classes.
    classification_ratio
        Weight of the classification loss.
    **plan_kwargs
        ``lr``, ``weight_decay``, ``n_epochs_kl_warmup`` and all else of :class:`~celbo.train.TrainingPlan`, with its
        defaults.

    Raises
    ------
    TypeError
        A keyword that neither the plan nor ``module.loss`` has, or a loss without ``labelled_tensors``.
    """

    # Few labels are learned late, and overfitted where they weigh 50 times. Accuracy on cells without label, medians of
    # three splits: sorted blood cells 0.958 classic, 0.954 one_cycle, 0.968 long_cycle; 3,000 weakly different
    # simulated cells 0.960, not measured, 0.965. The epoch of the best ELBO is not that of the best labels, so the
    # last weights are kept.
    _recipe = "long_cycle"
    _recipe_kwargs: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        recipe: {"classification_ratio": 10} for recipe in ("long_cycle", "brief_cycle")
    }

    @checked
    def __init__(
        self, module: BaseModuleClass, n_classes: int, *, classification_ratio: float = 50, **plan_kwargs: Any
    ) -> None:
        super().__init__(module, classification_ratio=classification_ratio, **plan_kwargs)
        if "labelled_tensors" not in self._loss_args:
            raise TypeError(
                f"{type(module).__name__}.loss has no argument 'labelled_tensors': use TrainingPlan for it."
            )
        self.n_classes = n_classes

    def _passed(self, batch: object) -> tuple[Any, LossOutput]:
        full, labelled = full_and_labelled(batch)
        loss_kwargs = self.arguments_of_loss() | ({} if labelled is None else {"labelled_tensors": labelled})
        outputs, _, record = self.forward(full, loss_kwargs=loss_kwargs)
        return outputs, record

    def log_with_mode(self, key: str, value: Tensor | float, mode: str, **kwargs: Any) -> None:
        """Log a number as ``{mode}_{key}``; see :meth:`Plan.log <celbo.train.Plan.log>`."""
        self.log(f"{mode}_{key}", value, **kwargs)

    def compute_and_log_metrics(self, loss_output: LossOutput, metrics: object, mode: str) -> None:
        """As the base plan's, and the classification metrics where the minibatch has labelled cells."""
        super().compute_and_log_metrics(loss_output, metrics, mode)
        if loss_output.classification_loss is None:
            return
        assert loss_output.logits is not None
        assert loss_output.true_labels is not None
        values = {METRIC_KEYS.CLASSIFICATION_LOSS_KEY: loss_output.classification_loss}
        values |= classification_metrics(loss_output.logits.detach(), loss_output.true_labels)
        for key, value in values.items():
            self.log_with_mode(key, value, mode, batch_size=loss_output.n_obs_minibatch)


def full_and_labelled(batch: Any) -> tuple[Any, Any]:
    """The minibatch of all cells, and that of labelled ones; None where there is none."""
    full, labelled = batch if isinstance(batch, tuple | list) else (batch, None)
    return full, labelled


@checked
@dataclass
class SemiSupervisedTrainingPlanConfig:
    """Arguments of :class:`SemiSupervisedTrainingPlan`, with scvi-tools' defaults; see there."""

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
    compile: bool = False
    compile_kwargs: dict[str, Any] | None = None
    loss_kwargs: dict[str, Any] = field(default_factory=dict)

    def to_kwargs(self) -> dict[str, Any]:
        """As keyword arguments of the plan."""
        return flatten_config(self, "loss_kwargs")
