r"""Each cell in each sample: what it would be there, and how far that lies from what it would be in others.

.. math:: z_{ns} = A u_n + \epsilon(u_n, s), \qquad d_{nst} = \lVert z_{ns} - z_{nt} \rVert

Cells are taken in blocks whose pairs with samples fill at most 64 MiB for each table that is made of them. The state u
is encoded once, and the parts of the attention that depend on u alone or on a sample alone are computed once each.

Dims: n cells, s samples, k latents, t draws.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.distributions import Normal

from ...core import REGISTRY_KEYS
from ...ops.draws import rsample
from ...posterior.passes import Batches, Rows, evaluating, on_device, size_of
from .module import TorchMRVAE

__all__ = [
    "A_PAIR",
    "Block",
    "Norm",
    "blocks",
    "distances",
    "in_samples",
    "latents",
    "posterior_of_u",
    "representations",
]

Norm = Literal["l1", "l2", "linf"]

_NUMBERS = 2**24
A_PAIR = 2**9
"""Numbers that the attention holds for a cell in a sample."""

_ORDER = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}


class Block(NamedTuple):
    """Some cells: their minibatch, and the posterior of u."""

    tensors: dict[str, Tensor]
    qu: Normal

    @property
    def sample_n(self) -> Tensor:
        """Code of each cell's sample."""
        return self.tensors[REGISTRY_KEYS.SAMPLE_KEY].flatten().long()


