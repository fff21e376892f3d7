"""Networks and losses: what a model computes, without any notion of AnnData."""

from ..core.planned import planned_names
from .ldvae import LDVAE
from .vae import VAE

__all__ = ["LDVAE", "VAE"]

__getattr__ = planned_names(__name__)
