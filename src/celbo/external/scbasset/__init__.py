"""SCBASSET: cells and transcription factors, from the sequences of open chromatin."""

from ...core.planned import public_names
from .dna import add_dna_sequence, codes_of
from .model import SCBASSET
from .module import ScBassetModule

__all__ = ["SCBASSET", "ScBassetModule", "add_dna_sequence", "codes_of"]

__dir__ = public_names(__name__)
