"""What came of a training: metrics of the latent space, and one page with pictures."""

from ..core.planned import public_names
from .metrics import BatchMixing, batch_mixing, graph_connectivity, knn_label_accuracy, nmi_ari
from .projection import neighbour_layout
from .report import model_report
from .summary import Judgement, ModelSummary
from .verdict import judge

__all__ = [
    "BatchMixing",
    "Judgement",
    "ModelSummary",
    "batch_mixing",
    "graph_connectivity",
    "judge",
    "knn_label_accuracy",
    "model_report",
    "neighbour_layout",
    "nmi_ari",
]

__dir__ = public_names(__name__)
