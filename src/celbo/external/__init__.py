"""Contributed models: one file or folder each, none of which imports another."""

from ..core.planned import planned_names, public_names
from .cellassign import CellAssign
from .contrastivetotalvi import ContrastiveTOTALVI
from .contrastivevi import ContrastiveVI
from .cytovi import CYTOVI
from .decipher import Decipher
from .diagvi import DIAGVI
from .drvi import DRVI
from .gimvi import GIMVI
from .jointembedding import JointEmbeddingSCVI
from .methylvi import METHYLANVI, METHYLVI
from .mrvi import MRVI, TorchMRVI
from .poissonvi import POISSONVI
from .resolvi import RESOLVI
from .scar import SCAR
from .scbasset import SCBASSET
from .scviva import SCVIVA
from .solo import SOLO
from .stereoscope import RNAStereoscope, SpatialStereoscope
from .sysvi import SysVI
from .tangram import Tangram
from .totalanvi import TOTALANVI
from .velovi import VELOVI

__all__ = [
    "CYTOVI",
    "DIAGVI",
    "DRVI",
    "GIMVI",
    "METHYLANVI",
    "METHYLVI",
    "MRVI",
    "POISSONVI",
    "RESOLVI",
    "SCAR",
    "SCBASSET",
    "SCVIVA",
    "SOLO",
    "TOTALANVI",
    "VELOVI",
    "CellAssign",
    "ContrastiveTOTALVI",
    "ContrastiveVI",
    "Decipher",
    "JointEmbeddingSCVI",
    "RNAStereoscope",
    "SpatialStereoscope",
    "SysVI",
    "Tangram",
    "TorchMRVI",
]

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
