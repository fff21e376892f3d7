"""RESOLVI: cells in tissue without the counts of their neighbours and of the background.

Reference: Ergen and Yosef, *ResolVI: addressing noise and bias in spatial transcriptomics*, bioRxiv 2025.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from anndata import AnnData

from ...core import REGISTRY_KEYS
from ...core.kinds import Number, Whole
from ...data import AnnDataManager
from ...data.fields import LabelsWithUnlabeledObsField, ObsmField, bundles
from ...data.fields.joint import CategoricalJointObsField
from ...model.base import ArchesMixin, BaseModelClass, UnsupervisedTrainingMixin, VAEMixin, setup_method
from ...model.base.made_with import given_arguments
from ...train.method import Argument, training
from ...train.recipes import default_recipe
from .differences import DifferencesMixin
from .module import DISTANCE_KEY, INDEX_KEY, RESOLVAE
from .neighbors import CellField, Graph, Prepared, dataset_priors, prepare

__all__ = ["RESOLVI"]


_BATCH_SIZE = 512
_FEWEST, _STEPS = 128, 20
_FROM_DATA: Mapping[str, float] = {"background_ratio": 0.1, "median_distance": 1.0}

_EXTRA = ("per_neighbor_diffusion_map", "u_prior_means")
_ACCEPTED = {
    "lr_extra": Argument(
        Annotated[float, Number(0)], "Accepted for compatibility with scvi-tools: all move at ``lr``."
    ),
    "extra_lr_parameters": Argument(tuple[str, ...], "Accepted for compatibility with scvi-tools."),
    "expose_params": Argument(Sequence[str], "Accepted for compatibility with scvi-tools."),
}


def _for_few_cells(model: BaseModelClass, options: dict[str, Any]) -> dict[str, Any]:
    """Smaller minibatches for few cells: the two steps per epoch that scvi-tools takes for 1,000 are too few."""
    for name in _ACCEPTED:
        options.pop(name)
    is_classic = "classic" in (options["recipe"], default_recipe())
    if not is_classic and options["batch_size"] == _BATCH_SIZE and model.adata is not None:
        options["batch_size"] = min(_BATCH_SIZE, max(_FEWEST, model.adata.n_obs // _STEPS))
    return options


class RESOLVI(DifferencesMixin, VAEMixin, ArchesMixin, UnsupervisedTrainingMixin, BaseModelClass):
    r"""Autoencoder of counts in tissue that separates a cell's own from its neighbours' and from background.

    .. math:: x_{ng} \sim \mathrm{NB}\Bigl(\ell_n \bigl(\pi_{n1}\,\rho_{ng} + \pi_{n2} \textstyle\sum_m w_{nm}
              \rho_{mg} + \pi_{n3}\,\beta_{b_n g}\bigr),\; \theta_{ng}\Bigr)

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    n_hidden, n_hidden_encoder, n_latent, n_layers, dropout_rate
        Width of decoder and encoders, latents, hidden layers of each, dropout of the encoder.
    dispersion
        ``"gene"`` or ``"gene-batch"``.
    gene_likelihood
        ``"nb"`` or ``"poisson"``.
    background_ratio, median_distance
        Expected share of the background, and unit of squared distances; None: estimated from the data, see
        :meth:`compute_dataset_dependent_priors`.
    semisupervised
        Whether latents must tell the labels of labelled cells; :meth:`predict` then gives those of the others.
    mixture_k
        Components of the prior of the latents; with ``semisupervised`` one for each label.
    downsample_counts
        Whether counts are thinned in training before they are encoded, so that latents do not depend on depth.
    **model_kwargs
        Further arguments of :class:`~celbo.external.resolvi.RESOLVAE`.

    Examples
    --------
    >>> import celbo, numpy as np
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> adata.obsm["X_spatial"] = np.random.default_rng(0).uniform(size=(adata.n_obs, 2))
    >>> celbo.external.RESOLVI.setup_anndata(adata, batch_key="batch", labels_key="labels")
    >>> model = celbo.external.RESOLVI(adata, n_latent=5, semisupervised=True)
    >>> model.train(max_epochs=2, verbose=0)
    >>> model.get_normalized_expression().shape
    (400, 100)
    """

    _module_cls: ClassVar[type[RESOLVAE]] = RESOLVAE
    _recipe: ClassVar[str | None] = "classic"
    _sizes: ClassVar[Mapping[str, str]] = {"n_neighbors": f"n_{INDEX_KEY}", "n_obs": f"n_{REGISTRY_KEYS.INDICES_KEY}"}
    _renamed: ClassVar[Mapping[str, str | None]] = {"downsample_counts": None}

    def __init__(
        self,
        adata: AnnData | None = None,
        n_hidden: int = 32,
        n_hidden_encoder: Annotated[int, Whole(1)] = 128,
        n_latent: int = 10,
        n_layers: int = 2,
        dropout_rate: float = 0.05,
        dispersion: Literal["gene", "gene-batch"] = "gene",
        gene_likelihood: Literal["nb", "poisson"] = "nb",
        background_ratio: Annotated[float | None, Number(0)] = None,
        median_distance: Annotated[float | None, Number(0, above=True)] = None,
        semisupervised: bool = False,
        mixture_k: Annotated[int, Whole(1)] = 50,
        downsample_counts: bool = True,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata)
        labels = self.registry_["field_registries"][REGISTRY_KEYS.LABELS_KEY]["state_registry"]
        if semisupervised:
            self.unlabeled_category_ = labels[LabelsWithUnlabeledObsField.UNLABELED_CATEGORY]
        self._build_module()

    def _computed_arguments(self) -> dict[str, Any]:
        """Priors from counts and distances, unless the user gives them; the last label is "not labelled"."""
        given, n_labels = given_arguments(self), max(1, self.summary_stats["n_labels"] - 1)
        computed: dict[str, Any] = {"n_labels": n_labels}
        wanted = [name for name in _FROM_DATA if given[name] is None]
        if self.adata is None:  # loaded weights hold what is computed here
            return computed | {name: _FROM_DATA[name] for name in wanted}
        if wanted or given["downsample_counts"]:
            priors = self.compute_dataset_dependent_priors(None if "background_ratio" in wanted else 1)
            computed |= {name: float(priors[name]) for name in wanted}
            if given["downsample_counts"]:
                computed["downsample_counts_mean"] = float(priors["mean_log_counts"])
                computed["downsample_counts_std"] = float(priors["std_log_counts"])
        return computed

    def compute_dataset_dependent_priors(self, n_small_genes: Annotated[int | None, Whole(1)] = None) -> dict[str, Any]:
        """Estimate priors from counts and distances, see :func:`celbo.external.resolvi.neighbors.dataset_priors`.

        Parameters
        ----------
        n_small_genes
            Number of least expressed genes to estimate the background from; None: one in fifty.

        Raises
        ------
        ArgumentError
            Fewer genes than that.

        Examples
        --------
        >>> sorted(model.compute_dataset_dependent_priors())
        ['background_ratio', 'mean_log_counts', 'median_distance', 'std_log_counts']
        """
        counts = self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        return dataset_priors(counts, self.adata_manager.get_from_registry(DISTANCE_KEY), n_small_genes)

    train = training(
        {"max_epochs": 50, "lr": 3e-3, "lr_extra": 0.01, "extra_lr_parameters": _EXTRA},
        {"batch_size": _BATCH_SIZE, "weight_decay": 0.0, "eps": 1e-4},
        {"n_steps_kl_warmup": None, "n_epochs_kl_warmup": 20, "plan_kwargs": None, "expose_params": ()},
        own=_ACCEPTED,
        prepare=_for_few_cells,
    )

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        prepare_data: bool | None = True,
        prepare_data_kwargs: dict[str, Any] | None = None,
        unlabeled_category: str = "unknown",
        *,
        neighbors: Graph = "nearest",
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Find the neighbours of each cell, and register cells with them.

        Parameters
        ----------
        labels_key
            Column of ``adata.obs`` with labels, for ``semisupervised``.
        prepare_data
            Find neighbours; False: check and take those in ``adata.obsm``.
        prepare_data_kwargs
            ``n_neighbors`` (10), ``spatial_rep`` (entry of ``obsm`` with the coordinates, ``"X_spatial"``),
            ``slice_key`` or ``batch_key`` (column of ``obs`` with the section of each cell; None: that of the batch).
        unlabeled_category
            The label that means "not labelled".
        neighbors
            ``"nearest"``: the nearest cells; ``"two_hops"``: those that scvi-tools 1.4.2 takes, for its archives.

        Raises
        ------
        ArgumentError
            No coordinates, NaN coordinates, a section of too few cells, neighbours that are of other cells.
        """
        prepare(adata, batch_key, Prepared.of(prepare_data_kwargs), neighbors, find=bool(prepare_data))
        labels = (
            bundles.labels(None)
            if labels_key is None
            else [LabelsWithUnlabeledObsField(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category)]
        )
        return [
            *bundles.counts(layer, use_raw),
            *bundles.batch(batch_key),
            *bundles.size_factor(size_factor_key),
            ObsmField(INDEX_KEY, INDEX_KEY),
            ObsmField(DISTANCE_KEY, DISTANCE_KEY),
            CellField(),
            *labels,
            CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
        ]

    def _manager_like_training(self, adata: AnnData, **kwargs: Any) -> AnnDataManager:
        given = self.registry_["setup_args"]
        graph: Graph = given.get("neighbors", "two_hops")
        prepare(adata, given["batch_key"], Prepared.of(given["prepare_data_kwargs"]), graph, find=given["prepare_data"])
        return super()._manager_like_training(adata, **kwargs)

    @classmethod
    def _replay_setup(cls, adata: AnnData, registry: Mapping[str, Any], **kwargs: Any) -> AnnDataManager:
        """The weights of an archive of scvi-tools, which says nothing of neighbours, belong to those found there."""
        arguments = registry.get("setup_args") or {}
        graph = {} if "neighbors" in arguments else {"neighbors": "two_hops"}
        return super()._replay_setup(adata, {**registry, "setup_args": {**arguments, **graph}}, **kwargs)
