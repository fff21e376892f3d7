"""SysVI: integration of systems that differ strongly: species, organoids and tissue, cells and nuclei.

Reference: Hrovatin et al., *Integrating single-cell RNA-seq datasets with substantial batch effects*, bioRxiv 2023.
"""

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from anndata import AnnData
from torch import Tensor

from ...core import ArgumentError, settings
from ...core.kinds import Whole
from ...data.fields import NumericalObsField, bundles
from ...data.fields.values import ValuesField
from ...model.base import ArchesMixin, BaseModelClass, RNASeqMixin, UnsupervisedTrainingMixin, VAEMixin, setup_method
from ...module.base.priors import VampPrior
from ...ops.random import fresh_seed
from ...train import merge_kwargs
from ...train.method import training
from ...train.recipes import default_recipe
from .module import BATCH_WEIGHTS_KEY, SysVAE

__all__ = ["SysVI"]

_STANDARD_NORMAL_WEIGHT = 2.0
_EXPRESSION = "SysVI takes normalised and log-transformed expression: sc.pp.normalize_total, then sc.pp.log1p."
_NO_WARMUP: dict[str, Any] = {"n_epochs_kl_warmup": 0, "n_steps_kl_warmup": 0}


class _BatchWeightField(NumericalObsField):
    """One by the number of cells of each cell's batch, kept in a column of ``obs``."""

    def __init__(self, batch_key: str) -> None:
        super().__init__(BATCH_WEIGHTS_KEY, BATCH_WEIGHTS_KEY)
        self.batch_key = batch_key

    def validate_field(self, adata: AnnData) -> None:
        if BATCH_WEIGHTS_KEY in adata.obs:  # it comes with the registration
            super().validate_field(adata)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        batch = adata.obs[self.batch_key].astype(object)
        adata.obs[BATCH_WEIGHTS_KEY] = (1.0 / batch.map(batch.value_counts())).to_numpy(dtype=float)
        return super().register_field(adata)


def _plan_settings(model: BaseModelClass, options: dict[str, Any]) -> dict[str, Any]:
    """The KL weight is at its full height from the start: batches mix badly under a warm-up of it.

    The cycle is the paper's, in units of the spread of latents, unless training is to be scvi-tools' to the letter:
    then each cell is decoded as one of its own batch, which mixes batches less, and the units are the spread of means.
    Nor is there a standard normal beside the VampPrior then, with which batches mix within a few hundred steps.
    """
    plan = merge_kwargs(None, options["plan_kwargs"], name="plan")
    if any(plan.get(name) for name in _NO_WARMUP):
        warnings.warn(
            "The use of KL weight warmup is not recommended in SysVI. "  # scvi-tools' words
            "Batches mix badly under it: n_epochs_kl_warmup and n_steps_kl_warmup are set to 0.",
            UserWarning,
            stacklevel=settings.warnings_stacklevel,
        )
    is_classic = (options["recipe"] or default_recipe(type(model))) == "classic"
    beside = isinstance(model.module.prior, VampPrior) and not is_classic  # another prior is that normal itself
    own: dict[str, Any] = dict.fromkeys(("decode_as_other", "in_units_of_draws"), not is_classic)
    own |= {"standard_normal_weight": _STANDARD_NORMAL_WEIGHT if beside else 0.0}
    return options | {"plan_kwargs": own | plan | _NO_WARMUP}


