r"""Where each sample's cells are dense: the log-density of every sample's aggregated posterior at every cell.

.. math:: \ell_{ns} = \log \frac{1}{|s|} \sum_{m \in s} q(z_n \mid x_m), \qquad z_n = \mathbb{E}[q(z \mid x_n)]

Differences between columns (or between means over groups of them) say in which sample cells like n abound.

Dims: n cells, k latents, s samples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..core import settings
from ..ops.random import fresh_seed
from .embedding import aggregated_posterior
from .passes import MAX_DECODED

__all__ = ["sample_log_densities"]


def sample_log_densities(
    mean_nk: np.ndarray,
    variance_nk: np.ndarray,
    sample_n: np.ndarray,
    samples: Sequence[Any],
    *,
    dof: float | None = None,
    max_cells: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """Log-density of each sample at the posterior mean of each cell.

    Parameters
    ----------
    mean_nk, variance_nk
        Of each cell's posterior, ``(n, k)``.
    sample_n
        Sample of each cell.
    samples
        The samples to give, in order; each has a cell.
    dof
        Degrees of freedom of Student's t components; None: normal ones.
    max_cells
        Cells of a sample that its mixture has at most, drawn without replacement; None: all.
    seed
        Of that draw; None: ``celbo.settings.seed``, and fresh randomness where that is None too.

    Returns
    -------
    ``(n, s)`` float32, in nats.
    """
    rng = np.random.default_rng(fresh_seed(settings.seed if seed is None else seed))
    z_nk = torch.from_numpy(mean_nk)
    columns = []
    for sample in samples:
        cells = np.flatnonzero(sample_n == sample)
        if max_cells is not None and len(cells) > max_cells:
            cells = np.sort(rng.choice(cells, max_cells, replace=False))
        mixture = aggregated_posterior(mean_nk[cells], variance_nk[cells], dof)
        at_once = max(1, MAX_DECODED // (len(cells) * mean_nk.shape[1]))
        columns.append(torch.cat([mixture.log_prob(block_nk) for block_nk in z_nk.split(at_once)]))
    return torch.stack(columns, dim=1).numpy()
