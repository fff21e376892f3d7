"""CYTOVI: protein markers by cytometry, in panels that overlap; and what prepares, reads and shows them."""

from ...core.planned import planned_names, public_names
from .fcs import read_fcs, write_fcs
from .model import CYTOVI
from .module import CytoVAE
from .panel import CYTOVI_REGISTRY_KEYS
from .plotting import plot_biaxial, plot_histogram
from .preprocessing import mask_markers, merge_batches, register_nan_layer, scale, subsample, transform_arcsinh

__all__ = [
    "CYTOVI",
    "CYTOVI_REGISTRY_KEYS",
    "CytoVAE",
    "mask_markers",
    "merge_batches",
    "plot_biaxial",
    "plot_histogram",
    "read_fcs",
    "register_nan_layer",
    "scale",
    "subsample",
    "transform_arcsinh",
    "write_fcs",
]

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
