"""TOTALVI: RNA and surface proteins of single cells (CITE-seq).

Reference: Gayoso, Steier, Lopez, Regier, Nazor, Streets and Yosef, *Joint probabilistic modeling of single-cell
multi-omic data with totalVI*, Nature Methods 2021.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from ..core import REGISTRY_KEYS
from ..data import state_registry_of
from ..data.fields import ProteinObsmField, bundles, cite_seq
from ..data.protein_background import (
    background_of_cells,
    background_of_droplets,
    droplet_counts,
    tell_small_panels,
)
from ..dataloaders import AnnTorchDataset
from ..module.likelihoods import LatentDistribution, ProteinDispersion
from ..module.totalvae import TOTALVAE, GeneDispersion
from ..posterior import Output
from ..train import AdversarialTrainingPlan, Plan
from ..train.method import PASSED_ON, SPLIT, WHERE, Argument, training
from ..train.plans.adversarial import adversary_settings
from ..train.recipes import Recipe, default_recipe, find_recipe
from ..verbs.protein import EXPRESSION, PROTEIN, ProteinMixin
from .base import (
    ArchesMixin,
    BaseMudataMinifiedModeModelClass,
    UnsupervisedTrainingMixin,
    VAEMixin,
    library_arguments,
    setup_method,
)
from .base.made_with import given_arguments

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["TOTALVI"]

logger = logging.getLogger("celbo")

_FEWEST_FOR_PRIOR = 10
_CLASSIC_WARMUP = 0.75
_WEIGHT_OF_ADVERSARY = 10.0
"""A cell has thousands of nats, of which its batch in the latents costs .7: a weight of 1 does not take it out."""

_CLASSIC: Mapping[str, Any] = {"lr": 4e-3, "batch_size": 256, "early_stopping": True, "reduce_lr_on_plateau": True}
"""Settings of scvi-tools, which other recipes have values of their own for."""


def _warmup(model: "TOTALVI", recipe: Recipe, options: Mapping[str, Any]) -> dict[str, Any]:
    """scvi-tools' warm-up of the KL divergence; under other recipes the model's share of the epochs."""
    n_cells, n_batch = model.summary_stats["n_cells"], model.summary_stats["n_batch"]
    if recipe.name == "classic":
        return {"n_steps_kl_warmup": int(_CLASSIC_WARMUP * n_cells)}
    n_epochs = (recipe.from_counts or recipe).epochs_of(options, n_cells, n_batch)
    return {"n_epochs_kl_warmup": max(1, round(model._share_of_warmup * n_epochs))}


def _train_settings(model: "TOTALVI", options: dict[str, Any]) -> dict[str, Any]:
    """An adversary where panels differ; scvi-tools' KL warm-up and rates under its own recipe."""
    adversary, indexing = options.pop("adversarial_classifier"), options.pop("external_indexing")
    if adversary is None:
        adversary = model.module.measured is not None and model.summary_stats["n_batch"] > 1
    chosen = options["recipe"] or default_recipe(type(model))
    plan = adversary_settings(adversary, chosen, model.summary_stats["n_cells"])
    if chosen != "classic":
        options = {name: value for name, value in options.items() if (name, value) not in _CLASSIC.items()}
    if options["n_steps_kl_warmup"] is None and options["n_epochs_kl_warmup"] is None:
        options |= _warmup(model, find_recipe(chosen), options)
    if chosen != "classic":
        plan |= {"scale_adversarial_loss": _WEIGHT_OF_ADVERSARY} if adversary else {}
        plan |= {} if model.module.measured is None else model._of_missing
    options["plan_kwargs"] = plan | dict(options["plan_kwargs"] or {})
    if indexing is not None:
        options["datasplitter_kwargs"] = {"external_indexing": indexing} | (options["datasplitter_kwargs"] or {})
    return options


