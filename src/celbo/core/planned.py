"""What scvi-tools has by which name, so that a name that celbo does not have yet says so.

One table for all rooms. A name that exists in celbo is found before this table is asked, so rows need no upkeep: the
table is scvi-tools' public API of :data:`~celbo.core.SCVI_TOOLS_VERSION` whole, and what is missing is worked out.
"""

import difflib
import functools
import sys
from collections.abc import Callable, Mapping
from types import FrameType, MappingProxyType
from typing import Any

from .constants import SCVI_TOOLS_VERSION
from .lazy import load_name
from .rules import rules

__all__ = ["INSTEAD", "PUBLIC_API", "missing_name", "not_in_celbo_yet", "planned_names", "public_names", "stand_in"]

_NAMES = {
    "data": """
        AnnDataManager AnnDataManagerValidationCheck AnnTorchDataset add_dna_sequence annotation_simulation
        brainlarge_dataset breast_cancer_dataset cellxgene cortex dataset_10x frontalcortex_dropseq
        heart_cell_atlas_subsampled mouse_ob_dataset organize_cite_seq_10x organize_multiome_anndatas pbmc_dataset
        pbmc_seurat_v4_cite_seq pbmcs_10x_cite_seq poisson_gene_selection prefrontalcortex_starmap
        purified_pbmc_dataset read_10x_atac read_10x_multiome read_csv read_h5ad read_loom read_text
        reads_to_fragments retina smfish spleen_lymph_cite_seq synthetic_iid""",
    "data.fields": """
        AnnDataField BaseAnnDataField BaseMuDataWrapperClass CategoricalJointObsField CategoricalJointVarField
        CategoricalObsField CategoricalVarField LabelsWithUnlabeledObsField LayerField MuDataCategoricalJointObsField
        MuDataCategoricalJointVarField MuDataCategoricalObsField MuDataCategoricalVarField
        MuDataLabelsWithUnlabeledObsField MuDataLayerField MuDataNumericalJointObsField MuDataNumericalJointVarField
        MuDataNumericalObsField MuDataNumericalVarField MuDataObsmField MuDataProteinLayerField MuDataVarmField
        MuDataWrapper NumericalJointObsField NumericalJointVarField NumericalObsField NumericalVarField ObsmField
        ProteinObsmField StringUnsField VarmField""",
    "dataloaders": """
        AnnDataLoader AnnTorchDataset BatchDistributedSampler CollectionAdapter ConcatDataLoader DataSplitter
        DeviceBackedDataSplitter MappedCollectionDataModule SemiSupervisedDataLoader SemiSupervisedDataSplitter
        TileDBDataModule""",
    "distributions": """
        BetaBinomial JaxNegativeBinomialMeanDisp NegativeBinomial NegativeBinomialMixture Normal Poisson
        ZeroInflatedNegativeBinomial""",
    "nn": """
        Decoder DecoderSCVI DecoderTOTALVI Embedding Encoder EncoderTOTALVI FCLayers LinearDecoderSCVI MultiDecoder
        MultiEncoder""",
    "module": """
        AmortizedLDAPyroModule AutoZIVAE Classifier JaxVAE LDVAE MRDeconv MULTIVAE MlxVAE PEAKVAE SCANVAE TOTALVAE VAE
        VAEC""",
    "module.base": """
        BaseMinifiedModeModuleClass BaseModuleClass EmbeddingModuleMixin GaussianPrior JaxBaseModuleClass LossOutput
        MogPrior PyroBaseModuleClass SupervisedModuleClass TrainStateWithState VampPrior auto_move_data
        flax_configure""",
    "model": "AUTOZI AmortizedLDA CondSCVI DestVI JaxSCVI LinearSCVI MULTIVI PEAKVI SCANVI SCVI TOTALVI mlxSCVI",
    "model.base": """
        ArchesMixin BaseMinifiedModeModelClass BaseModelClass BaseMudataMinifiedModeModelClass DifferentialComputation
        EmbeddingMixin JaxTrainingMixin MlxTrainingMixin PyroJitGuideWarmup PyroModelGuideWarmup PyroSampleMixin
        PyroSviTrainMixin RNASeqMixin SemisupervisedTrainingMixin UnsupervisedTrainingMixin VAEMixin""",
    "model.utils": "get_minified_adata_scrna get_minified_mudata",
    "train": """
        AdversarialTrainingPlan AdversarialTrainingPlanConfig ClassifierTrainingPlan ClassifierTrainingPlanConfig
        JaxModuleInit JaxTrainingPlan JaxTrainingPlanConfig LoudEarlyStopping LowLevelPyroTrainingPlan
        LowLevelPyroTrainingPlanConfig METRIC_KEYS MlxTrainingPlan PyroTrainingPlan PyroTrainingPlanConfig
        SaveCheckpoint ScibCallback SemiSupervisedAdversarialTrainingPlan SemiSupervisedAdversarialTrainingPlanConfig
        SemiSupervisedTrainingPlan SemiSupervisedTrainingPlanConfig TrainRunner Trainer TrainerConfig TrainingPlan
        TrainingPlanConfig merge_kwargs""",
    "external": """
        CYTOVI CellAssign ContrastiveVI Decipher GIMVI JaxMRVI METHYLANVI METHYLVI MRVI POISSONVI RESOLVI RNAStereoscope
        SCAR SCBASSET SCVIVA SOLO SpatialStereoscope SysVI TOTALANVI Tangram TorchMRVI VELOVI""",
    "external.cellassign": "CellAssign CellAssignModule",
    "external.contrastivevi": "ContrastiveDataLoader ContrastiveDataSplitter ContrastiveVAE ContrastiveVI",
    "external.cytovi": """
        CYTOVI CYTOVI_REGISTRY_KEYS CytoVAE mask_markers merge_batches plot_biaxial plot_histogram read_fcs
        register_nan_layer scale subsample transform_arcsinh write_fcs""",
    "external.decipher": "Decipher DecipherPyroModule",
    "external.decipher.utils": "Trajectory rotate_decipher_components",
    "external.gimvi": "GIMVI JVAE",
    "external.methylvi": """
        BSSeqMixin BSSeqModuleMixin DecoderMETHYLVI METHYLANVAE METHYLANVI METHYLVAE METHYLVI
        METHYLVI_REGISTRY_KEYS""",
    "external.mrvi": "MRVI",
    "external.mrvi_jax": "JaxMRVAE JaxMRVI",
    "external.mrvi_torch": "TorchMRVAE TorchMRVI",
    "external.poissonvi": "POISSONVI",
    "external.resolvi": "RESOLVAE RESOLVI",
    "external.scar": "SCAR SCAR_VAE",
    "external.scbasset": "SCBASSET ScBassetModule",
    "external.scviva": "DirichletDecoder NicheDecoder NicheLossOutput SCVIVA SCVIVA_REGISTRY_KEYS nicheVAE",
    "external.scviva.differential_expression": "DifferentialExpressionResults adjusted_nearest_neighbors",
    "external.solo": "SOLO",
    "external.stereoscope": "RNADeconv RNAStereoscope SpatialDeconv SpatialStereoscope",
    "external.sysvi": "SysVAE SysVI",
    "external.tangram": "Tangram TangramMapper",
    "external.totalanvi": "TOTALANVI",
    "external.velovi": "VELOVAE VELOVI",
    "utils": """
        attrdict de_dsp dependencies device_selecting_PRNGKey error_on_missing_dependencies is_package_installed
        mlflow_log_artifact mlflow_log_table mlflow_log_text mlflow_logger setup_anndata_dsp track
        unsupported_if_adata_minified""",
    "criticism": "PosteriorPredictiveCheck create_criticism_report",
    "hub": "HubMetadata HubModel HubModelCardHelper",
    "autotune": "AutotuneExperiment ScibTuneReportCheckpointCallback run_autotune",
}

