"""DifferentialComputation: differential expression for models of one's own, from a function that draws expression."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ..core import REGISTRY_KEYS, checked, checked_methods, optional, settings
from ..data import AnnDataManager
from ..dataloaders.row_sources.source import as_indices
from .differential import Hypothesis, Pairs, differential_effects
from .differential_table import permuted_rows
from .raw_counts import group_means

__all__ = ["DifferentialComputation"]

_DEFAULT_DRAWS = 5000

Cells = Sequence[int] | Sequence[bool] | np.ndarray


@checked_methods
class DifferentialComputation:
    """Compares two groups of cells by draws of their expression.

    A model of celbo does this by its ``differential_expression``; this is for models whose expression comes from a
    function of their own.

    Parameters
    ----------
    model_fn
        ``model_fn(adata, indices=..., transform_batch=..., n_samples_overall=...) -> (n_samples_overall, g)`` draws of
        expression from cells by row number, decoded as one batch (None: their own).
    representation_fn
        ``representation_fn(adata, indices=...) -> (n, k)``; with it, a tenth of each group that lies apart is left
        out. None: all cells take part.
    adata_manager
        Manager of the data.
    """

    @checked
    def __init__(
        self,
        model_fn: Callable[..., Any],
        representation_fn: Callable[..., np.ndarray] | None,
        adata_manager: AnnDataManager,
    ) -> None:
        self.model_fn, self.representation_fn = model_fn, representation_fn
        self.adata_manager, self.adata = adata_manager, adata_manager.adata

    def get_bayes_factors(
        self,
        idx1: Cells,
        idx2: Cells,
        mode: Literal["vanilla", "change"] = "change",
        batchid1: Sequence[int | float | str] | None = None,
        batchid2: Sequence[int | float | str] | None = None,
        use_observed_batches: bool | None = False,
        n_samples_overall: int = _DEFAULT_DRAWS,
        use_permutation: bool = False,
        m_permutation: int = 10000,
        change_fn: str | Callable[..., np.ndarray] | None = None,
        m1_domain_fn: Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, np.ndarray]] | None = None,
        delta: float | None = 0.5,
        pseudocounts: float | None = None,
        threshold_counts: float = 0.01,
        test_mode: Literal["two", "three"] = "three",
        cred_interval_lvls: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """Evidence and effect size of every gene; see :class:`~celbo.posterior.Hypothesis` for what is asked.

        Parameters
        ----------
        idx1, idx2
            Cells of each group: row numbers or a mask.
        mode, change_fn, m1_domain_fn, delta, pseudocounts, threshold_counts, test_mode, cred_interval_lvls
            See :class:`~celbo.posterior.Hypothesis`. ``change_fn`` may take the pseudocount as a third argument.
        batchid1, batchid2
            Batches to decode each group as; None: all of them.
        use_observed_batches
            Decode each cell as its own batch instead.
        n_samples_overall
            Draws of each group.
        use_permutation, m_permutation
            See :class:`~celbo.posterior.Sampling`.

        Returns
        -------
        As :func:`~celbo.posterior.differential_effects`; ``pseudocounts`` and ``delta`` are numbers.
        """
        hypothesis = Hypothesis(
            mode=mode,
            delta=delta,
            pseudocounts=pseudocounts,
            test_mode=test_mode,
            change_fn=change_fn,
            m1_domain_fn=m1_domain_fn,
            cred_interval_lvls=None if cred_interval_lvls is None else list(cred_interval_lvls),
            threshold_counts=threshold_counts,
        )
        same = self._same_batches(batchid1, batchid2)
        groups = [self._cells_that_take_part(cells) for cells in (idx1, idx2)]
        draws = [
            self._draws(cells, n_samples_overall, batches, bool(use_observed_batches))
            for cells, batches in zip(groups, (batchid1, batchid2))
        ]
        rng = np.random.default_rng(settings.seed)
        pairs = _pairs(draws[0], draws[1], m_permutation if use_permutation else None, same, rng)
        low1_g, low2_g = self._low(groups, hypothesis)
        columns: dict[str, Any] = differential_effects(pairs, hypothesis, low1_g=low1_g, low2_g=low2_g)
        for name in ("pseudocounts", "delta"):
            if name in columns:
                columns[name] = columns[name][0]
        return columns

    def scale_sampler(
        self,
        selection: Cells,
        n_samples_overall: int | None = _DEFAULT_DRAWS,
        n_samples_per_cell: int | None = None,
        batchid: Sequence[int | float | str] | None = None,
        use_observed_batches: bool | None = False,
        give_mean: bool | None = False,
    ) -> dict[str, np.ndarray]:
        """Draws of expression from a group of cells.

        Parameters
        ----------
        selection
            Row numbers or a mask.
        n_samples_overall
            Number of draws, shared out over the batches.
        n_samples_per_cell
            Instead, for each cell.
        batchid, use_observed_batches
            As in :meth:`get_bayes_factors`.
        give_mean
            Their mean over draws.

        Returns
        -------
        ``scale`` ``(r, g)`` (or ``(g,)``) and ``batch`` ``(r,)``, the batch each was decoded as.
        """
        cells = self._cells_that_take_part(selection)
        if n_samples_overall is not None and n_samples_per_cell is not None:
            warnings.warn(
                "`n_samples_overall` and `n_samples_per_cell` were provided. Ignoring `n_samples_per_cell`",
                UserWarning,
                stacklevel=settings.warnings_stacklevel,
            )
        n_rows = n_samples_overall
        if n_rows is None:
            n_rows = _DEFAULT_DRAWS if n_samples_per_cell is None else n_samples_per_cell * len(cells)
        scale_rg, batch_r = self._draws(cells, n_rows, batchid, bool(use_observed_batches))
        return {"scale": scale_rg.mean(0) if give_mean else scale_rg, "batch": batch_r}

    def process_selection(self, selection: Cells) -> np.ndarray:
        """Row numbers of a selection, from row numbers or a mask."""
        assert self.adata is not None
        return as_indices(selection, self.adata.n_obs, what="cell")

    def filter_outlier_cells(self, selection: Cells) -> np.ndarray:
        """Row numbers of a selection without the tenth that lies farthest out (robust covariance ellipse).

        A group of fewer cells than twice the dimensions is left as it is: it has no ellipse. Needs scikit-learn.
        """
        cells = self.process_selection(selection)
        if self.representation_fn is None:
            return cells
        z_nk = np.asarray(self.representation_fn(self.adata, indices=cells), dtype=np.float64)
        if len(cells) < 2 * z_nk.shape[1]:
            return cells
        covariance = optional("sklearn.covariance", extra="sklearn", purpose="filter_outlier_cells")
        envelope = covariance.EllipticEnvelope(contamination=0.1, random_state=settings.seed or 0)
        return cells[envelope.fit_predict(z_nk) == 1]

    def _cells_that_take_part(self, selection: Cells) -> np.ndarray:
        return (
            self.process_selection(selection)
            if self.representation_fn is None
            else (self.filter_outlier_cells(selection))
        )

    def _draws(
        self, cells: np.ndarray, n_rows: int, batches: Sequence[Any] | None, observed: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws ``(r, g)`` and the batch of each; every batch gets an equal share, in runs."""
        of_data = self.adata_manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
        decode_as: list[Any] = [None] if observed else list(of_data if batches is None else batches)
        share = n_rows // len(decode_as)
        scales = []
        for batch in decode_as:
            drawn = self.model_fn(self.adata, indices=cells, transform_batch=batch, n_samples_overall=share)
            scales.append(np.asarray(drawn))
        return np.concatenate(scales), np.repeat(np.asarray(decode_as), [len(scale) for scale in scales])

    @staticmethod
    def _same_batches(batchid1: Sequence[Any] | None, batchid2: Sequence[Any] | None) -> bool:
        """Whether both groups are decoded as the same batches, so that pairs stay within one."""
        if batchid1 is None or batchid2 is None:
            return batchid1 is batchid2
        first, second = set(batchid1), set(batchid2)
        if first != second and first & second:
            warnings.warn(
                f"The groups are decoded as different batches with {sorted(first & second)} in common: pairs are drawn "
                "across batches.",
                UserWarning,
                stacklevel=settings.warnings_stacklevel,
            )
        return first == second

    def _low(self, groups: Sequence[np.ndarray], hypothesis: Hypothesis) -> Sequence[np.ndarray | None]:
        """Genes not expressed in each group, where the pseudocount is to be estimated from them."""
        if hypothesis.mode == "vanilla" or hypothesis.pseudocounts is not None:
            return None, None
        key = REGISTRY_KEYS.X_KEY
        means = group_means(
            self.adata_manager.get_from_registry(key), groups, self.adata_manager.get_column_indexer(key)
        )
        return list(means.mean < hypothesis.threshold_counts)


def _pairs(
    draws1: tuple[np.ndarray, np.ndarray],
    draws2: tuple[np.ndarray, np.ndarray],
    m: int | None,
    same_batches: bool,
    rng: np.random.Generator,
) -> Pairs:
    """Rows to compare: one by one as far as both groups go, or ``m`` random pairs."""
    (scale1_rg, batch1_r), (scale2_rg, batch2_r) = draws1, draws2
    n_rows = min(len(scale1_rg), len(scale2_rg))
    if m is None:
        return Pairs(scale1_rg[:n_rows], scale2_rg[:n_rows])
    codes = [np.unique(batch.astype(str), return_inverse=True)[1] for batch in (batch1_r, batch2_r)]
    within = same_batches and len(codes[0]) == len(codes[1]) and bool((np.diff(codes[1]) >= 0).all())
    codes1_r, codes2_r = codes if within else (None, None)
    rows1, rows2 = permuted_rows(codes1_r, codes2_r, n_rows, m, rng)
    return Pairs(scale1_rg, scale2_rg, rows1, rows2)
