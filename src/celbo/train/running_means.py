"""Running means of batch normalization that keep up with a short training.

A layer moves its running mean and variance a hundredth of the way a minibatch. After ten minibatches nine tenths of
them are still the 0 and 1 that they began as, and validation, which uses them, says nothing about the weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["RunningMeans", "momentum_after"]


def momentum_after(seen: int, usual: float) -> float:
    r"""Weight of the next minibatch in a running mean: :math:`\max(m, 2 / (t + 2))`.

    The first minibatch replaces what the mean began as, and newer ones weigh more, because the weights move.

    Parameters
    ----------
    seen
        Minibatches :math:`t` in the mean so far.
    usual
        Weight :math:`m` once there are many.
    """
    return max(usual, 2 / (seen + 2))


class RunningMeans:
    """The batch normalization of a module, paced for one run.

    Parameters
    ----------
    module
        Layers of it whose statistics are fixed stay so. What they saw before this run counts.
    usual
        As in :func:`momentum_after`.
    """

    def __init__(self, module: nn.Module, usual: float) -> None:
        layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
        self._young = [layer for layer in layers if layer.momentum]
        self._settled: list[_BatchNorm] = []
        self._usual = usual

    @contextmanager
    def keeping_up(self) -> Iterator[None]:
        """The pace of the next minibatch; afterwards the layers have their own again."""
        momenta: list[tuple[_BatchNorm, float | None]] = [(layer, self._usual) for layer in self._settled]
        # The count lies on the device: it is read while it matters, and not at every step.
        momenta += [(layer, momentum_after(_seen_by(layer), self._usual)) for layer in self._young]
        own = [(layer, layer.momentum) for layer, _ in momenta]
        _set(momenta)
        self._settled = [layer for layer, momentum in momenta if momentum == self._usual]
        self._young = [layer for layer, momentum in momenta if momentum != self._usual]
        try:
            yield
        finally:
            _set(own)


def _seen_by(layer: _BatchNorm) -> int:
    return 0 if layer.num_batches_tracked is None else int(layer.num_batches_tracked)


def _set(momenta: list[tuple[_BatchNorm, float | None]]) -> None:
    for layer, momentum in momenta:
        layer.momentum = momentum
