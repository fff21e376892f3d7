"""MRVI under the path at which scvi-tools 1.4 has it."""

from ...core.planned import public_names
from ..mrvi import TorchMRVAE, TorchMRVI

__all__ = ["TorchMRVAE", "TorchMRVI"]

__dir__ = public_names(__name__)
