"""Layers, encoders and decoders, with scvi-tools' names, signatures and ``state_dict`` keys."""

from ..core.planned import planned_names, public_names
from .decoder import AccessibilityDecoder, Decoder, DecoderSCVI, LinearDecoderSCVI
from .embedding import Embedding
from .encoder import Encoder
from .fc_layers import FCLayers
from .multi import MultiDecoder, MultiEncoder
from .totalvi import DecoderTOTALVI, EncoderTOTALVI

__all__ = [
    "AccessibilityDecoder",
    "Decoder",
    "DecoderSCVI",
    "DecoderTOTALVI",
    "Embedding",
    "Encoder",
    "EncoderTOTALVI",
    "FCLayers",
    "LinearDecoderSCVI",
    "MultiDecoder",
    "MultiEncoder",
]

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
