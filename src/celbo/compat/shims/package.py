"""``scvi._settings`` and ``scvi._types``."""

from typing import Any, Literal

from anndata import AnnData
from torch import Tensor

from ...core import Settings as ScviConfig
from ...core import settings

__all__ = ["AnnOrMuData", "LossRecord", "MinifiedDataType", "Number", "ScviConfig", "settings"]

Number = int | float
AnnOrMuData = AnnData | Any  # MuData where mudata is installed
MinifiedDataType = Literal["latent_posterior_parameters", "latent_posterior_parameters_with_counts"]
LossRecord = dict[str, Tensor] | Tensor
