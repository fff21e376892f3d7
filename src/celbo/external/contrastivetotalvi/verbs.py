"""ContrastiveTOTALMixin: verbs of a model of genes and proteins of background and target cells."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from anndata import AnnData
from torch import Tensor

from ... import posterior
from ...core import checked_methods
from ...verbs.cells import asked
from ...verbs.contrasts import asked_of_kind, asked_of_targets
from ...verbs.keys import offers_key
from ...verbs.latent import VAEMixin
from ...verbs.protein import ProteinMixin

__all__ = ["ContrastiveTOTALMixin"]


@checked_methods
class ContrastiveTOTALMixin(ProteinMixin, VAEMixin):
    """Verbs of :class:`~celbo.model.TOTALVI`, for cells without or with salient latents.

    Common arguments (``adata``, ``indices``, ``batch_size``, ``seed``): see :class:`~celbo.model.base.VAEMixin`.
    """

    @offers_key(parts=("mean", "variance"))
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        give_mean: bool = True,
        mc_samples: int = 5000,
        batch_size: int | None = None,
        return_dist: bool = False,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        representation_kind: Literal["background", "salient", "both"] = "salient",
        *,
        seed: int | None = None,
        key_added: str | None = None,
        **data_loader_kwargs: Any,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Latents of each cell, of one kind or of both.

        Parameters
        ----------
        adata, indices, give_mean, batch_size, return_dist, dataloader, seed, key_added, **data_loader_kwargs
            As in :meth:`celbo.model.TOTALVI.get_latent_representation`.
        mc_samples
            Not used: the latents are normal.
        representation_kind
            ``"salient"``, ``"background"``, or ``"both"``: those of all cells first, which is what :meth:`minify_adata`
            stores. The salient latents of background cells are those they would have.

        Returns
        -------
        ``(n, k)``, or with ``return_dist`` two of these: mean and variance.

        Examples
        --------
        >>> model.get_latent_representation(representation_kind="background").shape
        (400, 10)
        """
        self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size, dataloader, data_loader_kwargs)
        return posterior.latent_representation(
            self.module,
            cells.batches,
            give_mean=give_mean,
            return_dist=return_dist,
            n_cells=cells.n_cells,
            seed=seed,
            posterior_of=lambda encoded: self.module.part_of(encoded["qz"], representation_kind),
        )

    get_normalized_expression = asked_of_kind(ProteinMixin.get_normalized_expression)  # type: ignore[assignment]
    get_protein_foreground_probability = asked_of_kind(ProteinMixin.get_protein_foreground_probability)
    get_protein_background_mean = asked_of_kind(ProteinMixin.get_protein_background_mean)
    get_feature_correlation_matrix = asked_of_kind(ProteinMixin.get_feature_correlation_matrix)

    differential_expression = asked_of_targets(ProteinMixin.differential_expression)
    posterior_predictive_sample = asked_of_targets(ProteinMixin.posterior_predictive_sample)
    get_elbo = asked_of_targets(VAEMixin.get_elbo)
    get_reconstruction_error = asked_of_targets(VAEMixin.get_reconstruction_error)
    get_marginal_ll = asked_of_targets(VAEMixin.get_marginal_ll)
