"""METHYLANVI: cell types of single cells from DNA methylation, of which some cells have a label.

Reference: Weinberger and Lee, *A deep generative model of single-cell methylomic data*, 2023; Xu et al., *Probabilistic
harmonization and annotation of single-cell transcriptomics data*, Molecular Systems Biology 2021.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ...core import REGISTRY_KEYS
from ...data.fields import LabelsWithUnlabeledObsField, bundles
from ...model.base import SemisupervisedTrainingMixin, setup_method
from ...posterior import Output
from .methylanvae import METHYLANVAE
from .model import METHYLVI, Contexts, MethylationModel, methylation_fields
from .module import MethylationDispersion, MethylationLikelihood

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["METHYLANVI"]


class METHYLANVI(SemisupervisedTrainingMixin, MethylationModel):
    r"""Variational autoencoder of methylated reads that learns cell types from cells of which some are labelled.

    .. math::
        y_n \sim \mathrm{Cat}(\pi), \qquad z_{2n} \sim N(0, I), \qquad z_{1n} \mid z_{2n}, y_n \sim N, \qquad
        \text{reads} \mid z_{1n} \text{ as in METHYLVI}

    Parameters
    ----------
    mdata
        MuData set up with :meth:`setup_mudata`.
    n_hidden, n_latent, n_layers
        See :class:`METHYLVI`.
    dropout_rate
        Dropout of encoder and classifier.
    likelihood
        ``"betabinomial"`` or ``"binomial"``.
    dispersion
        Whether a region varies alike in all cells (``"region"``) or not (``"region-cell"``).
    linear_classifier
        Whether the classifier of the latents has no hidden layers.
    **model_kwargs
        Further arguments of :class:`~celbo.external.methylvi.METHYLANVAE`.

    Raises
    ------
    ValueError
        Data in which no cell has a label.

    Examples
    --------
    >>> import celbo
    >>> mdata = celbo.data.simulate_methylation(200, {"mCG": 40, "mCH": 30}, seed=0)
    >>> mdata.obs["seen"] = mdata.obs["cell_type"].astype(object).where(mdata.obs["batch"] == "batch_0", "unknown")
    >>> setup = {"mc_layer": "mc", "cov_layer": "cov", "methylation_contexts": ["mCG", "mCH"]}
    >>> labels = {"labels_key": "seen", "unlabeled_category": "unknown"}
    >>> celbo.external.METHYLANVI.setup_mudata(mdata, **setup, **labels, batch_key="batch")
    >>> model = celbo.external.METHYLANVI(mdata, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> model.predict(soft=True).shape
    (200, 4)
    """

    _module_cls: ClassVar[type[METHYLANVAE]] = METHYLANVAE
    _without_labels: ClassVar[str] = "METHYLVI"

    def __init__(
        self,
        mdata: "MuData",
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        likelihood: MethylationLikelihood = "betabinomial",
        dispersion: MethylationDispersion = "region",
        linear_classifier: bool = False,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(mdata)
        self._take_classes()
        self._build_module(n_labels=self.n_labels)

    @property
    def _explaining(self) -> Sequence[Output]:
        return self._outputs

    @classmethod
    def from_methylvi_model(
        cls,
        methylvi_model: METHYLVI,
        unlabeled_category: str | None = None,
        labels_key: str | None = None,
        mdata: "MuData | None" = None,
        **methylanvi_kwargs: Any,
    ) -> Self:
        """Model that begins with the weights of a trained METHYLVI.

        Parameters
        ----------
        methylvi_model
            The trained model; one that is not trained comes with a warning.
        unlabeled_category
            Label that means "not labelled"; so does NaN.
        labels_key
            Column with the labels.
        mdata
            Data with the regions of ``methylvi_model``'s; None: its training data.
        **methylanvi_kwargs
            Arguments of :class:`METHYLANVI` that METHYLVI does not have; others are those of ``methylvi_model``.

        Raises
        ------
        ValueError
            No ``labels_key``.

        Examples
        --------
        >>> celbo.external.METHYLVI.setup_mudata(mdata, **setup, batch_key="batch")
        >>> methylvi = celbo.external.METHYLVI(mdata, n_latent=5)
        >>> methylvi.train(max_epochs=2, verbose=0, seed=0)
        >>> model = celbo.external.METHYLANVI.from_methylvi_model(methylvi, "unknown", "seen")
        >>> model.was_pretrained
        True
        """
        return cls._from_unlabelled(methylvi_model, unlabeled_category, labels_key, mdata, None, methylanvi_kwargs)

    @classmethod
    @setup_method
    def setup_mudata(
        cls,
        mdata: "MuData",
        mc_layer: str,
        cov_layer: str,
        labels_key: str,
        unlabeled_category: str | None,
        methylation_contexts: Contexts,
        batch_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        modalities: dict[str, str] | None = None,
    ) -> bundles.Fields:
        """Register a MuData with a modality of regions for each context of methylation, and labels.

        Parameters
        ----------
        mc_layer, cov_layer, methylation_contexts, batch_key, categorical_covariate_keys, modalities
            As in :meth:`METHYLVI.setup_mudata`.
        labels_key
            Column with the label of each cell; cells with NaN are not labelled.
        unlabeled_category
            Label that means "not labelled" too. None: only NaN does.
        """
        columns = (batch_key, categorical_covariate_keys)
        labels = LabelsWithUnlabeledObsField(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category)
        return [
            *methylation_fields(mdata, (mc_layer, cov_layer), methylation_contexts, columns, modalities),
            *bundles.in_modality((modalities or {}).get("labels_key"), [labels]),
        ]
