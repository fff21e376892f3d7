"""What every model shares: its life, training and archives; and scvi-tools' mixins."""

from ...core.planned import planned_names
from .archesmixin import ArchesMixin
from .embeddingmixin import EmbeddingMixin
from .library import library_arguments
from .model import BaseModelClass
from .rnaseqmixin import RNASeqMixin
from .setup import setup_method
from .training import UnsupervisedTrainingMixin
from .vaemixin import VAEMixin

__all__ = [
    "ArchesMixin",
    "BaseModelClass",
    "EmbeddingMixin",
    "RNASeqMixin",
    "UnsupervisedTrainingMixin",
    "VAEMixin",
    "library_arguments",
    "setup_method",
]

__getattr__ = planned_names(__name__)
