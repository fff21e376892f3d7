"""METHYLVI and METHYLANVI: DNA methylation of single cells, and cell types from it."""

from typing import NamedTuple

from ...core.planned import public_names
from .methylanvae import METHYLANVAE
from .methylanvi import METHYLANVI
from .model import METHYLVI
from .module import METHYLVAE, DecoderMETHYLVI
from .verbs import MethylationMixin as BSSeqMixin

__all__ = [
    "METHYLANVAE",
    "METHYLANVI",
    "METHYLVAE",
    "METHYLVI",
    "METHYLVI_REGISTRY_KEYS",
    "BSSeqMixin",
    "DecoderMETHYLVI",
]


class _Keys(NamedTuple):
    """Endings of registry keys, after the context and ``_``."""

    MC_KEY: str = "mc"
    COV_KEY: str = "cov"


METHYLVI_REGISTRY_KEYS = _Keys()

__dir__ = public_names(__name__)
