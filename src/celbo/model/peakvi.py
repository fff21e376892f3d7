"""PEAKVI: a latent space, accessibility and differential accessibility of open chromatin (scATAC-seq peaks).

Reference: Ashuach, Reidenbach, Gayoso and Yosef, *PeakVI: a deep generative model for single-cell chromatin
accessibility analysis*, Cell Reports Methods 2022.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from anndata import AnnData

from ..data.fields import bundles
from ..module import PEAKVAE
from ..module.base import BaseModuleClass
from ..module.likelihoods import LatentDistribution, Placement
from ..posterior import Output
from ..train.method import PASSED_ON, SPLIT, WHERE, training
from ..verbs.accessibility import ACCESSIBILITY, AccessibilityMixin
from .base import ArchesMixin, BaseModelClass, RNASeqMixin, UnsupervisedTrainingMixin, VAEMixin, setup_method

__all__ = ["PEAKVI"]


class PEAKVI(AccessibilityMixin, ArchesMixin, RNASeqMixin, VAEMixin, UnsupervisedTrainingMixin, BaseModelClass):
    r"""Variational autoencoder of which regions of the chromatin are open.

    .. math::
        z_n \sim N(0, I), \qquad
        [x_{ng} > 0] \mid z_n \sim \mathrm{Bernoulli}\bigl(\sigma(h(z_n, b_n))_g\, d_n\, f_g\bigr)

    with factors from 0 to 1 of the cell, :math:`d`, and of the region, :math:`f`.

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    n_hidden, n_latent
        Size of the hidden layers and of the latent space; None: the root of the number of regions, and its root.
    n_layers_encoder, n_layers_decoder, dropout_rate
        Hidden layers of encoders and decoder, dropout in the encoder.
    model_depth, region_factors
        Whether cells and regions have factors.
    use_batch_norm, use_layer_norm
        Where: ``"encoder"``, ``"decoder"``, ``"none"`` or ``"both"``.
    latent_distribution
        ``"normal"`` or ``"ln"`` (logistic normal).
    deeply_inject_covariates
        Whether covariates enter each hidden layer, or the first only.
    encode_covariates
        Whether the encoders see the covariates.
    **model_kwargs
        Further arguments of :class:`~celbo.module.PEAKVAE`.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.model.PEAKVI.setup_anndata(adata, batch_key="batch")
    >>> model = celbo.model.PEAKVI(adata)
    >>> model.train(max_epochs=2, verbose=0)
    >>> model.get_latent_representation().shape
    (400, 3)
    """

    _module_cls: ClassVar[type[BaseModuleClass]] = PEAKVAE
    _own_recipe: ClassVar[Mapping[str, Any]] = {
        "max_epochs": None,
        "lr": 3e-3,
        "early_stopping": False,
        "n_epochs_kl_warmup": None,
        "n_steps_kl_warmup": 200,  # without a warm-up latents of several hundred features stay empty
        "gives_up_after": 0.3,  # wide data overfit within a fifth of the run
    }
    # a handful of cells to validate by would end a run anywhere, and a longer one remembers its cells
    _of_few_cells: ClassVar[Mapping[str, Any]] = {"max_epochs": 200, "lr": 3e-4, "early_stopping": False}
    _sizes: ClassVar[Mapping[str, str]] = {"n_input_regions": "n_vars"}
    _outputs: ClassVar[Sequence[Output]] = (ACCESSIBILITY,)
    _plan_defaults: Mapping[str, Any] = {"optimizer": "AdamW"}

    def __init__(
        self,
        adata: AnnData,
        n_hidden: int | None = None,
        n_latent: int | None = None,
        n_layers_encoder: int = 2,
        n_layers_decoder: int = 2,
        dropout_rate: float = 0.1,
        model_depth: bool = True,
        region_factors: bool = True,
        use_batch_norm: Placement = "none",
        use_layer_norm: Placement = "both",
        latent_distribution: LatentDistribution = "normal",
        deeply_inject_covariates: bool = False,
        encode_covariates: bool = False,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata)
        self._build_module()

    train = training(
        {"max_epochs": 500, "lr": 1e-4},
        WHERE,
        SPLIT,
        {"batch_size": 128, "weight_decay": 1e-3, "eps": 1e-8, "early_stopping": True, "early_stopping_patience": 50},
        {"check_val_every_n_epoch": None, "n_steps_kl_warmup": None, "n_epochs_kl_warmup": 50},
        PASSED_ON,
        fixed={"early_stopping_monitor": "reconstruction_loss_validation"},
    )

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str | None = None,
        labels_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        layer: str | None = None,
    ) -> bundles.Fields:
        """Register an AnnData with counts of reads or fragments, cells by regions; what counts is which are zero."""
        known = [*bundles.counts(layer), *bundles.batch(batch_key), *bundles.labels(labels_key)]
        return [*known, *bundles.covariates(categorical_covariate_keys, continuous_covariate_keys)]
