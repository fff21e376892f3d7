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
        # The layers count on their device, which would have to be waited for: here the count is kept beside.
        self._seen = {layer: _seen_by(layer) for layer in layers if layer.momentum}
        self._moved: set[_BatchNorm] = set()
        self._usual = usual

    @property
    def are_settled(self) -> bool:
        """Whether the layers that the last minibatch went through will take each further one with the usual weight."""
        return all(momentum_after(self._seen[layer], self._usual) == self._usual for layer in self._moved)

    @contextmanager
    def keeping_up(self) -> Iterator[None]:
        """The pace of the next minibatch; afterwards the layers have their own again."""
        own = {layer: layer.momentum for layer in self._seen}
        young = [layer for layer, seen in self._seen.items() if momentum_after(seen, self._usual) != self._usual]
        hooks = [layer.register_forward_hook(self._count) for layer in young]
        self._moved.clear()
        for layer, seen in self._seen.items():
            layer.momentum = momentum_after(seen, self._usual)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for layer, momentum in own.items():
                layer.momentum = momentum

    def _count(self, layer: _BatchNorm, *args: object) -> None:
        self._moved.add(layer)
        self._seen[layer] += layer.training


def _seen_by(layer: _BatchNorm) -> int:
    return 0 if layer.num_batches_tracked is None else int(layer.num_batches_tracked)
