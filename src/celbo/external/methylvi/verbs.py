"""MethylationMixin: verbs of models of methylated reads. No logic here: :mod:`celbo.posterior` answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ... import posterior
from ...core import checked_methods, optional, unknown_name
from ...data.fields.methylation import coverage_key, methylated_key
from ...data.modalities import obs_with
from ...posterior import Output
from ...verbs.base import Model
from ...verbs.cells import Asked, Weights, asked, weighting_of
from ...verbs.keys import offers_key
from ...verbs.outputs import corrected_batches, counts_behind, differential, names_of, normalized, output_of
from .differences import methylated_shares, methylation_table

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["MethylationMixin"]

Table = np.ndarray | pd.DataFrame
Cells = Sequence[int] | Sequence[bool] | str


@checked_methods
class MethylationMixin(Model):
    """Methylation of regions in each cell, and differential methylation.

    Common arguments (``mdata``, ``indices``, ``batch_size``, ``seed``): see :class:`~celbo.model.base.VAEMixin`.
    ``transform_batch`` names categories of the batch, one or several; None: each cell is decoded as its own batch.
    """

    @offers_key("features")
    def get_normalized_methylation(
        self,
        mdata: "MuData | None" = None,
        indices: Sequence[int] | None = None,
        region_list: Sequence[str] | None = None,
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        context: str | None = None,
        *,
        transform_batch: Sequence[float | str] | float | str | None = None,
        weights: Weights | None = None,
        seed: int | None = None,
        key_added: str | None = None,
        **importance_weighting_kwargs: Any,
    ) -> dict[str, Table] | Table:
        """Share of methylated reads that the model expects of each region in each cell, at drawn latents.

        Parameters
        ----------
        mdata, indices, batch_size, seed
            See :class:`~celbo.model.base.VAEMixin`.
        region_list
            Regions to give, names, in the order of the model's; each context gives those that it has.
        n_samples
            Draws of the latents for each cell.
        n_samples_overall
            Give this many draws from all cells together instead, each from a cell drawn with replacement.
        return_mean
            Average over the draws.
        return_numpy
            Arrays instead of DataFrames.
        context
            Give this context alone; None: all.
        transform_batch
            See the class; several are averaged, on the same latents.
        weights, **importance_weighting_kwargs
            See :meth:`SCVI.get_normalized_expression <celbo.model.SCVI.get_normalized_expression>`.
        key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        By context cells (or draws) by regions; ``(s, n, g)`` arrays for draws that are not averaged. With ``context``
        that one alone.

        Raises
        ------
        ValueError
            A context or batch that is not there, or no known region.

        Examples
        --------
        >>> shares = model.get_normalized_methylation()
        >>> {context: table.shape for context, table in shares.items()}
        {'mCG': (200, 40), 'mCH': (200, 30)}
        """
        cells = asked(self, mdata, indices, batch_size)
        weighting = weighting_of(weights, importance_weighting_kwargs)
        wanted = self._outputs if context is None else [self._context(context)]
        options: dict[str, Any] = {
            "transform_batch": transform_batch,
            "n_samples": n_samples,
            "n_samples_overall": n_samples_overall,
            "weighting": weighting,
            "return_mean": return_mean,
            "return_numpy": return_numpy,
            "seed": seed,
        }
        tables = {
            one.name: normalized(self, cells, [one], columns=columns, **options)
            for one, columns in self._regions(wanted, region_list)
        }
        return tables if context is None else tables[context]

    @offers_key("features")
    def get_specific_normalized_methylation(
        self,
        mdata: "MuData | None" = None,
        context: str | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        region_list: Sequence[str] | None = None,
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        weights: Weights | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
        **importance_weighting_kwargs: Any,
    ) -> Table:
        """As :meth:`get_normalized_methylation`, of one context.

        Parameters
        ----------
        mdata, indices, region_list, n_samples, n_samples_overall, batch_size, return_mean, return_numpy
            As there.
        context
            Which one.
        transform_batch, weights, seed, **importance_weighting_kwargs
            As there.
        key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        Cells (or draws) by regions; an ``(s, n, g)`` array for draws that are not averaged.

        Raises
        ------
        ValueError
            No context, or one that is not there.

        Examples
        --------
        >>> model.get_specific_normalized_methylation(context="mCG").shape
        (200, 40)
        """
        if context is None:
            raise ValueError(f"context= must name one of {', '.join(map(repr, self.module.contexts))}.")
        table = self.get_normalized_methylation(
            mdata,
            indices=indices,
            region_list=region_list,
            n_samples=n_samples,
            n_samples_overall=n_samples_overall,
            batch_size=batch_size,
            return_mean=return_mean,
            return_numpy=return_numpy,
            context=context,
            transform_batch=transform_batch,
            weights=weights,
            seed=seed,
            **importance_weighting_kwargs,
        )
        assert not isinstance(table, dict)
        return table

    def differential_methylation(
        self,
        mdata: "MuData | None" = None,
        groupby: str | None = None,
        group1: Sequence[str] | None = None,
        group2: Sequence[str] | str | None = None,
        idx1: Cells | None = None,
        idx2: Cells | None = None,
        mode: Literal["vanilla", "change"] = "vanilla",
        delta: float = 0.05,
        batch_size: int | None = None,
        all_stats: bool = True,
        batch_correction: bool = False,
        batchid1: Sequence[str] | None = None,
        batchid2: Sequence[str] | None = None,
        fdr_target: float | Sequence[float] = 0.05,
        silent: bool = False,
        two_sided: bool = True,
        *,
        context: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> dict[str, pd.DataFrame] | pd.DataFrame:
        """Differential methylation between groups of cells.

        Parameters
        ----------
        mdata, batch_size, seed
            See :class:`~celbo.model.base.VAEMixin`. Nothing is written to the data.
        groupby, group1, group2, idx1, idx2
            The groups to compare, see :func:`~celbo.posterior.comparisons`. ``groupby`` is a column of ``mdata.obs``,
            or of a modality: ``"mCG:label"``.
        mode
            ``"vanilla"``: in which group is a larger share methylated; ``"change"``: by more than ``delta``. Every
            region differs a little, so prefer ``"change"``.
        delta
            Smallest difference of shares that counts.
        all_stats
            Add what the reads themselves say: ``emp_mean1``, ``emp_mean2``, ``emp_effect``.
        batch_correction, batchid1, batchid2, fdr_target, silent
            As in :meth:`SCVI.differential_expression <celbo.model.SCVI.differential_expression>`.
        two_sided
            With ``"change"``: whether more methylation in the second group counts too, or only in the first.
        context
            Give this context alone; None: all.
        **kwargs
            Further arguments of ``differential_expression``: ``n_samples_overall``, ``change_fn``, ...

        Returns
        -------
        By context a row for each region and comparison, see
        :func:`~celbo.external.methylvi.differences.methylation_table`. With ``context`` that one alone.

        Examples
        --------
        >>> found = model.differential_methylation(groupby="cell_type", group1="type_0", mode="change", context="mCG")
        >>> len(found)
        40
        """
        self._check_if_trained()
        who = {"groupby": groupby, "group1": group1, "group2": group2, "idx1": idx1, "idx2": idx2}
        batches = corrected_batches(self, batchid1, batchid2) if batch_correction else (None, None)
        options: dict[str, Any] = {"mode": mode, "delta": delta}
        options |= {"change_fn": posterior.probability_difference, "pseudocounts": 0.0}
        if not two_sided:
            options["m1_domain_fn"] = lambda effects: effects >= delta
        cells = asked(self, mdata, None, batch_size)
        wanted = self._outputs if context is None else [self._context(context)]
        tables = {}
        for one in wanted:
            found = differential(
                self, cells, [one], who, batches, options | kwargs, all_stats=False, fdr_target=fdr_target, seed=seed
            )
            tables[one.name] = self._with_shares(found, cells, one, who, all_stats)
        return tables if context is None else tables[context]

    @offers_key()
    def posterior_predictive_sample(
        self,
        mdata: "MuData | None" = None,
        n_samples: int = 1,
        batch_size: int | None = None,
        *,
        indices: Sequence[int] | None = None,
        context: str | None = None,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> Any:
        """Methylated reads like those observed, drawn from the model for as many reads as there are.

        Parameters
        ----------
        mdata, batch_size, indices, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        n_samples
            Draws for each cell.
        context
            Give this context alone; None: all, at the same latents.

        Returns
        -------
        By context ``sparse.GCXS`` of ``(n, g)``, or ``(n, g, s)`` for more than one draw. With ``context`` that one
        alone.

        Raises
        ------
        ModuleNotFoundError
            When the package ``sparse`` is not installed.

        Examples
        --------
        >>> model.posterior_predictive_sample(context="mCH", indices=range(50)).shape
        (50, 30)
        """
        sparse = optional("sparse", extra="sparse", purpose="posterior_predictive_sample")
        cells = asked(self, mdata, indices, batch_size)
        wanted = self._outputs if context is None else [self._context(context)]
        draws = posterior.joint_predictive_sample(self.module, cells.batches, wanted, n_samples=n_samples, seed=seed)
        packed = {one.name: sparse.GCXS(sparse.COO.from_numpy(x)) for one, x in zip(wanted, draws, strict=True)}
        return packed if context is None else packed[context]

    def _context(self, name: str) -> Output:
        if name not in self.module.contexts:
            raise ValueError(unknown_name("methylation context of this model", name, self.module.contexts))
        return output_of(self, name)

    def _regions(
        self, wanted: Sequence[Output], region_list: Sequence[str] | None
    ) -> list[tuple[Output, np.ndarray | None]]:
        """Contexts that have regions of the list, and their columns."""
        if region_list is None:
            return [(one, None) for one in wanted]
        names = [names_of(self, one) for one in wanted]
        found = posterior.gene_columns(region_list, np.concatenate(names), "region_list")
        assert found is not None
        ends = np.cumsum([len(of_context) for of_context in names])
        parts = np.split(found, np.searchsorted(found, ends[:-1]))
        starts = ends - [len(of_context) for of_context in names]
        return [(one, some - start) for one, some, start in zip(wanted, parts, starts, strict=True) if len(some)]

    def _with_shares(
        self, table: pd.DataFrame, cells: Asked, output: Output, who: dict[str, Any], all_stats: bool
    ) -> pd.DataFrame:
        assert cells.adata is not None
        compared = posterior.comparisons(obs_with(cells.adata, who["groupby"]), **who)
        shares = None
        if all_stats:
            groups = [group for one in compared for group in (one.cells1, one.cells2)]
            manager = self.get_anndata_manager(cells.adata, required=True)
            keys = methylated_key(output.name), coverage_key(output.name)
            methylated, covered = (counts_behind(manager, key) for key in keys)
            shares = methylated_shares(methylated, covered, groups)
        return methylation_table(table, compared, names_of(self, output), shares)
