"""ContrastiveVI on the command line: which cells are background is told by a value in a column."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData

from ..errors import UserError
from ..kind import Fitted, Kind
from ..kind import fit as fit_plain
from ..options import TrainOptions

__all__ = ["NEEDS", "SETTINGS", "fit"]

NEEDS: Mapping[str, str] = {
    "background_key": "the column of obs that tells background cells (controls) from targets",
    "background_category": "the value of --background-key in background cells; all others are targets",
}
SETTINGS = tuple(NEEDS)


def fit(kind: Kind, adata: AnnData, options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """Train on background cells and targets; a ``UserError`` where no cell is a target."""
    value_n = adata.obs[options.background_key].to_numpy()
    is_background_n = value_n == options.background_category
    if is_background_n.all():
        raise UserError(
            f"All cells have {options.background_category!r} in {options.background_key!r}, so none is a target: name "
            "the value of the background cells, and a column that has others too."
        )
    groups = np.flatnonzero(is_background_n), np.flatnonzero(~is_background_n)
    return fit_plain(kind, adata, options, training, *groups)
