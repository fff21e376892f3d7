"""MultimodalMixin: verbs of models of several modalities. No logic here: :mod:`celbo.posterior` answers."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from torch import Tensor

from .. import posterior
from ..core import checked_methods
from ..data.presence import presence_report
from ..module.multinetworks import MODALITIES
from .accessibility import AccessibilityMixin
from .base import answering_with
from .cells import asked
from .keys import offers_key
from .latent import VAEMixin
from .outputs import names_of, normalized, output_of
from .writing import ExpressionWriterMixin

__all__ = ["MultimodalMixin"]

Modality = Literal["joint", "expression", "accessibility", "protein"]
Cells = Sequence[int] | Sequence[bool] | str


@checked_methods
class MultimodalMixin(ExpressionWriterMixin, AccessibilityMixin, VAEMixin):
    """Latents, expression, accessibility and proteins of cells that may lack some of the three.

    Common arguments (``adata``, ``indices``, ``batch_size``, ``seed``): see :class:`~celbo.model.base.VAEMixin`. What a
    cell lacks is imputed from what it has.
    """

    def _validate_anndata(
        self, adata: AnnData | None = None, copy_if_view: bool = True, extend_categories: bool = False
    ) -> AnnData:
        known = super()._validate_anndata(adata, copy_if_view, extend_categories)  # type: ignore[safe-super]
        if self.module.modality_weights == "cell" and self.adata is not None and known is not self.adata:
            raise ValueError(
                "modality_weights='cell' are parameters of the cells that the model was trained on: it answers about "
                "these only (adata=None, indices=). Train with 'equal' or 'universal' weights for others."
            )
        return known

    def get_presence_report(self, adata: AnnData | None = None) -> pd.DataFrame:
        """How many cells have which modalities, in all and in each batch.

        Parameters
        ----------
        adata
            A MuData; None: the training data.

        Returns
        -------
        A row for each combination of modalities, see :func:`celbo.data.presence.presence_report`.

        Raises
        ------
        ValueError
            The data are an AnnData, which does not say what its cells have.

        Examples
        --------
        >>> int(model.get_presence_report()["cells"].sum())
        400
        """
        manager = self.get_anndata_manager(self._validate_anndata(adata), required=True)
        if not manager.may_lack_modalities:
            raise ValueError("An AnnData does not say which of its cells have which modality; a MuData does.")
        return presence_report(manager)

    @offers_key()
    def get_library_size_factors(  # type: ignore[override]
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int = 128,
        *,
        key_added: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Factors of each cell, of its expression (natural log) and of its accessibility.

        Parameters
        ----------
        adata, indices, batch_size, key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        ``{"expression": (n,), "accessibility": (n,)}``.

        Examples
        --------
        >>> {name: factors.shape for name, factors in model.get_library_size_factors().items()}
        {'expression': (400,), 'accessibility': (400,)}
        """
        self.module.require_counts(f"{type(self).__name__}.get_library_size_factors")
        cells = asked(self, adata, indices, batch_size)
        factors = {"expression": "libsize_expr", "accessibility": "d"}
        return {
            name: posterior.encoded_column(self.module, cells.loader_of(cells.require_cells(name)), key, cells.n_cells)
            for name, key in factors.items()
        }

    @offers_key(parts=("mean", "variance"))
    def get_latent_representation(  # type: ignore[override]
        self,
        adata: AnnData | None = None,
        modality: Modality = "joint",
        indices: Sequence[int] | None = None,
        give_mean: bool = True,
        batch_size: int | None = None,
        return_dist: bool = False,
        *,
        mc_samples: int = 5000,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        seed: int | None = None,
        key_added: str | None = None,
        **data_loader_kwargs: Any,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Latent representation of each cell.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        modality
            ``"joint"``, or one modality's: ``"expression"``, ``"accessibility"`` or ``"protein"``.
        give_mean
            The mean of the posterior, or a draw from it.
        return_dist
            Return mean and variance of the posterior instead.
        mc_samples
            Draws for the mean of a logistic normal, which has no closed form.
        **data_loader_kwargs
            Further arguments of the data loader.

        Returns
        -------
        ``(n, k)``, or with ``return_dist`` two of these: mean and variance. NaN for cells without the modality.

        Raises
        ------
        RuntimeError
            Before training; a single modality of a model with ``fully_paired``.
        ValueError
            A modality that the model does not have.

        Examples
        --------
        >>> model.get_latent_representation(modality="expression").shape
        (400, 3)
        """
        self._check_if_trained(warn=False)
        if modality != "joint":
            self._require_modality(modality)
        cells = asked(self, adata, indices, batch_size, dataloader, data_loader_kwargs)
        return posterior.latent_representation(
            self.module,
            cells.batches,
            give_mean=give_mean,
            mc_samples=mc_samples,
            return_dist=return_dist,
            n_cells=cells.n_cells,
            seed=seed,
            posterior_of=None if modality == "joint" else self.module.posterior_of(MODALITIES.index(modality)),
        )

    def _require_modality(self, modality: str) -> None:
        if self.module.minified_data_type is not None:
            raise ValueError("Minified data keep the joint latents only: ask for these, or load the full data.")
        if self.init_params_["non_kwargs"].get("fully_paired"):
            raise RuntimeError("A model made with fully_paired=True has joint latents only.")
        if not self.module.n_inputs[MODALITIES.index(modality)]:
            there = ", ".join(output.name for output in self._outputs)
            raise ValueError(f"This model has no modality {modality!r}. There are: {there}.")

    @offers_key("features")
    def get_normalized_expression(  # type: ignore[override]
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_samples_overall: int | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        gene_list: Sequence[str] | None = None,
        use_z_mean: bool = True,
        n_samples: int = 1,
        batch_size: int | None = None,
        return_mean: bool = False,
        return_numpy: bool = False,
        silent: bool = True,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Share of each gene in a cell's expression, imputed for cells without RNA from what they have.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        n_samples_overall
            Instead of all cells: this many draws, each from a cell drawn with replacement.
        transform_batch
            Categories of the batch to decode as; several are averaged. None: each cell's own.
        gene_list
            Genes to return, names or a mask, in the order of the model's. Unknown names raise a warning.
        use_z_mean
            Decode the mean of the latents, or draws.
        n_samples
            Draws for each cell.
        return_mean
            Average over the draws.
        return_numpy
            An array instead of a DataFrame.
        silent
            Accepted for compatibility with scvi-tools: bars come by ``celbo.settings.verbosity``.

        Returns
        -------
        Cells by genes; a cell's values sum to 1. ``(s, n, g)`` array for draws that are not averaged.

        Examples
        --------
        >>> model.get_normalized_expression(gene_list=["gene_3", "gene_7"]).shape
        (400, 2)
        """
        return self._normalized(
            "expression",
            (adata, indices, batch_size),
            gene_list,
            transform_batch=transform_batch,
            n_samples=n_samples,
            n_samples_overall=n_samples_overall,
            use_mean=use_z_mean,
            return_mean=return_mean,
            return_numpy=return_numpy,
            seed=seed,
        )

    @offers_key("features")
    def get_protein_foreground_probability(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        protein_list: Sequence[str] | None = None,
        n_samples: int = 1,
        batch_size: int | None = None,
        use_z_mean: bool = True,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        silent: bool = True,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Probability that a protein's counts exceed background, imputed for cells without proteins.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        protein_list
            Proteins to return.
        transform_batch, n_samples, use_z_mean, return_mean, return_numpy, silent
            As in :meth:`get_normalized_expression`.

        Returns
        -------
        Cells by proteins.

        Examples
        --------
        >>> model.get_protein_foreground_probability(indices=range(50)).shape
        (50, 100)
        """
        return self._normalized(
            "protein",
            (adata, indices, batch_size),
            protein_list,
            transform_batch=transform_batch,
            n_samples=n_samples,
            use_mean=use_z_mean,
            return_mean=return_mean,
            return_numpy=return_numpy,
            seed=seed,
        )

    def _normalized(
        self, name: str, who: tuple[Any, Any, Any], features: Sequence[str] | None, **options: Any
    ) -> np.ndarray | pd.DataFrame:
        output, cells = output_of(self, name), asked(self, *who)
        columns = posterior.gene_columns(features, names_of(self, output))
        return normalized(self, cells, [output], columns=columns, **options)

    def differential_expression(  # type: ignore[override]
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
        pseudocounts: float | None = 1e-6,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Differential expression between groups of cells, including cells without RNA.

        Parameters
        ----------
        adata, groupby, group1, group2, idx1, idx2, mode, delta, batch_size, all_stats, batch_correction, batchid1, \
batchid2, fdr_target, silent
            As in :meth:`celbo.model.SCVI.differential_expression`; statistics of the counts use cells that have them.
        pseudocounts
            Added to the shares of expression before they are compared; None: estimated from the counts.
        **kwargs
            Further arguments of that method; ``output="protein"`` compares foreground probabilities.

        Returns
        -------
        A row for each gene and comparison, see :func:`~celbo.posterior.differential_expression`.

        Examples
        --------
        >>> found = model.differential_expression(idx1=range(200), idx2=range(200, 400))
        >>> len(found)
        100
        """
        options: dict[str, Any] = {"groupby": groupby, "group1": group1, "group2": group2, "idx1": idx1, "idx2": idx2}
        options |= {"batch_correction": batch_correction, "batchid1": batchid1, "batchid2": batchid2}
        options |= {"mode": mode, "delta": delta, "pseudocounts": pseudocounts, "silent": silent}
        options |= {"batch_size": batch_size, "all_stats": all_stats, "fdr_target": fdr_target}
        at_means = self.module.scvi_tools_figures and kwargs.get("output") in (None, "expression")
        answering = answering_with(self, self.module.decoding_means()) if at_means else self
        return AccessibilityMixin.differential_expression(answering, adata, **options, **kwargs)
