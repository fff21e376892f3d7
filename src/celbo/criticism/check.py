"""Does data drawn from a model look like the data it was trained on?

Dims: n cells, g genes, s samples.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from ..core import checked, checked_methods, optional, unknown_name
from ..core.kinds import Instance, Number, Several
from ..data.access import is_mudata
from ..dataloaders.dataset import row_numbers
from .differential import GroupTests, compare_groups, log_normalized
from .keys import (
    DATA_VAR_RAW,
    METRIC_CALIBRATION,
    METRIC_CV_CELL,
    METRIC_CV_GENE,
    METRIC_DIFF_EXP,
    METRIC_ZERO_FRACTION,
)
from .scores import agreement
from .statistics import coefficient_of_variation, coverage, zero_fraction

__all__ = ["PosteriorPredictiveCheck"]


def _are_models(value: object) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(hasattr(model, "posterior_predictive_sample") for model in value.values())


_MODELS = Instance("a mapping of names to models that draw counts", _are_models)
_LEVELS = Several(Number(), or_none_of_it=True)
_AXES = {"cells": 0, "features": 1}
_LOWER_LEVELS = (0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175)


@checked_methods
@checked
class PosteriorPredictiveCheck:
    """Compares counts drawn from models with those observed.

    Parameters
    ----------
    adata
        The data that the models were trained on, or like those.
    models_dict
        Models by the name they get in the tables.
    count_layer_key
        Layer with the counts; None: ``X``, or ``raw`` where the models were set up with it.
    n_samples
        Draws for each cell.
    indices
        Cells to look at, by row number; None: all.
    modality
        Modality of a MuData.

    Attributes
    ----------
    raw_counts
        Observed counts, ``sparse.COO`` ``(n, g)``.
    samples
        Draws of each model, ``sparse.COO`` ``(n, g, s)``.
    metrics
        What the methods found, by name; see there.

    Raises
    ------
    ModuleNotFoundError
        The package ``sparse`` is not installed.
    KeyError
        The data have no such layer or modality; the nearest is named.
    """

    def __init__(
        self,
        adata: AnnData,
        models_dict: Annotated[Mapping[str, Any], _MODELS],
        count_layer_key: str | None = None,
        n_samples: int = 10,
        indices: Sequence[int] | None = None,
        modality: str | None = None,
    ) -> None:
        self._sparse = optional("sparse", extra="sparse", purpose="PosteriorPredictiveCheck")
        self.adata: Any = adata if modality is None else _modality_of(adata, modality)
        self.models, self.n_samples, self.modality = dict(models_dict), n_samples, modality
        self.count_layer_key = count_layer_key
        self.indices = np.arange(self.adata.n_obs) if indices is None else row_numbers(indices, self.adata.n_obs)
        if count_layer_key is not None and count_layer_key not in self.adata.layers:
            raise KeyError(unknown_name("layer of adata.layers", count_layer_key, self.adata.layers.keys()))
        of_raw = count_layer_key is None and any(map(_takes_raw, self.models.values()))
        of_genes = self.adata.raw if of_raw else self.adata
        self._genes: pd.Index = of_genes.var_names
        counts = of_genes.X if count_layer_key is None else self.adata.layers[count_layer_key]
        self.raw_counts = self._sparse.COO(sp.coo_matrix(counts[self.indices]))
        self.samples = {name: self._draw(model, adata) for name, model in self.models.items()}
        self.metrics: dict[str, Any] = {}

    def _draw(self, model: Any, adata: Any) -> Any:
        drawn = model.posterior_predictive_sample(adata, n_samples=self.n_samples, indices=self.indices)
        if isinstance(drawn, dict):  # models of several modalities
            drawn = drawn[self.modality]
        drawn = self._sparse.COO(drawn)
        return drawn if drawn.ndim == 3 else drawn.reshape((*drawn.shape, 1))

    @property
    def samples_dataset(self) -> Any:
        """Observed counts and draws as one ``xarray.Dataset`` of cells, features and samples.

        Raises
        ------
        ModuleNotFoundError
            The package ``xarray`` is not installed.
        """
        xarray = optional("xarray", extra="xarray", purpose="samples_dataset")
        drawn = {name: (("cells", "features", "samples"), values) for name, values in self.samples.items()}
        return xarray.Dataset(
            {**drawn, DATA_VAR_RAW: (("cells", "features"), self.raw_counts)},
            coords={"cells": self.adata.obs_names[self.indices], "features": self._genes},
        )

    def coefficient_of_variation(self, dim: Literal["cells", "features"] = "cells") -> None:
        r"""Standard deviation over mean, of the observed counts and of the draws, averaged over the latter.

        Parameters
        ----------
        dim
            ``"cells"``: a value for each gene, ``metrics["cv_gene"]``. ``"features"``: one for each cell,
            ``metrics["cv_cell"]``. Data frames with a column for each model, and ``"Raw"``.
        """
        index = self._genes if dim == "cells" else self.adata.obs_names[self.indices]
        columns = {
            name: _mean_of_numbers(coefficient_of_variation(drawn, _AXES[dim])) for name, drawn in self.samples.items()
        }
        columns[DATA_VAR_RAW] = coefficient_of_variation(self.raw_counts, _AXES[dim])
        key = METRIC_CV_GENE if dim == "cells" else METRIC_CV_CELL
        self.metrics[key] = pd.DataFrame(columns, index=index).fillna(0.0)

    def zero_fraction(self) -> None:
        """Share of zeros of each gene, as ``metrics["zero_fraction"]``: a column for each model, and ``"Raw"``."""
        columns = {name: zero_fraction(drawn).mean(-1) for name, drawn in self.samples.items()}
        columns[DATA_VAR_RAW] = zero_fraction(self.raw_counts)
        self.metrics[METRIC_ZERO_FRACTION] = pd.DataFrame(columns, index=self._genes)

    def calibration_error(self, confidence_intervals: Annotated[list[float] | float, _LEVELS] | None = None) -> None:
        r"""Whether the draws' quantiles hold what they promise, as ``metrics["calibration"]``.

        .. math:: \sum_i \bigl(\tfrac{1}{ng} \#\{q_{l_i} \le x_{ng} \le q_{u_i}\} - (u_i - l_i)\bigr)^2

        Parameters
        ----------
        confidence_intervals
            Levels of the quantiles: first and last make an interval, second and last but one, and so on. A number: the
            central interval of that probability. None: seven central ones, of 0.65 to 0.95.
        """
        intervals = _intervals(confidence_intervals)
        widths = np.array([upper - lower for lower, upper in intervals])
        errors = {
            name: [float(((coverage(self.raw_counts, drawn, intervals) - widths) ** 2).sum())]
            for name, drawn in self.samples.items()
        }
        self.metrics[METRIC_CALIBRATION] = pd.DataFrame(errors, index=["features"])

    def differential_expression(
        self,
        de_groupby: str | None = None,
        de_method: Literal["t-test"] = "t-test",
        n_samples: int = 1,
        cell_scale_factor: float = 1e4,
        p_val_thresh: float = 0.001,
        n_top_genes_fallback: int = 100,
    ) -> None:
        """Whether the drawn counts show the same differential expression, as ``metrics["diff_exp"]``.

        Parameters
        ----------
        de_groupby
            Column of ``obs`` with the groups; each is compared with all other cells.
        de_method
            ``"t-test"``: Welch's, on log-normalized counts.
        n_samples
            Draws to look at; figures are averaged over them.
        cell_scale_factor
            Total count of each cell before the logarithm.
        p_val_thresh, n_top_genes_fallback
            Genes with a smaller adjusted p value are called; that many, where there is none.

        Raises
        ------
        KeyError
            ``adata.obs`` has no column ``de_groupby``; the nearest is named.

        Notes
        -----
        ``metrics["diff_exp"]["summary"]`` has a row for each group and model, see
        :func:`~celbo.criticism.scores.agreement`; ``["lfc_per_model_per_group"][model][group]`` the log fold changes of
        the observed and of the drawn counts, ``"raw"`` and ``"approx"``.
        """
        if de_groupby not in self.adata.obs:
            raise KeyError(unknown_name("column of adata.obs (de_groupby)", de_groupby, self.adata.obs.columns))
        groups = self.adata.obs[de_groupby].iloc[self.indices].astype("category").cat.remove_unused_categories()

        def tested(counts: Any) -> GroupTests:
            logs = log_normalized(counts.to_scipy_sparse().tocsr(), cell_scale_factor)
            return compare_groups(logs, groups.cat.codes.to_numpy(), len(groups.cat.categories))

        raw = tested(self.raw_counts)
        rows: list[dict[str, Any]] = []
        changes: dict[str, dict[Any, pd.DataFrame]] = {}
        for model, drawn in self.samples.items():
            tests = [tested(drawn[:, :, i]) for i in range(min(n_samples, drawn.shape[-1]))]
            changes[model] = {}
            for code, group in enumerate(groups.cat.categories):
                scores = pd.DataFrame([agreement(raw, one, code, p_val_thresh, n_top_genes_fallback) for one in tests])
                n_cells = int((groups == group).sum())
                rows.append({**scores.mean(), "group": group, "model": model, "n_cells": n_cells})
                changes[model][group] = self._changes(raw, tests, code)
        self.metrics[METRIC_DIFF_EXP] = {"lfc_per_model_per_group": changes, "summary": pd.DataFrame(rows)}

    def _changes(self, raw: GroupTests, tests: list[GroupTests], code: int) -> pd.DataFrame:
        """Log fold changes of one group, the gene with the highest score first."""
        approx = np.mean([one.log_fold_change[code] for one in tests], axis=0)
        frame = pd.DataFrame({"raw": raw.log_fold_change[code], "approx": approx}, index=self._genes)
        return frame.iloc[np.argsort(-raw.score[code], kind="stable")]

    def __repr__(self) -> str:
        found = ", ".join(self.metrics) or "none yet"
        return (
            f"Posterior predictive check of {', '.join(self.models)}: {self.n_samples} draws of "
            f"{self.raw_counts.shape[0]} cells and {self.raw_counts.shape[1]} genes. Metrics: {found}."
        )


def _modality_of(adata: Any, modality: str) -> Any:
    modalities = adata.mod if is_mudata(adata) else {}
    if modality not in modalities:
        raise KeyError(unknown_name("modality of adata", modality, modalities))
    return adata[modality]


def _takes_raw(model: object) -> bool:
    """Whether a model was set up with ``use_raw=True``."""
    return bool((vars(model).get("registry_") or {}).get("setup_args", {}).get("use_raw", False))


def _mean_of_numbers(values: np.ndarray) -> np.ndarray:
    """Mean over the last dimension of what is not NaN; NaN where nothing else is there."""
    is_number = ~np.isnan(values)
    n = is_number.sum(-1)
    return np.where(n > 0, np.where(is_number, values, 0.0).sum(-1) / np.maximum(n, 1), np.nan)


def _intervals(given: list[float] | float | None) -> list[tuple[float, float]]:
    """Pairs of levels, the outermost first."""
    if given is None:
        return [(level, 1 - level) for level in _LOWER_LEVELS]
    levels = sorted(given) if isinstance(given, list | tuple) else [0.5 - given / 2, 0.5 + given / 2]
    if not levels or len(levels) % 2 or levels[0] < 0 or levels[-1] > 1:
        raise ValueError(
            f"confidence_intervals must be an even number of levels between 0 and 1, or one probability; got {given!r}."
        )
    return [(levels[i], levels[-1 - i]) for i in range(len(levels) // 2)]
