"""VELOVI: how fast and where to each cell moves, from spliced and unspliced RNA.

Reference: Gayoso et al., *Deep generative modeling of transcriptional dynamics for RNA velocity analysis in single
cells*, Nature Methods 2024.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from anndata import AnnData

from ...core import REGISTRY_KEYS, ArgumentError
from ...core.kinds import Number
from ...data.access import dense
from ...data.fields import bundles
from ...data.fields.values import ValuesField
from ...model.base import BaseModelClass, UnsupervisedTrainingMixin, VAEMixin, setup_method
from ...model.base.made_with import given_arguments
from ...module.kinetics import UNSPLICED_KEY
from ...train.method import WHERE, Argument, training
from ...train.recipes import default_recipe, find_recipe
from ...verbs.velocity_uncertainty import VelocityUncertaintyMixin
from .module import VELOVAE
from .preprocess import layer

__all__ = ["VELOVI"]

_MOST_UNSPLICED = 0.99
_UNPLACED = -1.0  # gamma before the softplus where the data say nothing
_WARMUP = 0.8  # of a run, in which the penalty on the end of induction goes
_SMOOTHED = "Amounts of RNA are never negative: take smoothed layers that were neither scaled nor centred."
_MOMENTS = "celbo.external.velovi.moments makes smoothed layers, scvelo's pp.moments does too"
_OWN = {
    "gradient_clip_val": Argument(
        Annotated[float, Number(0)], "Norm that gradients are scaled down to, where they are longer."
    ),
    "external_indexing": Argument(list[Any] | None, "The sets themselves, ``[train, validation, test]``."),
}


def _as_there(model: "VELOVI", options: dict[str, Any]) -> dict[str, Any]:
    """Own sets are the splitter's affair; the optimizer is AdamW, and the weight of the KL rises in any recipe."""
    of_splitter = {"external_indexing": options.pop("external_indexing")} | (
        options.pop("datasplitter_kwargs", None) or {}
    )
    recipe = find_recipe(options["recipe"] or default_recipe(type(model)))
    plan: dict[str, Any] = {"optimizer": "AdamW"}
    if recipe.name != "classic" and model.adata is not None:
        n_epochs = recipe.epochs_of(options, model.adata.n_obs, 1)
        plan["n_epochs_kl_warmup"] = max(1, round(_WARMUP * n_epochs))
    plan |= options.pop("plan_kwargs") or {}
    return options | {"datasplitter_kwargs": of_splitter, "plan_kwargs": plan}


