"""CellAssign: cell types by marker genes.

Reference: Zhang, O'Flanagan, Chavez, Lim, Ceglia, McPherson, Wiens, Walters, Chan, Hewitson, Lai, Mottok, Sarkozy,
Chong, Aoki, Wang, Weng, McAlpine, Aparicio, Steidl, Campbell and Shah, *Probabilistic cell-type assignment of
single-cell RNA-seq for tumor microenvironment profiling*, Nature Methods 2019.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from ...core import REGISTRY_KEYS
from ...data import align_genes
from ...data.fields import NumericalObsField, bundles
from ...model.base import BaseModelClass, RNASeqMixin, UnsupervisedTrainingMixin, setup_method
from ...model.base.train_method import PASSED_ON, SPLIT, STOPPING, WHERE, Argument, training
from ...model.base.verbs.cells import asked
from ...posterior.passes import Rows, decode, encode, evaluating, on_device
from ...train.arguments import as_list
from ...train.callbacks import Callback
from ...train.recipes import default_recipe
from .module import CellAssignModule
from .start import marker_start

__all__ = ["CellAssign"]

logger = logging.getLogger("celbo")

_N_BASIS = 10
_CELLS_TO_START_FROM = 20_000
_EM_TEXT = (
    "Maximize the likelihood by EM: a gradient step is taken under responsibilities that are held fixed. False, as in "
    "scvi-tools: the expected complete-data log-likelihood is maximized through the responsibilities too, which "
    'rewards them for being all or nothing. None: False under ``recipe="classic"``, else True.'
)


class CellAssign(UnsupervisedTrainingMixin, RNASeqMixin, BaseModelClass):
    r"""Type of each cell, from a table that says which gene marks which type.

    .. math:: y_n \sim \mathrm{Cat}(\pi), \qquad x_{ng} \mid y_n = c \sim \mathrm{NB}\bigl(s_n
              e^{\beta_{g0} + \beta_g \cdot d_n + \rho_{gc} \delta_{gc}},\, \phi\bigr), \qquad \delta_{gc} \ge 2

    Parameters
    ----------
    adata
        Cells by marker genes, set up with :meth:`setup_anndata`.
    cell_type_markers
        Genes by types, 1 where the gene marks the type, else 0; rows are the genes of ``adata``, in any order.
    **model_kwargs
        Further arguments of :class:`~celbo.external.cellassign.CellAssignModule`. Training begins with base expressions
        below each gene's log mean count; with ``random_b_g_0=True``, and where celbo stands in for scvi-tools, with
        random ones, from which it often ends in a poor optimum.

    Raises
    ------
    KeyError
        ``adata`` and the table do not have the same genes.
    ValueError
        A size factor that is not positive.
    """

    _module_cls: ClassVar[type[CellAssignModule]] = CellAssignModule
    _sizes: ClassVar[Mapping[str, str]] = {"n_genes": "n_vars"}

    def __init__(self, adata: AnnData, cell_type_markers: pd.DataFrame, **model_kwargs: Any) -> None:
        super().__init__(adata)
        self.cell_type_markers = _in_order_of(self.get_var_names(), cell_type_markers)
        self.n_genes = len(self.cell_type_markers)
        survey = self._survey()
        self._build_module(
            rho=torch.as_tensor(self.cell_type_markers.to_numpy(dtype=np.float32)),
            basis_means=torch.linspace(survey.low, survey.high, _N_BASIS),
            **({"b_g_0": torch.zeros(self.n_genes), "random_b_g_0": default_recipe() == "classic"} | model_kwargs),
        )
        own_start = {"b_g_0", "random_b_g_0"} & model_kwargs.keys() or default_recipe() == "classic"
        if len(survey.counts_ng) and not own_start:
            self._start_from_markers(survey)

    def _survey(self) -> "_Survey":
        """Smallest and largest count, and some cells to begin with; size factors are checked."""
        if self.adata is None:
            return _Survey(0.0, 1.0, np.zeros((0, self.n_genes)), np.zeros(0))  # the archive has the parameters
        self._check_size_factors()
        low, high, counts, sizes = math.inf, -math.inf, [], []
        every = -(-self.adata.n_obs // _CELLS_TO_START_FROM)
        for tensors in self._make_data_loader(self.adata):
            x_ng = tensors[REGISTRY_KEYS.X_KEY]
            low, high = min(low, float(x_ng.min())), max(high, float(x_ng.max()))
            counts.append(x_ng[::every].numpy())
            sizes.append(tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY][::every, 0].numpy())
        counts_ng, size_n = np.concatenate(counts).astype(np.float64), np.concatenate(sizes).astype(np.float64)
        return _Survey(low, max(high, low + 1), counts_ng, size_n)

    def _check_size_factors(self) -> None:
        column = self.get_setup_arg("size_factor_key")
        size_n = self.adata_manager.get_from_registry(REGISTRY_KEYS.SIZE_FACTOR_KEY)
        n_bad = int((~(np.asarray(size_n, dtype=np.float64) > 0)).sum())
        if n_bad:
            raise ValueError(
                f"adata.obs[{column!r}] is zero, negative or missing for {n_bad} cells: size factors are positive. "
                "Leave cells without counts out."
            )

    def _start_from_markers(self, survey: "_Survey") -> None:
        if _are_totals(survey):
            logger.warning(
                f"The size factors adata.obs[{self.get_setup_arg('size_factor_key')!r}] are the totals of the marker "
                "genes alone. A type without markers has low totals, so its cells are taken for others: compute size "
                "factors from all genes, before you take the markers' columns."
            )
        module = cast(CellAssignModule, self.module)
        start = marker_start(survey.counts_ng, survey.size_n, module.rho.numpy(), module.min_delta)
        with torch.no_grad():
            module.b_g_0.copy_(torch.as_tensor(start.log_base_g))
            module.delta_log.copy_(torch.as_tensor(start.log_fold_gc).log())
            module.theta_logit.copy_(torch.as_tensor(start.log_share_c))

    def predict(
        self, adata: AnnData | None = None, indices: Sequence[int] | None = None, batch_size: int | None = None
    ) -> pd.DataFrame:
        """Probability of each type for each cell.

        Parameters
        ----------
        adata, indices, batch_size
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        Cells by types, rows that sum to 1.
        """
        cells = asked(self, adata, indices, batch_size)
        rows = Rows(cells.n_cells)
        with evaluating(self.module):
            for tensors in on_device(cells.batches, self.module):
                rows.append(decode(self.module, tensors, encode(self.module, tensors))["gamma"])
        return pd.DataFrame(rows.array(), index=cells.names, columns=self.cell_type_markers.columns)

    def _options_of_training(self, options: dict[str, Any]) -> dict[str, Any]:
        em = options.pop("em")
        em = (options["recipe"] or default_recipe()) != "classic" if em is None else em
        options["callbacks"] = [ClampCallback(), *as_list(options.pop("callbacks", None))]
        return options | {"plan_kwargs": {"em": em} | (options["plan_kwargs"] or {})}

    train = training(
        {"max_epochs": 400, "lr": 3e-3},
        WHERE,
        SPLIT,
        {"batch_size": 1024},
        PASSED_ON,
        STOPPING,
        {"early_stopping_patience": 15},
        own={"em": Argument(bool | None, _EM_TEXT)},
        fixed={"weight_decay": 1e-10},
        prepare=_options_of_training,
    )

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        size_factor_key: str,
        batch_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        layer: str | None = None,
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register an AnnData with the counts of marker genes.

        Parameters
        ----------
        size_factor_key
            Column of ``adata.obs`` with a positive size factor for each cell, from all its genes: total count divided
            by the mean total count, say.
        """
        return [
            *bundles.counts(layer, use_raw),
            NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key),
            *bundles.batch(batch_key),
            *bundles.covariates(categorical_covariate_keys, continuous_covariate_keys),
        ]


