"""Pictures of models and of what they answer: each function draws on one matplotlib Axes and returns it.

Without ``ax`` a figure of pyplot is made, as in scanpy. Groups differ by colour and by marker, curves by colour and by
line, so that pictures can be read in greyscale and by the colour-blind; every axis has a name and, where there is one,
a unit.
"""

from ..core.planned import public_names
from .checks import latent_dimensions, predictive
from .genes import loadings, volcano
from .labels import calibration, confusion
from .latent import latent, mixing
from .scores import doublet_scores, proportions, protein_levels
from .training import history

__all__ = [
    "calibration",
    "confusion",
    "doublet_scores",
    "history",
    "latent",
    "latent_dimensions",
    "loadings",
    "mixing",
    "predictive",
    "proportions",
    "protein_levels",
    "volcano",
]

__dir__ = public_names(__name__)
