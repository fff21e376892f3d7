"""SCVIVA: cells in tissue, each with its niche: who its neighbours are and what state they are in.

Reference: Levy et al., *scVIVA: a probabilistic framework for representation of cells and their environments in spatial
transcriptomics*, bioRxiv 2025.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import REGISTRY_KEYS, checked
from ...core.kinds import Whole
from ...data.fields import CategoricalObsField, ObsmField, bundles
from ...model.base import (
    ArchesMixin,
    BaseMinifiedModeModelClass,
    BaseModelClass,
    EmbeddingMixin,
    UnsupervisedTrainingMixin,
    VAEMixin,
    library_arguments,
    setup_method,
)
from ...module.likelihoods import Dispersion, LatentDistribution
from .module import SCVIVA_REGISTRY_KEYS, nicheVAE
from .niches import require_niches, require_own_niches, write_niches
from .verbs import NicheMixin

__all__ = ["SCVIVA"]

_KEYS = SCVIVA_REGISTRY_KEYS


class _StatesField(ObsmField):
    """States of the neighbours of each type, ``(n, c, e)``, which a minibatch has as ``(n, c * e)``."""

    def get_field_data(self, adata: AnnData) -> np.ndarray:
        states_nce = np.asarray(super().get_field_data(adata))
        return states_nce.reshape(len(states_nce), -1)


class SCVIVA(
    EmbeddingMixin,
    NicheMixin,
    VAEMixin,
    ArchesMixin,
    UnsupervisedTrainingMixin,
    BaseMinifiedModeModelClass,
):
    r"""Variational autoencoder of cells in tissue whose latents explain their niches too.

    .. math::
        z_n \sim N(0, I), \quad x_{ng} \mid z_n \sim \mathrm{Poisson}(\ell_n \rho_g(z_n, b_n)), \quad
        \alpha_n \mid z_n \sim \mathrm{Dirichlet}(\kappa(z_n)), \quad
        \eta_{nc} \mid z_n \sim N(\mu_c(z_n, b_n), \sigma_c(z_n, b_n))

    with :math:`\alpha_n` the shares of cell types among the nearest cells and :math:`\eta_{nc}` the mean embedding of
    those of type c.

    Parameters
    ----------
    adata
        AnnData that went through :meth:`preprocessing_anndata` and :meth:`setup_anndata`.
    n_hidden, n_latent, n_layers, dropout_rate
        Width of the hidden layers, latent dimensions, hidden layers of encoder and decoder, dropout in the encoder.
    dispersion
        See :class:`~celbo.module.VAE`.
    gene_likelihood
        ``"poisson"``, ``"nb"`` or ``"zinb"``.
    latent_distribution
        ``"normal"`` or ``"ln"`` (logistic normal).
    **kwargs
        Further arguments of :class:`~celbo.external.scviva.nicheVAE`: ``prior_mixture``, ``semisupervised``, ...

    Examples
    --------
    >>> import celbo, numpy as np
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> adata.obsm["spatial"] = np.random.default_rng(0).uniform(size=(adata.n_obs, 2))
    >>> adata.obsm["X_scVI"] = np.log1p(adata.X)[:, :5]  # latents of a first model
    >>> SCVIVA = celbo.external.SCVIVA
    >>> SCVIVA.preprocessing_anndata(adata, k_nn=10, sample_key="batch", labels_key="labels")
    >>> SCVIVA.setup_anndata(adata, batch_key="batch", sample_key="batch", labels_key="labels")
    >>> model = SCVIVA(adata, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0)
    >>> model.predict_neighborhood().shape
    (400, 3)
    """

    _module_cls: ClassVar[type[nicheVAE]] = nicheVAE
    _sizes: ClassVar[Mapping[str, str]] = {"n_output_niche": f"n_{_KEYS.Z1_MEAN_KEY}"}
    _LATENT_QZM_KEY, _LATENT_QZV_KEY = "scviva_latent_qzm", "scviva_latent_qzv"
    _computed_arguments = library_arguments

    def __init__(
        self,
        adata: AnnData | None = None,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        dispersion: Dispersion = "gene",
        gene_likelihood: Literal["zinb", "nb", "poisson"] = "poisson",
        latent_distribution: LatentDistribution = "normal",
        **kwargs: Any,
    ) -> None:
        super().__init__(adata)
        if adata is not None and "column_names" in (shares := self.get_state_registry(_KEYS.NICHE_COMPOSITION_KEY)):
            types = self.get_state_registry(REGISTRY_KEYS.LABELS_KEY)["categorical_mapping"]
            last = int(np.max(self.data_registry(_KEYS.NICHE_INDEXES_KEY)))
            require_own_niches(types, shares["column_names"], adata.n_obs, last)
        self._build_module()

    @staticmethod
    @checked
    def preprocessing_anndata(
        adata: AnnData,
        k_nn: Annotated[int, Whole(1)] = 20,
        sample_key: str | None = None,
        labels_key: str = "cell_type",
        cell_coordinates_key: str = "spatial",
        expression_embedding_key: str = "X_scVI",
        expression_embedding_niche_key: str = "niche_activation",
        niche_composition_key: str = "niche_composition",
        niche_indexes_key: str = "niche_indexes",
        niche_distances_key: str = "niche_distances",
        log1p: bool = False,
    ) -> None:
        """Find the nearest cells of each cell, their types and their states, and write them to ``adata.obsm``.

        Parameters
        ----------
        adata
            Cells in tissue.
        k_nn
            How many nearest cells make a niche; a cell is not in its own.
        sample_key
            Column of ``obs`` with the section of each cell, in which its neighbours are looked for; None: one section.
        labels_key
            Column of ``obs`` with the type of each cell.
        cell_coordinates_key
            Entry of ``obsm`` with the coordinates, ``(n, 2)`` or ``(n, 3)``.
        expression_embedding_key
            Entry of ``obsm`` with an embedding of expression, such as the latents of a :class:`~celbo.model.SCVI`.
        expression_embedding_niche_key
            Entry of ``obsm`` to write the states to: mean embedding of the neighbours of each type, ``(n, c, e)``,
            zeros where there are none.
        niche_composition_key
            Entry of ``obsm`` to write the shares to, a frame with a column for each type, ``(n, c)``.
        niche_indexes_key, niche_distances_key
            Entries of ``obsm`` to write row numbers and distances of the neighbours to, ``(n, k_nn)``, nearest first.
        log1p
            Take the logarithm of one plus the embedding, as for counts.

        Raises
        ------
        ArgumentError
            No coordinates, NaN coordinates, a section of too few cells, no embedding.
        KeyError
            A column that is not there.

        Examples
        --------
        >>> sorted(name for name in adata.obsm if name.startswith("niche"))
        ['niche_activation', 'niche_composition', 'niche_distances', 'niche_indexes']
        """
        keys = (niche_indexes_key, niche_distances_key, niche_composition_key, expression_embedding_niche_key)
        of_cells = (labels_key, sample_key, cell_coordinates_key, expression_embedding_key)
        write_niches(adata, k_nn, *of_cells, log1p, keys)

    @classmethod
    @checked
    def preprocessing_query_anndata(
        cls,
        adata: AnnData,
        reference_model: str | BaseModelClass,
        return_reference_var_names: bool = False,
        inplace: bool = True,
        k_nn: Annotated[int, Whole(1)] = 20,
        sample_key: str | None = None,
        labels_key: str = "cell_type",
        cell_coordinates_key: str = "spatial",
        expression_embedding_key: str = "X_scVI",
        expression_embedding_niche_key: str = "niche_activation",
        niche_composition_key: str = "niche_composition",
        niche_indexes_key: str = "niche_indexes",
        niche_distances_key: str = "niche_distances",
        log1p: bool = False,
    ) -> AnnData | pd.Index | None:
        """Give a query the reference's genes, and niches described by the reference's cell types.

        Parameters
        ----------
        adata, reference_model, return_reference_var_names, inplace
            See :meth:`~celbo.model.base.ArchesMixin.prepare_query_anndata`.
        k_nn, sample_key, labels_key, cell_coordinates_key, expression_embedding_key, log1p
            See :meth:`preprocessing_anndata`.
        expression_embedding_niche_key, niche_composition_key, niche_indexes_key, niche_distances_key
            See there.

        Raises
        ------
        ArgumentError
            A cell type that the reference does not know.

        Examples
        --------
        >>> query = adata[:100].copy()
        >>> SCVIVA.preprocessing_query_anndata(query, model, k_nn=10, sample_key="batch", labels_key="labels")
        >>> query.n_obs
        100
        """
        answer = cls.prepare_query_anndata(adata, reference_model, return_reference_var_names, inplace)
        if return_reference_var_names:
            return answer
        registered = cls._reference(reference_model).registry["field_registries"][_KEYS.NICHE_COMPOSITION_KEY]
        types = np.asarray(registered["state_registry"]["column_names"]).astype(str)
        keys = (niche_indexes_key, niche_distances_key, niche_composition_key, expression_embedding_niche_key)
        of_cells = (labels_key, sample_key, cell_coordinates_key, expression_embedding_key)
        write_niches(adata if inplace else answer, k_nn, *of_cells, log1p, keys, types)
        return answer

    @property
    def n_labels(self) -> int:
        """Cell types."""
        return self.summary_stats["n_labels"]

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        sample_key: str | None = None,
        labels_key: str = "cell_type",
        cell_coordinates_key: str = "spatial",
        expression_embedding_key: str = "X_scVI",
        expression_embedding_niche_key: str = "niche_activation",
        niche_composition_key: str = "niche_composition",
        niche_indexes_key: str = "niche_indexes",
        niche_distances_key: str = "niche_distances",
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register cells and the niches that :meth:`preprocessing_anndata` found.

        Parameters
        ----------
        sample_key
            Column of ``adata.obs`` with the section of each cell; None: one.
        labels_key
            Column of ``adata.obs`` with the type of each cell.
        cell_coordinates_key, expression_embedding_key
            Entries of ``adata.obsm`` with coordinates and the embedding of expression.
        expression_embedding_niche_key, niche_composition_key, niche_indexes_key, niche_distances_key
            Entries of ``adata.obsm`` that :meth:`preprocessing_anndata` wrote.

        Raises
        ------
        ArgumentError
            Niches are not there.
        """
        keys = {
            _KEYS.NICHE_COMPOSITION_KEY: niche_composition_key,
            _KEYS.CELL_COORDINATES_KEY: cell_coordinates_key,
            _KEYS.NICHE_INDEXES_KEY: niche_indexes_key,
            _KEYS.NICHE_DISTANCES_KEY: niche_distances_key,
            _KEYS.Z1_MEAN_KEY: expression_embedding_key,
        }
        require_niches(adata, [*keys.values(), expression_embedding_niche_key])
        return [
            *bundles.counts(layer, use_raw),
            *bundles.cells(
                batch_key, labels_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys
            ),
            CategoricalObsField(_KEYS.SAMPLE_KEY, sample_key),
            *[ObsmField(registry_key, key) for registry_key, key in keys.items()],
            _StatesField(_KEYS.Z1_MEAN_CT_KEY, expression_embedding_niche_key, correct_data_format=False),
        ]
