"""AbundanceMixin: how abundant cells like each cell are in each sample.

Dims: n cells, k latents, s samples.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from torch.distributions import Distribution

from ... import posterior
from ...core import ArgumentError, checked_methods, unknown_name
from ...model.base import VAEMixin
from ...verbs.keys import offers_key
from .panel import CYTOVI_REGISTRY_KEYS

__all__ = ["AbundanceMixin", "log_median"]

_SAMPLE = CYTOVI_REGISTRY_KEYS.SAMPLE_KEY


def log_median(log_values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Log of the median of values whose logarithms are given.

    Parameters
    ----------
    log_values
        Log-densities, in nats.
    axis
        That of the samples.
    """
    largest = log_values.max(axis, keepdims=True)
    return np.log(np.median(np.exp(log_values - largest), axis)) + largest.squeeze(axis)


def _products_of_dimensions(mean_nk: np.ndarray, variance_nk: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
    """As scvi-tools 1.4.2: dimensions are mixed independently, and variances are used as scales."""
    columns = [slice(k, k + 1) for k in range(mean_nk.shape[1])]
    of = posterior.sample_log_densities
    return np.sum([of(mean_nk[:, k], np.square(variance_nk[:, k]), *args, **kwargs) for k in columns], axis=0)


@checked_methods
class AbundanceMixin(VAEMixin):
    """Densities of samples in the latent space; common arguments: see :class:`~celbo.model.base.VAEMixin`."""

    def get_aggregated_posterior(  # type: ignore[override]
        self,
        adata: AnnData | None = None,
        sample: int | str | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        dof: float | None = 3.0,
        *,
        seed: int | None = None,
    ) -> Distribution:
        """Mixture of the cells' posteriors.

        Parameters
        ----------
        adata, batch_size, seed
            See the class; nothing is drawn.
        sample
            Name of the sample whose cells to take; None: those of ``indices``.
        indices
            Row numbers; None or an empty list: all cells.
        dof
            Degrees of freedom of Student's t components; None for normal ones.

        Raises
        ------
        ArgumentError
            ``sample`` and ``indices`` are both given, or there is no such sample; the nearest is named.

        Examples
        --------
        >>> model.get_aggregated_posterior(indices=range(50)).sample().shape
        torch.Size([10])
        """
        if sample is not None:
            if indices is not None:
                raise ArgumentError("sample= and indices= both say which cells: leave one of them out.")
            code_n, names = self._samples_of(self._validate_anndata(adata))
            if sample not in names:
                raise ArgumentError(unknown_name("sample", sample, names))
            indices = np.flatnonzero(code_n == names.index(sample)).tolist()
        return super().get_aggregated_posterior(adata, indices, batch_size, dof, seed=seed)

    @offers_key()
    def get_sample_logprobs(
        self,
        adata: AnnData | None = None,
        batch_size: int = 128,
        downsample_cells: int | None = None,
        dof: float | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> pd.DataFrame:
        """Log-density of each sample at each cell, see :func:`~celbo.posterior.sample_log_densities`.

        Parameters
        ----------
        adata, batch_size, seed, key_added
            See the class.
        downsample_cells
            Most cells per sample that its density is made of, drawn at random; None: all.
        dof
            Degrees of freedom of Student's t components of the densities; None for normal ones.

        Returns
        -------
        Cells by samples, in nats.

        Raises
        ------
        ArgumentError
            No samples were named at setup.

        Examples
        --------
        >>> model.get_sample_logprobs().shape
        (400, 4)
        """
        adata = self._validate_anndata(adata)
        code_n, names = self._samples_of(adata)
        present = [code for code in range(len(names)) if (code_n == code).any()]
        mean_nk, variance_nk = self.get_latent_representation(adata, batch_size=batch_size, return_dist=True)
        densities_ns = (_products_of_dimensions if self.module.scvi_tools_figures else posterior.sample_log_densities)(
            mean_nk, variance_nk, code_n, present, dof=dof, max_cells=downsample_cells, seed=seed
        )
        return pd.DataFrame(densities_ns, adata.obs_names, [names[code] for code in present])

    def differential_abundance(  # type: ignore[override]
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        batch_size: int = 128,
        downsample_cells: int | None = None,
        dof: float | None = None,
        aggregation_fn: Callable[[np.ndarray], Any] = log_median,
        return_log_probs: bool = False,
        *,
        seed: int | None = None,
    ) -> pd.DataFrame:
        r"""How abundant cells like each cell are in the samples of one group, compared with all other samples.

        .. math:: \mathrm{DA}_{nc} = a\bigl(\{\ell_{ns} : s \in c\}\bigr) - a\bigl(\{\ell_{ns} : s \notin c\}\bigr)

        with the log-densities :math:`\ell` of samples and :math:`a` their log-median.

        Parameters
        ----------
        adata, batch_size, downsample_cells, dof, seed
            As in :meth:`get_sample_logprobs`.
        groupby
            Column of ``adata.obs`` with the group of each sample, such as its condition; None: each sample is one.
        aggregation_fn
            Makes one number of the log-densities ``(s,)`` of the samples of a group.
        return_log_probs
            Return the log-densities of samples instead.

        Returns
        -------
        Cells by groups, ``DA_{group}``: above 0, cells like this one are more abundant in the group.

        Raises
        ------
        ArgumentError
            No such column, a sample of cells of several groups, or fewer than two groups.

        Examples
        --------
        >>> list(model.differential_abundance(groupby="group"))
        ['DA_True', 'DA_False']
        """
        adata = self._validate_anndata(adata)
        densities = self.get_sample_logprobs(adata, batch_size, downsample_cells, dof, seed=seed)
        if return_log_probs:
            return densities
        group_s = self._groups_of_samples(adata, groupby, densities.columns)
        values_ns = densities.to_numpy(dtype=float)

        def of(chosen_s: np.ndarray) -> np.ndarray:
            part_ns = values_ns[:, chosen_s]
            return (
                log_median(part_ns) if aggregation_fn is log_median else np.apply_along_axis(aggregation_fn, 1, part_ns)
            )

        groups = group_s.unique()
        differences = {
            f"DA_{group}": of((group_s == group).to_numpy()) - of((group_s != group).to_numpy()) for group in groups
        }
        return pd.DataFrame(differences, index=adata.obs_names)

    def _groups_of_samples(self, adata: AnnData, groupby: str | None, samples: pd.Index) -> pd.Series:
        """The group of each sample, in the order of ``samples``."""
        if groupby is None:
            return pd.Series(samples, index=samples)
        if groupby not in adata.obs:
            raise ArgumentError(unknown_name("column of adata.obs (groupby)", str(groupby), map(str, adata.obs)))
        code_n, names = self._samples_of(adata)
        of_cells = adata.obs[groupby].astype(object).groupby(np.asarray(names, dtype=object)[code_n])
        mixed = [str(sample) for sample, n in of_cells.nunique(dropna=False).items() if n != 1]
        if mixed:
            raise ArgumentError(
                f"Samples are compared by adata.obs[{groupby!r}], and sample {mixed[0]!r} has cells of several groups "
                "(or none): name a column that is the same for all cells of a sample."
            )
        group_s = of_cells.first().loc[samples]
        if group_s.nunique() < 2:
            raise ArgumentError(f"adata.obs[{groupby!r}] has one group only: there is nothing to compare it with.")
        return group_s

    def _names_samples(self) -> bool:
        return self.get_setup_arg("sample_key") is not None

    def _samples_of(self, adata: Any) -> tuple[np.ndarray, list[Any]]:
        """Code of each cell's sample, and the samples' names."""
        if not self._names_samples():
            raise ArgumentError("This needs the sample of each cell: name its column at setup_anndata(sample_key=...).")
        manager: Any = self.get_anndata_manager(adata, required=True)
        names = manager.get_state_registry(_SAMPLE)["categorical_mapping"]
        return np.asarray(manager.get_from_registry(_SAMPLE)).ravel(), list(names)
