"""The contract between a model's maths and everything around it."""

from typing import TYPE_CHECKING

from ...core.planned import planned_names, public_names
from .embedding import EmbeddingModuleMixin
from .lossoutput import LossOutput
from .minified import BaseMinifiedModeModuleClass
from .module import BaseModuleClass, auto_move_data
from .priors import GaussianPrior, MogPrior

if TYPE_CHECKING:
    from .pyro import PyroBaseModuleClass

__all__ = [
    "BaseMinifiedModeModuleClass",
    "BaseModuleClass",
    "EmbeddingModuleMixin",
    "GaussianPrior",
    "LossOutput",
    "MogPrior",
    "PyroBaseModuleClass",
    "auto_move_data",
]

__getattr__ = planned_names(__name__, {"PyroBaseModuleClass": "pyro"})
__dir__ = public_names(__name__)
