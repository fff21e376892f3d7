"""Models: set up, train, ask."""

from ..core.planned import planned_names, public_names
from . import base
from .amortizedlda import AmortizedLDA
from .autozi import AUTOZI
from .condscvi import CondSCVI
from .destvi import DestVI
from .linear_scvi import LinearSCVI
from .scanvi import SCANVI
from .scvi import SCVI

__all__ = ["AUTOZI", "SCANVI", "SCVI", "AmortizedLDA", "CondSCVI", "DestVI", "LinearSCVI", "base"]

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