PUBLIC_API: Mapping[str, frozenset[str]] = {room: frozenset(names.split()) for room, names in _NAMES.items()}
"""Public module of scvi-tools, without the leading ``scvi.`` -> its public names."""

INSTEAD: Mapping[str, str] = {
    "scvi.dataloaders.CollectionAdapter": (
        "anndata.concat, or anndata.experimental.concat_on_disk and anndata.read_h5ad(file, backed='r') for more than "
        "fits into memory"
    ),
    "scvi.external.decipher.DecipherPyroModule": ("celbo.external.decipher.DecipherModule, which has no Pyro in it"),
    "scvi.module.AmortizedLDAPyroModule": "celbo.module.AmortizedLDAModule, which has no Pyro in it",
}
"""Public name of scvi-tools that will not come -> what to use."""

_IMPORT_STATEMENT = "importlib._bootstrap"


def not_in_celbo_yet(name: str) -> str:
    """Message for a public name or module of scvi-tools that celbo does not have."""
    if name in INSTEAD:
        return f"scvi-tools' {name} is not in celbo: use {INSTEAD[name]}."
    return (
        f"scvi-tools' {name} is not in celbo yet. docs/compatibility.md lists what is; "
        f"scvi-tools {SCVI_TOOLS_VERSION} itself reads what `celbo export` writes."
    )


