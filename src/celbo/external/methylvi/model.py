"""METHYLVI: a latent space and normalized methylation of single cells (bisulfite sequencing).

Reference: Weinberger and Lee, *A deep generative model of single-cell methylomic data*, 2023.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from anndata import AnnData

from ...core.kinds import Several, Text
from ...data.fields import bundles
from ...data.fields.methylation import methylated_key, reads_of_contexts
from ...model.base import ArchesMixin, BaseModelClass, UnsupervisedTrainingMixin, VAEMixin, setup_method
from ...module.base import BaseModuleClass
from ...posterior import Output
from .module import METHYLVAE
from .verbs import MethylationMixin

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["METHYLVI", "Contexts", "MethylationModel", "methylation_fields"]

Contexts = Annotated[list[str], Several(Text())]


def methylation_fields(
    mdata: object,
    layers: tuple[str, str],
    contexts: list[str],
    columns: tuple[str | None, list[str] | None],
    modalities: Mapping[str, str] | None,
) -> bundles.Fields:
    """Reads of each context, the batch and further covariates.

    Parameters
    ----------
    mdata, contexts
        The data, and the modalities with reads.
    layers
        Their layers with methylated reads, and with all.
    columns
        Columns of the batch and of categorical covariates.
    modalities
        Argument of the setup method -> modality that it is of.
    """
    where = modalities or {}
    batch_key, categorical_keys = columns
    return [
        *reads_of_contexts(mdata, *layers, contexts),
        *bundles.in_modality(where.get("batch_key"), bundles.batch(batch_key)),
        *bundles.in_modality(where.get("categorical_covariate_keys"), bundles.covariates(categorical_keys, None)[:1]),
    ]


class MethylationModel(MethylationMixin, VAEMixin, ArchesMixin, BaseModelClass):
    """What models of methylated reads share: the contexts of their data, and that these are a MuData."""

    get_normalized_function_name_ = "get_normalized_methylation"
    _recipe: ClassVar[str | None] = "brief_cycle"  # the decoder begins with each region's share: shares of 50 epochs
    # are as near to the true ones as those of 90, or of 240 with labels

    @property
    def _outputs(self) -> Sequence[Output]:  # type: ignore[override]  # by the contexts of the data
        keys = {context: methylated_key(context) for context in self.module.contexts}
        return [Output(context, key, key) for context, key in keys.items()]

    def _computed_arguments(self) -> dict[str, Any]:
        contexts = list(self.registry_["setup_args"]["methylation_contexts"])
        sizes = [self.summary_stats[f"n_{methylated_key(context)}"] for context in contexts]
        return {"n_input": sum(sizes), "contexts": contexts, "num_features_per_context": sizes}

    @classmethod
    def setup_anndata(cls, adata: AnnData, **kwargs: Any) -> None:
        """Refused: reads of several contexts need a MuData.

        Parameters
        ----------
        adata, **kwargs
            Accepted for compatibility with scvi-tools.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            f"{cls.__name__} takes a MuData with a modality for each context of methylation, also for a single one: "
            f"{cls.__name__}.setup_mudata(mudata.MuData({{'mCG': adata}}), mc_layer=..., cov_layer=..., "
            "methylation_contexts=['mCG'])."
        )


class METHYLVI(UnsupervisedTrainingMixin, MethylationModel):
    r"""Variational autoencoder of how many reads of a region are methylated, in several contexts.

    .. math::
        z_n \sim N(0, I), \qquad y_{ncr} \mid z_n \sim \mathrm{BetaBinomial}(N_{ncr};\ \mu_{cr}(z_n, b_n), \gamma_{cr})

    with :math:`y` of :math:`N` reads methylated. Regions of which a cell has no read add nothing.

    Parameters
    ----------
    mdata
        MuData set up with :meth:`setup_mudata`.
    n_hidden, n_latent, n_layers
        Size of the hidden layers and of the latent space; hidden layers of encoder and decoders.
    **model_kwargs
        Further arguments of :class:`~celbo.external.methylvi.METHYLVAE`: ``likelihood`` (``"betabinomial"`` or
        ``"binomial"``), ``dispersion`` (``"region"`` or ``"region-cell"``), ``dropout_rate``, ...

    Examples
    --------
    >>> import celbo
    >>> mdata = celbo.data.simulate_methylation(200, {"mCG": 40, "mCH": 30}, seed=0)
    >>> celbo.external.METHYLVI.setup_mudata(mdata, "mc", "cov", ["mCG", "mCH"], batch_key="batch")
    >>> model = celbo.external.METHYLVI(mdata, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> model.get_latent_representation().shape
    (200, 5)
    """

    _module_cls: ClassVar[type[BaseModuleClass]] = METHYLVAE
    _few_cells_by_classic: ClassVar[bool] = False  # which begins without what reads say of the regions

    def __init__(
        self, mdata: "MuData", n_hidden: int = 128, n_latent: int = 10, n_layers: int = 1, **model_kwargs: Any
    ) -> None:
        super().__init__(mdata)
        self._build_module()

    @classmethod
    @setup_method
    def setup_mudata(
        cls,
        mdata: "MuData",
        mc_layer: str,
        cov_layer: str,
        methylation_contexts: Contexts,
        batch_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        modalities: dict[str, str] | None = None,
    ) -> bundles.Fields:
        """Register a MuData with a modality of regions for each context of methylation, of the same cells.

        Parameters
        ----------
        mc_layer, cov_layer
            Layers of these modalities with methylated reads, and with all, methylated or not: whole numbers, dense or
            sparse, of any type. A region without reads is 0 in both.
        methylation_contexts
            Names of the modalities, ``["mCG", "mCH"]``.
        batch_key
            Column with the batch of each cell; None: one for all.
        categorical_covariate_keys
            Columns with further covariates that are categories.
        modalities
            Modality in whose ``obs`` the batch and the covariates are: ``{"batch_key": "mCG"}``. A column without one
            is looked for in ``mdata.obs``, then in the modalities.
        """
        columns = (batch_key, categorical_covariate_keys)
        return methylation_fields(mdata, (mc_layer, cov_layer), methylation_contexts, columns, modalities)