class _Survey(NamedTuple):
    """Smallest and largest count of all cells; counts ``(n, g)`` and size factors ``(n,)`` of some."""

    low: float
    high: float
    counts_ng: np.ndarray
    size_n: np.ndarray


def _are_totals(survey: _Survey) -> bool:
    """Whether the size factors are a multiple of the totals of the marker genes."""
    ratio_n = survey.counts_ng.sum(1) / survey.size_n
    return len(ratio_n) > 1 and bool(np.ptp(ratio_n) <= 1e-4 * ratio_n.max()) and bool(np.ptp(survey.size_n) > 0)


class ClampCallback(Callback):
    """Keep the log fold changes of markers at or above the module's ``min_delta``, after each step."""

    def on_train_batch_end(self, trainer: Any, plan: Any, *args: Any) -> None:
        """Clamp them."""
        with torch.no_grad():
            plan.module.delta_log.clamp_(min=math.log(plan.module.min_delta))


class RepeatedMarkersError(ValueError, AssertionError):
    """A gene stands in the table of markers twice. scvi-tools raises an ``AssertionError``: hence the second base."""


def _check_markers(cell_type_markers: pd.DataFrame) -> None:
    """Refuse a table with a type twice, or with anything but 0 and 1."""
    types = cell_type_markers.columns
    if not types.is_unique:
        twice = types[types.duplicated()].unique()
        raise ValueError(f"cell_type_markers has the type {twice[0]!r} in more than one column: give each a name.")
    number_gc = cell_type_markers.apply(pd.to_numeric, errors="coerce")
    is_wrong_gc = ~number_gc.isin([0, 1]).to_numpy()
    if is_wrong_gc.any():
        row, column = np.argwhere(is_wrong_gc)[0]
        more = int(is_wrong_gc.sum()) - 1
        raise ValueError(
            f"cell_type_markers has {cell_type_markers.iloc[row, column]!s} for gene {cell_type_markers.index[row]!r} "
            f"and type {types[column]!r}{f' (and {more} more such entries)' if more else ''}: wanted 1 where the gene "
            "marks the type, else 0."
        )


def _in_order_of(genes: Iterable[str], cell_type_markers: pd.DataFrame) -> pd.DataFrame:
    if not cell_type_markers.index.is_unique:
        twice = cell_type_markers.index[cell_type_markers.index.duplicated()].unique()
        raise RepeatedMarkersError(
            f"cell_type_markers has {len(twice)} genes in more than one row ({', '.join(map(repr, twice[:5]))}): "
            "keep one of the rows, or add them up."
        )
    _check_markers(cell_type_markers)
    match = align_genes(cell_type_markers.index, np.asarray(genes), where="cell_type_markers.index")
    if len(match.missing) or len(match.extra):
        unmarked, absent = (", ".join(map(repr, names[:5])) or "none" for names in (match.missing, match.extra))
        raise KeyError(
            "Anndata and cell type markers do not contain the same genes. "
            f"Only in adata: {len(match.missing)} ({unmarked}); only in cell_type_markers: {len(match.extra)} "
            f"({absent}). Make the model on adata[:, cell_type_markers.index].copy()."
        )
    return cell_type_markers.iloc[match.indexer]
