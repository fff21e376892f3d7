"""MULTIVI: RNA, open chromatin and proteins of single cells, of which a cell may lack some.

Reference: Ashuach, Gabitto, Koodli, Saldi, Jordan and Yosef, *MultiVI: deep generative model for the integration of
multimodal data*, Nature Methods 2023.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from anndata import AnnData

from .. import posterior
from ..core import REGISTRY_KEYS, ArgumentError, listed
from ..core.kinds import Several, Text
from ..data.fields import LayerField, NumericalJointObsField, ProteinLayerField, ProteinObsmField, bundles
from ..data.fields.dataframe import RowNumberField
from ..module.likelihoods import Dispersion, LatentDistribution, Placement, ProteinDispersion
from ..module.modalities import ModalityPenalty
from ..module.multinetworks import NARROW, CountLikelihoodName, ModalityWeights
from ..module.multivae import MULTIVAE
from ..posterior import Output
from ..posterior.protein import foreground_of
from ..train import AdversarialTrainingPlan
from ..train.method import PASSED_ON, SPLIT, WHERE, Argument, training
from ..train.plans.adversarial import adversary_settings
from ..train.recipes import find_recipe
from ..verbs.multimodal import MultimodalMixin
from .base import ArchesMixin, BaseMudataMinifiedModeModelClass, UnsupervisedTrainingMixin, setup_method
from .base.made_with import given_arguments
from .peakvi import PEAKVI

__all__ = ["MULTIVI"]

_OF_NARROW: Mapping[str, Any] = {**PEAKVI._own_recipe, "lr": 1e-2, "n_steps_kl_warmup": None, "gives_up_after": 1.0}
_FREE_FIRST = {"min_kl_weight": 1e-3, "kl_warmup_begins_at": 4 / 7, "warms_penalty": True}
"""For 0.4 of the run hardly anything keeps latents of few units from saying what a cell is; else they stay empty."""


def _train_settings(model: "MULTIVI", options: dict[str, Any]) -> dict[str, Any]:
    adversary = options.pop("adversarial_mixing") and model.summary_stats.get("n_batch", 1) > 1
    plan = adversary_settings(adversary, options["recipe"], model.module.n_obs) | {"scale_adversarial_loss": 1.0}
    warmup = {options["n_steps_kl_warmup"], options["n_epochs_kl_warmup"]}
    if model._own_settings(options["recipe"], asked=True) is _OF_NARROW and warmup == {None}:
        n_epochs = find_recipe(options["recipe"]).epochs_of(options, model.module.n_obs, model.module.n_batch)
        plan |= _FREE_FIRST | {"n_epochs_kl_warmup": max(1, round(0.7 * n_epochs))}  # of the run
    return options | {"plan_kwargs": plan | dict(options["plan_kwargs"] or {})}


class MULTIVI(MultimodalMixin, ArchesMixin, UnsupervisedTrainingMixin, BaseMudataMinifiedModeModelClass):
    r"""Variational autoencoder of genes, of which regions of the chromatin are open, and of proteins.

    .. math::
        z_n \sim N(0, I), \qquad x_{ng} \mid z_n \sim \mathrm{ZINB}(e^{\ell_n} \rho_g(z_n, b_n), \theta_g, \pi_{ng}),
        \qquad [a_{nr} > 0] \mid z_n \sim \mathrm{Bernoulli}(p_r(z_n, b_n)\, d_n\, f_r)

    and a mixture of background and foreground for proteins. Each modality has an encoder; the latents of a cell are the
    weighted mean over the modalities that it has, and every modality is decoded from them, those that it lacks too.

    Parameters
    ----------
    adata
        MuData set up with :meth:`setup_mudata`, of which not every modality needs to have all cells; or an AnnData set
        up with :meth:`setup_anndata`, genes before regions.
    n_genes, n_regions
        Numbers of genes and of regions. Of an AnnData one of them must be given; of a MuData they follow.
    modality_weights
        Weights of the modalities in the joint latents: ``"equal"``, learned for all cells alike (``"universal"``), or
        for each (``"cell"``: such a model answers about the cells that it was trained on only).
    modality_penalty
        What keeps the latents of a cell's modalities close: ``"Jeffreys"`` (symmetric KL divergence), ``"MMD"``
        (distance of the means) or ``"None"``.
    n_hidden, n_latent
        Size of the hidden layers and of the latent space; None: the root of the number of regions (or of genes), at
        most 128, and its root.
    n_layers_encoder, n_layers_decoder, dropout_rate
        Hidden layers of encoders and decoders, dropout in the encoders.
    region_factors
        Whether regions have factors.
    gene_likelihood
        ``"zinb"``, ``"nb"`` or ``"poisson"``.
    dispersion, protein_dispersion
        What the inverse dispersions are parameters of: ``"gene"``, ``"gene-batch"``, ``"gene-label"`` or
        ``"gene-cell"``; ``"protein"``, ``"protein-batch"`` or ``"protein-label"``.
    use_batch_norm, use_layer_norm
        Where: ``"encoder"``, ``"decoder"``, ``"none"`` or ``"both"``.
    latent_distribution
        ``"normal"`` or ``"ln"`` (logistic normal).
    deeply_inject_covariates
        Whether covariates enter each hidden layer, or the first only.
    encode_covariates
        Whether the encoders see the covariates.
    fully_paired
        Whether every cell has every modality; latents of single modalities are then refused.
    **model_kwargs
        Further arguments of :class:`~celbo.module.MULTIVAE`. ``scvi_tools_figures=True``, which models of scvi-tools'
        archives have, keeps its figures: variances mixed by the root of the weights; the root of standard deviations in
        ``"Jeffreys"``; the distances of all cells for each in ``"MMD"``; a modality counts as missing where a cell has
        no counts; a dispersion by cell that is not read; differential expression of the means of the latents.

    Raises
    ------
    ArgumentError
        An AnnData without ``n_genes`` and ``n_regions``, or of another number of columns.

    Examples
    --------
    >>> import celbo
    >>> mdata = celbo.data.synthetic_iid(seed=0, return_mudata=True)
    >>> modalities = {"rna_layer": "rna", "atac_layer": "accessibility", "protein_layer": "protein_expression"}
    >>> celbo.model.MULTIVI.setup_mudata(mdata, modalities=modalities)
    >>> model = celbo.model.MULTIVI(mdata)
    >>> model.train(max_epochs=2, verbose=0, adversarial_mixing=False)
    >>> model.get_latent_representation().shape
    (400, 3)
    """

    _module_cls: ClassVar[type[MULTIVAE]] = MULTIVAE
    _training_plan_cls = AdversarialTrainingPlan
    _recipe: ClassVar[str | None] = "one_cycle"  # the adversary's weight is a number: it needs no warm-up
    _own_recipe: ClassVar[Mapping[str, Any]] = {**PEAKVI._own_recipe, "n_steps_kl_warmup": 800}
    _modalities_may_lack_cells = True
    _LATENT_QZM_KEY = "multivi_latent_qzm"
    _LATENT_QZV_KEY = "multivi_latent_qzv"
    _sizes: ClassVar[Mapping[str, str]] = {"n_input_proteins": "n_proteins"}
    _renamed: ClassVar[Mapping[str, str | None]] = {
        "n_genes": "n_input_genes",
        "n_regions": "n_input_regions",
        "dispersion": "gene_dispersion",
        "fully_paired": None,
    }
    _plan_defaults: Mapping[str, Any] = {"optimizer": "AdamW"}

    def __init__(
        self,
        adata: AnnData,
        n_genes: int | None = None,
        n_regions: int | None = None,
        modality_weights: ModalityWeights = "equal",
        modality_penalty: ModalityPenalty = "Jeffreys",
        n_hidden: int | None = None,
        n_latent: int | None = None,
        n_layers_encoder: int = 2,
        n_layers_decoder: int = 2,
        dropout_rate: float = 0.1,
        region_factors: bool = True,
        gene_likelihood: CountLikelihoodName = "zinb",
        dispersion: Dispersion = "gene",
        use_batch_norm: Placement = "none",
        use_layer_norm: Placement = "both",
        latent_distribution: LatentDistribution = "normal",
        deeply_inject_covariates: bool = False,
        encode_covariates: bool = False,
        fully_paired: bool = False,
        protein_dispersion: ProteinDispersion = "protein",
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata)
        self._build_module()

    def _computed_arguments(self) -> dict[str, Any]:
        given, stats = given_arguments(self), self.summary_stats
        n_vars, n_atac = stats.get("n_vars", 0), stats.get("n_atac", 0)
        n_genes, n_regions = given["n_genes"], given["n_regions"]
        if self._has_regions_apart or (self._of_mudata and n_regions is None):
            n_genes = n_vars if n_genes is None else n_genes
            n_regions = n_atac if n_regions is None else n_regions
            fits = 0 <= n_genes <= n_vars and 0 <= n_regions <= n_atac
        elif n_genes is None and n_regions is None:
            raise ArgumentError(
                f"An AnnData does not say which of its {n_vars} columns are genes and which are regions: pass n_genes= "
                "or n_regions=, genes before regions; or use a MuData and setup_mudata."
            )
        else:
            n_genes = n_vars - n_regions if n_genes is None else n_genes
            n_regions = n_vars - n_genes if n_regions is None else n_regions
            fits = n_genes >= 0 and n_regions >= 0 and n_genes + n_regions == n_vars
        if not fits:
            columns = f"the {n_vars} columns of X" + (f" and the {n_atac} of the regions" if n_atac else "")
            raise ArgumentError(f"n_genes={n_genes} and n_regions={n_regions} do not make {columns}.")
        self.init_params_["non_kwargs"] |= {"n_genes": n_genes, "n_regions": n_regions}
        return {
            "n_input_genes": n_genes,
            "n_input_regions": n_regions,
            "n_obs": stats.get("n_cells", 0) if self._adata is None else self._adata.n_obs,
            "use_size_factor_key": bool(stats.get("n_size_factor", 0)),
        }

    def _own_settings(self, recipe: str, asked: bool) -> Mapping[str, Any]:
        is_narrow = self.module is not None and self.module.n_hidden < NARROW
        return _OF_NARROW if is_narrow and recipe != "classic" else super()._own_settings(recipe, asked)

    @property
    def _of_mudata(self) -> bool:
        return self.registry_.get("setup_method_name") == "setup_mudata"

    @property
    def _has_regions_apart(self) -> bool:
        return REGISTRY_KEYS.ATAC_X_KEY in self.registry_["field_registries"]

    @property
    def _outputs(self) -> Sequence[Output]:  # type: ignore[override]  # regions lie elsewhere in an AnnData
        n_genes, n_regions, _ = self.module.n_inputs
        x, apart = REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.ATAC_X_KEY
        regions = (apart, slice(n_regions)) if self._has_regions_apart else (x, slice(n_genes, n_genes + n_regions))
        every = (
            Output("expression", "px", x, part=slice(n_genes)),
            Output("accessibility", "pa", regions[0], posterior.open_probability, part=regions[1]),
            Output("protein", "py", REGISTRY_KEYS.PROTEIN_EXP_KEY, foreground_of),
        )
        return [one for one, n in zip(every, self.module.n_inputs, strict=True) if n]

    train = training(
        {"max_epochs": 500, "lr": 1e-4},
        WHERE,
        SPLIT,
        {"batch_size": 128, "weight_decay": 1e-3, "eps": 1e-8},
        {"early_stopping": True, "check_val_every_n_epoch": None},
        {"n_steps_kl_warmup": None, "n_epochs_kl_warmup": 50, "adversarial_mixing": True},
        PASSED_ON,
        own={
            "adversarial_mixing": Argument(
                bool,
                "Whether a classifier that guesses the batch from the latents, if there are several, is to be misled.",
            )
        },
        fixed={"early_stopping_monitor": "reconstruction_loss_validation", "early_stopping_patience": 50},
        prepare=_train_settings,
    )

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        size_factor_key: Annotated[Sequence[str] | str | None, Several(Text())] = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        protein_expression_obsm_key: str | None = None,
        protein_names_uns_key: str | None = None,
    ) -> bundles.Fields:
        """Register an AnnData with counts of genes and, behind them, of regions. A MuData can say more of its cells.

        Parameters
        ----------
        size_factor_key
            Two columns of ``adata.obs``: size factors of genes, and those of regions, up to 1.
        protein_expression_obsm_key
            Entry of ``adata.obsm`` with counts of proteins.
        protein_names_uns_key
            Entry of ``adata.uns`` with their names; None: columns of the table.
        """
        fields: bundles.Fields = [
            *bundles.counts(layer),
            *bundles.batch(batch_key),
            *bundles.labels(None),
            NumericalJointObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, _names(size_factor_key), required=False),
            *bundles.covariates(categorical_covariate_keys, continuous_covariate_keys),
            RowNumberField(REGISTRY_KEYS.INDICES_KEY, "_indices"),
        ]
        if protein_expression_obsm_key is not None:
            key = REGISTRY_KEYS.PROTEIN_EXP_KEY
            where: dict[str, Any] = {"colnames_uns_key": protein_names_uns_key, "is_count_data": True}
            fields.append(ProteinObsmField(key, protein_expression_obsm_key, use_batch_mask=False, **where))
        return fields

    @classmethod
    @setup_method
    def setup_mudata(
        cls,
        mdata: Any,
        rna_layer: str | None = None,
        atac_layer: str | None = None,
        protein_layer: str | None = None,
        batch_key: str | None = None,
        size_factor_key: Annotated[Sequence[str] | str | None, Several(Text())] = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        idx_layer: str | None = None,
        modalities: dict[str, str] | None = None,
    ) -> bundles.Fields:
        """Register a MuData with counts of genes, of regions, of proteins, or of some of them.

        Not every modality needs to have all cells: which it has is what the MuData says, and a cell of zeros is one.

        Parameters
        ----------
        size_factor_key
            Two columns of ``obs``: size factors of genes, and those of regions, up to 1.
        idx_layer
            Accepted for compatibility with scvi-tools: rows are numbered by setup.
        """
        where = modalities or {}

        def of(argument: str, fields: bundles.Fields) -> bundles.Fields:
            return bundles.in_modality(where.get(argument), fields)

        categories, numbers = bundles.covariates(categorical_covariate_keys, continuous_covariate_keys)
        factors = NumericalJointObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, _names(size_factor_key), required=False)
        fields = [
            *of("batch_key", bundles.batch(batch_key)),
            *bundles.in_modality(None, bundles.labels(None)),
            *of("size_factor_key", [factors]),
            *of("categorical_covariate_keys", [categories]),
            *of("continuous_covariate_keys", [numbers]),
            *bundles.in_modality(None, [RowNumberField(REGISTRY_KEYS.INDICES_KEY, "_indices")]),
        ]
        proteins = ProteinLayerField(REGISTRY_KEYS.PROTEIN_EXP_KEY, protein_layer, use_batch_mask=False)
        fields += of("rna_layer", bundles.counts(rna_layer)) if "rna_layer" in where else []
        fields += of("atac_layer", [LayerField(REGISTRY_KEYS.ATAC_X_KEY, atac_layer)]) if "atac_layer" in where else []
        return fields + (of("protein_layer", [proteins]) if "protein_layer" in where else [])


def _names(keys: Sequence[str] | str | None) -> list[str] | None:
    return None if keys is None else listed(keys)