class SysVI(RNASeqMixin, VAEMixin, ArchesMixin, UnsupervisedTrainingMixin, BaseModelClass):
    r"""Autoencoder of normalized expression with a VampPrior, and a cycle loss that brings systems together.

    .. math:: \mathcal{L}_n = -\log p(x_n \mid z_n, b_n) + \mathrm{KL}(q(z_n \mid x_n, b_n) \,\|\, p_{\mathrm{vamp}})
              + w\,\lVert \tilde z_n - \tilde z'_n \rVert^2

    with :math:`z'_n` the latents of the cell once it was decoded and encoded as one of another batch (see
    :class:`~celbo.external.sysvi.SysVAE`).

    Parameters
    ----------
    adata
        Normalized expression, set up with :meth:`setup_anndata`.
    prior
        ``"vamp"``, or ``"standard_normal"``.
    n_prior_components
        Number of pseudo-inputs of the VampPrior.
    pseudoinputs_data_indices
        Rows of the cells that they begin as, ``(n_prior_components,)``; None: drawn, from a generator of celbo's own.
    **model_kwargs
        Further arguments of :class:`~celbo.external.sysvi.SysVAE`: ``n_latent``, ``n_hidden``, ``out_var_mode``, ...

    Raises
    ------
    ArgumentError
        One batch only; rows that are not there, or another number of them than of components.

    Examples
    --------
    >>> import celbo, numpy as np
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> adata.X = np.log1p(adata.X)
    >>> celbo.external.SysVI.setup_anndata(adata, batch_key="batch")
    >>> model = celbo.external.SysVI(adata, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0, plan_kwargs={"z_distance_cycle_weight": 5})
    >>> model.get_latent_representation().shape
    (400, 5)
    """

    _module_cls: ClassVar[type[SysVAE]] = SysVAE
    _recipe: ClassVar[str | None] = "brief_cycle"  # beside a standard normal, batches mix and types stay in 250 steps
    _renamed: ClassVar[Mapping[str, str | None]] = {"pseudoinputs_data_indices": None}

    def __init__(
        self,
        adata: AnnData | None = None,
        prior: Literal["standard_normal", "vamp"] = "vamp",
        n_prior_components: Annotated[int, Whole(1)] = 5,
        pseudoinputs_data_indices: np.ndarray | None = None,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata)
        if adata is not None and self.summary_stats["n_batch"] < 2:
            raise ArgumentError(
                "SysVI brings batches together, and there is only one: name a batch_key with two batches or more in "
                "setup_anndata. celbo.model.SCVI takes counts of one batch."
            )
        if adata is not None and prior == "vamp":
            cells = self._pseudo_inputs(adata, n_prior_components, pseudoinputs_data_indices)
            self._build_module(pseudoinput_data=cells)
        else:
            self._build_module()

    def _pseudo_inputs(self, adata: AnnData, n: int, given: np.ndarray | None) -> dict[str, Tensor]:
        """The minibatch of the cells that the pseudo-inputs begin as."""
        if given is None:
            drawn = np.random.default_rng(fresh_seed(None))
            rows = drawn.choice(adata.n_obs, n, replace=adata.n_obs < n)
        else:
            rows = np.asarray(given)
            if rows.shape != (n,) or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= adata.n_obs:
                raise ArgumentError(
                    f"pseudoinputs_data_indices must be {n} row numbers (n_prior_components) below {adata.n_obs}, "
                    f"got {given!r}."
                )
        loader = self._make_data_loader(adata, indices=rows, batch_size=n)
        return {key: table.to_dense() for key, table in next(iter(loader)).items()}

    def _operate(self, reference: Any, options: Any) -> None:
        if hasattr(self.module.prior, "u_cat"):
            for weights_mc in self.module.prior.u_cat.buffers():
                weights_mc.zero_()  # pseudo-inputs are the reference's: none is of a batch that it does not know
        super()._operate(reference, options)

    train = training({"plan_kwargs": None}, prepare=_plan_settings)

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str,
        layer: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        weight_batches: bool = False,
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register normalized expression.

        Parameters
        ----------
        adata
            Cells by genes; normalized and log-transformed expression in ``X``, in a layer or in ``raw``. Not copied.
        batch_key
            Column of ``adata.obs`` with the system of each cell: what differs much, and the cycle brings together.
        layer
            Layer with the expression; None: ``X``.
        use_raw
            Take the expression of ``adata.raw``, and its genes.
        weight_batches
            Weigh each cell's cycle loss by one over the number of cells of its batch (experimental: the loss then
            weighs little, and ``z_distance_cycle_weight`` should be about the number of cells a batch).
        """
        fields = [
            ValuesField(layer, cure_of_counts=_EXPRESSION, use_raw=use_raw),
            *bundles.batch(batch_key),
            *bundles.covariates(categorical_covariate_keys, continuous_covariate_keys),
        ]
        return [*fields, _BatchWeightField(batch_key)] if weight_batches else fields
