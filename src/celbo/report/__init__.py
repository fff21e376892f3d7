"""What came of a training: metrics of the latent space, and one page with pictures."""

from .metrics import BatchMixing, batch_mixing, graph_connectivity, knn_label_accuracy, nmi_ari

__all__ = ["BatchMixing", "batch_mixing", "graph_connectivity", "knn_label_accuracy", "nmi_ari"]
