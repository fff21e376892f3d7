"""ContrastiveMixin: verbs of a model of background and target cells. :mod:`celbo.posterior` answers."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from ... import posterior
from ...core import checked_methods, unknown_name
from ...posterior import EXPRESSION
from ...verbs.base import Model
from ...verbs.cells import asked
from ...verbs.contrasts import LATENTS, Kind, marking
from ...verbs.keys import offers_key
from ...verbs.outputs import corrected_batches, differential, names_of, normalized
from .module import Decoded, Encoded

__all__ = ["ContrastiveMixin"]

logger = logging.getLogger("celbo")


@checked_methods
class ContrastiveMixin(Model):
    """Latents, denoised expression and differential expression, without or with salient latents.

    Common arguments (``adata``, ``indices``, ``batch_size``, ``seed``): see :class:`~celbo.model.base.VAEMixin`; those
    of expression (``transform_batch``, ``gene_list``, ``library_size``, ``n_samples``, ``n_samples_overall``,
    ``return_mean``, ``return_numpy``): see :class:`~celbo.model.base.RNASeqMixin`.
    """

    @offers_key()
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        give_mean: bool = True,
        batch_size: int | None = None,
        representation_kind: Kind = "salient",
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray:
        """Latents of each cell, of one kind.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See the class.
        give_mean
            The posterior mean, or a draw.
        representation_kind
            ``"salient"`` or ``"background"``. The salient latents of background cells are those they would have.

        Returns
        -------
        ``(n, k)``.

        Examples
        --------
        >>> model.get_latent_representation(representation_kind="background").shape
        (400, 10)
        """
        self._check_if_trained()
        cells = asked(self, adata, indices, batch_size)
        latents = posterior.latent_representation(
            Encoded(self.module, representation_kind),
            cells.batches,
            give_mean=give_mean,
            n_cells=cells.n_cells,
            seed=seed,
        )
        assert isinstance(latents, np.ndarray)  # two of them only where the distribution is asked for
        return latents

    @offers_key("features")
    def get_normalized_expression(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | Literal["latent"] = 1.0,
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        silent: bool = True,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> dict[str, np.ndarray | pd.DataFrame]:
        """Denoised expression of each cell without and with its salient latents.

        Parameters
        ----------
        adata, indices, transform_batch, gene_list, library_size, n_samples, n_samples_overall, batch_size, key_added
            See the class.
        return_mean, return_numpy, seed
            See the class.
        silent
            Accepted for compatibility with scvi-tools: bars come by ``celbo.settings.verbosity``.

        Returns
        -------
        ``{"background": ..., "salient": ...}``, each cells by genes.

        Examples
        --------
        >>> found = model.get_normalized_expression(library_size=1e4)
        >>> {name: values.shape for name, values in found.items()}
        {'background': (400, 100), 'salient': (400, 100)}
        """
        asked_for = (transform_batch, gene_list, library_size, n_samples, n_samples_overall)
        where = (adata, indices, batch_size)
        return {kind: self._expression(where, kind, asked_for, return_mean, return_numpy, seed) for kind in LATENTS}

    @offers_key("features")
    def get_salient_normalized_expression(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | Literal["latent"] = 1.0,
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Denoised expression of each cell with its salient latents: cells by genes.

        Parameters
        ----------
        adata, indices, transform_batch, gene_list, library_size, n_samples, n_samples_overall, batch_size, key_added
            See the class.
        return_mean, return_numpy, seed
            See the class.

        Examples
        --------
        >>> model.get_salient_normalized_expression(indices=target).shape
        (200, 100)
        """
        asked_for = (transform_batch, gene_list, library_size, n_samples, n_samples_overall)
        return self._expression((adata, indices, batch_size), "salient", asked_for, return_mean, return_numpy, seed)

    @offers_key("features")
    def get_specific_normalized_expression(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | Literal["latent"] = 1,
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        expression_type: Kind | None = None,
        indices_to_return_salient: Sequence[int] | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Denoised expression of one kind for all cells, or chosen for each cell: cells by genes.

        Parameters
        ----------
        adata, indices, transform_batch, gene_list, library_size, n_samples, n_samples_overall, batch_size, key_added
            See the class.
        return_mean, return_numpy, seed
            See the class.
        expression_type
            ``"background"`` or ``"salient"`` for all cells.
        indices_to_return_salient
            Instead of it, row numbers or a mask of the cells to decode with their salient latents, the others without.
            As in scvi-tools 1.4.2 they are searched among ``indices``: without these none is found, with a warning.

        Raises
        ------
        ValueError
            Neither or both of ``expression_type`` and ``indices_to_return_salient``.

        Examples
        --------
        >>> model.get_specific_normalized_expression(indices_to_return_salient=target).shape
        (400, 100)
        """
        if (expression_type is None) == (indices_to_return_salient is None):
            raise ValueError(
                "Give one of expression_type and indices_to_return_salient: a kind for all cells, or the cells that "
                "are decoded with their salient latents."
            )
        if expression_type not in (None, *LATENTS):
            raise ValueError(unknown_name("expression_type", expression_type, LATENTS))
        asked_for = (transform_batch, gene_list, library_size, n_samples, n_samples_overall)
        of: Any = expression_type
        if expression_type is None:
            of = indices_to_return_salient
            if indices is None:
                of = "background"
                logger.warning(
                    "indices_to_return_salient picks among `indices`, which are not given: no cell is decoded with its "
                    "salient latents, as in scvi-tools. Pass indices=range(adata.n_obs) for all cells."
                )
        return self._expression((adata, indices, batch_size), of, asked_for, return_mean, return_numpy, seed)

    def differential_expression(
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        group1: Sequence[str] | None = None,
        group2: Sequence[str] | str | None = None,
        idx1: Sequence[int] | Sequence[bool] | str | None = None,
        idx2: Sequence[int] | Sequence[bool] | str | None = None,
        mode: Literal["vanilla", "change"] = "change",
        delta: float | None = 0.25,
        batch_size: int | None = None,
        all_stats: bool = True,
        batch_correction: bool = False,
        batchid1: Sequence[str] | None = None,
        batchid2: Sequence[str] | None = None,
        fdr_target: float | Sequence[float] = 0.05,
        silent: bool = False,
        target_idx: Sequence[int] | Sequence[bool] | None = None,
        n_samples: int = 1,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Differential expression between groups of cells, target cells with their salient latents.

        Parameters
        ----------
        adata, groupby, group1, group2, idx1, idx2, mode, delta, batch_size, all_stats, batch_correction
            See :meth:`celbo.model.SCVI.differential_expression`.
        batchid1, batchid2, fdr_target, silent, seed, **kwargs
            As there.
        target_idx
            Row numbers or a mask of the cells decoded with their salient latents, the others without; None: all.
        n_samples
            Accepted for compatibility with scvi-tools: ``n_samples_overall`` says how many draws there are.

        Returns
        -------
        A row for each gene and comparison, see :func:`~celbo.posterior.differential_expression`.

        Examples
        --------
        >>> found = model.differential_expression(idx1=target, idx2=background, target_idx=target)
        >>> len(found)
        100
        """
        self._check_if_trained()
        corrected = corrected_batches(self, batchid1, batchid2)
        model = marking(self, Decoded(self.module), "salient" if target_idx is None else target_idx)
        return differential(
            model,
            asked(model, adata, None, batch_size),
            self._outputs,
            {"groupby": groupby, "group1": group1, "group2": group2, "idx1": idx1, "idx2": idx2},
            corrected if batch_correction else (None, None),
            {"mode": mode, "delta": delta} | kwargs,
            all_stats=all_stats,
            fdr_target=fdr_target,
            seed=seed,
        )

    @offers_key("column")
    def get_latent_library_size(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        give_mean: bool = True,
        batch_size: int | None = None,
        *,
        variance_as_scale: bool = True,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray:
        """Library size of each cell, ``(n, 1)``, on the scale of counts.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See the class.
        give_mean
            The posterior mean, or a draw; ``False`` returns an observed library.
        variance_as_scale
            In the mean of a latent library, take the variance of its logarithm for the standard deviation, as
            scvi-tools 1.4.2 does, for the same figures. False: the mean itself.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> model.get_latent_library_size(give_mean=False).shape
        (400, 1)
        """
        self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size)
        view = Decoded(self.module, variance_as_scale)
        return posterior.latent_library_size(view, cells.batches, give_mean=give_mean, n_cells=cells.n_cells, seed=seed)

    def _expression(
        self,
        where: tuple[AnnData | None, Sequence[int] | None, int | None],
        of: object,
        asked_for: tuple[Any, Any, Any, int, int | None],
        return_mean: bool,
        return_numpy: bool | None,
        seed: int | None,
    ) -> np.ndarray | pd.DataFrame:
        self._check_if_trained()
        transform_batch, gene_list, library_size, n_samples, n_samples_overall = asked_for
        model = marking(self, Decoded(self.module), of)
        return normalized(
            model,
            asked(model, *where),
            [EXPRESSION.reading(library_size=library_size)],
            transform_batch=transform_batch,
            columns=posterior.gene_columns(gene_list, names_of(self, EXPRESSION)),
            n_samples=n_samples,
            n_samples_overall=n_samples_overall,
            return_mean=return_mean,
            return_numpy=return_numpy,
            seed=seed,
        )
