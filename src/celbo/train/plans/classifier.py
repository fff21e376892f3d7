"""ClassifierTrainingPlan: a classifier and nothing else. Its record has a classification loss, and no ELBO."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core import checked
from ...module import Classifier
from ...module.base import LossOutput
from ..optim import Adam, AdamW
from .base import Plan
from .classification import classification_metrics

__all__ = ["ClassifierTrainingPlan", "ClassifierTrainingPlanConfig"]


class ClassifierTrainingPlan(Plan):
    r"""Plan that fits a classifier to labels.

    .. math:: \mathcal{L} = -\tfrac{1}{N} \sum_n \log q(y_n \mid x_n)

    The history has ``train_loss_step``, ``train_loss_epoch`` and ``validation_loss``, and for both splits
    ``accuracy``, ``f1_score`` and ``calibration_error``, means over cells of the minibatches' values.

    Parameters
    ----------
    classifier
        Gives logits ``(n, c)``. Where it is a :class:`~celbo.module.Classifier` made with ``logits=False``, the
        logarithms of its probabilities are taken, so that the loss is the same.
    lr, weight_decay, eps
        Of the optimizer.
    optimizer
        ``"Adam"`` or ``"AdamW"``.
    data_key, labels_key
        Where a minibatch has the input ``(n, k)`` and the class codes ``(n, 1)``.
    loss
        Class (or function without arguments) of the loss, a function of logits ``(n, c)`` and codes ``(n,)``.

    Raises
    ------
    ValueError
        An optimizer that is not there.
    """

    _recipe = "classic"  # one_cycle was not measured

    @checked
    def __init__(
        self,
        classifier: nn.Module,
        *,
        lr: float = 1e-3,
        weight_decay: float = 1e-6,
        eps: float = 0.01,
        optimizer: Literal["Adam", "AdamW"] = "Adam",
        data_key: str = "X",
        labels_key: str = "labels",
        loss: Callable[[], Callable[[Tensor, Tensor], Tensor]] = torch.nn.CrossEntropyLoss,
    ) -> None:
        super().__init__()
        if optimizer not in ("Adam", "AdamW"):
            raise ValueError(f"optimizer of the training plan is 'Adam' or 'AdamW', got {optimizer!r}.")
        self.module = classifier
        self.lr, self.weight_decay, self.eps, self.optimizer_name = lr, weight_decay, eps, optimizer
        self.data_key, self.labels_key = data_key, labels_key
        self.loss_fn = loss()
        self.gives_logits = not isinstance(classifier, Classifier) or classifier.logits

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the classifier gives for an input."""
        return self.module(*args, **kwargs)

    def loss_of(self, batch: dict[str, Tensor]) -> LossOutput:
        """Record of a minibatch.

        Parameters
        ----------
        batch
            Has the input under ``data_key`` and the codes under ``labels_key``.

        Returns
        -------
        ``classification_loss`` with ``logits`` ``(n, c)`` and ``true_labels`` ``(n, 1)``; no other term.
        """
        output_nc, labels_n1 = self.forward(batch[self.data_key]), batch[self.labels_key]
        logits_nc = output_nc if self.gives_logits else self.module.log_probs_of(output_nc)
        loss = self.loss_fn(logits_nc, labels_n1.reshape(-1).long())
        return LossOutput(
            loss=loss,
            classification_loss=loss,
            logits=logits_nc,
            true_labels=labels_n1,
            n_obs_minibatch=len(labels_n1),
        )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one minibatch."""
        record = self.last_loss_output = self.loss_of(batch)
        self.step_values["train_loss"] = record.loss.detach()
        self._log_record(record, "train_loss_epoch", "train")
        return record.loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Metrics of one minibatch."""
        self._log_record(self.loss_of(batch), "validation_loss", "validation")

    def _log_record(self, record: LossOutput, loss_name: str, mode: str) -> None:
        assert record.logits is not None
        assert record.true_labels is not None
        n = int(record.n_obs_minibatch or 0)
        self.epoch_metrics.n_obs += n
        self.log(loss_name, record.loss, batch_size=n)
        for name, value in classification_metrics(record.logits.detach(), record.true_labels).items():
            self.log(f"{mode}_{name}", value, batch_size=n)

    def resume_state(self) -> dict[str, Any]:
        """The learning rate too, which attempts change."""
        return super().resume_state() | {"lr": self.lr}

    def load_resume_state(self, state: Mapping[str, Any]) -> None:
        """Put them back."""
        super().load_resume_state(state)
        self.lr = state["lr"]

    def scale_learning_rate(self, factor: float) -> None:
        """Multiply the learning rate of the optimizer to be made."""
        self.lr *= factor

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Optimizer of the parameters that require gradients."""
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        settings: dict[str, Any] = {"lr": self.lr, "eps": self.eps, "weight_decay": self.weight_decay}
        if self.optimizer_name == "Adam":
            return Adam(parameters, **settings)
        return AdamW(parameters, **settings)


@checked
@dataclass
class ClassifierTrainingPlanConfig:
    """Arguments of :class:`ClassifierTrainingPlan`, with scvi-tools' defaults; see there."""

    lr: float = 1e-3
    weight_decay: float = 1e-6
    eps: float = 0.01
    optimizer: Literal["Adam", "AdamW"] = "Adam"
    data_key: str = "X"
    labels_key: str = "labels"
    loss: Callable[[], Callable[[Tensor, Tensor], Tensor]] = torch.nn.CrossEntropyLoss

    def to_kwargs(self) -> dict[str, Any]:
        """As keyword arguments of the plan."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}
