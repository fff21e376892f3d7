"""What changes along a run: the KL weight, the learning rate, and the pace of running means.

A layer of batch normalization moves its running mean and variance a hundredth of the way a minibatch. After ten
minibatches nine tenths of them are still the 0 and 1 that they began as, and validation, which uses them, says nothing
about the weights: in a short training they must keep up.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["RunningMeans", "kl_weight", "max_epochs_classic", "momentum_after", "one_cycle"]


def kl_weight(
    epoch: int,
    step: int,
    n_epochs_kl_warmup: int | None,
    n_steps_kl_warmup: int | None,
    max_kl_weight: float = 1.0,
    min_kl_weight: float = 0.0,
    begins_at: float = 0.0,
) -> float:
    r"""Weight of the local KL term during its linear warm-up.

    .. math:: w(t) = w_{\min} + (w_{\max} - w_{\min}) \min(1, \max(0, t - sT) / (T - sT))

    Parameters
    ----------
    epoch, step
        Where training stands, both from 0.
    n_epochs_kl_warmup, n_steps_kl_warmup
        Length :math:`T` of the warm-up; epochs win when both are set, and 0 or None means unset.
    max_kl_weight, min_kl_weight
        Where the weight ends and begins.
    begins_at
        Share :math:`s` of the warm-up, below 1, before which the weight stays at its minimum.

    Raises
    ------
    ValueError
        ``min_kl_weight`` above ``max_kl_weight``.
    """
    if min_kl_weight > max_kl_weight:
        raise ValueError(f"min_kl_weight={min_kl_weight} is above max_kl_weight={max_kl_weight}.")
    if n_epochs_kl_warmup:
        progress = epoch / n_epochs_kl_warmup
    elif n_steps_kl_warmup:
        progress = step / n_steps_kl_warmup
    else:
        progress = 1.0
    if progress < 1 and begins_at:
        progress = max(0.0, progress - begins_at) / (1 - begins_at)
    return max_kl_weight if progress >= 1 else min_kl_weight + (max_kl_weight - min_kl_weight) * progress


def one_cycle(step: int, n_steps: int, warmup_fraction: float = 0.1) -> float:
    r"""Learning-rate factor in [0, 1]: linear warm-up, then a cosine to zero.

    Parameters
    ----------
    step
        Optimizer steps done so far.
    n_steps
        Steps of the whole run.
    warmup_fraction
        Share of the run in which the factor rises.

    References
    ----------
    Smith and Topin, *Super-convergence: very fast training of neural networks using large learning rates*, 2018.
    """
    warmup = max(1, round(warmup_fraction * n_steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup + 1) / max(1, n_steps - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress))


def max_epochs_classic(n_obs: int, epochs_cap: int = 400, decay_at_n_obs: int = 20_000) -> int:
    """scvi-tools' number of epochs: 400 up to 20,000 cells, then fewer, so that as many cells are seen.

    Parameters
    ----------
    n_obs
        Cells of the data.
    epochs_cap
        Largest number of epochs.
    decay_at_n_obs
        Cells above which the number falls.
    """
    return max(min(round(decay_at_n_obs / n_obs * epochs_cap), epochs_cap), 1)


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