class VELOVI(VelocityUncertaintyMixin, VAEMixin, UnsupervisedTrainingMixin, BaseModelClass):
    r"""Autoencoder of spliced and unspliced RNA that learns the rates of each gene and each cell's place on its path.

    .. math:: \dot u_g = \alpha_g(t) - \beta_g u_g, \qquad \dot s_g = \beta_g u_g - \gamma_g s_g, \qquad
              (u, s)_{ng} \sim N\bigl((u, s)_g(t_{ng}), \sigma_g\bigr)

    Parameters
    ----------
    adata
        Smoothed spliced and unspliced RNA, set up with :meth:`setup_anndata`.
    n_hidden, n_latent, n_layers, dropout_rate
        Width, latents, hidden layers and dropout of encoder and decoder.
    gamma_init_data
        Begin with the degradation rates of a steady state.
    linear_decoder
        Whether times are linear in the latents.
    **model_kwargs
        Further arguments of :class:`~celbo.external.velovi.VELOVAE`.

    Examples
    --------
    >>> import celbo, numpy as np
    >>> adata = celbo.data.synthetic_iid(batch_size=30, n_genes=20, seed=0)
    >>> adata.layers["spliced"], adata.layers["unspliced"] = adata.X, np.random.default_rng(0).permuted(adata.X, axis=0)
    >>> adata = celbo.external.velovi.preprocess_data(celbo.external.velovi.moments(adata), filter_on_r2=False)
    >>> celbo.external.VELOVI.setup_anndata(adata, spliced_layer="Ms", unspliced_layer="Mu")
    >>> model = celbo.external.VELOVI(adata, n_hidden=16)
    >>> model.train(max_epochs=2, verbose=0)
    >>> model.get_velocity().shape
    (60, 20)
    """

    _module_cls: ClassVar[type[VELOVAE]] = VELOVAE
    _recipe: ClassVar[str | None] = "short_cycle"  # more passes find no better paths, see docs/models/velovi.md
    _own_recipe: ClassVar[Mapping[str, Any]] = {"max_epochs": None, "lr": 4e-2, "early_stopping": False}

    def __init__(
        self,
        adata: AnnData | None = None,
        n_hidden: int = 256,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        gamma_init_data: bool = False,
        linear_decoder: bool = False,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata)
        self._build_module()

    def _computed_arguments(self) -> dict[str, Any]:
        """Where induction ends and what rates that says, of the cells with most unspliced RNA of each gene."""
        if self.adata is None:
            return {}
        spliced, unspliced = (
            dense(self.data_registry(key), np.float32) for key in (REGISTRY_KEYS.X_KEY, UNSPLICED_KEY)
        )
        first = int(unspliced.shape[0] * _MOST_UNSPLICED)
        rows = np.argpartition(unspliced, first, axis=0)[first:]
        u_g, s_g = (np.median(np.take_along_axis(x, rows, axis=0), axis=0) for x in (unspliced, spliced))
        start: dict[str, Any] = {
            "switch_unspliced": u_g,
            "switch_spliced": s_g,
            "alpha_unconstr_init": _unconstrained(u_g),
        }
        if given_arguments(self)["gamma_init_data"]:
            start["gamma_unconstr_init"] = np.where(s_g > 0, _unconstrained(u_g / np.maximum(s_g, 1e-6)), _UNPLACED)
        return start

    train = training(
        {"max_epochs": 500, "lr": 1e-2, "weight_decay": 1e-2},
        WHERE,
        {"train_size": None, "validation_size": None, "batch_size": 256, "early_stopping": True},
        {"gradient_clip_val": 10, "plan_kwargs": None, "external_indexing": None},
        own=_OWN,
        fixed={"early_stopping_patience": 45},
        prepare=_as_there,
    )

    @classmethod
    @setup_method
    def setup_anndata(cls, adata: AnnData, spliced_layer: str, unspliced_layer: str) -> bundles.Fields:
        """Register smoothed spliced and unspliced RNA.

        Parameters
        ----------
        adata
            Cells by genes.
        spliced_layer, unspliced_layer
            Layers with smoothed RNA, ``"Ms"`` and ``"Mu"`` of :func:`~celbo.external.velovi.moments` or of scvelo.

        Raises
        ------
        ArgumentError
            A layer that is not there, or holds counts that were not smoothed.
        """
        for name in (spliced_layer, unspliced_layer):
            _require_smoothed(adata, name)
        return [
            ValuesField(spliced_layer, 0.0, _SMOOTHED),
            ValuesField(unspliced_layer, 0.0, _SMOOTHED, registry_key=UNSPLICED_KEY),
        ]


def _require_smoothed(adata: AnnData, name: str) -> None:
    if not adata.n_obs:
        return  # an archive's setup is checked without cells
    x = layer(adata, name, f"VELOVI takes smoothed spliced and unspliced RNA: {_MOMENTS}.")
    some = dense(x[:200], np.float32)
    if (some == np.round(some)).all() and some.max(initial=0) > 1:
        raise ArgumentError(
            f"adata.layers[{name!r}] holds counts that were not smoothed over neighbours, which VELOVI cannot place "
            f"on a path: {_MOMENTS}."
        )


def _unconstrained(rate_g: np.ndarray) -> np.ndarray:
    """What the softplus of is the rate."""
    floored = np.maximum(rate_g, math.exp(-10))
    return floored + np.log(-np.expm1(-floored))
