"""Trajectories through a latent space, and the rotation that makes its axes readable."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

import numpy as np
from anndata import AnnData

from ...core import ArgumentError, checked, checked_methods
from ...core.kinds import Text, Whole
from .lookup import column_of, latents_of

__all__ = ["Trajectory", "rotate_decipher_components"]

_ANGLES = 3600
Values = Sequence[Any]


@checked_methods
class Trajectory:
    """Straight lines through points of a latent space, one after the other; time is the length of the way.

    Parameters
    ----------
    rep_key
        Key of ``adata.obsm`` of the latent space.
    cluster_locations
        The points, ``(c, k)``: means of clusters, in order.
    cluster_ids
        Names of the clusters.
    point_density
        Points for each unit of length.

    Attributes
    ----------
    trajectory_latent
        Points along the way, ``(p, k)`` float32.
    trajectory_time
        Their times, ``(p,)``.
    cumulative_length
        Time at which each point after the first is reached, ``(c - 1,)``.
    n_points
        Number of points along the way.

    Raises
    ------
    ArgumentError
        Fewer than two points, another number of names, or two points after each other that are the same.

    Examples
    --------
    >>> way = Trajectory("v", [[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]], ["early", "middle", "late"])
    >>> way.at_time(2.0)
    array([1., 1.])
    """

    def __init__(
        self,
        rep_key: Annotated[str, Text()],
        cluster_locations: Sequence[Sequence[float]] | np.ndarray,
        cluster_ids: Values,
        point_density: Annotated[int, Whole(1)] = 50,
    ) -> None:
        self.rep_key, self.cluster_ids = rep_key, list(cluster_ids)
        self.cluster_locations = np.asarray(cluster_locations, dtype=float)
        self._point_density = point_density
        self._check_points()
        lengths = np.linalg.norm(np.diff(self.cluster_locations, axis=0), axis=1)
        if not (lengths > 0).all():
            twice = self.cluster_ids[int(lengths.argmin())]
            raise ArgumentError(f"The cluster after {twice!r} lies where it does: leave one of the two out.")
        self.cumulative_length = np.cumsum(lengths)
        self.n_points = max(2, int(self.cumulative_length[-1] * point_density))
        self.trajectory_time = np.linspace(0, self.cumulative_length[-1], self.n_points)
        self.trajectory_latent = self._at(self.trajectory_time).astype(np.float32)

    def _check_points(self) -> None:
        shape = self.cluster_locations.shape
        if len(shape) != 2 or shape[0] < 2 or shape[0] != len(self.cluster_ids):
            raise ArgumentError(
                f"cluster_locations must be one row for each of the {len(self.cluster_ids)} cluster_ids, two at least, "
                f"got an array of shape {shape}."
            )
        if not np.isfinite(self.cluster_locations).all():
            raise ArgumentError("cluster_locations has a number that is not finite: a cluster without cells?")

    def _at(self, times: np.ndarray) -> np.ndarray:
        reached = np.concatenate([[0.0], self.cumulative_length])
        return np.stack([np.interp(times, reached, column) for column in self.cluster_locations.T], axis=-1)

    def at_time(self, t: float) -> np.ndarray:
        """The point at a time, ``(k,)``; the first or last point beyond the ends.

        Parameters
        ----------
        t
            Time, from 0 to the whole length.
        """
        return self._at(np.asarray(t))

    def to_dict(self) -> dict[str, Any]:
        """The trajectory as plain values, to keep in ``adata.uns``."""
        return {
            "cluster_locations": self.cluster_locations,
            "cluster_ids": self.cluster_ids,
            "points": self.trajectory_latent,
            "times": self.trajectory_time,
            "density": self._point_density,
            "rep_key": self.rep_key,
        }

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Self:
        """The trajectory of what :meth:`to_dict` gave.

        Parameters
        ----------
        d
            Its values.
        """
        return cls(d["rep_key"], d["cluster_locations"], list(d["cluster_ids"]), int(d["density"]))


@checked
def rotate_decipher_components(
    adata: AnnData,
    v_obsm_key: Annotated[str, Text()],
    z_obsm_key: Annotated[str, Text()],
    v1_obs_col: Annotated[str | None, Text()] = None,
    v1_order: Values | None = None,
    v2_obs_col: Annotated[str | None, Text()] = None,
    v2_order: Values | None = None,
    auto_flip_decipher_z: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Rotate and flip v, so that its axes follow columns of ``adata.obs``.

    The rotation maximizes, over the axes i that a column :math:`y_i` was given for,

    .. math:: \sum_i \mathrm{corr}(v_i, y_i) - \lvert\mathrm{corr}(v_j, y_i)\rvert, \qquad j \ne i

    that is, each axis follows its own column, and the other axis does not.

    Parameters
    ----------
    adata
        Cells. Not changed.
    v_obsm_key, z_obsm_key
        Keys of ``adata.obsm`` of v, ``(n, 2)``, and z, ``(n, k)``.
    v1_obs_col, v2_obs_col
        Column that the first and the second axis is to follow; None: none.
    v1_order, v2_order
        Values of the column in their order, where it is not numeric. Cells of other values are left out.
    auto_flip_decipher_z
        Give each latent of z the sign by which it goes along with v.

    Returns
    -------
    v after rotation, z after flips, and the rotation R, ``(2, 2)``: the new v is ``v @ R``.

    Raises
    ------
    ArgumentError
        No column was given, a column is not there or needs an order, or v does not have two dimensions.
    """
    v, z = (latents_of(adata, key) for key in (v_obsm_key, z_obsm_key))
    if v.ndim != 2 or v.shape[1] != 2:
        raise ArgumentError(f"adata.obsm[{v_obsm_key!r}] must have two columns to be turned, it has {v.shape[1:]}.")
    columns = ((v1_obs_col, v1_order), (v2_obs_col, v2_order))
    wanted = {axis: _numbers(adata, *column) for axis, column in enumerate(columns) if column[0] is not None}
    if not wanted:
        raise ArgumentError("Give v1_obs_col or v2_obs_col: a column of adata.obs that an axis of v is to follow.")
    rotation = _best_rotation(v.astype(float), wanted)
    turned = v @ rotation
    return turned, z * _signs(z, turned) if auto_flip_decipher_z else z, rotation


