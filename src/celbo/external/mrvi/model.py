"""MRVI: cells of many samples, apart from the sample and in each of them.

Reference: Boyeau, Hong, Gayoso, Kim, McFaline-Figueroa, Jordan, Azizi, Ergen and Yosef, *Deep generative modeling of
sample-level heterogeneity in single-cell genomics*, Nature Methods 2025.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from ...core import REGISTRY_KEYS, ArgumentError
from ...data.constants import MODEL_NAME, SCVI_VERSION
from ...data.fields import CategoricalObsField, bundles
from ...data.fields.dataframe import RowNumberField
from ...model.base import ArchesMixin, BaseModelClass, UnsupervisedTrainingMixin, setup_method
from ...train import merge_kwargs
from ...train.method import WHERE, training
from ...train.recipes import default_recipe
from .comparing import MRVIMixin
from .module import TorchMRVAE, layout_of
from .plan import SettlingPlan

__all__ = ["MRVI", "TorchMRVI"]

_CLASSIC: Mapping[str, Any] = {"lr": 2e-3, "eps": 1e-8, "weight_decay": 1e-8, "n_epochs_kl_warmup": 20}
_OWN: Mapping[str, Any] = {"lr": 4e-3, "eps": 1e-8, "z_kl_weight": 0.3, "settles_at": 8 / 11, "difference_weight": 0.5}


def _prepared(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Refuse samples of one cell, and set a rate and a KL warm-up at which effects of samples stay.

    At the rates of other models, or with the whole KL divergence from the start, effects go to 0 in some runs, and u
    takes over what samples differ by.
    """
    cells_s = model._cells_of_samples()
    alone = [] if cells_s is None else [str(name) for name in model.sample_order[cells_s == 1]]
    if alone:
        raise ArgumentError(
            f"Samples with one cell each: {len(alone)} ({', '.join(alone[:5])}). What it would be in other samples "
            "says nothing of these: leave their cells out before setup_anndata, or name a sample_key with larger ones."
        )
    classic = (options["recipe"] or default_recipe(type(model))) == "classic"
    epochs = options["max_epochs"]
    if epochs is None and not classic and model.adata is not None:
        epochs = _epochs(model.adata.n_obs, options["batch_size"])
    plan = _CLASSIC if classic else {**_OWN, "n_epochs_kl_warmup": epochs and math.ceil(4 / 11 * epochs)}
    if model.surgery_ is not None:
        # Weight decay would move what is frozen; new samples find their place among settled ones.
        plan = {**plan, "weight_decay": 0.0} | ({} if classic else {"settles_at": 1.0})
    plan = {**plan, **merge_kwargs(None, options["plan_kwargs"], name="plan")}
    return {"gradient_clip_val": 40.0} | options | {"max_epochs": epochs, "plan_kwargs": plan}


def _epochs(n_cells: int, batch_size: int) -> int:
    """Fourteen passes, at least 550 steps, at most 4,000 of them or one pass."""
    steps_an_epoch = max(1, math.ceil(0.9 * n_cells / batch_size))
    return math.ceil(max(550, min(14 * steps_an_epoch, 4000)) / steps_an_epoch)


