"""CellAssign: cell types from lists of marker genes.

Reference: Zhang, O'Flanagan, Chavez, Lim, Ceglia, McPherson, Wiens, Walters, Chan, Hewitson, Lai, Mottok, Sarkozy,
Chong, Aoki, Wang, Weng, McAlpine, Aparicio, Steidl, Campbell and Shah, *Probabilistic cell-type assignment of
single-cell RNA-seq for tumor microenvironment profiling*, Nature Methods 2019.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from ...core import REGISTRY_KEYS
from ...data.fields import NumericalObsField, bundles
from ...model.base import BaseModelClass, RNASeqMixin, setup_method
from ...posterior.passes import Rows, decode, encode, evaluating, on_device
from ...train.config import as_list
from ...train.method import PASSED_ON, SPLIT, STOPPING, WHERE, Argument, training
from ...train.recipes import default_recipe
from ...verbs.cells import asked
from ...verbs.keys import offers_key
from ..converging import ConvergingTrainingMixin
from .clamping import ClampCallback
from .markers import SIZES_OF_MARKERS, check_size_factors, markers_of
from .module import CellAssignModule
from .start import Survey, start_from_markers, survey_of

__all__ = ["CellAssign"]

logger = logging.getLogger("celbo")

_N_BASIS = 10
_EM_TEXT = (
    "Maximize the likelihood by EM: a gradient step is taken under responsibilities that are held fixed. False, as in "
    "scvi-tools: the expected complete-data log-likelihood is maximized through the responsibilities too, which "
    'rewards them for being all or nothing. None: False under ``recipe="classic"``, else True.'
)


class CellAssign(ConvergingTrainingMixin, RNASeqMixin, BaseModelClass):
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

    Examples
    --------
    >>> import celbo, pandas as pd
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> adata.obs["size"] = adata.X.sum(1) / adata.X.sum(1).mean()  # of all genes
    >>> adata = adata[:, :12].copy()  # the markers
    >>> markers = pd.DataFrame({"a": [1] * 6 + [0] * 6, "b": [0] * 6 + [1] * 6}, index=adata.var_names)
    >>> celbo.external.CellAssign.setup_anndata(adata, size_factor_key="size")
    >>> model = celbo.external.CellAssign(adata, markers)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> model.predict().shape
    (400, 2)
    """

    _module_cls: ClassVar[type[CellAssignModule]] = CellAssignModule
    _sizes: ClassVar[Mapping[str, str]] = {"n_genes": "n_vars"}

    def __init__(self, adata: AnnData, cell_type_markers: pd.DataFrame, **model_kwargs: Any) -> None:
        super().__init__(adata)
        self.cell_type_markers = markers_of(self.get_var_names(), cell_type_markers)
        self.n_genes = len(self.cell_type_markers)
        survey = self._survey()
        self._build_module(
            rho=torch.as_tensor(self.cell_type_markers.to_numpy(dtype=np.float32)),
            basis_means=torch.linspace(survey.low, survey.high, _N_BASIS),
            **({"b_g_0": torch.zeros(self.n_genes), "random_b_g_0": default_recipe() == "classic"} | model_kwargs),
        )
        own_start = {"b_g_0", "random_b_g_0"} & model_kwargs.keys() or default_recipe() == "classic"
        if len(survey.counts_ng) and not own_start:
            if survey.sizes_are_totals:
                logger.warning(SIZES_OF_MARKERS, self.get_setup_arg("size_factor_key"))
            start_from_markers(self.module, survey)

    def _survey(self) -> Survey:
        """Smallest and largest count, and some cells to begin with; size factors are checked."""
        if self.adata is None:
            return Survey(0.0, 1.0, np.zeros((0, self.n_genes)), np.zeros(0))  # the archive has the parameters
        size_n = self.adata_manager.get_from_registry(REGISTRY_KEYS.SIZE_FACTOR_KEY)
        check_size_factors(size_n, self.get_setup_arg("size_factor_key"))
        return survey_of(self._make_data_loader(self.adata), self.adata.n_obs)

    @offers_key()
    def predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        key_added: str | None = None,
    ) -> pd.DataFrame:
        """Probability of each type for each cell.

        Parameters
        ----------
        adata, indices, batch_size, key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        Cells by types, rows that sum to 1.

        Examples
        --------
        >>> model.predict().idxmax(axis=1).shape  # the likeliest type of each cell
        (400,)
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
