"""What a training plan is to the loop: Lightning's method names on a plain ``nn.Module``.

Plans written for Lightning (``training_step``, ``validation_step``, ``configure_optimizers``, ``log``, manual
optimization) run on the loop as they are; a plan knows its trainer only through the few attributes below.
"""

import functools
import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...module.base import LossOutput
from ..metrics import EpochMetrics
from ..optim import parameters_of
from ..run_state import RunState

__all__ = ["Plan", "Step"]

_PLAIN = (bool, int, float, str, type(None))


def _noting(constructor: Callable[..., None]) -> Callable[..., None]:
    """Let a constructor note its plain arguments on the plan; what one of a base class was handed counts."""
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def noted(self: "Plan", *args: Any, **kwargs: Any) -> None:
        constructor(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(parameter.name)
        self._made_with = {name: value for name, value in given.items() if isinstance(value, _PLAIN)} | self._made_with

    return noted


@dataclass(frozen=True)
class Step:
    """A loss to go down, which the loop does: backward, accumulation, clipping, optimizer, schedules.

    Attributes
    ----------
    loss
        The loss, with a graph.
    record
        Its record, for the explanation of a loss that is not finite.
    optimizer
        Number of the optimizer whose parameters move, among those that ``configure_optimizers`` gave; None: all. The
        others get no gradient of this loss.
    output
        What callbacks get beside the loss.
    """

    loss: Tensor
    record: LossOutput | None = None
    optimizer: int | None = None
    output: Any = None


class Plan(nn.Module):
    """Abstract training plan.

    A subclass gives ``training_step(batch, batch_idx) -> loss``, ``configure_optimizers()`` and, where there is
    something to validate, ``validation_step(batch, batch_idx)``.

    Attributes
    ----------
    automatic_optimization
        Whether the loop takes the steps that :meth:`steps` gives; if False, ``training_step`` does, through
        :meth:`optimizers` and :meth:`manual_backward`.
    train_epoch_metrics, validation_epoch_metrics
        Sums of the running epoch; :meth:`log` adds to the one of the running stage.
    on_step
        Whether the training loss of single steps is kept.
    by_step_and_epoch
        Whether the validation loss of single minibatches is kept too, and the numbers of epochs also under
        ``..._epoch``, as Lightning names what it logs both ways.
    n_obs_training, n_obs_validation
        Observations of the two splits, set before training.
    last_loss_output
        Record of the last minibatch, for the explanation of a non-finite loss.
    kl_weight, kl_warmup_epochs
        KL weight of the current step and epochs until it is at its maximum, for plans that have one.
    n_epochs_kl_warmup
        Epochs of a KL warm-up that is planned in epochs.
    reduce_lr_on_plateau
        Whether the learning rate falls when a metric no longer does; it is traced in the history then.
    _recipe
        Name of the recipe that it trains by where nobody names one; None: ``one_cycle``.
    _recipe_kwargs
        Name of a recipe -> settings of this plan that differ under it.
    on_device
        The :meth:`numbers` as tensors, while a device records a step; empty otherwise.
    use_sync_dist
        What plans written for scvi-tools pass on to :meth:`log`; metrics of several processes are always summed.
    """

    automatic_optimization = True
    on_step: bool | None = False
    by_step_and_epoch = False
    n_obs_training: int | None = None
    n_obs_validation: int | None = None
    last_loss_output: LossOutput | None = None
    kl_weight: float | None = None
    kl_warmup_epochs: int = 0
    n_epochs_kl_warmup: int | None = None
    reduce_lr_on_plateau = False
    on_device: Mapping[str, Tensor] = MappingProxyType({})
    use_sync_dist = False
    _recipe: ClassVar[str | None] = None
    _recipe_kwargs: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _noting(cls.__init__)  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()
        self._made_with: dict[str, Any] = {}
        self._trainer: RunState | None = None
        self.module: Any = None
        self.train_epoch_metrics = EpochMetrics("train")
        self.validation_epoch_metrics = EpochMetrics("validation")
        self.step_values: dict[str, Tensor | float] = {}
        self._stage = "train"

    @property
    def trainer(self) -> RunState:
        """The trainer that runs this plan; a ``RuntimeError`` outside of training."""
        if self._trainer is None:
            raise RuntimeError(f"{type(self).__name__} is not attached to a trainer: it has one only while training.")
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: RunState | None) -> None:
        self._trainer = trainer

    @property
    def current_epoch(self) -> int:
        """Epochs done."""
        return self._trainer.current_epoch if self._trainer is not None else 0

    @property
    def global_step(self) -> int:
        """Optimizer steps done."""
        return self._trainer.global_step if self._trainer is not None else 0

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def enter_stage(self, stage: str) -> None:
        """Called by the loop with ``"train"`` or ``"validation"`` when the stage begins or goes on."""
        self._stage = stage

    @property
    def epoch_metrics(self) -> EpochMetrics:
        """Sums of the running stage."""
        return self.train_epoch_metrics if self._stage == "train" else self.validation_epoch_metrics

    def log(
        self,
        name: str,
        value: Tensor | float,
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Log a number under a name: its weighted mean over the epoch goes to the history.

        Parameters
        ----------
        name
            Name in the history.
        value
            A number or a tensor of one element.
        on_step
            Also keep the value of single steps.
        batch_size
            Weight of the value in the mean; 1 when not given.
        prog_bar, logger, on_epoch, **kwargs
            Lightning's further arguments, accepted and without effect.
        """
        if on_step:
            self.step_values[name] = value.detach() if isinstance(value, Tensor) else value
        self.epoch_metrics.keep(name, value, batch_size or 1)

    def log_dict(self, dictionary: Mapping[str, Tensor | float], **kwargs: Any) -> None:
        """Log several numbers; see :meth:`log`."""
        for name, value in dictionary.items():
            self.log(name, value, **kwargs)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Loss of one minibatch, with a graph."""
        raise NotImplementedError(f"{type(self).__name__} must define training_step().")

    def steps(self, batch: Any, batch_idx: int) -> Iterator[Step]:
        """The steps of one minibatch, one after the other: the loop takes each before it asks for the next.

        By default the one of :meth:`training_step`. A plan with several optimizers yields a :class:`Step` for each.
        """
        output = self.training_step(batch, batch_idx)
        loss = output["loss"] if isinstance(output, Mapping) else output
        if loss is not None:  # a plan may leave a minibatch out, as under Lightning
            yield Step(loss, self.last_loss_output, output=output)

    def begin_step(self) -> None:
        """Bring :meth:`numbers` up to date, before a training step that a device may have recorded."""

    def numbers(self) -> dict[str, float]:
        """Python numbers that a step computes with and that change as training goes on, by name.

        A device that has recorded a step does it again without this class's code: it takes them from tensors, which
        the step must find in :attr:`on_device`.
        """
        return {}

    def form(self) -> Hashable | None:
        """What else decides which operations a step consists of; None while that still changes from step to step."""
        return ()

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        """Metrics of one minibatch, without a graph."""

    def configure_optimizers(self) -> Any:
        """An optimizer, or Lightning's dict of optimizer and ``lr_scheduler``, or lists of them."""
        raise NotImplementedError(f"{type(self).__name__} must define configure_optimizers().")

    def scale_learning_rate(self, factor: float) -> None:
        """Change the learning rate of the optimizers to be made, after a run that diverged."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to scale its learning rate.")

    def identity(self) -> dict[str, Any]:
        """What makes a run one of this plan, in plain values: a checkpoint goes on only with the same.

        By default the plain arguments that the plan was made with, by their names, defaults among them: attributes may
        be renamed. A plan with further settings overrides this.
        """
        return dict(self._made_with)

    def resume_state(self) -> dict[str, Any]:
        """What a checkpoint must keep of the plan beside its weights: plain values and tensors that change in training.

        A plan with further state (a generator, a counter) overrides this and :meth:`load_resume_state`.
        """
        return {"step_values": dict(self.step_values)}

    def load_resume_state(self, state: Mapping[str, Any]) -> None:
        """Put it back."""
        self.step_values = dict(state["step_values"])

    def optimizers(self) -> Any:
        """The optimizer, or the list of them (for manual optimization)."""
        optimizers = self.trainer.optimizers
        return optimizers[0] if len(optimizers) == 1 else optimizers

    def lr_schedulers(self) -> Any:
        """The learning-rate scheduler, the list of them, or None."""
        schedulers = [link.scheduler for link in self.trainer.lr_links]
        return schedulers[0] if len(schedulers) == 1 else schedulers or None

    def manual_backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward pass under the trainer's precision and strategy."""
        self.trainer.backward(loss, **kwargs)

    def clip_gradients(self, optimizer: torch.optim.Optimizer, gradient_clip_val: float, **kwargs: Any) -> None:
        """Scale the optimizer's gradients down to a norm of at most ``gradient_clip_val``."""
        torch.nn.utils.clip_grad_norm_(parameters_of(optimizer), gradient_clip_val)

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Accepted for Lightning's sake: the model's archive holds the arguments."""

    def on_train_start(self) -> None:
        """Before the first epoch."""

    def on_train_end(self) -> None:
        """After the last epoch."""

    def on_train_epoch_start(self) -> None:
        """Before each epoch."""

    def on_train_epoch_end(self) -> None:
        """After each epoch."""

    def on_validation_epoch_start(self) -> None:
        """Before each validation."""

    def on_validation_epoch_end(self) -> None:
        """After each validation."""
