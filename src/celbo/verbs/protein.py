"""ProteinMixin: verbs of models of genes and proteins. No logic here: :mod:`celbo.posterior` answers."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from .. import posterior
from ..core import REGISTRY_KEYS, checked_methods
from ..core.kinds import Number
from ..data import data_registry_of
from ..posterior.protein import background_of, foreground_of, protein_of
from .base import Model
from .cells import Weights, asked, weighting_of
from .expression import RNASeqMixin
from .keys import offers_key
from .outputs import corrected_batches, correlation, differential, names_of, normalized

__all__ = ["EXPRESSION", "PROTEIN", "ProteinMixin", "columns_of"]

EXPRESSION = posterior.EXPRESSION
PROTEIN = posterior.Output("protein", "py_readout", REGISTRY_KEYS.PROTEIN_EXP_KEY, protein_of)
"""Proteins, of which the foreground is read."""

Cells = Sequence[int] | Sequence[bool] | str
Names = Sequence[str] | None
BatchNames = Sequence[float | str] | float | str | None


def columns_of(model: Model, outputs: Sequence[posterior.Output], lists: tuple[Names, Names]) -> list[np.ndarray]:
    """Columns of the genes and of the proteins of two lists; all where a list is None."""
    given = zip(outputs, lists, ("gene_list", "protein_list"), strict=True)
    found = [(posterior.gene_columns(some, names_of(model, one), argument), one) for one, some, argument in given]
    return [np.arange(len(names_of(model, one))) if columns is None else columns for columns, one in found]


@checked_methods
class ProteinMixin(RNASeqMixin):
    """Denoised expression of genes and proteins, and the foreground of the proteins.

    Common arguments (``adata``, ``indices``, ``batch_size``, ``seed``): see :class:`~celbo.model.base.VAEMixin`.
    ``transform_batch`` names categories of the batch, one or several; None: each cell is decoded as its own batch. A
    protein that a cell's panel lacks is predicted as if the cell's batch had measured it; to see what another batch
    would have measured, decode the cell as that batch.
    """

    @offers_key("features", ("rna", "protein"))
    def get_normalized_expression(  # type: ignore[override]  # scvi-tools' signature
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_samples_overall: int | None = None,
        transform_batch: BatchNames = None,
        gene_list: Names = None,
        protein_list: Names = None,
        library_size: float | Literal["latent"] | None = 1,
        n_samples: int = 1,
        sample_protein_mixing: bool = False,
        scale_protein: bool = False,
        include_protein_background: bool = False,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        silent: bool = True,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> tuple[np.ndarray | pd.DataFrame, np.ndarray | pd.DataFrame]:
        r"""Denoised expression of genes and of proteins, at the same drawn latents.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        n_samples_overall
            This many draws from all cells together, each from a cell drawn with replacement.
        transform_batch
            See the class; several are averaged, on the same latents.
        gene_list, protein_list
            Genes and proteins to give, names or masks, in the order of the model's; values are not renormalized.
        library_size
            What each cell's genes sum to; ``"latent"``: the model's library of the cell. Proteins have none.
        n_samples
            Draws of the latents for each cell.
        sample_protein_mixing
            Draw whether a protein is foreground in a cell, instead of weighing by the probability.
        scale_protein
            Make each cell's proteins sum to 1.
        include_protein_background
            Give the whole expected count, :math:`(1 - \pi)\mu_\text{fore} + \pi\mu_\text{back}`, instead of the
            foreground alone.
        return_mean
            Average over the draws.
        return_numpy
            Arrays instead of DataFrames.
        silent
            Accepted for compatibility with scvi-tools: bars come by ``celbo.settings.verbosity``.

        Returns
        -------
        Genes and proteins: cells (or draws) by features; ``(s, n, .)`` arrays for draws that are not averaged.

        Raises
        ------
        ValueError
            An unknown batch, no known gene or protein.

        Examples
        --------
        >>> rna, protein = model.get_normalized_expression(n_samples=5, gene_list=["gene_3", "gene_7"])
        >>> rna.shape, protein.shape
        ((400, 2), (400, 100))
        """
        proteins = PROTEIN.reading(
            sample_mixing=sample_protein_mixing, scale=scale_protein, background=include_protein_background
        )
        both = [EXPRESSION.at_library(1 if library_size is None else library_size), proteins]
        genes, some = columns_of(self, both, (gene_list, protein_list))
        values = normalized(
            self,
            asked(self, adata, indices, batch_size),
            both,
            transform_batch=transform_batch,
            columns=np.concatenate([genes, self.summary_stats["n_vars"] + some]),
            n_samples=n_samples,
            n_samples_overall=n_samples_overall,
            return_mean=return_mean,
            return_numpy=return_numpy,
            seed=seed,
        )
        if isinstance(values, pd.DataFrame):
            return values.iloc[:, : len(genes)], values.iloc[:, len(genes) :]
        return values[..., : len(genes)], values[..., len(genes) :]

    @offers_key("features")
    def get_protein_foreground_probability(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: BatchNames = None,
        protein_list: Names = None,
        n_samples: int = 1,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        silent: bool = True,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray | pd.DataFrame:
        r"""Probability :math:`1 - \pi_{np}` that a cell's count of a protein is foreground.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        transform_batch, protein_list, n_samples, return_mean, return_numpy, silent
            As in :meth:`get_normalized_expression`.

        Returns
        -------
        Cells by proteins; an ``(s, n, p)`` array for draws that are not averaged.

        Examples
        --------
        >>> model.get_protein_foreground_probability(transform_batch="batch_0").shape
        (400, 100)
        """
        return normalized(
            self,
            asked(self, adata, indices, batch_size),
            [posterior.Output("foreground", PROTEIN.distribution, PROTEIN.data, foreground_of)],
            transform_batch=transform_batch,
            columns=posterior.gene_columns(protein_list, names_of(self, PROTEIN), "protein_list"),
            n_samples=n_samples,
            return_mean=return_mean,
            return_numpy=return_numpy,
            seed=seed,
        )

    @offers_key()
    def get_protein_background_mean(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray:
        """Expected count of each protein in each cell if it is background, at one draw, ``(n, p)``.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Examples
        --------
        >>> model.get_protein_background_mean(indices=range(50)).shape
        (50, 100)
        """
        background = posterior.Output("background", PROTEIN.distribution, PROTEIN.data, background_of)
        cells = asked(self, adata, indices, batch_size)
        return np.asarray(normalized(self, cells, [background], return_numpy=True, seed=seed))

    def differential_expression(  # type: ignore[override]  # scvi-tools' signature
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        group1: Sequence[str] | None = None,
        group2: Sequence[str] | str | None = None,
        idx1: Cells | None = None,
        idx2: Cells | None = None,
        mode: Literal["vanilla", "change"] = "change",
        delta: float | None = 0.25,
        batch_size: int | None = None,
        all_stats: bool = True,
        batch_correction: bool = False,
        batchid1: Sequence[str] | None = None,
        batchid2: Sequence[str] | None = None,
        fdr_target: float | Sequence[float] = 0.05,
        silent: bool = False,
        protein_prior_count: Annotated[float, Number(0)] = 0.1,
        scale_protein: bool = False,
        sample_protein_mixing: bool = False,
        include_protein_background: bool = False,
        use_field: Sequence[str] | None = None,
        pseudocounts: float | None = 1e-5,
        weights: Weights | None = "uniform",
        filter_outlier_cells: bool = False,
        *,
        subset_idx: Cells | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Differential expression of genes and proteins between groups of cells.

        Parameters
        ----------
        adata, groupby, group1, group2, idx1, idx2, mode, delta, batch_size, all_stats, batch_correction
            As in ``differential_expression`` of :class:`~celbo.model.SCVI`.
        batchid1, batchid2, fdr_target, silent, pseudocounts, weights, filter_outlier_cells, subset_idx, seed, **kwargs
            As there.
        protein_prior_count
            Added to the values of proteins before fold changes are taken.
        scale_protein, sample_protein_mixing, include_protein_background
            As in :meth:`get_normalized_expression`.
        use_field
            ``["rna"]``, ``["protein"]`` or both (None); a list of neither raises a ``ValueError``.

        Returns
        -------
        A row for each gene and each protein, which is called ``{protein}_protein``, and comparison.

        Examples
        --------
        >>> found = model.differential_expression(groupby="labels", group1="label_0")
        >>> len(found)  # genes and proteins
        200
        """
        proteins = PROTEIN.reading(
            sample_mixing=sample_protein_mixing,
            scale=scale_protein,
            background=include_protein_background,
            prior_count=protein_prior_count,
        )
        wanted = {"rna": EXPRESSION, "protein": proteins}
        outputs = [output for field, output in wanted.items() if use_field is None or field in use_field]
        if not outputs:
            raise ValueError(f"use_field names 'rna', 'protein' or both, got {use_field!r}.")
        who = {"groupby": groupby, "group1": group1, "group2": group2, "idx1": idx1, "idx2": idx2}
        options = {"mode": mode, "delta": delta, "pseudocounts": pseudocounts, "weighting": weighting_of(weights, {})}
        return differential(
            self,
            asked(self, adata, None, batch_size),
            outputs,
            who | {"subset_idx": subset_idx},
            corrected_batches(self, batchid1, batchid2) if batch_correction else (None, None),
            options | {"filter_outlier_cells": filter_outlier_cells} | kwargs,
            all_stats=all_stats,
            fdr_target=fdr_target,
            seed=seed,
            suffixes={PROTEIN.name: "_protein"},
        )

    @offers_key()
    def posterior_predictive_sample(  # type: ignore[override]  # scvi-tools' signature
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_samples: int = 1,
        batch_size: int | None = None,
        gene_list: Names = None,
        protein_list: Names = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Counts of genes and proteins like those observed, of the same draws of the latents.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        n_samples
            Draws for each cell.
        gene_list, protein_list
            Genes and proteins to give.

        Returns
        -------
        ``rna`` and ``protein`` (in a MuData as it calls them): ``(n, .)``, or ``(n, ., s)`` for several draws, dense.

        Examples
        --------
        >>> model.posterior_predictive_sample(indices=range(50), n_samples=2)["protein"].shape
        (50, 100, 2)
        """
        cells = asked(self, adata, indices, batch_size)
        outputs = (EXPRESSION, PROTEIN)
        drawn = posterior.joint_predictive_sample(self.module, cells.batches, outputs, n_samples=n_samples, seed=seed)
        chosen = columns_of(self, outputs, (gene_list, protein_list))
        where = [data_registry_of(self.registry_)[one.data].get("mod_key") for one in outputs]
        names = [name or usual for name, usual in zip(where, ("rna", "protein"), strict=True)]
        return {name: counts[:, columns] for name, counts, columns in zip(names, drawn, chosen, strict=True)}

    def _library_is_known(self) -> bool:
        return self.module.use_observed_lib_size and not self.module.scvi_tools_figures

    def get_feature_correlation_matrix(  # type: ignore[override]  # scvi-tools' signature
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_samples: int = 10,
        batch_size: int = 64,
        rna_size_factor: int = 1000,
        transform_batch: BatchNames = None,
        correlation_type: Literal["spearman", "pearson"] = "spearman",
        log_transform: bool = False,
        silent: bool = True,
        *,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Correlation of all genes and proteins in denoised draws, see :func:`~celbo.posterior.feature_correlation`.

        Parameters
        ----------
        adata, indices, batch_size, seed
            See :class:`~celbo.model.base.VAEMixin`.
        n_samples
            Draws for each cell.
        rna_size_factor
            Library that the genes of all cells are decoded at.
        transform_batch
            See the class; the matrices of several are averaged.
        correlation_type
            As in ``get_feature_correlation_matrix`` of :class:`~celbo.model.SCVI`.
        log_transform
            Correlate ``log(1 + rate)``; ranks do not depend on it.
        silent
            Accepted for compatibility with scvi-tools: bars come by ``celbo.settings.verbosity``.

        Returns
        -------
        Genes and proteins by the same; a protein that is called as a gene stands as ``NAME_protein``.

        Examples
        --------
        >>> model.get_feature_correlation_matrix(n_samples=2, correlation_type="pearson").shape
        (200, 200)
        """
        return correlation(
            self,
            asked(self, adata, indices, batch_size),
            (EXPRESSION, PROTEIN),
            transform_batch=transform_batch,
            n_samples=n_samples,
            library_size=rna_size_factor,
            kind=correlation_type,
            log_transform=log_transform,
            seed=seed,
        )

    def get_likelihood_parameters(  # type: ignore[override]  # scvi-tools' signature
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_samples: int | None = 1,
        give_mean: bool | None = False,
        batch_size: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Not of this model, as in scvi-tools: raises a ``NotImplementedError``, whatever the arguments."""
        raise NotImplementedError(
            f"{type(self).__name__} has no likelihood parameters of one kind for genes and proteins: use "
            "get_normalized_expression, get_protein_foreground_probability and get_protein_background_mean."
        )
