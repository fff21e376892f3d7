"""What every model shares: its life, training and archives; and scvi-tools' mixins."""

from ...core.planned import planned_names, public_names
from .archesmixin import ArchesMixin
from .convert import convert_archive, export_archive
from .differentialcomputation import DifferentialComputation
from .embeddingmixin import EmbeddingMixin
from .library import library_arguments
from .minified import BaseMinifiedModeModelClass
from .model import BaseModelClass
from .rnaseqmixin import RNASeqMixin
from .semisupervised import SemisupervisedTrainingMixin
from .setup import setup_method
from .training import UnsupervisedTrainingMixin
from .vaemixin import VAEMixin

__all__ = [
    "ArchesMixin",
    "BaseMinifiedModeModelClass",
    "BaseModelClass",
    "DifferentialComputation",
    "EmbeddingMixin",
    "RNASeqMixin",
    "SemisupervisedTrainingMixin",
    "UnsupervisedTrainingMixin",
    "VAEMixin",
    "convert_archive",
    "export_archive",
    "library_arguments",
    "setup_method",
]

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
