"""Models of background and target cells on the command line: a value in a column says which are background."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from ...data.modalities import gathered_obs
from .. import multimodal
from ..errors import UserError
from ..kind import Fitted, Kind
from ..kind import fit as fit_plain
from ..options import TrainOptions

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["NEEDS", "SETTINGS", "fit", "fit_both"]

NEEDS: Mapping[str, str] = {
    "background_key": "the column of obs that tells background cells (controls) from targets",
    "background_category": "the value of --background-key in background cells; all others are targets",
}
SETTINGS = tuple(NEEDS)


def fit(kind: Kind, adata: AnnData, options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """Train on background cells and targets; a ``UserError`` where no cell is a target."""
    return fit_plain(kind, adata, options, training, *_groups(adata, options))


def fit_both(kind: Kind, data: "AnnData | MuData", options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """The same with genes and proteins."""
    return multimodal.fit(kind, data, options, training, *_groups(data, options))


def _groups(data: "AnnData | MuData", options: TrainOptions) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of background cells and of targets."""
    value_n = gathered_obs(data)[options.background_key].to_numpy()
    is_background_n = value_n == options.background_category
    if is_background_n.all():
        raise UserError(
            f"All cells have {options.background_category!r} in {options.background_key!r}, so none is a target: name "
            "the value of the background cells, and a column that has others too."
        )
    return np.flatnonzero(is_background_n), np.flatnonzero(~is_background_n)
