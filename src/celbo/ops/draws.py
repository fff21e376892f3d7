"""Draws from the generators of the running block (:mod:`celbo.ops.random`): of weights and from distributions.

What is not celbo's draws from torch's global generators: :func:`draws_globally` tells which modules do, and the blocks
of this file let them, or have their draws redirected.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from .random import generator_for, global_rng, own_rng, private_rng, redirected

__all__ = [
    "drawing_of",
    "draws_globally",
    "initial_weights",
    "minibatches_of",
    "randn",
    "randomness_of",
    "redirecting",
    "rsample",
    "sample",
    "uniform",
]

_NORMALS_RSAMPLE = Normal.rsample
_NORMALS_SAMPLE = Normal.sample
"""Done here in a shorter way, unless someone has put another in its place."""


def initial_weights(seed: int | None) -> AbstractContextManager[int]:
    """The block in which weights are drawn, those of torch's layers included.

    Parameters
    ----------
    seed
        None: 0, so that a run is fixed by the seed of its training alone.
    """
    return private_rng(0 if seed is None else seed)


def redirecting(batches: Iterable[Any]) -> Iterator[Any]:
    """Iterate over what others made with its draws redirected: torch's ``DataLoader`` draws its order when it begins.

    Parameters
    ----------
    batches
        Iterated over once.
    """
    with redirected():
        iterator = iter(batches)
    end = object()
    while True:
        with redirected():
            batch = next(iterator, end)
        if batch is end:
            return
        yield batch


def randn(*size: int, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
    """``torch.randn`` from the generator of the block."""
    where = torch.get_default_device() if device is None else device
    return torch.randn(size, dtype=dtype, device=where, generator=generator_for(where))


def uniform(low: float, high: float, *size: int) -> Tensor:
    """Uniform numbers in ``[low, high)`` from the generator of the block."""
    empty = torch.empty(size)
    return empty.uniform_(low, high, generator=generator_for(empty.device))


def rsample(q: Distribution, shape: Iterable[int] = ()) -> Tensor:
    """Reparameterised draws, torch's to the bit, from the generator of the block.

    Parameters
    ----------
    q
        Any distribution that has ``rsample``.
    shape
        Of the draws, before the distribution's own.
    """
    size = torch.Size(shape)
    if (
        type(q) is not Normal or Normal.rsample is not _NORMALS_RSAMPLE
    ):  # a subclass, or someone put another in its place
        with redirected():
            return q.rsample(size)
    generator = generator_for(q.loc.device)
    if generator is None:
        return q.rsample(size)
    noise = torch.empty(q._extended_shape(size), dtype=q.loc.dtype, device=q.loc.device).normal_(generator=generator)
    return q.loc + noise * q.scale


def sample(q: Distribution, shape: Iterable[int] = ()) -> Tensor:
    """Draws without gradient, torch's to the bit, from the generator of the block.

    Parameters
    ----------
    q
        Any distribution.
    shape
        Of the draws, before the distribution's own.
    """
    size = torch.Size(shape)
    if type(q) is Normal and Normal.sample is _NORMALS_SAMPLE:
        generator = generator_for(q.loc.device)
        if generator is not None:  # torch's own looks for negative scales, and waits for a GPU to say
            with torch.no_grad():
                noise = torch.empty(q._extended_shape(size), dtype=q.loc.dtype, device=q.loc.device)
                return noise.normal_(generator=generator).mul_(q.scale).add_(q.loc)
    if _takes_generator(type(q).sample):  # and asks for the block's by itself, without a look at each operation
        return q.sample(size)
    with redirected():
        return q.sample(size)


@functools.cache
def _takes_generator(method: Callable[..., Any]) -> bool:
    return "generator" in inspect.signature(method).parameters


_OWN = (__name__.partition(".")[0] + ".", "torch.nn.")
_DRAWING = tuple(
    f"torch.nn.modules.{name}." for name in ("dropout", "rnn", "transformer", "adaptive", "pooling.FractionalMaxPool")
) + ("torch.nn.modules.activation.RReLU", "torch.nn.modules.activation.MultiheadAttention")
"""Torch's layers that draw, from the global generator only."""


def _may_draw_globally(cls: type) -> bool:
    name = f"{cls.__module__}.{cls.__qualname__}"
    return not name.startswith(_OWN) or name.startswith(_DRAWING)


def draws_globally(module: nn.Module) -> bool:
    """Whether a part of a module may draw from torch's global generator: one of a class that is not celbo's.

    Parameters
    ----------
    module
        A module or a training plan, looked at with all its parts. Of torch's layers only those that draw count.
    """
    return any(_may_draw_globally(cls) for cls in {type(part) for part in module.modules()})


def minibatches_of(loader: Iterable[Any]) -> Iterable[Any]:
    """A loader's minibatches; one of others, or with a sampler of others, draws from the generator of the block.

    Parameters
    ----------
    loader
        Iterated over once.
    """
    sampler = getattr(loader, "sampler", None)
    return loader if _is_celbos(loader) and (sampler is None or _is_celbos(sampler)) else redirecting(loader)


def drawing_of(thing: object) -> AbstractContextManager[Any]:
    """The block in which a callback or an optimizer works: what one of others draws comes from the run's generator."""
    return nullcontext() if type(thing).__module__.startswith((_OWN[0], "torch.optim.")) else redirected()


def _is_celbos(thing: object) -> bool:
    return type(thing).__module__.startswith(_OWN[0])


def randomness_of(module: nn.Module, seed: int | None, device: torch.device) -> AbstractContextManager[int]:
    """The block in which a module computes, see :mod:`celbo.ops.random`.

    Parameters
    ----------
    module
        The module or the training plan.
    seed
        Seed of the block; None takes a fresh one.
    device
        Where the module computes.
    """
    return global_rng(seed, device) if draws_globally(module) else own_rng(seed)
