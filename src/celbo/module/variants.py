"""Variants of a module that share its weights."""

import copy
from typing import TypeVar

from torch import nn

__all__ = ["without_bias"]

Module = TypeVar("Module", bound=nn.Module)


def without_bias(module: Module, layer: str) -> Module:
    """A module that computes with the same weights, but for the bias of one layer, which it does without.

    Parameters
    ----------
    module
        Not changed: only the parts on the way to the layer are copied, and no weight is.
    layer
        Path of the layer, as in ``module.get_submodule``.
    """
    part, _, rest = layer.partition(".")
    variant = copy.copy(module)
    if part:
        child = module.get_submodule(part)
        variant._modules = module._modules | {part: without_bias(child, rest)}
    else:
        variant._parameters = module._parameters | {"bias": None}
    return variant