def _numbers(adata: AnnData, column: str | None, order: Values | None) -> np.ndarray:
    """A column as numbers, places in an order where one is given; NaN where a cell has none."""
    values = column_of(adata, column)
    if order is not None:
        place = {value: float(i) for i, value in enumerate(order)}
        return values.astype(object).map(place).to_numpy(dtype=float)
    if values.dtype.kind not in "biuf":
        raise ArgumentError(
            f"adata.obs[{column!r}] is not numeric: give the order of its values, v1_order or v2_order."
        )
    return values.to_numpy(dtype=float)


def _best_rotation(v: np.ndarray, wanted: Mapping[int, np.ndarray]) -> np.ndarray:
    """The rotation, and flip where two columns ask for one, of the highest score; angles a tenth of a degree apart."""
    angles = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    cos, sin = np.cos(angles), np.sin(angles)
    axes = np.stack([np.stack([cos, sin]), np.stack([-sin, cos])])  # (axis, coordinate, angle)
    own, other = np.zeros((2, _ANGLES)), np.zeros(_ANGLES)
    for axis, y in wanted.items():
        known = np.isfinite(y)
        by_axis = np.stack([_correlations(v[known] @ directions, y[known]) for directions in axes])
        own[axis] = by_axis[axis]
        other += np.abs(by_axis[1 - axis])
    best = int((np.abs(own).sum(0) - other).argmax())
    flips = np.where(own[:, best] < 0, -1.0, 1.0)
    return axes[:, :, best].T * flips


def _correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlation of each column with y; 0 where either does not vary."""
    x, y = x - x.mean(0), y - y.mean()
    norm = np.linalg.norm(x, axis=0) * np.linalg.norm(y)
    return np.divide(y @ x, norm, out=np.zeros(x.shape[1]), where=norm > 0)


def _signs(z: np.ndarray, v: np.ndarray) -> np.ndarray:
    along = sum(_correlations(z, column) for column in v.T)
    return np.where(np.asarray(along) < 0, -1, 1).astype(z.dtype)
