"""Networks and losses: what a model computes, without any notion of AnnData."""

from ..core.planned import planned_names, public_names
from .amortizedlda import AmortizedLDAModule
from .autozivae import AutoZIVAE
from .classifier import Classifier
from .deconvolution.module import MRDeconv
from .ldvae import LDVAE
from .scanvae import SCANVAE
from .vae import VAE
from .vaec import VAEC

__all__ = ["LDVAE", "SCANVAE", "VAE", "VAEC", "AmortizedLDAModule", "AutoZIVAE", "Classifier", "MRDeconv"]

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
