"""Networks and losses: what a model computes, without any notion of AnnData."""

from .ldvae import LDVAE
from .vae import VAE

__all__ = ["LDVAE", "VAE"]
