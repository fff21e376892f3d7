"""SCVIVA: cells and their niches in tissue."""

from ...core.planned import public_names
from .layers import DirichletDecoder, NicheDecoder
from .model import SCVIVA
from .module import SCVIVA_REGISTRY_KEYS, NicheLossOutput, nicheVAE

__all__ = ["SCVIVA", "SCVIVA_REGISTRY_KEYS", "DirichletDecoder", "NicheDecoder", "NicheLossOutput", "nicheVAE"]

__dir__ = public_names(__name__)
