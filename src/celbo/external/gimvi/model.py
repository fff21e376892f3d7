"""GIMVI: genes that were not measured in space, imputed from dissociated cells of the same tissue.

Reference: Lopez et al., *A joint model of unpaired data from scRNA-seq and spatial transcriptomics for imputing missing
gene expression measurements*, ICML workshop on computational biology 2019.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import REGISTRY_KEYS, ArgumentError
from ...core.kinds import Number
from ...data import AnnDataManager, state_registry_of, summary_stats_of
from ...data.fields import bundles
from ...data.library import library_size_moments
from ...dataloaders.some import some_cells
from ...dataloaders.two_sets import TwoSetsSplitter
from ...model.base import UnsupervisedTrainingMixin, archives, setup_method
from ...model.base.made_with import given_arguments
from ...model.base.several import SeveralSetsMixin
from ...train.method import PASSED_ON, SPLIT, WHERE, Argument, training
from ...train.plans.schedules import max_epochs_classic
from ...train.recipes import default_recipe
from .module import JVAE
from .plan import TwoSetsPlan
from .verbs import GimviMixin

__all__ = ["GIMVI"]

_NAMES = ("seq", "spatial")
_SHOWN = 5
_KAPPA = Argument(
    Annotated[float, Number(0)], "Weight of the adversary that guesses which data set a cell is of; 0: none.", "plan"
)
_COUNTS = ("zinb", "nb", "poisson")


_STEPS, _SHARE = 125, 3 / 40
_CELLS_A_BATCH, _FEW_A_BATCH = 128, 64


def _epochs(n_cells: Sequence[int]) -> tuple[int, int]:
    """Epochs and cells a minibatch for so many cells in each set.

    At least 125 steps, each of both sets, and 3 in 40 of ``classic``'s epochs; of so few cells that it is the steps
    that decide, these are steps of half as many cells.
    """
    share = math.ceil(_SHARE * max_epochs_classic(sum(n_cells)))

    def for_steps(size: int) -> int:
        return math.ceil(_STEPS / max(1, math.ceil(0.9 * max(n_cells) / size)))

    size = _CELLS_A_BATCH if for_steps(_CELLS_A_BATCH) <= share else _FEW_A_BATCH
    return max(for_steps(size), share), size


def _two_sets(model: "GIMVI", options: dict[str, Any]) -> dict[str, Any]:
    """Hand the second data set to the splitter, and the adversary's settings to the plan; a new model begins with
    what its dissociated cells say, but by the classic recipe.
    """
    is_classic = (options["recipe"] or default_recipe(type(model))) == "classic"
    if model.adatas and not model.is_trained and not is_classic:
        model.module.start_from(some_cells(model.adata_managers["seq"]))
        if options["max_epochs"] is None and options["recipe"] == type(model)._recipe and model.surgery_ is None:
            n_epochs, size = _epochs([adata.n_obs for adata in model.adatas])
            size = size if options["batch_size"] == _CELLS_A_BATCH else options["batch_size"]
            options = options | {"max_epochs": n_epochs, "batch_size": size}
    of_splitter = {"second_manager": model.adata_managers["spatial"], "names": ("dissociated", "spatial")}
    of_splitter |= options.get("datasplitter_kwargs") or {}
    plan = {"scale_adversarial_loss": options.pop("kappa")} | dict(options.pop("plan_kwargs") or {})
    return options | {"datasplitter_kwargs": of_splitter, "plan_kwargs": plan}


class GIMVI(GimviMixin, UnsupervisedTrainingMixin, SeveralSetsMixin):
    r"""Autoencoder of dissociated and spatial cells in one latent space, which imputes genes not measured in space.

    .. math:: x_{ng} \sim \mathrm{NB}\Bigl(\ell_n \frac{\exp f_g(z_n)}{\sum_{h \in G_d} \exp f_h(z_n)},
              \theta_{g b_n}\Bigr), \qquad z_n \sim N(0, I)

    with the genes :math:`G_d` of the data set of cell n, and an adversary that cannot tell by :math:`z_n` which it is.

    Parameters
    ----------
    adata_seq, adata_spatial
        Dissociated and spatial cells, both set up with :meth:`setup_anndata`. The genes of the second are among those
        of the first.
    generative_distributions
        ``"zinb"``, ``"nb"`` or ``"poisson"`` of the counts of each; None: ``["zinb", "nb"]``.
    model_library_size
        Whether the library size of each is a latent variable; None: ``[True, False]``.
    n_latent
        Number of latents.
    **model_kwargs
        Further arguments of :class:`~celbo.external.gimvi.JVAE`.

    Raises
    ------
    ArgumentError
        Spatial genes that the dissociated cells lack, or genes of the same name.

    Examples
    --------
    >>> import celbo
    >>> seq, spatial = (celbo.data.synthetic_iid(n_genes=30, seed=seed) for seed in (0, 1))
    >>> spatial = spatial[:, :20].copy()
    >>> for adata in (seq, spatial):
    ...     celbo.external.GIMVI.setup_anndata(adata, batch_key="batch")
    >>> model = celbo.external.GIMVI(seq, spatial)
    >>> model.train(max_epochs=2, verbose=0)
    >>> model.get_imputed_values()[1].shape
    (400, 30)
    """

    _module_cls: ClassVar[type[JVAE]] = JVAE
    _data_splitter_cls: ClassVar[type] = TwoSetsSplitter
    _training_plan_cls: ClassVar[type[TwoSetsPlan]] = TwoSetsPlan
    _recipe: ClassVar[str | None] = "brief_cycle"  # more epochs impute no better, see docs/models/gimvi.md
    _own_recipe: ClassVar[Mapping[str, Any]] = {"max_epochs": None}
    _renamed: ClassVar[Mapping[str, str | None]] = {
        "generative_distributions": "gene_likelihoods",
        "model_library_size": "model_library_bools",
    }

    def __init__(
        self,
        adata_seq: AnnData,
        adata_spatial: AnnData | None = None,
        generative_distributions: list[str] | None = None,
        model_library_size: list[bool] | None = None,
        n_latent: int = 10,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata_seq)
        self._take_spatial(adata_spatial)
        self._build_module()

    def _take_spatial(self, adata_spatial: AnnData | None) -> None:
        """Keep the second data set next to the first; a model without data has its registry only."""
        self.adatas: list[AnnData] = []
        if self._adata is not None:
            if adata_spatial is None:
                raise ValueError("GIMVI needs the spatial cells too: GIMVI(adata_seq, adata_spatial).")
            self.adatas = [self._adata, adata_spatial]
        self._take_sets(dict(zip(_NAMES, self.adatas, strict=False)))

    @property
    def set_names(self) -> list[str]:
        """``["seq", "spatial"]``."""
        return list(_NAMES)

    def _categories(self, key: str) -> list[list[Any]]:
        return [list(state_registry_of(one, key)["categorical_mapping"]) for one in self.registries_]

    def _computed_arguments(self) -> dict[str, Any]:
        given = given_arguments(self)
        names = [pd.Index(part) for part in self.get_var_names().values()]
        labels, n_batches = self._categories(REGISTRY_KEYS.LABELS_KEY), self._n_batches()
        every_label = list(dict.fromkeys(label for part in labels for label in part))
        likelihoods = _two(given["generative_distributions"], ("zinb", "nb"), "generative_distributions", _COUNTS)
        latent = _two(given["model_library_size"], (True, False), "model_library_size", (True, False))
        means, variances = zip(*(self._library(mode) if latent[mode] else (None, None) for mode in (0, 1)), strict=True)
        return {
            "dim_input_list": [len(part) for part in names],
            "total_genes": len(names[0]),
            "indices_mappings": [slice(None), _places(*names)],
            "gene_likelihoods": likelihoods,
            "model_library_bools": latent,
            "library_log_means": list(means),
            "library_log_vars": list(variances),
            "n_batch": sum(n_batches),
            "n_labels": len(every_label),
            "batch_codes": [range(n_batches[0]), range(n_batches[0], sum(n_batches))],
            "label_codes": [[every_label.index(label) for label in part] for part in labels],
        }

    def _n_batches(self) -> list[int]:
        return [summary_stats_of(one)["n_batch"] for one in self.registries_]

    def _library(self, mode: int) -> tuple[np.ndarray, np.ndarray]:
        """Moments of the log library in each batch of both data sets, ``(1, b)``; those of the other have none."""
        n_batches = self._n_batches()
        means, variances = np.zeros((1, sum(n_batches)), np.float32), np.ones((1, sum(n_batches)), np.float32)
        if self.adatas:
            manager = self.adata_managers[_NAMES[mode]]
            x, batch_n = (manager.get_from_registry(key) for key in (REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.BATCH_KEY))
            own = slice(mode * n_batches[0], n_batches[0] + mode * n_batches[1])
            means[:, own], variances[:, own] = library_size_moments(x, np.asarray(batch_n), n_batches[mode])
        return means, np.where(variances > 0, variances, 1.0)  # a batch of one cell has no spread

    train = training(
        {"max_epochs": 200},
        WHERE,
        {"kappa": 5},
        SPLIT,
        {"batch_size": _CELLS_A_BATCH},
        PASSED_ON,
        own={"kappa": _KAPPA},
        prepare=_two_sets,
    )

    @classmethod
    def _replay_setup(cls, adata: Any, registry: Mapping[str, Any], **kwargs: Any) -> AnnDataManager:
        if isinstance(adata, tuple):
            return cls._replay_setups(adata, registry, **kwargs)
        return super()._replay_setup(adata, registry, **kwargs)

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str | None = None,
        labels_key: str | None = None,
        layer: str | None = None,
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register dissociated cells or spatial ones: call it once for each data set."""
        return bundles.counts(layer, use_raw) + bundles.batch(batch_key) + bundles.labels(labels_key)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        dir_path: str,
        adata_seq: AnnData | bool | None = None,
        adata_spatial: AnnData | None = None,
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
        adata_seq, adata_spatial
            Data to go on with; None: those saved beside the model, if there are any; ``adata_seq=False``: none.

        Raises
        ------
        ValueError
            Only one of the data sets.

        Examples
        --------
        >>> model.save("trained")
        >>> celbo.external.GIMVI.load("trained", seq, spatial).is_trained
        True
        """
        data: Any = (adata_seq, adata_spatial)
        if adata_seq is None and adata_spatial is None:
            data = tuple((cls._sets_beside(dir_path, prefix, _NAMES) or {}).values())
        given = [one for one in data if one is not None and one is not False]
        if len(given) == 1:
            raise ValueError("GIMVI.load takes both data sets, or none: adata_seq= and adata_spatial=.")
        return archives.load_model(cls, dir_path, data if given else False, accelerator, device, prefix or "", None)


def _two(given: Sequence[Any] | None, default: Sequence[Any], name: str, known: Sequence[Any]) -> list[Any]:
    """An argument of each data set."""
    values = list(default if given is None else given)
    if len(values) != 2 or any(value not in known for value in values):
        listed = ", ".join(map(repr, known))
        raise ArgumentError(
            f"{name} must be 2 of {listed}: of the dissociated cells, of the spatial ones. Got {given!r}."
        )
    return values


def _places(seq: pd.Index, spatial: pd.Index) -> np.ndarray:
    """Place of each spatial gene among the genes of the dissociated cells."""
    for name, genes in zip(_NAMES, (seq, spatial), strict=True):
        if not genes.is_unique:
            twice = genes[genes.duplicated()][0]
            raise ArgumentError(f"adata_{name} has {twice!r} more than once: adata.var_names_make_unique() first.")
    missing = spatial.difference(seq, sort=False)
    if len(missing):
        shown = ", ".join(map(str, missing[:_SHOWN])) + (" ..." if len(missing) > _SHOWN else "")
        raise ArgumentError(
            f"adata_seq lacks {len(missing)} of the {len(spatial)} genes of adata_spatial: {shown}. Leave them out, "
            "adata_spatial[:, adata_spatial.var_names.isin(adata_seq.var_names)].copy(), and set that up; or spell "
            "genes alike in both."
        )
    return seq.get_indexer(spatial)
