"""Networks and losses: what a model computes, without any notion of AnnData. Each loads when it is first named."""

from typing import TYPE_CHECKING

from ..core.planned import planned_names, public_names

if TYPE_CHECKING:
    from .amortizedlda import AmortizedLDAModule
    from .autozivae import AutoZIVAE
    from .classifier import Classifier
    from .deconvolution.module import MRDeconv
    from .ldvae import LDVAE
    from .multivae import MULTIVAE
    from .peakvae import PEAKVAE
    from .scanvae import SCANVAE
    from .totalvae import TOTALVAE
    from .vae import VAE
    from .vaec import VAEC

__all__ = [
    "LDVAE",
    "MULTIVAE",
    "PEAKVAE",
    "SCANVAE",
    "TOTALVAE",
    "VAE",
    "VAEC",
    "AmortizedLDAModule",
    "AutoZIVAE",
    "Classifier",
    "MRDeconv",
]

_HOMES = {
    "LDVAE": "ldvae",
    "MULTIVAE": "multivae",
    "PEAKVAE": "peakvae",
    "SCANVAE": "scanvae",
    "TOTALVAE": "totalvae",
    "VAE": "vae",
    "VAEC": "vaec",
    "AmortizedLDAModule": "amortizedlda",
    "AutoZIVAE": "autozivae",
    "Classifier": "classifier",
    "MRDeconv": "deconvolution.module",
}

__getattr__ = planned_names(__name__, _HOMES)
__dir__ = public_names(__name__)
