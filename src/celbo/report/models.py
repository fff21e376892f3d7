"""The table of models: what the report can ask each of them, one row a class."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np

from ..external import (
    CYTOVI,
    DIAGVI,
    METHYLANVI,
    METHYLVI,
    POISSONVI,
    SCBASSET,
    SOLO,
    TOTALANVI,
    VELOVI,
    CellAssign,
    SpatialStereoscope,
    SysVI,
    Tangram,
)
from ..model import AUTOZI, MULTIVI, PEAKVI, SCANVI, TOTALVI, AmortizedLDA, DestVI
from ..model.base import BaseModelClass
from ..module.base import BaseModuleClass
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


def _latents(model: Any, indices: np.ndarray) -> Latents:
    asks = _arguments_of_latents(type(model))
    found = model.get_latent_representation(indices=indices, **({"return_dist": True} if "return_dist" in asks else {}))
    return found if "return_dist" in asks else (found, None)


def _latents_of_the_first(model: DIAGVI, indices: np.ndarray) -> Latents:
    """Of the first of two modalities, whose data the report is on."""
    name = model.set_names[0]
    return model.get_latent_representation(indices={name: indices.tolist()})[name], None


def _arguments_of_latents(cls: type) -> Collection[str]:
    """Arguments of the class's latents; none where it has none."""
    return signature(cls.get_latent_representation).parameters if hasattr(cls, "get_latent_representation") else ()


def _topics(model: AmortizedLDA, indices: np.ndarray) -> Latents:
    return topics_of_cells(model, indices=indices), None


@dataclass(frozen=True)
class Row:
    """What a class of models can be asked.

    Attributes
    ----------
    latents
        Where some of its cells, by row number, lie; None: it has no latent space. By default its verb says.
    draws_counts
        Whether what its module draws may be set beside the counts observed.
    takes_counts
        Whether its data are counts, which can be checked.
    detail
        What else it has to say, from the model and a seed.
    curves
        What training is judged by.
    of
        What its data's rows and columns are.
    """

    latents: Callable[[Any, np.ndarray], Latents] | None = _latents
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
    AmortizedLDA: Row(latents=_topics, detail=TopicDetail.of),
    CellAssign: Row(detail=MarkerDetail.of),
    SOLO: Row(
        takes_counts=False,
        detail=DoubletDetail.of,
        curves=CLASSIFIER_CURVES,
        of=("cells and simulated doublets", "features"),
    ),
    SpatialStereoscope: Row(detail=ProportionDetail.of, of=("spots", "genes")),
    METHYLVI: Row(takes_counts=False, of=("cells", "regions")),
    METHYLANVI: Row(
        takes_counts=False,
        detail=LabelDetail.of,
        curves=ELBO_CURVES + CLASSIFIER_CURVES[1:],
        of=("cells", "regions"),
    ),
    SCBASSET: Row(takes_counts=False, of=("regions", "cells")),
    Tangram: Row(takes_counts=False, curves=ELBO_CURVES[:1]),
    SysVI: Row(takes_counts=False),
    CYTOVI: Row(takes_counts=False, of=("cells", "markers")),
    VELOVI: Row(takes_counts=False),
    DIAGVI: Row(latents=_latents_of_the_first, draws_counts=False, takes_counts=False, of=("cells", "features")),
    DestVI: Row(latents=None, detail=ProportionDetail.of, of=("spots", "genes")),
}
"""Class -> what its verbs and its module do not tell themselves."""


def row_of(model: object) -> Row:
    """What a model can be asked: by the row of its class, or of the nearest that it derives from, and by its verbs.

    Models without a row, yours too, are taken for models of counts.
    """
    cls = type(model)
    row = next((ROWS[base] for base in cls.__mro__ if base in ROWS), Row())
    if row.latents is _latents and "indices" not in _arguments_of_latents(cls):
        row = replace(row, latents=None)
    draws = row.draws_counts and row.takes_counts and _samples(cls)
    return replace(row, draws_counts=draws)


def _samples(cls: type) -> bool:
    """Whether the module of a class draws data; False only where it is known not to."""
    module_cls = cls._module_cls if issubclass(cls, BaseModelClass) else None
    is_own = module_cls is not None and issubclass(module_cls, BaseModuleClass)
    return not is_own or module_cls.sample is not BaseModuleClass.sample  # type: ignore[union-attr]
