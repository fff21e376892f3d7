"""AccessibilityMixin: verbs of models of open chromatin. No logic here: :mod:`celbo.posterior` answers."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from .. import posterior
from ..core import checked_methods
from ..core.kinds import Number
from .base import Model
from .cells import asked, codes_of_batches
from .differential import DifferentialMixin
from .keys import offers_key
from .outputs import names_of, output_of

__all__ = ["ACCESSIBILITY", "AccessibilityMixin"]

logger = logging.getLogger("celbo")

ACCESSIBILITY = posterior.Output("accessibility")
"""What a model of regions explains; the factors of cells and regions are left out unless they are asked for."""

Cells = Sequence[int] | Sequence[bool] | str


def _has_regions(model: Model) -> bool:
    return any(one.name == ACCESSIBILITY.name for one in model._outputs)


@checked_methods
class AccessibilityMixin(DifferentialMixin):
    """Accessibility of regions, the factors of cells and regions, and differential accessibility.

    Common arguments (``adata``, ``indices``, ``batch_size``, ``seed``): see :class:`~celbo.model.base.VAEMixin`.
    ``transform_batch`` names categories of the batch, one or several; None: each cell is decoded as its own batch.
    """

    get_normalized_function_name_ = "get_normalized_accessibility"

    @offers_key()
    def get_library_size_factors(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int = 128,
        *,
        key_added: str | None = None,
    ) -> np.ndarray:
        """Factor of each cell, see :func:`~celbo.posterior.cell_factors`.

        Parameters
        ----------
        adata, indices, batch_size, key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        ``(n,)``.

        Raises
        ------
        RuntimeError
            A model without such factors.

        Examples
        --------
        >>> model.get_library_size_factors().shape
        (400,)
        """
        cells = asked(self, adata, indices, batch_size, only_encodes=True)
        return posterior.cell_factors(self.module, cells.batches, n_cells=cells.n_cells)

    def get_region_factors(self) -> np.ndarray:
        """Factor of each region, ``(g,)``, from 0 to 1: how much of its accessibility shows.

        Raises
        ------
        RuntimeError
            A model without such factors.

        Examples
        --------
        >>> model.get_region_factors().shape
        (100,)
        """
        if not _has_regions(self):
            return np.empty(0, np.float32)
        logits_g = self.module.region_factors
        if logits_g is None:
            raise RuntimeError("This model has no region factors: it was made with region_factors=False.")
        return logits_g.detach().sigmoid().cpu().numpy()

    @offers_key("features")
    def get_normalized_accessibility(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_samples_overall: int | None = None,
        region_list: Sequence[str] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        use_z_mean: bool = True,
        threshold: Annotated[float | None, Number(0, 1)] = None,
        normalize_cells: bool = False,
        normalize_regions: bool = False,
        batch_size: int = 128,
        return_numpy: bool = False,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> pd.DataFrame | np.ndarray | sp.csr_matrix:
        """Probability of each region being open in each cell.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        n_samples_overall
            Answer for this many cells, drawn with replacement, instead of all.
        region_list
            Regions to return, names or a mask, in the order of the model's. Unknown names raise a warning.
        transform_batch
            See the class; several are averaged.
        use_z_mean
            Decode the mean of the latents, or a draw.
        threshold
            Probabilities below it are set to 0, and the answer is sparse.
        normalize_cells, normalize_regions
            Multiply by the cells' factors, by the regions': the probability of being *seen* to be open has both.
        return_numpy
            An array (with ``threshold``: a CSR matrix) instead of a DataFrame.

        Returns
        -------
        Cells by regions; no columns for a model without regions, with a warning.

        Raises
        ------
        ValueError
            An unknown batch, no known region, or a threshold outside of 0 to 1.

        Examples
        --------
        >>> open_nr = model.get_normalized_accessibility(threshold=0.1)  # smaller probabilities become 0
        >>> open_nr.shape
        (400, 100)
        """
        cells = asked(self, adata, indices, batch_size, only_encodes=True)
        cells = cells if n_samples_overall is None else cells.drawn(n_samples_overall, seed)
        if not _has_regions(self):
            logger.warning("This model has no regions (its setup names no atac_layer): there is no accessibility.")
            nothing = pd.DataFrame(index=cells.names)
            return nothing.to_numpy(np.float32) if return_numpy else nothing
        output = replace(output_of(self, "accessibility"), value=posterior.open_probability)
        names = names_of(self, output)
        regions = posterior.gene_columns(region_list, names)
        options: dict[str, Any] = {
            "outputs": [output.reading(cells=normalize_cells, regions=normalize_regions)],
            "transform_batch": codes_of_batches(self, transform_batch),
            "columns": regions,
            "use_mean": use_z_mean,
            "seed": seed,
        }
        table: np.ndarray | sp.csr_matrix
        if threshold is None:
            table = posterior.normalized(self.module, cells.batches, n_cells=cells.n_cells, **options)
        else:
            blocks = posterior.normalized_blocks(self.module, cells.batches, **options)
            table = posterior.sparse_rows(blocks, threshold)
        if return_numpy:
            return table
        columns = names if regions is None else names[regions]
        index = cells.names if n_samples_overall is None else None
        if isinstance(table, sp.csr_matrix):
            from_sparse = pd.DataFrame.sparse.from_spmatrix  # type: ignore[attr-defined]  # not in the stubs
            return from_sparse(table, index=index, columns=columns)
        return pd.DataFrame(table, index=index, columns=columns, copy=False)

    def differential_accessibility(
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        group1: Sequence[str] | None = None,
        group2: Sequence[str] | str | None = None,
        idx1: Cells | None = None,
        idx2: Cells | None = None,
        mode: Literal["vanilla", "change"] = "change",
        delta: float = 0.05,
        batch_size: int | None = None,
        all_stats: bool = True,
        batch_correction: bool = False,
        batchid1: Sequence[str] | None = None,
        batchid2: Sequence[str] | None = None,
        fdr_target: float | Sequence[float] = 0.05,
        silent: bool = False,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Differential accessibility between groups of cells.

        Parameters
        ----------
        adata, batch_size, seed
            See :class:`~celbo.model.base.VAEMixin`. Nothing is written to the data.
        groupby, group1, group2, idx1, idx2
            The groups to compare, see :func:`~celbo.posterior.comparisons`.
        mode
            ``"change"``: do the probabilities of being open differ by more than ``delta``; ``"vanilla"``: which is
            the larger one.
        delta
            Smallest difference of probabilities that counts.
        all_stats, batch_correction, batchid1, batchid2, fdr_target, silent
            As in ``differential_expression``.
        **kwargs
            Further arguments of ``differential_expression``.

        Returns
        -------
        A row for each region and comparison, see :func:`~celbo.posterior.accessibility_table`.

        Examples
        --------
        >>> found = model.differential_accessibility(groupby="labels", group1="label_0")
        >>> len(found)
        100
        """
        of_probabilities: dict[str, Any] = {"change_fn": posterior.probability_difference, "pseudocounts": 0.0}
        table = self.differential_expression(
            adata,
            groupby=groupby,
            group1=group1,
            group2=group2,
            idx1=idx1,
            idx2=idx2,
            mode=mode,
            delta=delta,
            batch_size=batch_size,
            all_stats=all_stats,
            batch_correction=batch_correction,
            batchid1=batchid1,
            batchid2=batchid2,
            fdr_target=fdr_target,
            silent=silent,
            output="accessibility",
            seed=seed,
            **(of_probabilities | kwargs),
        )
        return posterior.accessibility_table(table)
