"""Layers, encoders and decoders, with scvi-tools' names, signatures and ``state_dict`` keys."""

from ..core.planned import planned_names
from .decoder import Decoder, DecoderSCVI, LinearDecoderSCVI
from .embedding import Embedding
from .encoder import Encoder
from .fc_layers import FCLayers

__all__ = ["Decoder", "DecoderSCVI", "Embedding", "Encoder", "FCLayers", "LinearDecoderSCVI"]

__getattr__ = planned_names(__name__)
