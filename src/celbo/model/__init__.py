"""Models: set up, train, ask. Each loads when it is first named."""

from typing import TYPE_CHECKING

from ..core.planned import planned_names, public_names
from . import base

if TYPE_CHECKING:
    from .amortizedlda import AmortizedLDA
    from .autozi import AUTOZI
    from .condscvi import CondSCVI
    from .destvi import DestVI
    from .linear_scvi import LinearSCVI
    from .multivi import MULTIVI
    from .peakvi import PEAKVI
    from .scanvi import SCANVI
    from .scvi import SCVI
    from .totalvi import TOTALVI

__all__ = [
    "AUTOZI",
    "MULTIVI",
    "PEAKVI",
    "SCANVI",
    "SCVI",
    "TOTALVI",
    "AmortizedLDA",
    "CondSCVI",
    "DestVI",
    "LinearSCVI",
    "base",
]

_HOMES = {
    "AUTOZI": "autozi",
    "MULTIVI": "multivi",
    "PEAKVI": "peakvi",
    "SCANVI": "scanvi",
    "SCVI": "scvi",
    "TOTALVI": "totalvi",
    "AmortizedLDA": "amortizedlda",
    "CondSCVI": "condscvi",
    "DestVI": "destvi",
    "LinearSCVI": "linear_scvi",
}

__getattr__ = planned_names(__name__, _HOMES)
__dir__ = public_names(__name__)
