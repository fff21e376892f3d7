"""``scvi.model.base._de_core`` and ``_differential``: pieces of differential expression."""

import numpy as np
import pandas as pd

from ...posterior.differential import describe_draws, expected_fdr

__all__ = ["_fdr_de_prediction", "describe_continuous_distrib"]


def _fdr_de_prediction(posterior_probas: pd.Series, fdr: float = 0.05) -> pd.Series:
    """Which features to call so that the expected share of false discoveries is at most ``fdr``."""
    called_g = expected_fdr(np.asarray(posterior_probas, dtype=np.float64), fdr)
    return pd.Series(called_g, index=posterior_probas.index)


def describe_continuous_distrib(
    samples: np.ndarray, credible_intervals_levels: list[float] | None = None
) -> dict[str, np.ndarray]:
    """Mean, median, spread and range of draws ``(r, g)``, each ``(g,)``."""
    return describe_draws(np.asarray(samples), credible_intervals_levels)
