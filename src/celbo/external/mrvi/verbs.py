"""CounterfactualMixin: verbs about cells in samples. Functions of this folder answer; tables are made here."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from torch import Tensor
from torch.distributions import Distribution

from ... import posterior
from ...core import REGISTRY_KEYS, ArgumentError, checked_methods, optional, unknown_name
from ...model.base import RNASeqMixin, VAEMixin
from ...verbs.cells import Asked, asked
from ...verbs.keys import offers_key
from . import samples
from .counterfactual import Averages, Norm, distances, groups_of, latents, posterior_of_u, representations

__all__ = ["CounterfactualMixin", "xarray_for"]

Column = str | list[str] | None


@checked_methods
class CounterfactualMixin(RNASeqMixin, VAEMixin):
    """Latents of cells, and what each would be in other samples.

    Common arguments (``adata``, ``indices``, ``batch_size``, ``dataloader``, ``seed``): see
    :class:`~celbo.model.base.VAEMixin`. ``use_vmap`` is accepted for compatibility with scvi-tools: cells are taken in
    blocks that fit into memory, however many samples there are. Answers are tables of the package ``xarray``.
    """

    sample_info: pd.DataFrame

    @property
    def sample_order(self) -> np.ndarray:
        """Names of the samples, by code."""
        return np.asarray(self.get_state_registry(REGISTRY_KEYS.SAMPLE_KEY)["categorical_mapping"])

    @offers_key()
    def get_latent_representation(  # type: ignore[override]  # arguments as in scvi-tools, here and below
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        use_mean: bool = True,
        give_z: bool = False,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray:
        """Latents of each cell: u, its state apart from the sample, or z, its state in the sample.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, seed, key_added
            See the class.
        use_mean
            Take the mean of u, or a draw.
        give_z
            Return z instead of u.

        Returns
        -------
        ``(n, k)``.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> model.get_latent_representation(give_z=True).shape
        (400, 30)
        """
        self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size, dataloader)
        options: dict[str, Any] = {"give_z": give_z, "use_mean": use_mean, "n_cells": cells.n_cells, "seed": seed}
        return latents(self.module, cells.batches, **options)

    @offers_key("features")
    def get_normalized_expression(  # type: ignore[override]
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | Literal["latent"] = "latent",
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        weights: Literal["uniform"] | None = None,
        batch_size: int | None = None,
        return_mean: bool = False,
        return_numpy: bool | None = None,
        silent: bool = True,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        data_loader_kwargs: dict[str, Any] | None = None,
        *,
        key_added: str | None = None,
        **kwargs: Any,
    ) -> np.ndarray | pd.DataFrame:
        """As :meth:`celbo.model.base.RNASeqMixin.get_normalized_expression`, with the defaults of scvi-tools.

        Parameters
        ----------
        adata, indices, transform_batch, gene_list, library_size, n_samples, n_samples_overall, batch_size
            As there.
        weights, return_mean, return_numpy, silent, dataloader, data_loader_kwargs, **kwargs
            As there.
        key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Examples
        --------
        >>> model.get_normalized_expression(gene_list=["gene_3", "gene_7"]).shape
        (400, 2)
        """
        given = (adata, indices, transform_batch, gene_list, library_size, n_samples, n_samples_overall, weights)
        further = (batch_size, return_mean, return_numpy, silent, dataloader, data_loader_kwargs)
        return super().get_normalized_expression(*given, *further, **kwargs)

    @offers_key()
    def get_local_sample_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int = 256,
        use_mean: bool = True,
        use_vmap: bool | Literal["auto"] = "auto",
        *,
        mc_samples: int = 10,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> Any:
        """Z of each cell in each sample.

        Parameters
        ----------
        adata, indices, batch_size, use_vmap, seed, key_added
            See the class.
        use_mean
            Take the mean of u, or draws.
        mc_samples
            Number of draws.

        Returns
        -------
        ``xarray.DataArray`` of cells, samples and latents; for several draws, an axis of them follows the cells.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> model.get_local_sample_representation(indices=range(50)).shape
        (50, 4, 30)
        """
        self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size)
        draws = None if use_mean else mc_samples
        options: dict[str, Any] = {"n_samples": len(self.sample_order), "n_cells": cells.n_cells, "seed": seed}
        z = representations(self.module, cells.batches, draws=draws, **options)
        dims = ["cell_name", *["mc_sample"][: not use_mean], "sample", "latent_dim"]
        coords = {"cell_name": cells.names, "sample": self.sample_order}
        return xarray_for().DataArray(z, dims=dims, coords=coords, name="sample_representations")

    @offers_key(parts=("cell",))
    def get_local_sample_distances(
        self,
        adata: AnnData | None = None,
        batch_size: int = 256,
        use_mean: bool = True,
        normalize_distances: bool = False,
        use_vmap: bool | Literal["auto"] = "auto",
        groupby: Column = None,
        keep_cell: bool = True,
        norm: Norm = "l2",
        mc_samples: int = 10,
        *,
        indices: Sequence[int] | None = None,
        out: str | Path | None = None,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> Any:
        """Distances between what each cell would be in two samples.

        Parameters
        ----------
        adata, indices, batch_size, use_vmap, seed, key_added
            See the class.
        use_mean
            Take the mean of u, or draws.
        normalize_distances
            Subtract the mean distance between two draws of the cell in its own sample, and divide by its standard
            deviation: the distance beyond noise. It needs draws, whatever ``use_mean`` is.
        groupby
            Columns of ``adata.obs``: average over the cells of each value.
        keep_cell
            Whether distances are kept for each cell: 4 bytes for each cell and pair of samples.
        norm
            ``"l2"``, ``"l1"`` or ``"linf"``.
        mc_samples
            Draws.
        out
            A file to write the distances of cells to, as they come, in numpy's format: the answer is mapped from it,
            and needs no memory.

        Returns
        -------
        ``xarray.Dataset``: ``cell`` of cells, samples and samples; one table of groups, samples and samples for each
        column.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> distances = model.get_local_sample_distances(groupby="labels", keep_cell=False)
        >>> sorted(distances)
        ['labels']
        """
        self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size)
        assert cells.adata is not None
        assert cells.cells is not None
        names = self.sample_order
        draws = mc_samples if normalize_distances or not use_mean else None
        middle = () if draws is None or normalize_distances else (draws,)
        pair = ["mc_sample"][: len(middle)] + ["sample_x", "sample_y"]
        variables: dict[str, Any] = {}
        coords: dict[str, Any] = {"sample_x": names, "sample_y": names}
        taken: list[Callable[[np.ndarray], None]] = []
        if keep_cell:
            kept = _Kept((len(cells.cells), *middle, len(names), len(names)), out)
            variables["cell"], coords["cell_name"] = (["cell_name", *pair], kept.table), cells.names
            taken.append(kept.add)
        averages = {}
        for key in [groupby] if isinstance(groupby, str) else groupby or ():
            codes, coords[f"{key}_name"] = groups_of(_column(cells.adata, key)[cells.cells])
            averages[key] = Averages(codes, len(coords[f"{key}_name"]))
            taken.append(averages[key].add)
        distances(
            self.module,
            cells.batches,
            lambda block: [take(block) for take in taken],
            n_samples=len(names),
            draws=draws,
            normalize=normalize_distances,
            norm=norm,
            seed=seed,
        )
        variables |= {key: ([f"{key}_name", *pair], average.means()) for key, average in averages.items()}
        return xarray_for().Dataset(variables, coords)

    def get_aggregated_posterior(  # type: ignore[override]
        self,
        adata: AnnData | None = None,
        sample: str | int | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int = 256,
    ) -> Distribution:
        """Mixture of the posteriors of u of cells, see :func:`~celbo.posterior.aggregated_posterior`.

        Parameters
        ----------
        adata, indices, batch_size
            See the class.
        sample
            Name or code of the sample whose cells to take; None: all cells.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> model.get_aggregated_posterior(sample="a").sample().shape
        torch.Size([10])
        """
        self._check_if_trained(warn=False)
        u, variance, code = self._u_of(asked(self, adata, indices, batch_size))
        if sample is not None:
            is_of = code == samples.code_of(self.sample_order, sample)
            u, variance = u[is_of], variance[is_of]
        return posterior.aggregated_posterior(u, variance, None)

    def update_sample_info(self, adata: AnnData) -> None:
        """Take the table of samples from other data: one row of ``adata.obs`` per sample.

        Parameters
        ----------
        adata
            Cells of all samples; the first cell of a sample gives its row.

        Examples
        --------
        >>> model.update_sample_info(adata)
        >>> model.sample_info["group"].tolist()
        ['True', 'True', 'False', 'False']
        """
        adata = self._validate_anndata(adata)
        self.sample_info = samples.sample_table(adata.obs, self._codes_of(adata))

    def _codes_of(self, adata: AnnData) -> np.ndarray:
        """Code of each cell's sample, ``(n,)``."""
        manager = self.get_anndata_manager(adata, required=True)
        return np.asarray(manager.get_from_registry(REGISTRY_KEYS.SAMPLE_KEY)).ravel()

    def _u_of(self, cells: Asked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return posterior_of_u(self.module, cells.batches, n_cells=cells.n_cells)


class _Kept:
    """Table that is filled block by block, in memory or in a file."""

    def __init__(self, shape: tuple[int, ...], out: str | Path | None) -> None:
        self.start = 0
        self.table: Any = np.empty(shape, np.float32)
        if out is not None:
            self.table = np.lib.format.open_memmap(out, "w+", np.float32, shape)

    def add(self, block: np.ndarray) -> None:
        self.table[self.start : self.start + len(block)] = block
        self.start += len(block)


def _column(adata: AnnData, key: str) -> np.ndarray:
    if key not in adata.obs:
        raise ArgumentError(unknown_name("column of adata.obs (groupby)", key, map(str, adata.obs)))
    return adata.obs[key].to_numpy()


def xarray_for() -> Any:
    """The package that tables of cells and samples are of."""
    return optional("xarray", extra="xarray", purpose="A table of cells and samples")
