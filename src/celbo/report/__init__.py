"""What came of a training: metrics of the latent space, and one page with pictures."""

from ..core.planned import public_names
from .metrics import BatchMixing, batch_mixing, graph_connectivity, knn_label_accuracy, nmi_ari
from .report import model_report
from .summary import ModelSummary

__all__ = [
    "BatchMixing",
    "ModelSummary",
    "batch_mixing",
    "graph_connectivity",
    "knn_label_accuracy",
    "model_report",
    "nmi_ari",
]

__dir__ = public_names(__name__)
