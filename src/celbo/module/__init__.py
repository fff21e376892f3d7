"""Networks and losses: what a model computes, without any notion of AnnData."""

from ..core.planned import planned_names
from .classifier import Classifier
from .ldvae import LDVAE
from .scanvae import SCANVAE
from .vae import VAE

__all__ = ["LDVAE", "SCANVAE", "VAE", "Classifier"]

__getattr__ = planned_names(__name__)