def blocks(module: TorchMRVAE, batches: Batches, numbers_a_cell: int = 1) -> Iterator[Block]:
    """Cells in blocks, each small enough for this many numbers per cell."""
    step = max(1, _NUMBERS // numbers_a_cell)
    for tensors in on_device(batches, module):
        for start in range(0, size_of(tensors), step):
            part = {key: table[start : start + step] for key, table in tensors.items()}
            sample_n = part[REGISTRY_KEYS.SAMPLE_KEY].flatten().long()
            yield Block(part, module.qu(part[REGISTRY_KEYS.X_KEY], sample_n))


def posterior_of_u(
    module: TorchMRVAE, batches: Batches, *, n_cells: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and variance of u ``(n, k)``, and the code of the sample ``(n,)``, of each cell."""
    mean, variance, sample = Rows(n_cells), Rows(n_cells), Rows(n_cells)
    with evaluating(module):
        for block in blocks(module, batches):
            mean.append(block.qu.loc)
            variance.append(block.qu.scale.square())
            sample.append(block.sample_n)
    return mean.array(), variance.array(), sample.array()


def latents(
    module: TorchMRVAE,
    batches: Batches,
    *,
    give_z: bool = False,
    use_mean: bool = True,
    n_cells: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """u, or z in the own sample, of each cell, ``(n, k)``: at the mean of u, or at a draw."""
    rows = Rows(n_cells)
    with evaluating(module, seed):
        for block in blocks(module, batches):
            u = block.qu.loc if use_mean else rsample(block.qu)
            rows.append(module.move(u, block.sample_n, use_mean)["z"] if give_z else u)
    return rows.array()


def in_samples(
    module: TorchMRVAE, qu: Normal, samples: Tensor, draws: int | None, part: Literal["z", "eps"] = "z"
) -> Tensor:
    """Z, or the sample's effect on it, for cells in samples: ``(n, s, k)``, or ``(t, n, s, k)`` for t draws.

    Draws of z are of a u for each sample, as in scvi-tools, so that their distances tell effects from noise; effects
    are of one u in all samples, which differ then by nothing else.
    """
    if draws is None:
        u = qu.loc[:, None]
    elif part == "eps":
        u = rsample(qu, (draws,))[..., None, :]
    else:
        u = rsample(qu, (draws, len(samples))).transpose(1, 2)
    return module.move(u, samples, use_mean=draws is None)[part]


def _numbers(n_samples: int, draws: int | None) -> int:
    return (draws or 1) * n_samples * (A_PAIR + n_samples)


def representations(
    module: TorchMRVAE,
    batches: Batches,
    *,
    n_samples: int,
    draws: int | None = None,
    n_cells: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """Z of each cell in each sample, ``(n, s, k)``; for t draws ``(n, t, s, k)``."""
    rows = Rows(n_cells)
    with evaluating(module, seed):
        samples = torch.arange(n_samples, device=module.device)
        for block in blocks(module, batches, _numbers(n_samples, draws)):
            z = in_samples(module, block.qu, samples, draws)
            rows.append(z if draws is None else z.transpose(0, 1))
    return rows.array()


def distances(
    module: TorchMRVAE,
    batches: Batches,
    write: Callable[[np.ndarray], object],
    *,
    n_samples: int,
    draws: int | None = None,
    normalize: bool = False,
    norm: Norm = "l2",
    seed: int | None = None,
) -> None:
    r"""Distances between what each cell is in two samples, given block by block.

    Parameters
    ----------
    module, batches
        As everywhere.
    write
        Takes the distances of the next cells, ``(n, s, s)``, or ``(n, t, s, s)`` for t draws of z.
    n_samples
        Number of samples.
    draws
        Draws of z; None: at its mean.
    normalize
        Take the mean :math:`m` of the distance between two draws of the cell in its own sample from the mean distance
        of draws, and divide by its standard deviation :math:`v`: :math:`(d - m) / v`.
    norm
        Of the difference.
    seed
        Of the draws.
    """
    with evaluating(module, seed):
        samples = torch.arange(n_samples, device=module.device)
        for block in blocks(module, batches, _numbers(n_samples, draws)):
            d = _between(in_samples(module, block.qu, samples, draws), norm)
            if normalize:
                mean_n, sd_n = _of_noise(module, block, draws or 1, norm)
                d = (d.mean(0) - mean_n[:, None, None]) / sd_n[:, None, None]
            elif draws is not None:
                d = d.transpose(0, 1)
            write(d.cpu().numpy())


def _between(z: Tensor, norm: Norm) -> Tensor:
    """Distances ``(..., s, s)`` of ``(..., s, k)``, by subtraction: equal rows lie at 0 exactly."""
    return torch.cdist(z, z, p=_ORDER[norm], compute_mode="donot_use_mm_for_euclid_dist")


def _of_noise(module: TorchMRVAE, block: Block, draws: int, norm: Norm) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``(n,)`` of distances between draws of a cell in its own sample."""
    z = module.move(rsample(block.qu, (2 * draws,)), block.sample_n)["z"]
    d = torch.linalg.vector_norm(z[:draws] - z[draws:], ord=_ORDER[norm], dim=-1)
    return d.mean(0), d.std(0)


class Averages:
    """Means of blocks over groups of cells, kept as sums.

    Parameters
    ----------
    group_n
        Code of each cell's group in the order of the cells; negative: none.
    n_groups
        Number of groups.
    """

    def __init__(self, group_n: np.ndarray, n_groups: int) -> None:
        self.group_n, self.n_groups, self.start = group_n, n_groups, 0
        self.sums: Any = 0

    def add(self, block: np.ndarray) -> None:
        """The values of the next cells."""
        group = self.group_n[self.start : self.start + len(block)]
        self.start += len(block)
        own = (group == np.arange(self.n_groups)[:, None]).astype(float)
        self.sums = self.sums + np.tensordot(own, block.astype(float), axes=1)

    def means(self) -> np.ndarray:
        """A mean for each group."""
        counts = np.bincount(self.group_n[self.group_n >= 0], minlength=self.n_groups)
        return (self.sums / counts.reshape(-1, *[1] * (self.sums.ndim - 1))).astype(np.float32)


def groups_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Code of each cell's group, and names of the groups, the largest first."""
    names = pd.Series(values).value_counts(sort=True).index
    return pd.Index(names).get_indexer(pd.Index(values)), np.asarray(names)
