"""METHYLVI and METHYLANVI on the command line: a modality for each context of methylation."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..kind import Fitted, Kind
from ..options import TrainOptions

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["ROW", "fit"]


def fit(kind: Kind, mdata: "MuData", options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """Set up on the contexts of a MuData, make and train."""
    labels = {"unlabeled_category": None} if "unlabeled_category" in kind.settings else {}
    kind.cls.setup_mudata(mdata, **{**labels, **kind.setup_arguments(options)})
    model = kind.cls(mdata, **kind.model_arguments(options))
    model.train(**training)
    return Fitted(model)


ROW: Mapping[str, Any] = MappingProxyType(
    {"fit": fit, "of_contexts": True, "takes_counts": False, "defaults": {"mc_layer": "mc", "cov_layer": "cov"}}
)
"""What both say of themselves in the table of models."""
