"""DIAGVI: two modalities measured in different cells, in one latent space by features that go together.

Reference: Cao and Gao, *Multi-omics single-cell data integration and regulatory inference with graph-linked embedding*,
Nature Biotechnology 2022, for the guidance graph; the model is scvi-tools', of 2026.

For the alignment: Sejourne, Feydy, Vialard, Trouve and Peyre, *Sinkhorn divergences for unbalanced optimal transport*,
2019.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import pandas as pd
from anndata import AnnData

from ...core import REGISTRY_KEYS, ArgumentError, checked, unknown_name
from ...core.kinds import Instance, Number, Whole
from ...data import AnnDataManager, summary_stats_of
from ...data.access import is_mudata
from ...data.fields import LabelsWithUnlabeledObsField, bundles
from ...dataloaders.two_sets import TwoSetsSplitter
from ...model.base import UnsupervisedTrainingMixin, archives, setup_method
from ...model.base.face import kept_manager
from ...model.base.made_with import noted_arguments
from ...train.method import PASSED_ON, WHERE, training
from .fields import data_field
from .graph import GuidanceGraph, graph_of_names, graph_of_table, graph_of_tensors
from .layers import Likelihood
from .module import DIAGVAE
from .plan import DiagTrainingPlan
from .recipe import STOPPING, WARM_START, train_settings
from .verbs import DiagviMixin

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["DIAGVI"]

OfEach = Annotated[
    Any,
    Instance("one value, or one by the name of each modality", lambda one: isinstance(one, str | bool | int | Mapping)),
]


class DIAGVI(UnsupervisedTrainingMixin, DiagviMixin):
    r"""Cells of two modalities in one latent space, in which a cell's data are linear in its features' vectors, and the
    vectors of features that go together look alike.

    .. math:: x_{ng} \sim p_m(a_{b_n g}\, z_n^\top v_g + \beta_{b_n g}), \qquad z_n \sim N(0, I), \quad v_g \sim N(0, I)

    with a guidance graph for :math:`v`, and the cells of both modalities brought together by optimal transport.

    Parameters
    ----------
    adatas
        Name of the modality -> AnnData, two of them, each set up with :meth:`setup_anndata`; or a MuData set up with
        :meth:`setup_mudata`. Their cells are others.
    guidance_graph
        Which features go together: what :meth:`construct_custom_guidance_graph` gives, or a graph of torch_geometric
        with ``edge_index``, ``edge_weight``, ``edge_sign`` and ``NAME_indices`` of each modality. None: from
        ``mapping_df``, else features of the same name.
    mapping_df
        A column for each modality, a row for each pair of features that go together.
    n_latent
        Number of latents.
    n_hidden, n_layers, dropout_rate
        Size and number of hidden layers of the encoders, and their dropout.
    **model_kwargs
        Further arguments of :class:`~celbo.external.diagvi.DIAGVAE`.

    Raises
    ------
    ArgumentError
        Not two modalities, no feature in common, a graph of other features.

    Examples
    --------
    >>> import celbo
    >>> rna, atac = (celbo.data.synthetic_iid(batch_size=40, n_genes=20, seed=seed) for seed in (0, 1))
    >>> celbo.external.DIAGVI.setup_anndata(rna, batch_key="batch", labels_key="labels")
    >>> celbo.external.DIAGVI.setup_anndata(atac, batch_key="batch")
    >>> model = celbo.external.DIAGVI({"rna": rna, "atac": atac}, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0)
    >>> model.get_latent_representation()["atac"].shape
    (80, 5)
    """

    _module_cls: ClassVar[type[DIAGVAE]] = DIAGVAE
    _data_splitter_cls: ClassVar[type] = TwoSetsSplitter
    _training_plan_cls: ClassVar[type[DiagTrainingPlan]] = DiagTrainingPlan
    _recipe: ClassVar[str | None] = "short_cycle"
    _own_recipe: ClassVar[Mapping[str, Any]] = {"lr": 1e-2, "early_stopping": False}

    def __init__(
        self,
        adatas: "dict[str, AnnData] | MuData",
        guidance_graph: Any = None,
        mapping_df: pd.DataFrame | None = None,
        n_latent: int = 50,
        n_hidden: int = 256,
        n_layers: int = 2,
        dropout_rate: float = 0.1,
        **model_kwargs: Any,
    ) -> None:
        self.adatas = {} if adatas is None else self._named(adatas)
        super().__init__(next(iter(self.adatas.values()), None))
        self._names = list(self.adatas or guidance_graph["features"])
        self._take_sets(self.adatas)
        self.guidance_graph = self._graph(guidance_graph, mapping_df)
        noted_arguments(self)["non_kwargs"] |= {"guidance_graph": self.guidance_graph.arguments(), "mapping_df": None}
        self._build_module()
        modalities = ", ".join(f"{name} ({one})" for name, one in self.module.likelihoods.items())
        self._model_summary_string = (
            f"DIAGVI model of {modalities} with {n_latent} latents and the {self.guidance_graph!r}."
        )

    @property
    def set_names(self) -> list[str]:
        """Names of the two modalities."""
        return list(self._names)

    @classmethod
    def _named(cls, adatas: Any) -> dict[str, AnnData]:
        """The two data sets by name; of a MuData the modalities that were set up."""
        if is_mudata(adatas):
            adatas = {name: adata for name, adata in adatas.mod.items() if kept_manager(cls, adata) is not None}
            if len(adatas) != 2:
                raise ArgumentError(
                    f"{len(adatas)} modalities of this MuData were set up, and DIAGVI takes 2: "
                    "DIAGVI.setup_mudata(mdata, modalities=[first, second])."
                )
        if not isinstance(adatas, Mapping) or len(adatas) != 2:
            raise ArgumentError(
                'adatas must be two AnnDatas by the names of their modalities: {"rna": ..., "protein": ...}.'
            )
        for name in adatas:
            if not isinstance(name, str) or not name.isidentifier():
                raise ArgumentError(f"A modality must have a name of letters, digits and _, got {name!r}: rename it.")
        return dict(adatas)

    def _graph(self, given: Any, table: pd.DataFrame | None) -> GuidanceGraph:
        features = self.get_var_names()
        if given is not None:
            return graph_of_tensors(given, features)
        return graph_of_names(features) if table is None else graph_of_table(features, table)

    def _computed_arguments(self) -> dict[str, Any]:
        of = dict(zip(self._names, self.registries_, strict=True))
        args, stats = ({name: part(one) for name, one in of.items()} for part in (_setup_args, summary_stats_of))
        labelled = {name: one["labels_key"] is not None for name, one in args.items()}
        n_labels = {name: stats[name]["n_labels"] - labelled[name] for name in of}  # cells without a label have a code
        for name in of:
            if n_labels[name] < 1:
                raise ArgumentError(f"No cell of {name!r} has a label: set it up without labels_key.")
        return {
            "n_inputs": {name: one["n_vars"] for name, one in stats.items()},
            "n_batches": {name: one["n_batch"] for name, one in stats.items()},
            "n_labels": n_labels,
            "modality_likelihoods": {name: one["likelihood"] for name, one in args.items()},
            "normalize_lib": {name: one["normalize_lib"] for name, one in args.items()},
            "guidance_graph": self.guidance_graph,
            "use_gmm_prior": {name: one["gmm_prior"] for name, one in args.items()},
            "semi_supervised": labelled,
            "n_mixture_components": {name: one["n_mixture_components"] for name, one in args.items()},
        }

    train = training(
        {"max_epochs": None, "lr": 1e-3, "batch_size": 256, "train_size": 0.9},
        WHERE,
        {"shuffle_set_split": True},
        PASSED_ON,
        own={"warm_start": WARM_START},
        fixed=STOPPING,
        prepare=train_settings,
    )

    @staticmethod
    @checked
    def construct_custom_guidance_graph(
        input_dict: Mapping[str, AnnData],
        mapping_df: pd.DataFrame,
        weight: Annotated[float, Number(0, 1, above=True)] = 1.0,
        sign: Annotated[float, Number(-1, 1)] = 1.0,
    ) -> GuidanceGraph:
        """The guidance graph of a table of pairs.

        Parameters
        ----------
        input_dict
            AnnDatas by the names of their modalities.
        mapping_df
            A column for each modality, a row for each pair of features that go together. Rows with a feature that the
            data lack are left out, which is logged.
        weight
            How sure these pairs are, up to 1.
        sign
            1 where the features of a pair rise together, -1 where one falls.

        Raises
        ------
        ArgumentError
            No column for a modality, or no row with features of both.

        Examples
        --------
        >>> import pandas as pd
        >>> pairs = pd.DataFrame({"rna": rna.var_names[:2], "atac": atac.var_names[:2]})
        >>> celbo.external.DIAGVI.construct_custom_guidance_graph({"rna": rna, "atac": atac}, pairs)
        GuidanceGraph(rna: 20, atac: 20 features; 4 edges between them)
        """
        features = {name: adata.var_names.to_numpy() for name, adata in input_dict.items()}
        return graph_of_table(features, mapping_df, weight, sign)

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        likelihood: Likelihood = "nb",
        normalize_lib: bool = True,
        gmm_prior: bool = False,
        n_mixture_components: Annotated[int, Whole(1)] = 10,
        unlabeled_category: str = "unknown",
    ) -> bundles.Fields:
        """Register the cells of a modality: each has a call of its own.

        Parameters
        ----------
        likelihood
            Of counts ``"nb"``, ``"zinb"`` or ``"nbmixture"`` (background and foreground); of measured values
            ``"normal"``, ``"log1pnormal"``, ``"ziln"`` (log-normal with added zeros) or ``"zig"`` (gamma with them).
        normalize_lib
            Whether a normal likelihood is of shares of the cell's total; counts always are, other values never.
        gmm_prior
            Whether the prior of the latents is a mixture of normal distributions, with labels one for each.
        n_mixture_components
            How many, without labels.
        unlabeled_category
            The label of cells that have none.
        """
        labels = bundles.labels(None)
        if labels_key is not None:
            labels = [LabelsWithUnlabeledObsField(REGISTRY_KEYS.LABELS_KEY, labels_key, unlabeled_category)]
        return [*data_field(layer, likelihood, normalize_lib), *bundles.batch(batch_key), *labels]

    @classmethod
    def setup_mudata(
        cls,
        mdata: "MuData",
        modalities: list[str],
        batch_key: OfEach | None = None,
        labels_key: OfEach | None = None,
        layer: OfEach | None = None,
        likelihood: OfEach = "nb",
        normalize_lib: OfEach = True,
        gmm_prior: OfEach = False,
        n_mixture_components: OfEach = 10,
        unlabeled_category: OfEach = "unknown",
    ) -> None:
        """Register two modalities of a MuData, each as :meth:`setup_anndata` does.

        Parameters
        ----------
        mdata
            The MuData. Its modalities need not share cells.
        modalities
            Names of the two.
        batch_key, labels_key, layer, likelihood, normalize_lib, gmm_prior, n_mixture_components, unlabeled_category
            As there, for both modalities, or by the name of the modality; one that a name lacks is as the default.

        Raises
        ------
        ArgumentError
            The MuData has no such modality; the nearest is named.
        """
        given = {
            "batch_key": batch_key,
            "labels_key": labels_key,
            "layer": layer,
            "likelihood": likelihood,
            "normalize_lib": normalize_lib,
            "gmm_prior": gmm_prior,
            "n_mixture_components": n_mixture_components,
            "unlabeled_category": unlabeled_category,
        }
        for name in modalities:
            if name not in mdata.mod:
                raise ArgumentError(unknown_name("modality", name, mdata.mod))
        for name in modalities:
            of_name = {key: {name: one} if not isinstance(one, Mapping) else one for key, one in given.items()}
            own = {key: one[name] for key, one in of_name.items() if name in one}
            cls.setup_anndata(mdata.mod[name], **own)

    @classmethod
    def _replay_setup(cls, adata: Any, registry: Mapping[str, Any], **kwargs: Any) -> AnnDataManager:
        if isinstance(adata, Mapping):
            return cls._replay_setups(adata.values(), registry, **kwargs)
        return super()._replay_setup(adata, registry, **kwargs)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        dir_path: str,
        adatas: Any = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        backup_url: str | None = None,
    ) -> Self:
        """Read a model from an archive.

        Parameters
        ----------
        dir_path, accelerator, device, prefix, backup_url
            As in :meth:`BaseModelClass.load <celbo.model.base.BaseModelClass.load>`.
        adatas
            Data to go on with, by the name of their modality; None: those saved beside the model, if there are any;
            False: none.

        Raises
        ------
        ArgumentError
            Data without a modality of the model.

        Examples
        --------
        >>> model.save("both")
        >>> celbo.external.DIAGVI.load("both", {"rna": rna, "atac": atac}).set_names
        ['rna', 'atac']
        """
        names = list(archives.read_saved(dir_path, prefix or "").init_kwargs["guidance_graph"]["features"])
        if adatas is None:
            adatas = cls._sets_beside(dir_path, prefix, names)
        if adatas:
            given = dict(adatas.mod.items() if is_mudata(adatas) else adatas)
            for name in names:
                if name not in given:
                    raise ArgumentError(unknown_name("modality of this model in adatas", name, given))
            adatas = {name: given[name] for name in names}
        return archives.load_model(cls, dir_path, adatas or False, accelerator, device, prefix or "", None)


def _setup_args(registry: Mapping[str, Any]) -> Mapping[str, Any]:
    args: Mapping[str, Any] = registry["setup_args"]
    return args
