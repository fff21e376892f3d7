"""ContrastiveVI: what varies in target cells, apart from what varies in background cells too."""

from ...core.planned import public_names
from ...dataloaders.contrasts import ContrastiveDataLoader, ContrastiveDataSplitter
from .model import ContrastiveVI
from .module import ContrastiveVAE

__all__ = ["ContrastiveDataLoader", "ContrastiveDataSplitter", "ContrastiveVAE", "ContrastiveVI"]

__dir__ = public_names(__name__)
