r"""Training of MRVI in two parts: all networks, then effects of samples, with few differences between samples.

In the second part u stays as it is, the learning rate goes through a cycle of its own, and the loss of each cell n has
a further term

.. math:: \lambda\, \tfrac{1}{K} \sum_{m} c \log\bigl(1 + d_{nm}^2 / c^2\bigr), \qquad
          d_{nm} = \lVert \epsilon(u_n, s_n) - \epsilon(u_n, s_m) \rVert_2,

with the samples of K other cells m of the minibatch: a penalty that spares large effects (Fan and Li, JASA 2001). It
pulls most at c and ever less beyond, so that a difference that counts do not ask for goes to 0 and a large one stays as
it is; a term of the distance itself takes as much from each. In the first part u would take over what the term empties,
which costs less.
"""

from collections.abc import Hashable
from typing import Annotated, Any

from ...core import checked
from ...core.kinds import Number
from ...module.base import LossOutput
from ...train import TrainingPlan
from .module import TorchMRVAE

__all__ = ["SettlingPlan"]

_N_OTHERS = 1
_SECOND_RATE = 0.5


class SettlingPlan(TrainingPlan):
    """Plan of :class:`~celbo.external.mrvi.TorchMRVAE`.

    Parameters
    ----------
    module
        The module.
    settles_at
        Share of the run after which u stays as it is, and differences between effects of samples cost something
        (``difference_weight``); 1: never.
    **settings
        Of :class:`~celbo.train.TrainingPlan`.
    """

    module: TorchMRVAE

    @checked
    def __init__(
        self, module: TorchMRVAE, *, settles_at: Annotated[float, Number(0, 1)] = 1.0, **settings: Any
    ) -> None:
        super().__init__(module, **settings)
        self.settles_at = settles_at

    @property
    def _first_steps(self) -> int:
        return self._steps_of_first_part(self.trainer.estimated_stepping_batches)

    def _steps_of_first_part(self, n_steps: int) -> int:
        return round(self.settles_at * n_steps)

    @property
    def is_settling(self) -> bool:
        """Whether this step is of the second part."""
        return self.training and self.global_step >= self._first_steps

    def rate_at(self, step: int, n_steps: int) -> float:
        """A cycle for each part."""
        first = self._steps_of_first_part(n_steps)
        if step < first or first == n_steps:
            return super().rate_at(step, first)
        return _SECOND_RATE * super().rate_at(step - first, n_steps - first)

    def form(self) -> Hashable | None:
        """As everywhere, and which part it is."""
        form = super().form()
        return form if form is None else (form, self.is_settling)

    def _passed(self, batch: Any) -> tuple[Any, LossOutput]:
        if not self.is_settling:
            return super()._passed(batch)
        loss_kwargs = self.arguments_of_loss()
        outputs, _, record = self.forward(batch, inference_kwargs={"n_others": _N_OTHERS}, loss_kwargs=loss_kwargs)
        return outputs, record
