"""RNASeqMixin: verbs of models of counts. No logic here: names become codes, :mod:`celbo.posterior` answers."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor
from torch.distributions import Distribution

from .. import posterior
from ..core import checked_methods
from ..utils import unsupported_if_adata_minified
from .cells import Weights, asked, codes_of_batches, weighting_of
from .differential import DifferentialMixin
from .keys import offers_key
from .outputs import correlation, names_of, normalized, output_of
from .writing import ExpressionWriterMixin

__all__ = ["RNASeqMixin"]


@checked_methods
class RNASeqMixin(ExpressionWriterMixin, DifferentialMixin):
    """Denoised expression, likelihood and differential expression of a model of counts.

    Common arguments (``adata``, ``indices``, ``batch_size``, ``dataloader``, ``seed``): see
    :class:`~celbo.model.base.VAEMixin`. ``transform_batch`` names categories of the batch (not codes), one or several;
    None: each cell is decoded as its own batch, so nothing is corrected for. ``output`` names one of the things that
    the model explains; None: the first.
    """

    @offers_key("features")
    def get_normalized_expression(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | Literal["latent"] = 1,
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        weights: Weights | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        silent: bool = True,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        data_loader_kwargs: dict[str, Any] | None = None,
        *,
        output: str | None = None,
        seed: int | None = None,
        key_added: str | None = None,
        **importance_weighting_kwargs: Any,
    ) -> np.ndarray | pd.DataFrame:
        """Denoised expression: what the decoder expects of each gene, at drawn latents.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        transform_batch
            See the class; several are averaged, on the same latents.
        gene_list
            Genes to return, names or a mask, in the order of the model's; values are not renormalized. Unknown names
            raise a warning.
        library_size
            What each cell sums to over all genes; ``"latent"``: the model's library of the cell.
        n_samples
            Draws of the latents for each cell.
        n_samples_overall
            Give this many draws from all cells together instead, each from a cell drawn with replacement.
        weights
            Draw them uniformly (the default) or in proportion to importance weights, which correct the posterior.
        return_mean
            Average over the draws.
        return_numpy
            An array instead of a DataFrame.
        silent
            Accepted for compatibility with scvi-tools: bars come by ``celbo.settings.verbosity``.
        data_loader_kwargs
            Further arguments of the data loader.
        output
            See the class.
        **importance_weighting_kwargs
            Fields of :class:`~celbo.posterior.Weighting`.

        Returns
        -------
        Cells by genes; draws by genes with ``n_samples_overall``; ``(s, n, g)`` array for draws that are not averaged.

        Raises
        ------
        ValueError
            An unknown batch, or no known gene.

        Examples
        --------
        >>> per_10k = model.get_normalized_expression(library_size=1e4, gene_list=["gene_0", "gene_1"])
        >>> per_10k.shape
        (400, 2)
        >>> as_batch_0 = model.get_normalized_expression(transform_batch="batch_0", n_samples=10)
        """
        weighting = weighting_of(weights, importance_weighting_kwargs)
        cells = asked(self, adata, indices, batch_size, dataloader, data_loader_kwargs)
        wanted = output_of(self, output)
        return normalized(
            self,
            cells,
            [wanted.at_library(library_size)],
            transform_batch=transform_batch,
            columns=posterior.gene_columns(gene_list, names_of(self, wanted)),
            n_samples=n_samples,
            n_samples_overall=n_samples_overall,
            weighting=weighting,
            return_mean=return_mean,
            return_numpy=return_numpy,
            seed=seed,
        )

    def get_importance_weights(
        self,
        adata: AnnData | None,
        indices: Sequence[int] | None,
        qz: Distribution | None,
        px: Distribution | None,
        zs: Tensor,
        max_cells: int = 1024,
        truncation: bool = False,
        n_mc_samples: int = 500,
        n_mc_samples_per_pass: int = 250,
        *,
        seed: int | None = None,
        **data_loader_kwargs: Any,
    ) -> np.ndarray:
        """Importance weights of samples of the latents.

        Parameters
        ----------
        adata, indices, seed
            See :class:`~celbo.model.base.VAEMixin`: the cells whose posteriors the samples come from.
        qz, px
            Accepted for compatibility with scvi-tools: both follow from the module and the data.
        zs
            Samples, ``(..., k)``.
        max_cells
            Number of cells, drawn from ``indices``, that represent all of them.
        truncation
            Cut large weights, see :func:`~celbo.posterior.importance_weights`.
        n_mc_samples, n_mc_samples_per_pass
            As in ``get_marginal_ll``.
        **data_loader_kwargs
            Further arguments of the data loader.

        Returns
        -------
        One weight per sample; they sum to 1.

        Examples
        --------
        >>> import torch
        >>> zs = torch.as_tensor(model.get_latent_representation(indices=range(20), give_mean=False))
        >>> some = {"max_cells": 50, "n_mc_samples": 100, "n_mc_samples_per_pass": 50}
        >>> model.get_importance_weights(None, None, None, None, zs, **some).shape
        (20,)
        """
        cells = asked(self, adata, indices, loader_kwargs=data_loader_kwargs)
        return posterior.importance_weights(
            self.module,
            cells.loader_of(posterior.some_cells(cells.require_cells("get_importance_weights"), max_cells, seed)),
            torch.as_tensor(zs, device=self.device).flatten(0, -2),
            truncation=truncation,
            n_mc_samples=n_mc_samples,
            n_mc_samples_per_pass=n_mc_samples_per_pass,
            seed=seed,
        )

    @offers_key("samples")
    def posterior_predictive_sample(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        n_samples: int = 1,
        gene_list: Sequence[str] | None = None,
        batch_size: int | None = None,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        silent: bool = True,
        *,
        output: str | None = None,
        seed: int | None = None,
        key_added: str | None = None,
        **data_loader_kwargs: Any,
    ) -> Any:
        """Counts like those observed, drawn from the model.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        transform_batch
            See the class. Draws of several categories are averaged, so they are not whole numbers.
        n_samples
            Draws for each cell.
        gene_list
            Genes to return.
        output
            See the class.
        silent
            Accepted for compatibility with scvi-tools: bars come by ``celbo.settings.verbosity``.
        **data_loader_kwargs
            Further arguments of the data loader.

        Returns
        -------
        ``sparse.GCXS`` of ``(n, g)``, or ``(n, g, s)`` for more than one draw.

        Raises
        ------
        ModuleNotFoundError
            When the package ``sparse`` is not installed.

        Examples
        --------
        >>> model.posterior_predictive_sample(n_samples=2, indices=range(50)).shape
        (50, 100, 2)
        """
        cells = asked(self, adata, indices, batch_size, dataloader, data_loader_kwargs)
        wanted = output_of(self, output)
        return posterior.posterior_predictive_sample(
            self.module,
            cells.batches,
            wanted,
            n_samples=n_samples,
            transform_batch=codes_of_batches(self, transform_batch),
            genes=posterior.gene_columns(gene_list, names_of(self, wanted)),
            seed=seed,
        )

    def get_feature_correlation_matrix(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_samples: int = 10,
        batch_size: int = 64,
        rna_size_factor: int = 1000,
        transform_batch: Sequence[float | str] | float | str | None = None,
        correlation_type: Literal["spearman", "pearson"] = "spearman",
        silent: bool = True,
        *,
        output: str | None = None,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Correlation of genes in denoised draws, see :func:`~celbo.posterior.feature_correlation`.

        Parameters
        ----------
        adata, indices, batch_size, seed
            See :class:`~celbo.model.base.VAEMixin`.
        n_samples
            Draws for each cell.
        rna_size_factor
            Library that all cells are decoded at.
        transform_batch
            See the class; the matrices of several are averaged.
        correlation_type
            ``"pearson"`` needs one pass and the matrix; ``"spearman"`` all draws in memory, 4 bytes for each cell, draw
            and gene.
        output
            See the class.
        silent
            Accepted for compatibility with scvi-tools: bars come by ``celbo.settings.verbosity``.

        Returns
        -------
        Genes by genes.

        Examples
        --------
        >>> correlation = model.get_feature_correlation_matrix(n_samples=2, correlation_type="pearson")
        >>> correlation.shape
        (100, 100)
        """
        return correlation(
            self,
            asked(self, adata, indices, batch_size),
            [output_of(self, output)],
            transform_batch=transform_batch,
            n_samples=n_samples,
            library_size=rna_size_factor,
            kind=correlation_type,
            seed=seed,
        )

    @offers_key("features")
    def get_likelihood_parameters(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_samples: int | None = 1,
        give_mean: bool | None = False,
        batch_size: int | None = None,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        *,
        output: str | None = None,
        seed: int | None = None,
        key_added: str | None = None,
        **data_loader_kwargs: Any,
    ) -> dict[str, np.ndarray]:
        """Parameters of the distribution of each count, see :func:`~celbo.posterior.likelihood_parameters`.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        n_samples
            Draws of the latents for each cell.
        give_mean
            Average over them.
        output
            See the class.
        **data_loader_kwargs
            Further arguments of the data loader.

        Returns
        -------
        ``mean`` and, where the likelihood has them, ``dropout``, ``dispersions``, ``scale``: ``(n, g)`` or
        ``(s, n, g)``.

        Examples
        --------
        >>> sorted(model.get_likelihood_parameters(indices=range(50)))
        ['dispersions', 'dropout', 'mean']
        """
        cells = asked(self, adata, indices, batch_size, dataloader, data_loader_kwargs)
        return posterior.likelihood_parameters(
            self.module,
            cells.batches,
            output=output_of(self, output),
            n_samples=n_samples,
            give_mean=bool(give_mean),
            n_cells=cells.n_cells,
            seed=seed,
        )

    @unsupported_if_adata_minified
    @offers_key("column")
    def get_latent_library_size(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        give_mean: bool = True,
        batch_size: int | None = None,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
        **data_loader_kwargs: Any,
    ) -> np.ndarray:
        """Library size of each cell, on the scale of counts.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        give_mean
            The posterior mean, or a draw; ``False`` returns an observed library.
        **data_loader_kwargs
            Further arguments of the data loader.

        Returns
        -------
        ``(n, 1)``.

        Raises
        ------
        RuntimeError
            Before training, or ``give_mean`` for an observed library.

        Examples
        --------
        >>> model.get_latent_library_size(give_mean=False).shape  # observed: the total counts
        (400, 1)
        """
        self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size, dataloader, data_loader_kwargs)
        give_mean = give_mean and not self._library_is_known()
        return posterior.latent_library_size(
            self.module, cells.batches, give_mean=give_mean, n_cells=cells.n_cells, seed=seed
        )

    def _library_is_known(self) -> bool:
        """Whether the mean of an observed library is that library; scvi-tools has no answer in most models."""
        return False
