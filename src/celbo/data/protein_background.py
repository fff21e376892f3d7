r"""Background of proteins, to begin with: from cells, each of which has proteins that it does not express, or from
droplets without a cell.

Of a cell, log counts over its proteins are a mixture of two normal distributions, of which the lower is background.

Dims: n cells or droplets, p proteins, b batches or panels.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from .access import dense

__all__ = ["background_of_cells", "background_of_droplets", "droplet_counts", "tell_small_panels"]

logger = logging.getLogger("celbo")

_SEED = 0
_CELLS = 100
_FEWEST_PROTEINS = 5
_UNKNOWN = (0.0, 0.05)
_ABSENT = (0.0, 1.0)
_ITERATIONS = 200
_LEAST_SPREAD, _LEAST_BACKGROUND_SPREAD = 1e-3, 0.05


def background_of_cells(
    counts_of: Callable[[np.ndarray], np.ndarray],
    codes_n: np.ndarray,
    sizes: tuple[int, int],
    masks: Mapping[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of the log background in each batch, the same for all proteins, from 100 of its cells.

    Parameters
    ----------
    counts_of
        Gives the counts of all proteins ``(m, p)`` in the cells of ``m`` row numbers.
    codes_n
        Batch (or panel) of each cell.
    sizes
        Numbers of proteins and batches.
    masks
        Proteins measured, ``(p,)``, by the code of the batch as text; None: all of them.

    Returns
    -------
    Mean and standard deviation, ``(p, b)`` each. A batch without cells, or of fewer than 5 proteins, has 0 and 1; one
    in whose cells no two groups of proteins are found has 0 and 0.05.
    """
    rng = np.random.default_rng(_SEED)
    figures = np.array([_ABSENT] * sizes[1], dtype=np.float64)
    for code in np.unique(codes_n):
        cells = np.flatnonzero(codes_n == code)
        measured = (masks or {}).get(str(code), np.ones(sizes[0], bool))
        drawn = np.sort(rng.choice(cells, _CELLS))
        log_np = np.log1p(np.asarray(counts_of(drawn), dtype=np.float64)[:, np.flatnonzero(measured)])
        figures[code] = _of_batch(log_np) if log_np.shape[1] >= _FEWEST_PROTEINS else _ABSENT
    mean_b, spread_b = figures.T
    return np.broadcast_to(mean_b, sizes).astype(np.float32), np.broadcast_to(spread_b, sizes).astype(np.float32)


def tell_small_panels(masks: Mapping[str, np.ndarray] | None, panels: Sequence[object]) -> None:
    """Say which panels have too few proteins for their cells to show the background.

    Parameters
    ----------
    masks
        Proteins measured, ``(p,)``, by the code of the batch (or panel) as text; None: all of them, everywhere.
    panels
        Names of batches (or panels), by their codes.
    """
    sizes = {str(panels[int(code)]): int(measured.sum()) for code, measured in (masks or {}).items()}
    small = [f"{name!r} ({size})" for name, size in sizes.items() if 0 < size < _FEWEST_PROTEINS]
    if small:
        logger.info(
            "Too few proteins to tell background from foreground in the cells of %s; %d are wanted: the background "
            "begins at one count there, and is learned. Droplets without cells show it: empty_droplets=.",
            *(", ".join(small), _FEWEST_PROTEINS),
        )


def _of_batch(log_np: np.ndarray) -> tuple[float, float]:
    mean_n, spread_n = lower_components(log_np)
    found = np.isfinite(mean_n) & np.isfinite(spread_n)
    mean_n, spread_n = np.where(found, mean_n, _UNKNOWN[0]), np.where(found, spread_n, _UNKNOWN[1])
    return float(mean_n.mean()), float(np.sqrt(np.square(spread_n).sum()) / len(spread_n))


def lower_components(x_np: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the lower of two normal distributions whose mixture each row is, by EM.

    Parameters
    ----------
    x_np
        Values, ``(n, p)``.

    Returns
    -------
    ``(n,)`` each; NaN for a row of equal values.
    """
    low_n, high_n = x_np.min(1), x_np.max(1)
    mean_2n = np.stack([low_n, high_n])
    spread_2n = np.broadcast_to(np.maximum((high_n - low_n) / 4, _LEAST_SPREAD), mean_2n.shape).copy()
    share_2n = np.full_like(mean_2n, 0.5)
    for _ in range(_ITERATIONS):
        distance = (x_np - mean_2n[..., None]) / spread_2n[..., None]
        log_2np = np.log(share_2n / spread_2n)[..., None] - distance**2 / 2
        weight_2np = np.exp(log_2np - np.logaddexp(*log_2np))
        total_2n = np.maximum(weight_2np.sum(-1), 1e-9)
        before = mean_2n
        mean_2n = (weight_2np * x_np).sum(-1) / total_2n
        square_2n = (weight_2np * (x_np - mean_2n[..., None]) ** 2).sum(-1) / total_2n
        spread_2n = np.sqrt(np.maximum(square_2n, _LEAST_SPREAD**2))
        share_2n = np.clip(total_2n / x_np.shape[1], 1e-6, None)
        if np.abs(mean_2n - before).max() < 1e-6:
            break
    lower_n = mean_2n.argmin(0)
    rows = np.arange(len(x_np))
    equal_n = low_n == high_n
    return np.where(equal_n, np.nan, mean_2n[lower_n, rows]), np.where(equal_n, np.nan, spread_2n[lower_n, rows])


def background_of_droplets(counts_np: np.ndarray, n_batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of the log background of each protein, from droplets without a cell.

    Parameters
    ----------
    counts_np
        Counts of proteins in empty droplets, ``(n, p)``.
    n_batch
        Number of batches (or panels), all of which get these figures.

    Returns
    -------
    Mean and standard deviation of ``log(1 + count)``, ``(p, b)`` each; the latter 0.05 at least.
    """
    log_np = np.log1p(np.asarray(counts_np, dtype=np.float64))
    shape = (log_np.shape[1], n_batch)
    mean_p, spread_p = log_np.mean(0), np.maximum(log_np.std(0), _LEAST_BACKGROUND_SPREAD)
    return (
        np.broadcast_to(mean_p[:, None], shape).astype(np.float32),
        np.broadcast_to(spread_p[:, None], shape).astype(np.float32),
    )


def droplet_counts(droplets: Any, names: list[str], place: Mapping[str, Any]) -> np.ndarray:
    """Counts ``(m, p)`` in empty droplets, in a model's order of proteins.

    Parameters
    ----------
    droplets
        A DataFrame with these proteins, an array of them, or an AnnData that has them where the model's data have.
    names
        Names of the model's proteins.
    place
        ``attr_name`` and ``attr_key`` of the model's data.

    Raises
    ------
    ValueError
        Proteins are missing, or there are fewer than two droplets.
    """
    if isinstance(droplets, AnnData):
        droplets = droplets.obsm[place["attr_key"]] if place["attr_name"] == "obsm" else droplets.to_df()
    if isinstance(droplets, pd.DataFrame):
        missing = [name for name in names if name not in droplets]
        if missing:
            raise ValueError(f"empty_droplets lacks {len(missing)} proteins of the model: {missing[:5]}.")
        droplets = droplets[names].to_numpy()
    counts_mp = dense(droplets, np.float64)
    if counts_mp.ndim != 2 or counts_mp.shape[1] != len(names) or len(counts_mp) < 2:
        raise ValueError(
            f"empty_droplets is {counts_mp.shape}, wanted two droplets or more by the {len(names)} proteins."
        )
    return counts_mp
