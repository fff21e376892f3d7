"""CYTOVI: protein markers of single cells by flow cytometry, mass cytometry or CITE-seq, in panels that overlap.

Reference: Ingelfinger and others, *CytoVI: deep generative modeling of antibody-based single cell technologies*,
bioRxiv 2025.
"""

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from anndata import AnnData

from ...core import REGISTRY_KEYS, ArgumentError
from ...data import state_registry_of
from ...data.fields import CategoricalObsField, bundles
from ...model.base import ArchesMixin, BaseModelClass, UnsupervisedTrainingMixin, setup_method
from ...module.likelihoods import LatentDistribution
from ...train import AdversarialTrainingPlan, Plan
from ...train.method import WHERE, Argument, training
from .module import CytoVAE, ProteinLikelihood
from .panel import (
    BACKBONE,
    CYTOVI_REGISTRY_KEYS,
    MASK_LAYER,
    PANEL_KEY,
    MarkerField,
    PanelField,
    check_support,
    encoded_markers,
)
from .recipe import OWN_RECIPE, train_settings
from .verbs import CytometryMixin

__all__ = ["CYTOVI"]

logger = logging.getLogger("celbo")

_FEWEST_LATENTS, _MOST_LATENTS = 10, 20


class CYTOVI(CytometryMixin, ArchesMixin, UnsupervisedTrainingMixin, BaseModelClass):
    r"""Variational autoencoder of protein markers, with a mixture of normal distributions as prior.

    .. math:: z_n \sim \sum_m w_m N(\mu_m, \mathrm{diag}\,\sigma_m^2), \qquad
              x_{ng} \mid z_n \sim N(\mu_g(z_n, b_n), \sigma_g^2(z_n, b_n))

    The encoder reads the markers that all panels have, the backbone; the decoder gives all, and so imputes those that
    the panel of a cell lacks.

    Parameters
    ----------
    adata
        Transformed and scaled markers, set up with :meth:`setup_anndata`.
    n_hidden, n_layers, dropout_rate
        As in :class:`~celbo.model.SCVI`.
    n_latent
        Size of the latent space; None: half the number of markers that the encoder reads, 10 to 20.
    protein_likelihood
        ``"normal"``, or ``"beta"`` for values between 0 and 1.
    latent_distribution
        ``"normal"`` or ``"ln"`` (logistic normal).
    encode_backbone_only
        Whether the encoder reads the markers that all panels have; None: where panels differ and
        ``encoder_marker_list`` names none. It must, where they differ, and it wins over the list.
    encoder_marker_list
        Markers that the encoder reads, of the backbone; None: all.
    prior_mixture, prior_mixture_k
        Whether the prior is a mixture, and of how many components (None: as many as latents); with labels, of one for
        each label.
    **model_kwargs
        Further arguments of :class:`~celbo.external.cytovi.CytoVAE`.

    Raises
    ------
    ArgumentError
        Panels that share fewer than two markers, or an encoder that reads others than these.
    ValueError
        Markers that the likelihood cannot give.

    Examples
    --------
    >>> import celbo, numpy as np
    >>> adata = celbo.data.synthetic_iid(n_genes=12, seed=0)
    >>> adata.obs["sample"] = np.resize(["a", "b", "c", "d"], adata.n_obs)
    >>> adata.obs["group"] = adata.obs["sample"].isin(["a", "b"]).astype(str)
    >>> celbo.external.cytovi.transform_arcsinh(adata, raw_layer_key=None)
    >>> celbo.external.cytovi.scale(adata)
    >>> celbo.external.CYTOVI.setup_anndata(adata, layer="scaled", batch_key="batch", sample_key="sample")
    >>> model = celbo.external.CYTOVI(adata)
    >>> model.train(max_epochs=2, verbose=0)
    >>> model.get_latent_representation().shape
    (400, 10)
    """

    _module_cls: ClassVar[type[CytoVAE]] = CytoVAE
    _training_plan_cls: ClassVar[type[Plan]] = AdversarialTrainingPlan
    _recipe: ClassVar[str | None] = "one_cycle"
    _own_recipe: ClassVar[Mapping[str, Any]] = OWN_RECIPE
    _renamed: ClassVar[Mapping[str, str | None]] = {"encode_backbone_only": None, "encoder_marker_list": None}

    knows_backbone: bool = True

    def __init__(
        self,
        adata: AnnData,
        n_hidden: int = 128,
        n_latent: int | None = None,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        protein_likelihood: ProteinLikelihood = "normal",
        latent_distribution: LatentDistribution = "normal",
        encode_backbone_only: bool | None = None,
        encoder_marker_list: list[str] | None = None,
        prior_mixture: bool | None = True,
        prior_mixture_k: int | None = None,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata)
        fields = self.registry_["field_registries"]
        mask = self._encoded_markers(encode_backbone_only, encoder_marker_list)
        if n_latent is None:
            half = round((self.summary_stats["n_vars"] if mask is None else sum(mask)) / 2)
            n_latent = min(max(half, _FEWEST_LATENTS), _MOST_LATENTS)
        settled = {"n_latent": n_latent, "prior_mixture_k": prior_mixture_k or n_latent}
        if adata is not None:
            layer = fields[PANEL_KEY]["data_registry"]["attr_key"] if PANEL_KEY in fields else None
            check_support(adata, fields[REGISTRY_KEYS.X_KEY]["data_registry"], layer, protein_likelihood)
        backbone_only = encode_backbone_only or (PANEL_KEY in fields and encoder_marker_list is None) or None
        self.init_params_["non_kwargs"] |= settled | {"encode_backbone_only": backbone_only}
        self._build_module(**settled, encoder_marker_mask=mask)

    def _encoded_markers(self, backbone_only: bool | None, chosen: list[str] | None) -> list[bool] | None:
        """Which markers the encoder reads, in the order of the data; None: all."""
        names = list(state_registry_of(self.registry_, REGISTRY_KEYS.X_KEY)["column_names"])
        has_panels = PANEL_KEY in self.registry_["field_registries"]
        known = state_registry_of(self.registry_, PANEL_KEY).get(BACKBONE) if has_panels else names
        self.knows_backbone = known is not None or (chosen is not None and not backbone_only)
        if has_panels and backbone_only is False:
            raise ArgumentError(
                "encode_backbone_only=False, but panels differ: the encoder can only read what all cells have."
            )
        # an archive of scvi-tools without its data does not say what the backbone is
        read = encoded_markers(names, names if known is None else list(known), chosen)
        read = list(known) if backbone_only and known is not None else read
        return None if len(read) == len(names) else [name in set(read) for name in names]

    train = training(
        {"max_epochs": 1000, "lr": 1e-3},
        WHERE,
        {"train_size": 0.9, "validation_size": None, "batch_size": 128, "early_stopping": True},
        {"check_val_every_n_epoch": None, "n_steps_kl_warmup": None, "n_epochs_kl_warmup": 400},
        {"adversarial_classifier": None, "plan_kwargs": None, "early_stopping_patience": 30},
        own={
            "adversarial_classifier": Argument(
                bool | None, "Let a classifier take the batch out of the latents; None: where panels differ."
            )
        },
        prepare=train_settings,
    )

    @classmethod
    def _replay_setup(cls, adata: AnnData, registry: Mapping[str, Any], **kwargs: Any) -> Any:
        """With the panels of the registry: scvi-tools finds their layer by its name, and notes no argument."""
        panel = registry["field_registries"].get(PANEL_KEY)
        if panel is not None:
            layer = panel["data_registry"]["attr_key"]
            registry = {**registry, "setup_args": {**registry["setup_args"], "nan_layer": layer}}
        return super()._replay_setup(adata, registry, **kwargs)

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        sample_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        nan_layer: str | None = None,
    ) -> bundles.Fields:
        """Register cells by markers.

        Parameters
        ----------
        adata
            Cells by markers, transformed and scaled (:func:`~celbo.external.cytovi.transform_arcsinh`,
            :func:`~celbo.external.cytovi.scale`), in a layer or in ``X``. Not copied.
        layer
            Layer with them; None: ``X``.
        labels_key
            Column of ``adata.obs`` with the label of each cell: each label gets a component of the prior.
        sample_key
            Column of ``adata.obs`` with the sample of each cell, by which abundances are compared.
        nan_layer
            Layer that is 1 where a marker was measured and 0 where the cell's panel lacks it; None: the layer
            ``"_nan_mask"``, if it is there.
        """
        if nan_layer is None and MASK_LAYER in adata.layers:
            nan_layer = MASK_LAYER
            logger.info(f"adata.layers[{MASK_LAYER!r}] says which markers each cell's panel has.")
        panels = [] if nan_layer is None else [PanelField(nan_layer)]
        return [
            MarkerField(layer, nan_layer),
            *bundles.batch(batch_key),
            *bundles.labels(labels_key),
            CategoricalObsField(CYTOVI_REGISTRY_KEYS.SAMPLE_KEY, sample_key),
            *bundles.covariates(categorical_covariate_keys, continuous_covariate_keys),
            *panels,
        ]
