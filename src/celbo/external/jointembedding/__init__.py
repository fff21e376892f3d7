"""JointEmbeddingSCVI: an SCVI whose latents do not depend on how many counts were read."""

from ...core.planned import public_names
from .model import JointEmbeddingSCVI
from .module import JointEmbeddingVAE

__all__ = ["JointEmbeddingSCVI", "JointEmbeddingVAE"]

__dir__ = public_names(__name__)
