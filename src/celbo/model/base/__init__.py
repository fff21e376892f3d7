"""What every model shares: its life, training and archives; and scvi-tools' mixins."""

from typing import TYPE_CHECKING

from ...core.planned import planned_names, public_names
from ...posterior.computation import DifferentialComputation
from ...verbs.batches import EmbeddingMixin
from ...verbs.expression import RNASeqMixin
from ...verbs.latent import VAEMixin
from .made_with import library_arguments
from .minified import BaseMinifiedModeModelClass, BaseMudataMinifiedModeModelClass
from .model import BaseModelClass
from .query.mixin import ArchesMixin
from .setup import Registry, setup_method
from .training import UnsupervisedTrainingMixin

if TYPE_CHECKING:
    from .archives.convert import convert_archive, export_archive
    from .pyro import PyroJitGuideWarmup, PyroModelGuideWarmup, PyroSampleMixin, PyroSviTrainMixin
    from .semisupervised import SemisupervisedTrainingMixin

__all__ = [
    "ArchesMixin",
    "BaseMinifiedModeModelClass",
    "BaseModelClass",
    "BaseMudataMinifiedModeModelClass",
    "DifferentialComputation",
    "EmbeddingMixin",
    "PyroJitGuideWarmup",
    "PyroModelGuideWarmup",
    "PyroSampleMixin",
    "PyroSviTrainMixin",
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

_HOMES = {
    "PyroJitGuideWarmup": "pyro",
    "PyroModelGuideWarmup": "pyro",
    "PyroSampleMixin": "pyro",
    "PyroSviTrainMixin": "pyro",
    "SemisupervisedTrainingMixin": "semisupervised",
    "convert_archive": "archives.convert",
    "export_archive": "archives.convert",
}

__getattr__ = planned_names(__name__, _HOMES)
__dir__ = public_names(__name__)
