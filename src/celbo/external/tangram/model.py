"""Tangram: where the cells of a reference lie in a tissue, and with them all their genes and labels.

Reference: Biancalani, Scalia, Buffoni, Avasthi, Lu, Sanger, Tokcan, Vanderburg, Segerstolpe, Zhang, Avraham-Davidi,
Vickovic, Nitzan, Ma, Subramanian, Lipinski, Buenrostro, Brown, Fanelli, Zhuang, Macosko and Regev, *Deep learning and
alignment of spatially resolved single-cell transcriptomes with Tangram*, Nature Methods 2021.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NoReturn

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData

from ...core import REGISTRY_KEYS, ArgumentError
from ...core.kinds import Text, Whole
from ...data.fields import NumericalObsField, bundles
from ...data.fields.values import ValuesField
from ...dataloaders.base import DataModule
from ...model.base import BaseModelClass, UnsupervisedTrainingMixin, setup_method
from ...train.method import WHERE, Argument, training
from ...train.recipes import default_recipe
from .module import TangramMapper
from .projecting import project_cell_annotations, project_genes

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["DENSITY_KEY", "SPATIAL_KEY", "Tangram"]

SPATIAL_KEY, DENSITY_KEY = "Y", "DENSITY"
"""Registry keys of the expression of spots, and of the density of cells in them."""

_COMPUTED = {"rna_count_based": "rna_count_based_density", "uniform": "uniform_density"}
_ONE = 1e-3
_WARM_START = Argument(
    bool | int | None,
    "Begin with non-negative least squares, 30 rounds of it or so many, rather than at random. None: unless training "
    'goes on, or by ``recipe="classic"``.',
)


class _DensityField(NumericalObsField):
    """Density of cells in the spots, in a column of theirs that cells do not have.

    Parameters
    ----------
    density
        The column; ``"rna_count_based"`` or ``"uniform"``: setup writes one; None: no prior.
    layer
        Layer with the counts of spots.
    """

    def __init__(self, density: str | None, layer: str | None) -> None:
        super().__init__(DENSITY_KEY, _COMPUTED.get(density or "", density), required=False)
        self.computed, self.layer = density if density in _COMPUTED else None, layer

    @property
    def obs_columns(self) -> list[str]:
        """None that all cells of the MuData have."""
        return []

    def validate_field(self, adata: AnnData) -> None:
        """Write what is to be computed, and look at the column."""
        if self.computed is not None and adata.n_obs:
            total_s = np.ones(adata.n_obs)
            if self.computed != "uniform":
                x = adata.X if self.layer is None else adata.layers[self.layer]
                total_s = np.asarray(x.sum(1), dtype=float).ravel()
            adata.obs[self.attr_key] = total_s / total_s.sum()
        super().validate_field(adata)


class _AllAtOnce(DataModule):
    """One empty minibatch per epoch: the module holds the cells and spots, and none is held out."""

    n_obs = n_train = 1

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Whatever a splitter is told has no effect."""

    def train_dataloader(self) -> list[dict[str, torch.Tensor]]:
        """The minibatch."""
        return [{"step": torch.zeros(1, 1)}]

    def val_dataloader(self) -> None:
        """Nothing is held out."""


def _prepared(model: "Tangram", options: dict[str, Any]) -> dict[str, Any]:
    """Begin near the end, where that is asked for or a new model is trained."""
    wanted = options.pop("warm_start")
    if model.adata is None:
        raise ValueError("This Tangram was loaded without data: load it with its MuData to train on.")
    is_classic = (options["recipe"] or default_recipe(type(model))) == "classic"
    if wanted or (wanted is None and not model.is_trained and not is_classic):
        model.module.start_from_least_squares(*([] if wanted in (None, True) else [int(wanted)]))
    return options


