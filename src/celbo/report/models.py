"""The table of models: what the report can ask each of them, one row a class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..external import (
    CYTOVI,
    METHYLANVI,
    METHYLVI,
    POISSONVI,
    SCBASSET,
    SOLO,
    TOTALANVI,
    VELOVI,
    CellAssign,
    ContrastiveVI,
    Decipher,
    RNAStereoscope,
    SpatialStereoscope,
    SysVI,
    Tangram,
)
from ..model import AUTOZI, MULTIVI, PEAKVI, SCANVI, TOTALVI, AmortizedLDA, DestVI
from .detail import Detail, joined
from .doublets import DoubletDetail
from .figures import CLASSIFIER_CURVES, ELBO_CURVES, Curves
from .labels import LabelDetail
from .markers import MarkerDetail
from .modalities import ModalityDetail
from .proportions import ProportionDetail
from .proteins import ProteinDetail
from .topics import TopicDetail, topics_of_cells
from .zero_inflation import ZeroInflationDetail

__all__ = ["ROWS", "Latents", "Row", "row_of"]

Latents = tuple[np.ndarray, np.ndarray | None]
"""Means of the cells' latents ``(n, k)``, and variances where the posterior is normal."""


def _normal_latents(model: Any, indices: np.ndarray) -> Latents:
    return model.get_latent_representation(indices=indices, return_dist=True)


def _means_alone(model: Any, indices: np.ndarray) -> Latents:
    return model.get_latent_representation(indices=indices), None


def _topics(model: AmortizedLDA, indices: np.ndarray) -> Latents:
    return topics_of_cells(model, indices=indices), None


@dataclass(frozen=True)
class Row:
    """What a class of models can be asked.

    Attributes
    ----------
    latents
        Where some of its cells, by row number, lie; None: it has no latent space.
    draws_counts
        Whether its module draws counts, to be set beside those observed.
    takes_counts
        Whether its data are counts, which can be checked.
    detail
        What else it has to say, from the model and a seed.
    curves
        What training is judged by.
    of
        What its data's rows and columns are.
    """

    latents: Callable[[Any, np.ndarray], Latents] | None = _normal_latents
    draws_counts: bool = True
    takes_counts: bool = True
    detail: Callable[[Any, int], Detail] | None = None
    curves: Curves = ELBO_CURVES
    of: tuple[str, str] = ("cells", "genes")


ROWS: Mapping[type, Row] = {
    SCANVI: Row(detail=LabelDetail.of, curves=ELBO_CURVES + CLASSIFIER_CURVES[1:]),
    TOTALVI: Row(detail=ProteinDetail.of, of=("cells", "genes and proteins")),
    TOTALANVI: Row(
        detail=joined(LabelDetail.of, ProteinDetail.of),
        curves=ELBO_CURVES + CLASSIFIER_CURVES[1:],
        of=("cells", "genes and proteins"),
    ),
    AUTOZI: Row(detail=ZeroInflationDetail.of),
    MULTIVI: Row(draws_counts=False, detail=ModalityDetail.of, of=("cells", "features")),  # some cells lack counts
    PEAKVI: Row(draws_counts=False, of=("cells", "regions")),  # it draws which are zero
    POISSONVI: Row(of=("cells", "regions")),
    AmortizedLDA: Row(latents=_topics, draws_counts=False, detail=TopicDetail.of),
    ContrastiveVI: Row(latents=_means_alone, draws_counts=False),
    Decipher: Row(latents=_means_alone),
    CellAssign: Row(latents=None, draws_counts=False, detail=MarkerDetail.of),
    SOLO: Row(
        latents=None,
        draws_counts=False,
        takes_counts=False,
        detail=DoubletDetail.of,
        curves=CLASSIFIER_CURVES,
        of=("cells and simulated doublets", "features"),
    ),
    RNAStereoscope: Row(latents=None, draws_counts=False),
    SpatialStereoscope: Row(latents=None, draws_counts=False, detail=ProportionDetail.of, of=("spots", "genes")),
    METHYLVI: Row(draws_counts=False, takes_counts=False, of=("cells", "regions")),
    METHYLANVI: Row(
        draws_counts=False,
        takes_counts=False,
        detail=LabelDetail.of,
        curves=ELBO_CURVES + CLASSIFIER_CURVES[1:],
        of=("cells", "regions"),
    ),
    SCBASSET: Row(latents=None, draws_counts=False, takes_counts=False, of=("regions", "cells")),
    Tangram: Row(latents=None, draws_counts=False, takes_counts=False, curves=ELBO_CURVES[:1]),
    SysVI: Row(draws_counts=False, takes_counts=False),
    CYTOVI: Row(draws_counts=False, takes_counts=False, of=("cells", "markers")),
    VELOVI: Row(draws_counts=False, takes_counts=False),
    DestVI: Row(latents=None, draws_counts=False, detail=ProportionDetail.of, of=("spots", "genes")),
}
"""Class -> its row; all others, yours too, are taken for autoencoders of counts, as SCVI is."""


def row_of(model: object) -> Row:
    """The row of a model: of its class, or of the nearest that its class derives from."""
    return next((ROWS[cls] for cls in type(model).__mro__ if cls in ROWS), Row())