class MRVI(MRVIMixin, ArchesMixin, UnsupervisedTrainingMixin, BaseModelClass):
    r"""Variational autoencoder of cells of many samples: donors, conditions, perturbations.

    .. math:: u_n \sim \text{a mixture}, \qquad z_n = A u_n + \epsilon(u_n, s_n), \qquad
              x_{ng} \sim \mathrm{NB}\bigl(\ell_n\, \mathrm{softmax}(f(z_n, b_n))_g, \theta_g\bigr)

    u is what a cell is apart from its sample s, z what it is in it. Put into other samples, a cell says which of these
    are alike for cells of its kind.

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    registry
        Registry to take the sizes from when there is no AnnData.
    **model_kwargs
        Further arguments of :class:`~celbo.external.mrvi.TorchMRVAE`: ``n_latent``, ``n_latent_u``, ``qz_kwargs``, ...

    Raises
    ------
    ArgumentError
        There is one sample.

    Notes
    -----
    New models have the networks of scvi-tools 1.4.3 and later; archives of 1.4.2 are read with theirs.

    Examples
    --------
    >>> import celbo, numpy as np
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> adata.obs["donor"] = np.resize(["a", "b", "c", "d"], adata.n_obs)
    >>> adata.obs["group"] = adata.obs["donor"].isin(["a", "b"]).astype(str)
    >>> celbo.external.MRVI.setup_anndata(adata, sample_key="donor", batch_key="batch")
    >>> model = celbo.external.MRVI(adata)
    >>> model.train(max_epochs=2, verbose=0)
    >>> model.get_latent_representation().shape
    (400, 10)
    """

    _module_cls: ClassVar[type[TorchMRVAE]] = TorchMRVAE
    _training_plan_cls: ClassVar[type[SettlingPlan]] = SettlingPlan
    _reads: ClassVar[tuple[str, ...]] = ("MRVI", "TorchMRVI")
    _written_as: ClassVar[str] = "1.4.3"

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: Mapping[str, Any] | None = None,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata, registry)
        if self._adata is not None:
            self.registry_ = {**self.registry_, SCVI_VERSION: self._written_as, MODEL_NAME: "TorchMRVI"}
        if self.summary_stats["n_sample"] < 2:
            raise ArgumentError(
                f"{type(self).__name__} compares samples, and there is only one: name a sample_key with two samples or "
                "more in setup_anndata. celbo.model.SCVI takes cells of one sample."
            )
        self.sample_info = pd.DataFrame()
        if self._adata is not None:
            self.update_sample_info(self._adata)
        self._build_module()

    def _operate(self, reference: Any, options: Any) -> None:
        if self.module.px.has_batches != reference.module.px.has_batches:
            raise ArgumentError(
                "The reference was trained on one batch, so its decoder has not learned what a batch does, and the "
                "query has a new one: give the query's cells the reference's batch, or train on all cells together."
            )
        super()._operate(reference, options)
        known = reference.sample_info.drop(index=self.sample_info.index, errors="ignore")
        self.sample_info = pd.concat([known, self.sample_info]).sort_index()

    def _cells_of_samples(self) -> np.ndarray | None:
        """Cells of each sample in the training data; None without training data."""
        if self._adata_manager is None:
            return None
        codes = np.asarray(self._adata_manager.get_from_registry(REGISTRY_KEYS.SAMPLE_KEY)).ravel()
        return np.bincount(codes, minlength=self.summary_stats["n_sample"])

    def _computed_arguments(self) -> dict[str, Any]:
        cells_s = self._cells_of_samples()
        return {
            "layout": layout_of(self.registry_[SCVI_VERSION]),
            "n_obs_per_sample": None if cells_s is None else torch.from_numpy(cells_s),
        }

    train = training(
        {"max_epochs": None},
        WHERE,
        {"train_size": None, "validation_size": None, "batch_size": 128, "early_stopping": False, "plan_kwargs": None},
        prepare=_prepared,
    )

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        sample_key: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        backend: Literal["torch"] = "torch",
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register counts of cells of several samples.

        Parameters
        ----------
        sample_key
            Column of ``adata.obs`` with the sample of each cell: what cells are compared between.
        backend
            ``"torch"``; scvi-tools has a second one, which is not in celbo.
        """
        return [
            *bundles.counts(layer, use_raw),
            CategoricalObsField(REGISTRY_KEYS.SAMPLE_KEY, sample_key),
            *bundles.batch(batch_key),
            *bundles.labels(labels_key),
            RowNumberField(REGISTRY_KEYS.INDICES_KEY, "_indices"),
        ]


class TorchMRVI(MRVI):
    """:class:`MRVI` with the networks of scvi-tools 1.4.2, which reads what ``celbo export`` writes of it."""

    _written_as: ClassVar[str] = "1.4.2"
