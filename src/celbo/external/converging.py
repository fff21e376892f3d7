"""Training of models whose loss draws nothing: to its minimum, by quasi-Newton steps on all cells, and no further."""

import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from ..core import checked, number_of
from ..core.kinds import Number
from ..model.base import UnsupervisedTrainingMixin
from ..module.base import BaseModuleClass
from ..ops.quasi_newton import QuasiNewton
from ..train import TrainingPlan
from ..train.optim import WithoutCompiler

__all__ = ["ConvergingPlan", "ConvergingTrainingMixin"]

logger = logging.getLogger("celbo")


class _Search(WithoutCompiler):
    """The search as an optimizer: the loop steps it, and a checkpoint keeps what it knows with the first parameter.

    Attributes
    ----------
    loss
        The loss that belongs to the gradients, to be set before each step.
    """

    def __init__(self, module: BaseModuleClass, tolerance: float, largest_step: float) -> None:
        parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        super().__init__(list(parameters.values()), {})
        self.search = QuasiNewton(parameters, module.search_extents(), {}, tolerance, largest_step)
        self.loss = float("nan")

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take the step that led here or refuse it, and move on."""
        self.search.memory = self.state[self.param_groups[0]["params"][0]]
        self.search.step(self.loss)


class ConvergingPlan(TrainingPlan):
    r"""Plan of modules whose loss draws nothing: a mixture, a deconvolution by maximum likelihood.

    An epoch gives the loss of all cells and its gradient, minibatch by minibatch, and ends with one step of
    :class:`~celbo.ops.quasi_newton.QuasiNewton`. Training ends when the loss is flat; ``max_epochs`` is
    the most that it takes.

    Parameters
    ----------
    module
        The module. Its ``loss_adds_up`` says whether losses of minibatches add up or are means, and its
        ``search_extents`` how far its parameters move.
    tolerance
        The loss is flat where three steps in a row lower it by less than this share; None: the module's
        ``search_tolerance``.
    largest_step
        Largest change of a parameter in a step, in units of its scale.
    **settings
        Of :class:`~celbo.train.TrainingPlan`. Those of gradient steps (``lr``, ``optimizer``, ...) have no effect.
    """

    @checked
    def __init__(
        self,
        module: BaseModuleClass,
        *,
        tolerance: Annotated[float | None, Number(0)] = None,
        largest_step: Annotated[float, Number(0, above=True)] = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(module, **settings)
        self.tolerance = module.search_tolerance if tolerance is None else tolerance
        self.largest_step = largest_step
        self._loss_so_far: Tensor | float = 0.0
        self._search: _Search | None = None

    def configure_optimizers(self) -> dict[str, Any]:
        """The search, over the parameters that require gradients."""
        self._search = _Search(self.module, self.tolerance, self.largest_step)
        return {"optimizer": self._search}

    def scale_learning_rate(self, factor: float) -> None:
        """Multiply the largest step of the search to be made."""
        self.largest_step *= factor

    def on_train_start(self) -> None:
        """Take one step per epoch; ``ValueError`` in one of several processes, ``TypeError`` without a length."""
        super().on_train_start()
        if self.trainer.world_size > 1:
            raise ValueError("This model converges in one process: pass devices=1, or recipe='classic' to use several.")
        if self.trainer.num_training_batches is None:
            raise TypeError("The training loader has no length: give it a __len__, or train with recipe='classic'.")
        self.trainer.accumulate_grad_batches = self.trainer.num_training_batches

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Share of one minibatch in the loss of all cells, times the minibatches (the loop divides by them)."""
        loss = super().training_step(batch, batch_idx)
        assert self._search is not None
        if not self.module.loss_adds_up:
            loss = loss * self._share_of_cells()
        so_far = self._loss_so_far if batch_idx else 0.0
        self._loss_so_far = so_far + loss.detach().to(torch.float64)
        if batch_idx + 1 == self.trainer.accumulate_grad_batches:
            self._search.loss = float(self._loss_so_far)
        return loss * self.trainer.accumulate_grad_batches

    def form(self) -> Hashable | None:
        """None: what a minibatch does depends on its place in the epoch."""
        return None

    def _share_of_cells(self) -> float:
        n = None if self.last_loss_output is None else self.last_loss_output.n_obs_minibatch
        return n / self.n_obs_training if n and self.n_obs_training else 1.0

    def on_train_epoch_end(self) -> None:
        """End training where the loss is flat."""
        assert self._search is not None
        if self._search.search.has_converged:
            self.trainer.stop(f"the loss is flat (tolerance {self.tolerance:g})")

    def on_train_end(self) -> None:
        """Leave the module where the loss was lowest."""
        assert self._search is not None
        self._search.search.settle()
        if not self._search.search.has_converged and self.trainer.max_epochs > 1:
            passed = number_of(self.trainer.current_epoch, "epoch")
            logger.info(f"The loss still falls after {passed}: raise max_epochs.")

    def resume_state(self) -> dict[str, Any]:
        """The sum of the running epoch too."""
        return super().resume_state() | {"loss_so_far": float(self._loss_so_far)}

    def load_resume_state(self, state: Mapping[str, Any]) -> None:
        """Put it back."""
        super().load_resume_state(state)
        self._loss_so_far = state["loss_so_far"]


class ConvergingTrainingMixin(UnsupervisedTrainingMixin):
    """``train`` that ends when the loss is flat; by gradient steps under ``recipe="classic"``, or with an ``lr``."""

    _recipe: ClassVar[str | None] = "converging"
    _converging_plan_cls: ClassVar[type[Any] | None] = ConvergingPlan