class TOTALVI(ProteinMixin, VAEMixin, ArchesMixin, UnsupervisedTrainingMixin, BaseMudataMinifiedModeModelClass):
    r"""Variational autoencoder of counts of genes and of surface proteins.

    .. math::
        z_n \sim N(0, I), \qquad x_{ng} \mid z_n \sim \mathrm{NB}(\ell_n \rho_g(z_n, b_n), \theta_g), \qquad
        y_{np} \mid z_n \sim \pi_{np}\, \mathrm{NB}(\epsilon\beta_{np}, \phi_p)
            + (1 - \pi_{np})\, \mathrm{NB}(\epsilon\beta_{np} \alpha_{np}, \phi_p)

    with background :math:`\beta`, foreground :math:`\alpha > 1` times as high, and the efficiency :math:`\epsilon` of
    each batch's capture.

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    n_latent
        Size of the latent space.
    gene_dispersion, protein_dispersion
        What the inverse dispersions are parameters of: each gene, of each batch, of each label; and so for proteins.
    gene_likelihood
        ``"nb"`` or ``"zinb"``.
    latent_distribution
        ``"normal"`` or ``"ln"`` (logistic normal).
    empirical_protein_background_prior
        Whether the prior of the background begins as 100 cells of each batch have it, see
        :func:`~celbo.data.protein_background.background_of_cells`. None: for more than 10 proteins.
    override_missing_proteins
        Take all proteins as measured in all cells, also those without a count in a whole batch.
    empty_droplets
        Counts of proteins in droplets without a cell, from which the prior of the background of each protein begins: a
        DataFrame of droplets by proteins, an array with the model's proteins, or an AnnData that has them where the
        model's data have theirs. It is not kept in archives, the prior is.
    scvi_tools_figures
        Answer as scvi-tools 1.4.2 where it is wrong: proteins are read out without the efficiency of the batch's
        capture, ``get_latent_library_size`` gives an untrained head where the library is observed, and the stored
        variance of minified data is taken for a standard deviation. It is on for archives of scvi-tools.
    **model_kwargs
        Further arguments of :class:`~celbo.module.TOTALVAE`.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.model.TOTALVI.setup_anndata(adata, protein_expression_obsm_key="protein_expression", batch_key="batch")
    >>> model = celbo.model.TOTALVI(adata, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> rna, protein = model.get_normalized_expression()
    >>> rna.shape, protein.shape
    ((400, 100), (400, 100))
    """

    _module_cls: ClassVar[type[TOTALVAE]] = TOTALVAE
    _training_plan_cls: ClassVar[type[Plan]] = AdversarialTrainingPlan
    _recipe: ClassVar[str | None] = "one_cycle"
    _share_of_warmup: ClassVar[float] = 2 / 3  # which mixes batches
    _of_missing: ClassVar[dict[str, Any]] = {"pro_recons_weight": 2.0, "warms_proteins": False}  # where panels differ
    _outputs: ClassVar[Sequence[Output]] = (EXPRESSION, PROTEIN)
    _sizes: ClassVar[Mapping[str, str]] = {"n_input_genes": "n_vars", "n_input_proteins": "n_proteins"}
    _renamed: ClassVar[Mapping[str, str | None]] = {
        "empirical_protein_background_prior": None,
        "override_missing_proteins": None,
        "empty_droplets": None,
    }
    _LATENT_QZM_KEY: ClassVar[str] = "totalvi_latent_qzm"
    _LATENT_QZV_KEY: ClassVar[str] = "totalvi_latent_qzv"

    def __init__(
        self,
        adata: AnnData,
        n_latent: int = 20,
        gene_dispersion: GeneDispersion = "gene",
        protein_dispersion: ProteinDispersion = "protein",
        gene_likelihood: Literal["zinb", "nb"] = "nb",
        latent_distribution: LatentDistribution = "normal",
        empirical_protein_background_prior: bool | None = None,
        override_missing_proteins: bool = False,
        *,
        empty_droplets: AnnData | pd.DataFrame | np.ndarray | None = None,
        scvi_tools_figures: bool = False,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata)
        self._build_module()

    def _build_module(self, **computed: Any) -> None:
        super()._build_module(**computed)
        self.init_params_["non_kwargs"]["empty_droplets"] = None  # what it said is in the weights

    def _computed_arguments(self) -> dict[str, Any]:
        given = given_arguments(self)
        key = cite_seq.PANEL if cite_seq.PANEL in self.registry_["field_registries"] else None
        proteins = state_registry_of(self.registry_, REGISTRY_KEYS.PROTEIN_EXP_KEY)
        masks = None if given.get("override_missing_proteins") else proteins.get(ProteinObsmField.PROTEIN_BATCH_MASK)
        panel = {"panel_key": key, "n_panel": self.summary_stats["n_panel"]} if key else {}
        prior = self._background_prior(given, key or REGISTRY_KEYS.BATCH_KEY, masks)
        return library_arguments(self) | {"protein_batch_mask": masks} | panel | prior

    def _background_prior(self, given: Mapping[str, Any], key: str, masks: Any) -> dict[str, Any]:
        """Prior of the background, from empty droplets or from cells; nothing for a model without data."""
        n_proteins, n_panel = self.summary_stats["n_proteins"], self.summary_stats[f"n_{key}"]
        wanted = given.get("empirical_protein_background_prior")
        if (droplets := given.get("empty_droplets")) is not None:
            mean, scale = background_of_droplets(droplet_counts(droplets, *self._proteins()), n_panel)
        elif self.adata is None or not (n_proteins > _FEWEST_FOR_PRIOR if wanted is None else wanted):
            return {}
        else:
            proteins = AnnTorchDataset(self.adata_manager, [REGISTRY_KEYS.PROTEIN_EXP_KEY])
            codes_n = np.asarray(self.adata_manager.get_from_registry(key)).ravel()
            tell_small_panels(masks, state_registry_of(self.registry_, key)["categorical_mapping"])
            mean, scale = background_of_cells(
                lambda rows: proteins.fetch(rows)[REGISTRY_KEYS.PROTEIN_EXP_KEY].to_dense().nan_to_num().numpy(),
                codes_n,
                (n_proteins, n_panel),
                masks,
            )
        return {"protein_background_prior_mean": mean, "protein_background_prior_scale": scale}

    def _proteins(self) -> tuple[list[str], Mapping[str, Any]]:
        """Names of the proteins, and where their counts lie."""
        field = self.registry_["field_registries"][REGISTRY_KEYS.PROTEIN_EXP_KEY]
        return list(field["state_registry"]["column_names"]), field["data_registry"]

    train = training(
        {"max_epochs": None, "lr": 4e-3},
        WHERE,
        SPLIT,
        {"batch_size": 256, "early_stopping": True, "check_val_every_n_epoch": None, "reduce_lr_on_plateau": True},
        {"n_steps_kl_warmup": None, "n_epochs_kl_warmup": None, "adversarial_classifier": None},
        PASSED_ON,
        {"external_indexing": None},
        own={
            "adversarial_classifier": Argument(
                bool | None,
                "Let a classifier take the batch out of the latents; None: where panels differ. By another recipe than "
                "``classic`` its weight is 10 and its learning rate 2 over the cells, 0.001 to 0.005 "
                "(``scale_adversarial_loss``, ``classifier_lr`` of ``plan_kwargs``).",
            ),
            "external_indexing": Argument(
                Sequence[np.ndarray] | None, "Row numbers to train, validate and test on, instead of a random split."
            ),
        },
        fixed={"early_stopping_patience": 45},
        prepare=_train_settings,
    )

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        protein_expression_obsm_key: str,
        protein_names_uns_key: str | None = None,
        batch_key: str | None = None,
        panel_key: str | None = None,
        layer: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        *,
        measured_proteins: dict[str, list[str]] | None = None,
    ) -> bundles.Fields:
        """Register an AnnData with counts of genes and, in ``obsm``, of proteins.

        Parameters
        ----------
        protein_expression_obsm_key
            Key of ``adata.obsm`` with the counts of proteins, cells by proteins: an array or a DataFrame. NaN in all
            cells of a batch: not measured there; so is a protein without a single count in a batch.
        protein_names_uns_key
            Key of ``adata.uns`` with the names of the proteins; None: the DataFrame's columns, or numbers.
        panel_key
            Column of ``adata.obs`` with the panel of antibodies of each cell, by which background is learnt and missing
            proteins are found; None: the batch.
        measured_proteins
            For some batches (or panels) the proteins that were measured there, whatever the counts say.
        """
        return cite_seq.fields(
            bundles.counts(layer),
            bundles.labels(None),
            cite_seq.proteins_in_obsm(protein_expression_obsm_key, protein_names_uns_key, measured_proteins),
            (batch_key, panel_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys),
        )

    @classmethod
    @setup_method
    def setup_mudata(
        cls,
        mdata: "MuData",
        rna_layer: str | None = None,
        protein_layer: str | None = None,
        batch_key: str | None = None,
        panel_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        modalities: dict[str, str] | None = None,
    ) -> bundles.Fields:
        """Register a MuData with a modality of genes and one of proteins, of the same cells.

        Parameters
        ----------
        panel_key
            As in :meth:`setup_anndata`.
        """
        where = modalities or {}
        return cite_seq.fields(
            bundles.in_modality(where.get("rna_layer"), bundles.counts(rna_layer)),
            bundles.in_modality(None, bundles.labels(None)),
            cite_seq.proteins_in_modality(where.get("protein_layer"), protein_layer),
            (batch_key, panel_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys),
            where,
        )
