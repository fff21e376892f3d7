"""DifferentialMixin: the verb that compares groups of cells; part of :class:`~celbo.model.base.RNASeqMixin`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from anndata import AnnData

from .... import posterior
from ....core import REGISTRY_KEYS, checked_methods
from ....data import AnnDataManager
from ....module.base.minified import LATENT_POSTERIOR
from ..minified import minify_type_of
from .cells import Weights, asked, codes_of_batches, weighting_of

if TYPE_CHECKING:
    from ..model import BaseModelClass as Base
else:
    Base = object

__all__ = ["DifferentialMixin", "corrected_batches"]


@checked_methods
class DifferentialMixin(Base):
    """Differential expression."""

    def differential_expression(
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        group1: Sequence[str] | None = None,
        group2: Sequence[str] | str | None = None,
        idx1: Sequence[int] | Sequence[bool] | str | None = None,
        idx2: Sequence[int] | Sequence[bool] | str | None = None,
        mode: Literal["vanilla", "change"] = "vanilla",
        delta: float | None = 0.25,
        batch_size: int | None = None,
        all_stats: bool = True,
        batch_correction: bool = False,
        batchid1: Sequence[str] | None = None,
        batchid2: Sequence[str] | None = None,
        fdr_target: float | Sequence[float] = 0.05,
        silent: bool = False,
        weights: Weights | None = "uniform",
        filter_outlier_cells: bool = False,
        importance_weighting_kwargs: dict[str, Any] | None = None,
        *,
        subset_idx: Sequence[int] | Sequence[bool] | str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Differential expression between groups of cells.

        Parameters
        ----------
        adata, batch_size, seed
            See :class:`~celbo.model.base.VAEMixin`. Nothing is written to the data.
        groupby, group1, group2, idx1, idx2, subset_idx
            Who is compared, see :func:`~celbo.posterior.comparisons`.
        mode
            ``"vanilla"``: is a gene more expressed in one group; ``"change"``: by more than ``delta`` (log2 fold).
            Every gene differs a little, so prefer ``"change"``.
        delta
            None: estimated from the data (needs scikit-learn).
        all_stats
            Add figures of the counts themselves; minified data without counts have none.
        batch_correction
            Decode both groups as the same batches, so that batches do not count as differences.
        batchid1, batchid2
            With it: as which batches each group is decoded; None: all.
        fdr_target
            Expected false discovery rate of the column ``is_de_fdr_{fdr_target}``; several: a column for each.
        silent
            Accepted for compatibility with scvi-tools: there is no progress bar.
        weights, importance_weighting_kwargs
            See ``get_normalized_expression``.
        filter_outlier_cells
            Leave out cells that lie apart in the latent space (needs scikit-learn).
        **kwargs
            Further fields of :class:`~celbo.posterior.Hypothesis` and
            :class:`~celbo.posterior.differential_table.Sampling`: ``n_samples_overall``, ``use_permutation``,
            ``m_permutation``, ``pseudocounts``, ``test_mode``, ``change_fn``, ``m1_domain_fn``, ``cred_interval_lvls``,
            ``threshold_counts``.

        Returns
        -------
        A row for each gene and comparison, see :func:`~celbo.posterior.differential_expression`.
        """
        self._check_if_trained()
        of_hypothesis, of_sampling = posterior.split_options(kwargs)
        cells = asked(self, adata, None, batch_size)
        assert cells.adata is not None
        manager: Any = self.get_anndata_manager(cells.adata, required=True)
        corrected = corrected_batches(self, batchid1, batchid2)
        batches1, batches2 = corrected if batch_correction else (None, None)
        return posterior.differential_expression(
            self.module,
            cells.loader_of,
            posterior.comparisons(
                cells.adata.obs,
                groupby=groupby,
                group1=group1,
                group2=group2,
                idx1=idx1,
                idx2=idx2,
                subset_idx=subset_idx,
            ),
            self.get_var_names(),
            hypothesis=posterior.Hypothesis(mode=mode, delta=delta, **of_hypothesis),
            sampling=posterior.Sampling(
                batches1=batches1,
                batches2=batches2,
                weighting=weighting_of(weights, importance_weighting_kwargs or {}),
                filter_outlier_cells=filter_outlier_cells,
                **of_sampling,
            ),
            counts=_counts_of(manager, needed=mode == "change" and of_hypothesis.get("pseudocounts") is None),
            all_stats=all_stats,
            fdr_target=fdr_target,
            seed=seed,
        )


def corrected_batches(model: "Base", batchid1: object, batchid2: object) -> tuple[list[Any], list[Any]]:
    """Codes of the batches that either group is decoded as; None: all."""
    every = model.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
    return (
        codes_of_batches(model, every if batchid1 is None else batchid1, "batchid1"),
        codes_of_batches(model, every if batchid2 is None else batchid2, "batchid2"),
    )


def _counts_of(manager: AnnDataManager, needed: bool) -> posterior.Counts | None:
    """The counts; None where they were not kept, a ``ValueError`` if they are needed."""
    key = REGISTRY_KEYS.X_KEY
    if minify_type_of(manager.adata) != LATENT_POSTERIOR:
        return posterior.Counts(manager.get_from_registry(key), manager.get_column_indexer(key))
    if needed:
        raise ValueError(
            "mode='change' estimates its pseudocount from the counts, and these data are minified without them: give "
            "pseudocounts=, for example 1e-5."
        )
    return None
