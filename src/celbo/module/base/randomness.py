"""Where a module's random numbers come from: a private generator, or torch's global one for code of others."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from ...ops.draws import redirecting
from ...ops.random import global_rng, own_rng, redirected

__all__ = ["drawing_of", "draws_globally", "minibatches_of", "randomness_of"]

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
