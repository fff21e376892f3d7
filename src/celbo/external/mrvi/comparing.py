"""MRVIMixin: verbs that compare samples, cell by cell. Functions of this folder answer; tables are made here."""

from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from ... import posterior
from ...core import ArgumentError, checked_methods, door_of, settings
from ...core.kinds import Number
from ...ops.random import fresh_seed
from ...verbs.cells import Asked, asked
from ...verbs.keys import offers_key
from . import abundance, samples
from .differential import Regression, differential, false_discovery_rates
from .verbs import CounterfactualMixin, xarray_for

__all__ = ["MRVIMixin"]


@checked_methods
class MRVIMixin(CounterfactualMixin):
    """Abundance and expression that differ between samples; arguments are those of the class that this derives from."""

    @offers_key()
    def differential_abundance(  # type: ignore[override]
        self,
        adata: AnnData | None = None,
        sample_cov_keys: list[str] | None = None,
        sample_subset: list[str] | None = None,
        compute_log_enrichment: bool = False,
        omit_original_sample: bool = True,
        batch_size: int = 128,
        *,
        key_added: str | None = None,
    ) -> Any:
        """Density of each sample, and of each value of a covariate of samples, at each cell.

        Parameters
        ----------
        adata, batch_size, key_added
            See the class.
        sample_cov_keys
            Columns of ``adata.obs`` that have one value in each sample.
        sample_subset
            Names of the samples to use; None: all.
        compute_log_enrichment
            Also give each value's log-density less that of the other values.
        omit_original_sample
            Leave a cell's own sample out of the values' densities: there are cells like it there.

        Returns
        -------
        ``xarray.Dataset`` of cells: ``log_probs`` of samples, in the order in which these occur, and for each covariate
        ``{key}_log_probs`` and ``{key}_log_enrichs``, in nats.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> model.update_sample_info(adata)
        >>> sorted(model.differential_abundance(sample_cov_keys=["group"]))
        ['group_log_probs', 'log_probs']
        """
        self._check_if_trained(warn=False)
        cells = asked(self, adata, None, batch_size)
        u, variance, code = self._u_of(cells)
        order = self._in_order(code, sample_subset)
        densities = posterior.sample_densities(u, variance, [np.flatnonzero(code == s) for s in order])
        coords = {"cell_name": cells.names, "sample": self.sample_order[order]}
        variables = {"log_probs": (["cell_name", "sample"], densities)}
        own = pd.Index(order).get_indexer(code) if omit_original_sample else None
        for key, values in self._covariates(cells, sample_cov_keys or [], code).items():
            group, coords[key] = pd.factorize(values.loc[order].astype(str), sort=True)
            inside, more = abundance.enrichment(densities, own, group, len(coords[key]))
            variables[f"{key}_log_probs"] = (["cell_name", key], inside)
            if compute_log_enrichment:
                variables[f"{key}_log_enrichs"] = (["cell_name", key], more)
        return xarray_for().Dataset(variables, coords)

    @offers_key()
    def get_outlier_cell_sample_pairs(
        self,
        adata: AnnData | None = None,
        subsample_size: int | None = 5000,
        quantile_threshold: Annotated[float, Number(0, 1)] = 0.05,
        admissibility_threshold: Annotated[float, Number()] = 0.0,
        batch_size: int = 256,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> Any:
        """Which cells may be put into which samples: those that the sample has a cell near.

        Parameters
        ----------
        adata, batch_size, seed, key_added
            See the class.
        subsample_size
            Most cells per sample to use, drawn at random; None: all.
        quantile_threshold
            Share of cells that lie below the threshold in their own sample, each left out of it.
        admissibility_threshold
            How far above that threshold a cell must lie, in nats.

        Returns
        -------
        ``xarray.Dataset`` of cells and samples, in the order in which these occur: ``log_probs`` of the nearest cell,
        in nats; ``log_ratios``, that less the threshold; ``is_admissible``.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> sorted(model.get_outlier_cell_sample_pairs(subsample_size=50))
        ['is_admissible', 'log_probs', 'log_ratios']
        """
        self._check_if_trained(warn=False)
        cells = asked(self, adata, None, batch_size)
        u, variance, code = self._u_of(cells)
        order = self._in_order(code)
        rng = np.random.default_rng(fresh_seed(settings.seed if seed is None else seed))
        rows = [rng.permutation(np.flatnonzero(code == s))[:subsample_size] for s in order]
        nearest, threshold = abundance.outliers(u, variance, rows, quantile_threshold)
        ratios = nearest - np.float32(threshold)
        tables = {"log_probs": nearest, "log_ratios": ratios, "is_admissible": ratios > admissibility_threshold}
        coords = {"cell_name": cells.names, "sample": self.sample_order[order]}
        return xarray_for().Dataset({name: (["cell_name", "sample"], table) for name, table in tables.items()}, coords)

    @offers_key()
    def differential_expression(  # type: ignore[override]
        self,
        adata: AnnData | None = None,
        sample_cov_keys: list[str] | None = None,
        sample_subset: list[str] | None = None,
        batch_size: int = 128,
        use_vmap: bool | Literal["auto"] = "auto",
        normalize_design_matrix: bool = True,
        add_batch_specific_offsets: bool = False,
        mc_samples: int = 50,
        store_lfc: bool = False,
        store_lfc_metadata_subset: list[str] | None = None,
        store_baseline: bool = False,
        eps_lfc: Annotated[float, Number(0, above=True)] = 1e-4,
        filter_inadmissible_samples: bool = False,
        lambd: Annotated[float, Number(0)] = 0.0,
        delta: Annotated[float | None, Number(0)] = 0.3,
        *,
        seed: int | None = None,
        key_added: str | None = None,
        **filter_samples_kwargs: Any,
    ) -> Any:
        """How each cell depends on covariates of samples, see :mod:`celbo.external.mrvi.differential`.

        Parameters
        ----------
        adata, batch_size, use_vmap, seed, key_added
            See the class.
        sample_cov_keys
            Columns of ``adata.obs`` that have one value in each sample: numbers, or categories, which are compared with
            the first of them.
        sample_subset
            Names of the samples to use; None: all.
        normalize_design_matrix
            Scale each covariate to 0 to 1.
        add_batch_specific_offsets
            Give each batch of samples its own level.
        mc_samples
            Draws of u.
        store_lfc
            Also give log2 fold changes of genes.
        store_lfc_metadata_subset
            Covariates to give fold changes for; None: all.
        store_baseline
            Also give the profile that fold changes start from.
        eps_lfc
            Added to profiles before their logarithm.
        filter_inadmissible_samples
            Put cells only into samples that have cells like them, see :meth:`get_outlier_cell_sample_pairs`.
        lambd
            Ridge of the regression.
        delta
            Give in ``pde`` the probability of a larger log2 fold change; None: leave it out.
        **filter_samples_kwargs
            For :meth:`get_outlier_cell_sample_pairs`.

        Returns
        -------
        ``xarray.Dataset`` of cells and covariates: ``beta`` of latents, ``effect_size``, ``pvalue`` (to 6e-8, as in
        scvi-tools) and ``padj``; with ``store_lfc`` ``lfc``, ``lfc_std`` and ``pde`` of genes.

        Raises
        ------
        ArgumentError
            No covariate, or an unknown one.

        Examples
        --------
        >>> model.update_sample_info(adata)
        >>> model.differential_expression(sample_cov_keys=["group"], mc_samples=10)["pvalue"].shape
        (400, 1)
        """
        self._check_if_trained(warn=False)
        door_of(type(self).get_outlier_cell_sample_pairs).take((self,), filter_samples_kwargs, "MRVI's samples")
        cells = asked(self, adata, None, batch_size)
        assert cells.adata is not None
        code = self._codes_of(cells.adata)[cells.cells]
        if not sample_cov_keys:
            raise ArgumentError("differential_expression compares samples: name columns of adata.obs, sample_cov_keys.")
        kept = samples.selected(self.sample_order, sample_subset)
        columns = {key: values.loc[kept] for key, values in self._covariates(cells, sample_cov_keys, code).items()}
        batch = self.sample_info.loc[kept, "_scvi_batch"].to_numpy() if add_batch_specific_offsets else None
        design = samples.design_of(columns, batch, normalize_design_matrix)
        of_lfc = sample_cov_keys if store_lfc_metadata_subset is None else store_lfc_metadata_subset
        folded = [q for q, key in enumerate(design.keys) if store_lfc and key in of_lfc]
        may = None
        if filter_inadmissible_samples:
            pairs = self.get_outlier_cell_sample_pairs(cells.adata, seed=seed, **filter_samples_kwargs)
            may = pairs.is_admissible.sel(sample=self.sample_order[kept]).values
        offsets = range(design.keys.count(None))
        options: dict[str, Any] = {"ridge": lambd, "eps": eps_lfc, "delta": delta, "baseline": store_baseline}
        wanted = Regression(design.matrix_sq, kept, folded, offsets, mc_samples, **options)
        found = differential(self.module, cells.batches, wanted, is_admissible_ns=may, n_cells=cells.n_cells, seed=seed)
        found["padj"] = false_discovery_rates(found["pvalue"])
        coords = {"cell_name": cells.names, "latent_dim": np.arange(self.module.n_latent), "gene": self.get_var_names()}
        return _table(found, coords, np.array(design.names), folded)

    def _in_order(self, code_n: np.ndarray, subset: list[str] | None = None) -> np.ndarray:
        """Codes of the samples that there are, in the order in which they occur."""
        order = pd.unique(code_n)
        return order[np.isin(order, samples.selected(self.sample_order, subset))]

    def _covariates(self, cells: Asked, keys: list[str], code_n: np.ndarray) -> dict[str, pd.Series]:
        assert cells.adata is not None
        return {key: samples.covariate(self.sample_info, cells.adata.obs, code_n, key) for key in keys}


def _table(found: dict[str, np.ndarray], coords: dict[str, Any], names: np.ndarray, folded: list[int]) -> Any:
    """The answer by names of covariates; fold changes of a subset have their own dimension."""
    sub = "covariate" if len(folded) in (0, len(names)) else "covariate_sub"
    dims: dict[str, list[str]] = {"beta": ["covariate", "latent_dim"], "baseline_expression": ["gene"]}
    dims |= {name: [sub, "gene"] for name in ("lfc", "lfc_std", "pde")}
    variables = {name: (["cell_name", *dims.get(name, ["covariate"])], values) for name, values in found.items()}
    return xarray_for().Dataset(variables, {**coords, sub: names[folded], "covariate": names})