class Tangram(UnsupervisedTrainingMixin, BaseModelClass):
    r"""Mapping of single cells onto the spots of a tissue: the one under which the genes of the cells look most alike
    those of the spots.

    .. math:: \max_M \frac{1}{g} \sum_g \cos\bigl((M^\top S)_{\cdot g}, G_{\cdot g}\bigr), \qquad
              M_{ns} \ge 0, \quad \textstyle\sum_s M_{ns} = 1

    Parameters
    ----------
    sc_adata
        MuData of cells and spots, set up with :meth:`setup_mudata`.
    constrained
        Whether only some of the cells are to be kept.
    target_count
        How many; None: as many as spots.
    **model_kwargs
        Further arguments of :class:`~celbo.external.tangram.TangramMapper`: ``lambda_g1``, ``lambda_d``,
        ``cell_weights``, ...

    Raises
    ------
    ArgumentError
        Genes that one of the two lacks; a density that does not sum to 1.

    Examples
    --------
    >>> import celbo, mudata, warnings
    >>> cells, spots = (celbo.data.synthetic_iid(batch_size=n, n_genes=20, seed=n) for n in (20, 15))
    >>> spots.obs_names = "spot_" + spots.obs_names
    >>> with mudata.set_options(pull_on_update=False), warnings.catch_warnings(action="ignore"):  # of names in both
    ...     mdata = mudata.MuData({"sc": cells, "sp": spots})
    >>> where = {"sc_layer": "sc", "sp_layer": "sp", "density_prior_key": "sp"}
    >>> celbo.external.Tangram.setup_mudata(mdata, modalities=where)
    >>> model = celbo.external.Tangram(mdata)
    >>> model.train(max_epochs=5, verbose=0)
    >>> model.get_mapper_matrix().shape
    (40, 30)
    """

    _module_cls: ClassVar[type[TangramMapper]] = TangramMapper
    _data_splitter_cls: ClassVar[type] = _AllAtOnce
    _modalities_may_lack_cells: ClassVar[bool] = True
    _modalities_are_linked: ClassVar[bool] = False  # cells and spots are others
    _own_recipe: ClassVar[Mapping[str, Any]] = {"max_epochs": 100}
    _plan_defaults: Mapping[str, Any] = {"eps": 1e-8, "weight_decay": 0.0}

    def __init__(
        self,
        sc_adata: "MuData",
        constrained: bool = False,
        target_count: Annotated[int | None, Whole(1)] = None,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(sc_adata)
        self._build_module(**({} if "lambda_d" in model_kwargs else {"lambda_d": float(self._has_density)}))
        if self.adata is not None:
            self.module.take_data(*self._expression(), self._density())

    @property
    def _has_density(self) -> bool:
        return bool(self.registry_["field_registries"].get(DENSITY_KEY, {}).get("data_registry"))

    def _computed_arguments(self) -> dict[str, Any]:
        fields = self.registry_["field_registries"]
        sizes = (fields[key]["state_registry"]["n_obs"] for key in (REGISTRY_KEYS.X_KEY, SPATIAL_KEY))
        return dict(zip(("n_obs_sc", "n_obs_sp"), sizes, strict=True))

    def _expression(self) -> tuple[np.ndarray, np.ndarray]:
        """Expression of cells and of spots, the genes of both in the order of the cells'."""
        names, of_spots = (
            list(self.get_state_registry(key)["column_names"]) for key in (REGISTRY_KEYS.X_KEY, SPATIAL_KEY)
        )
        lacking = [("spots", set(names) - set(of_spots)), ("cells", set(of_spots) - set(names))]
        for where, missing in lacking:
            if missing:
                first = ", ".join(sorted(missing)[:5])
                raise ArgumentError(
                    f"The {where} lack {len(missing)} genes that are to be mapped by ({first}): give both "
                    "modalities the genes that both have, adata[:, genes].copy()."
                )
        cells, spots = (_dense(self.data_registry(key)) for key in (REGISTRY_KEYS.X_KEY, SPATIAL_KEY))
        place = {name: i for i, name in enumerate(of_spots)}
        return cells, spots[:, [place[name] for name in names]]

    def _density(self) -> np.ndarray | None:
        if not self._has_density:
            return None
        density_s = np.asarray(self.data_registry(DENSITY_KEY), dtype=float).ravel()
        if not np.isfinite(density_s).all() or (density_s < 0).any() or abs(density_s.sum() - 1) > _ONE:
            raise ArgumentError(
                f"The density of the spots must not be negative and must sum to 1, it sums to {density_s.sum():.4g}: "
                "divide it by its sum."
            )
        return density_s

    train = training(
        {"max_epochs": 1000},
        WHERE,
        {"lr": 0.1, "plan_kwargs": None},
        own={"warm_start": _WARM_START},
        prepare=_prepared,
    )

    def get_mapper_matrix(self) -> np.ndarray:
        """Probability of each spot for each cell, ``(n, s)``; rows sum to 1.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> float(model.get_mapper_matrix().sum(axis=1).min().round(3))  # each cell is somewhere among the spots
        1.0
        """
        self._check_if_trained(warn=False)
        with torch.no_grad():
            return self.module.mapper().cpu().numpy()

    def get_cell_filter(self) -> np.ndarray:
        """How much of each cell the constrained mode keeps, ``(n,)``, from 0 to 1; 1 in the other mode.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> few = celbo.external.Tangram(mdata, constrained=True, target_count=10)
        >>> few.train(max_epochs=5, verbose=0)
        >>> few.get_cell_filter().shape
        (40,)
        """
        self._check_if_trained(warn=False)
        return self.module.kept().detach().cpu().numpy()

    project_cell_annotations = staticmethod(project_cell_annotations)
    project_genes = staticmethod(project_genes)

    @classmethod
    def setup_anndata(cls) -> NoReturn:  # type: ignore[override]
        """Cells and spots are two tables: raises a ``NotImplementedError`` that names :meth:`setup_mudata`."""
        raise NotImplementedError(
            "Tangram maps cells onto spots, two tables: put both into a MuData, and use Tangram.setup_mudata."
        )

    @classmethod
    @setup_method
    def setup_mudata(
        cls,
        mdata: "MuData",
        density_prior_key: Annotated[str, Text()] | None = "rna_count_based",
        sc_layer: Annotated[str, Text()] | None = None,
        sp_layer: Annotated[str, Text()] | None = None,
        modalities: dict[str, str] | None = None,
    ) -> bundles.Fields:
        """Register cells and spots, with the same genes: those to map by.

        Parameters
        ----------
        mdata
            MuData with a modality of cells and one of spots.
        density_prior_key
            Column of the spots' ``obs`` with the density of cells, which sums to 1; ``"rna_count_based"``: in
            proportion to their counts; ``"uniform"``; None: no density.
        sc_layer, sp_layer
            Layers with the expression of cells and of spots; None: ``X``.
        modalities
            ``{"sc_layer": modality of the cells, "sp_layer": modality of the spots, "density_prior_key": the same}``.

        Raises
        ------
        ArgumentError
            A modality that was not named.
        """
        where = dict(modalities or {})
        for name in ("sc_layer", "sp_layer"):
            if name not in where:
                raise ArgumentError(
                    'modalities must name the cells and the spots: {"sc_layer": "sc", "sp_layer": "sp", '
                    f'"density_prior_key": "sp"}}; {name!r} is missing.'
                )
        spots = where["sp_layer"]
        density = _DensityField(density_prior_key, sp_layer)
        return [
            *bundles.in_modality(where["sc_layer"], [ValuesField(sc_layer)]),
            *bundles.in_modality(spots, [ValuesField(sp_layer, registry_key=SPATIAL_KEY)]),
            *bundles.in_modality(where.get("density_prior_key", spots), [density]),
        ]


def _dense(x: Any) -> np.ndarray:
    return np.asarray(x.toarray() if sp.issparse(x) else x, dtype=np.float32)
