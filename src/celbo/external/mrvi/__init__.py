"""MRVI: cells of many samples, and what each of them would be in every other sample."""

from ...core.planned import public_names
from .model import MRVI, TorchMRVI
from .module import TorchMRVAE

__all__ = ["MRVI", "TorchMRVAE", "TorchMRVI"]

__dir__ = public_names(__name__)
