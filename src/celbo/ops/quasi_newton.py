r"""L-BFGS whose loss and gradient come in from outside, once an epoch, so that they may be sums over minibatches.

.. math:: x_{t+1} = P\bigl(x_t - \alpha H_t \nabla f(x_t)\bigr), \qquad
          f(x_{t+1}) \le f(x_t) + c\, \nabla f(x_t)^\top (x_{t+1} - x_t)

with :math:`H_t` from the last ten pairs of steps and changes of the gradient, :math:`P` the projection on the bounds,
and :math:`\alpha` shortened until the inequality holds. Everything is computed in units of each parameter's own scale.

Reference: Nocedal, *Updating quasi-Newton matrices with limited storage*, 1980; Bertsekas, *Projected Newton methods
for optimization problems with simple constraints*, 1982.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Extent", "QuasiNewton"]

_PAIRS = 10
_ENOUGH_DECREASE = 1e-4
_SHORTEST, _LONGEST = 0.1, 0.5  # what a step that went too far is multiplied by, at least and at most
_ROUNDING = 3e-7  # of the loss: sums in float32 are no better
_MOST_REFUSED = 8
_FLAT_STEPS = 3


class Extent(NamedTuple):
    """What a search should know of a parameter: how far it moves, and where it ends.

    Attributes
    ----------
    scale
        A change of it that matters: a number, or a tensor that broadcasts against the parameter.
    lower
        Smallest value.
    """

    scale: Tensor | float = 1.0
    lower: float = float("-inf")


class QuasiNewton:
    """L-BFGS with a line search, which ends when the loss is flat.

    Parameters
    ----------
    parameters
        Parameters to move, by name.
    extents
        Scale and lower bound of some of them.
    memory
        Where all is kept that the search goes on from: tensors and numbers by name. Empty at first.
    tolerance
        A step is flat where it lowers the loss by less than this share of it. Three flat steps in a row are the end.
    largest_step
        Largest change of a parameter in a step, in units of its scale.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        extents: Mapping[str, Extent],
        memory: dict[str, Any],
        tolerance: float = 1e-5,
        largest_step: float = 1.0,
    ) -> None:
        self._parameters = list(parameters.values())
        own = [(parameter, extents.get(name, Extent())) for name, parameter in parameters.items()]
        self._scale = _joined([torch.as_tensor(extent.scale).expand_as(p).to(p) for p, extent in own])
        self._lower = _joined([torch.full_like(p, extent.lower) for p, extent in own]) / self._scale
        self.memory, self.tolerance, self.largest_step = memory, tolerance, largest_step
        self.loss = float("nan")

    @property
    def has_converged(self) -> bool:
        """Whether the loss is flat."""
        return self.memory.get("n_flat", 0) >= _FLAT_STEPS

    @torch.no_grad()
    def step(self, loss: float) -> None:
        """Take the step that led here or refuse it, and move on to the next place to look at.

        Parameters
        ----------
        loss
            The loss here, to which the gradients of the parameters belong.
        """
        self.loss = loss
        here, gradient, memory = self._place(), self._gradient(), self.memory
        if not memory:
            memory |= {"n_flat": 0, "moves": here.new_zeros(0, len(here)), "changes": here.new_zeros(0, len(here))}
        elif not self._goes_down(here):
            return self._shorten(here)
        else:
            self._learn(here - memory["here"], gradient - memory["gradient"])
            is_flat = memory["loss"] - loss < self.tolerance * max(abs(loss), 1e-30)
            memory["n_flat"] = memory["n_flat"] + 1 if is_flat else 0
        memory |= {"here": here, "gradient": gradient, "loss": loss}
        if not self.has_converged:
            self._set_out()
        return None

    @torch.no_grad()
    def settle(self) -> None:
        """Go back to the best place that was looked at."""
        if self.memory:
            self._move_to(self.memory["here"])

    def _goes_down(self, here: Tensor) -> bool:
        memory = self.memory
        promised = float(memory["gradient"] @ (here - memory["here"]))
        return self.loss <= memory["loss"] + _ENOUGH_DECREASE * min(promised, 0.0) + _ROUNDING * abs(memory["loss"])

    def _learn(self, move: Tensor, change: Tensor) -> None:
        """Keep what a step says of the curvature, if that is positive."""
        if move @ change > 1e-10 * change @ change:
            for name, new in (("moves", move), ("changes", change)):
                self.memory[name] = torch.cat([self.memory[name], new[None]])[-_PAIRS:]

    def _shorten(self, here: Tensor) -> None:
        """Half way back, or where the parabola through what is known has its minimum."""
        memory = self.memory
        memory["n_refused"] += 1
        if memory["n_refused"] > _MOST_REFUSED:
            return self._give_up()
        slope = float(memory["gradient"] @ (here - memory["here"]))
        rise = self.loss - memory["loss"] - slope
        factor = -slope / (2 * rise) if rise > 0 else _LONGEST
        memory["length"] *= min(max(factor, _SHORTEST), _LONGEST)
        return self._move_to(memory["here"] + memory["length"] * memory["direction"])

    def _give_up(self) -> None:
        """Nothing lowers the loss: forget the curvature, or, where that was done, call it flat."""
        memory = self.memory
        if not len(memory["moves"]):
            memory["n_flat"] = _FLAT_STEPS
            return self.settle()
        memory["moves"], memory["changes"] = memory["moves"][:0], memory["changes"][:0]
        return self._set_out()

    def _set_out(self) -> None:
        memory = self.memory
        here, gradient = memory["here"], memory["gradient"]
        is_held = (here <= self._lower) & (gradient > 0)
        direction = -self._times_inverse(gradient.masked_fill(is_held, 0.0)).masked_fill(is_held, 0.0)
        if not direction @ gradient < 0:
            direction = -gradient.masked_fill(is_held, 0.0)
        longest = float(direction.abs().max())
        first = 1.0 if len(memory["moves"]) else 1.0 / max(float(gradient.norm()), 1e-30)
        memory["direction"], memory["n_refused"] = direction, 0
        memory["length"] = min(first, self.largest_step / max(longest, 1e-30))
        self._move_to(here + memory["length"] * direction)

    def _times_inverse(self, gradient: Tensor) -> Tensor:
        """The inverse of the curvature times a vector, by the two loops."""
        moves, changes = self.memory["moves"], self.memory["changes"]
        if not len(moves):
            return gradient
        per_pair = 1 / (moves * changes).sum(1)
        taken = []
        for move, change, inverse in zip(moves.flip(0), changes.flip(0), per_pair.flip(0), strict=True):
            taken.append(inverse * (move @ gradient))
            gradient = gradient - taken[-1] * change
        gradient = gradient / (per_pair[-1] * (changes[-1] @ changes[-1]))
        for move, change, inverse in zip(moves, changes, per_pair, strict=True):
            gradient = gradient + (taken.pop() - inverse * (change @ gradient)) * move
        return gradient

    def _place(self) -> Tensor:
        return _joined(self._parameters) / self._scale

    def _gradient(self) -> Tensor:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        return _joined(gradients) * self._scale

    def _move_to(self, place: Tensor) -> None:
        values = torch.maximum(place, self._lower) * self._scale
        for parameter, part in zip(self._parameters, values.split([p.numel() for p in self._parameters]), strict=True):
            parameter.copy_(part.view_as(parameter))


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
