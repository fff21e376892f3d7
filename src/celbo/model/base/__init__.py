"""What every model shares: its life, training and archives; and scvi-tools' mixins."""

from ...core.planned import planned_names, public_names
from .archives.convert import convert_archive, export_archive
from .library import library_arguments
from .minified import BaseMinifiedModeModelClass
from .model import BaseModelClass
from .query.mixin import ArchesMixin
from .semisupervised import SemisupervisedTrainingMixin
from .setup import Registry, setup_method
from .training import UnsupervisedTrainingMixin
from .verbs.batches import EmbeddingMixin
from .verbs.computation import DifferentialComputation
from .verbs.expression import RNASeqMixin
from .verbs.latent import VAEMixin

__all__ = [
    "ArchesMixin",
    "BaseMinifiedModeModelClass",
    "BaseModelClass",
    "DifferentialComputation",
    "EmbeddingMixin",
    "RNASeqMixin",
    "Registry",
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
