r"""Point estimates of what all cells share, by the names and constraints that scvi-tools' archives have them under.

Each is a parameter without bounds and a way to the value: :math:`b + e^u` above a bound, :math:`20\,\sigma(u) - 10`
between -10 and 10, or itself.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["CONSTRAINTS", "Learned", "first_values"]

_WIDTH = 20.0


class _Bound(NamedTuple):
    """From a parameter to its value, and back from a first value."""

    value: Callable[[Tensor], Tensor]
    start: Callable[[float], float]


def _above(bound: float) -> _Bound:
    return _Bound(lambda u: u.exp() + bound, lambda value: math.log(value - bound))


_FREE = _Bound(lambda u: u, lambda value: value)
_BETWEEN = _Bound(lambda u: _WIDTH * (u.sigmoid() - 0.5), lambda value: math.log((10 + value) / (10 - value)))

CONSTRAINTS: Mapping[str, _Bound] = {
    "sparsity_diffusion_est": _above(1e-3),
    "background_concentration": _FREE,
    "background_proportion_est": _above(1e-6),
    "diffusion_proportion_est": _above(1e-6),
    "true_proportion_est": _above(1e-6),
    "diffuse_scale_est": _above(1e-6),
    "per_neighbor_diffusion_map": _BETWEEN,
    "px_r_mle": _above(1e-6),
}
"""Name in the archive -> its constraint."""


class Learned(nn.Module):
    """The parameters.

    Parameters
    ----------
    starts
        Name -> shape and first value.
    """

    def __init__(self, starts: Mapping[str, tuple[tuple[int, ...], float]]) -> None:
        super().__init__()
        for name, (shape, value) in starts.items():
            first = torch.full(shape, CONSTRAINTS[name].start(value))
            self.register_parameter(name, nn.Parameter(first))

    def value(self, name: str, rows: Tensor | None = None) -> Tensor:
        """Value of one, or of some rows of it."""
        u = self.get_parameter(name)
        return CONSTRAINTS[name].value(u if rows is None else u[rows])


def first_values(
    n_obs: int, n_neighbors: int, n_batch: int, n_genes: int, shape: tuple[int, ...], diffused: float
) -> dict[str, tuple[tuple[int, ...], float]]:
    """Shape and first value of each, as scvi-tools has them.

    Parameters
    ----------
    n_obs, n_neighbors, n_batch, n_genes
        Numbers of cells, of neighbours of each, of batches and genes.
    shape
        Of the dispersions.
    diffused
        First concentration of diffused counts; that of own counts is 5.
    """
    return {
        "sparsity_diffusion_est": ((1,), 20.0),
        "background_concentration": ((n_batch, n_genes), 1.0),
        "background_proportion_est": ((1,), 0.5),
        "diffusion_proportion_est": ((1,), diffused),
        "true_proportion_est": ((1,), 5.0),
        "diffuse_scale_est": ((1,), 1.0),
        "per_neighbor_diffusion_map": ((n_obs, n_neighbors), 0.0),
        "px_r_mle": (shape, 0.01),
    }
