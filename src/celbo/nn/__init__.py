"""Layers, encoders and decoders, with scvi-tools' names, signatures and ``state_dict`` keys."""

from .decoder import Decoder, DecoderSCVI, LinearDecoderSCVI
from .embedding import Embedding
from .encoder import Encoder
from .fc_layers import FCLayers

__all__ = ["Decoder", "DecoderSCVI", "Embedding", "Encoder", "FCLayers", "LinearDecoderSCVI"]