def missing_name(message: str, name: str, module: str, asked_by: FrameType) -> Exception:
    """The error for a name that a module does not have.

    Parameters
    ----------
    message
        Why not.
    name, module
        What was asked for, and of which module.
    asked_by
        Frame that called the module's ``__getattr__``.

    Returns
    -------
    An ``AttributeError``, so that ``hasattr`` works; an ``ImportError`` where a ``from ... import`` asks, because
    Python would replace the message of the other by one of its own.
    """
    if asked_by.f_globals.get("__name__") == _IMPORT_STATEMENT:
        return ImportError(message, name=module)
    return AttributeError(message, name=name)


def planned_names(module: str, homes: Mapping[str, str] = MappingProxyType({})) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose names load when they are first named, or are still to come.

    Parameters
    ----------
    module
        ``__name__`` of the package.
    homes
        Name -> the module below the package that has it, for those that the package does not load itself.

    Returns
    -------
    A function that gives the names of ``homes``, raises for every other one, and tells what scvi-tools has from what
    nobody has; see :func:`missing_name`. Where scvi-tools' :class:`~celbo.core.rules.Rules` hold it gives a
    :func:`stand_in` for what scvi-tools has: code written for it names much and may use little, and should fail where
    it uses what is missing.
    """
    room = module.partition(".")[2]

    def __getattr__(name: str) -> Any:
        if name in homes:
            return load_name(module, homes[name], name)
        if name not in PUBLIC_API.get(room, ()):
            raise AttributeError(_no_attribute(module, name), name=name)
        full_name = f"scvi.{room}.{name}"
        if rules().stand_ins:
            return stand_in(full_name)
        raise missing_name(not_in_celbo_yet(full_name), name, module, sys._getframe(1))

    return __getattr__


def _no_attribute(module: str, name: str) -> str:
    """Python's own words, and the nearest public name."""
    public = () if name.startswith("_") else vars(sys.modules[module]).get("__all__", ())
    near = {known.lower(): known for known in public}
    found = difflib.get_close_matches(name.lower(), near, n=1)
    return f"module {module!r} has no attribute {name!r}" + (f". Did you mean {near[found[0]]!r}?" if found else "")


def public_names(module: str) -> Callable[[], list[str]]:
    """The ``__dir__`` of a package: its public names and loaded packages, not its files nor what they import.

    Parameters
    ----------
    module
        ``__name__`` of the package.
    """

    def __dir__() -> list[str]:
        package = sys.modules[module]
        loaded = {name: sys.modules.get(f"{module}.{name}") for name in vars(package) if not name.startswith("_")}
        below = [name for name, found in loaded.items() if hasattr(found, "__path__")]
        return sorted({*package.__all__, *below, *(name for name in vars(package) if name.startswith("__"))})

    return __dir__


class _Missing(type):
    """Class of stand-ins: making an instance, or asking for anything public, says what is missing."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(cls.__doc__)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise NotImplementedError(cls.__doc__)


@functools.cache
def stand_in(full_name: str) -> type:
    """A class under a missing name, which may be named and subclassed; using it is a ``NotImplementedError``."""
    return _Missing(full_name.rpartition(".")[2], (), {"__doc__": not_in_celbo_yet(full_name)})
