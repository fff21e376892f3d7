"""Answers of a trained Decipher on trajectories: the time of cells, genes along the way, effects of v and z on genes.

Dims: n cells, g genes, k latents, p points of a trajectory, s samples.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import cKDTree

from ...ops.draws import rsample
from ...posterior.passes import device_of, evaluating

if TYPE_CHECKING:
    from .module import DecipherModule
    from .utils import Trajectory

__all__ = ["covariances", "gene_patterns", "time_of"]

_QUARTERS = (0.25, 0.75)
_POINTS_AT_ONCE = 2**23
"""Numbers that the draws of some points may give: 32 MiB."""


def time_of(v_nk: np.ndarray, trajectory: "Trajectory", n_neighbors: int) -> np.ndarray:
    """Mean time of the points of a trajectory that are nearest to each cell, ``(n,)``.

    Parameters
    ----------
    v_nk
        Cells in the trajectory's latent space.
    trajectory
        The trajectory.
    n_neighbors
        Points that are averaged; all of them where there are fewer.
    """
    k = min(n_neighbors, trajectory.n_points)
    nearest = cKDTree(trajectory.trajectory_latent).query(v_nk, k=[*range(1, k + 1)])[1]
    return trajectory.trajectory_time[nearest].mean(1)


def covariances(expression_ng: np.ndarray, latent_nk: np.ndarray) -> np.ndarray:
    """Covariance of each gene with each latent over the cells, ``(g, k)``."""
    centred = latent_nk - latent_nk.mean(0)
    return (expression_ng - expression_ng.mean(0)).T @ centred / (len(latent_nk) - 1)


def gene_patterns(
    module: "DecipherModule", trajectory: "Trajectory", l_scale: float, n_samples: int, seed: int | None
) -> dict[str, np.ndarray]:
    """Expression along a trajectory: at the mean of z given v, and quartiles over draws of z.

    Parameters
    ----------
    module
        The trained module.
    trajectory
        A way through v.
    l_scale
        Library size.
    n_samples
        Draws of z at each point.
    seed
        Of the draws.

    Returns
    -------
    ``mean``, ``q25``, ``q75`` ``(p, g)`` and ``times`` ``(p,)``.
    """
    parts: dict[str, list[np.ndarray]] = {"mean": [], "q25": [], "q75": []}
    step = max(1, _POINTS_AT_ONCE // max(1, n_samples * module.dim_genes))
    with evaluating(module, seed):
        points = torch.as_tensor(trajectory.trajectory_latent, device=device_of(module))
        for some in points.split(step):
            for name, block in _of_points(module, some, l_scale, n_samples).items():
                parts[name].append(block)
    return {name: np.concatenate(blocks) for name, blocks in parts.items()} | {"times": trajectory.trajectory_time}


def _of_points(
    module: "DecipherModule", v_pk: torch.Tensor, l_scale: float, n_samples: int
) -> Mapping[str, np.ndarray]:
    pz = module.decoder_v_to_z.normal(v_pk)
    mean_pg = module.decoder_z_to_x(pz.loc).softmax(-1)
    drawn_spg = module.decoder_z_to_x(rsample(pz, (n_samples,))).softmax(-1)
    low, high = (np.quantile(drawn_spg.cpu().numpy(), q, axis=0) for q in _QUARTERS)
    return {"mean": l_scale * mean_pg.cpu().numpy(), "q25": l_scale * low, "q75": l_scale * high}
