"""ContrastiveVI: what sets target cells apart from background cells, and what both share.

Reference: Weinberger, Lin and Lee, *Isolating salient variations of interest in single-cell data with contrastiveVI*,
Nature Methods 2023.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from anndata import AnnData

from ...core.kinds import Number
from ...data.fields import bundles
from ...model.base import BaseModelClass, UnsupervisedTrainingMixin, library_arguments, setup_method
from ...train.method import PASSED_ON, SPLIT, WHERE, Argument, training
from .loading import ContrastiveDataSplitter
from .module import ContrastiveVAE
from .verbs import ContrastiveMixin

__all__ = ["ContrastiveVI"]

_OWN = {
    "background_indices": Argument(
        Sequence[int], "Cells without the condition studied, as row numbers or a boolean mask: controls."
    ),
    "target_indices": Argument(Sequence[int], "Cells with it; none that is a background cell."),
    "load_sparse_tensor": Argument(bool, "Move minibatches to the device sparse and make them dense there."),
    "recombination_weight": Argument(
        Annotated[float | None, Number(0)],
        "Weight of what encoders miss of cells put together from the latents of a background and a target cell, which "
        "keeps the two kinds of latents apart; None: 5, and 0 for ``classic``.",
        "plan",
    ),
}
_LEAST, _MOST = 16, 128
_STEPS_AN_EPOCH = 20


def _prepared(model: object, options: dict[str, Any]) -> dict[str, Any]:
    """Hand the sets of cells to the splitter; leave out a weight that nobody gives."""
    if options["recombination_weight"] is None:
        del options["recombination_weight"]
    sets = {name: options.pop(name) for name in ("background_indices", "target_indices")}
    return options | {"datasplitter_kwargs": sets | (options.get("datasplitter_kwargs") or {})}


class ContrastiveVI(ContrastiveMixin, UnsupervisedTrainingMixin, BaseModelClass):
    r"""Variational autoencoder of background and target cells, whose salient latents only target cells have.

    .. math:: x_{ng} \sim \mathrm{ZINB}\bigl(\ell_n\, \mathrm{softmax}(f(z_n, s_n, c_n))_g,\; \theta_g,\;
              \pi_{ng}\bigr), \qquad s_n = 0 \text{ in background cells}

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    n_hidden, n_layers, dropout_rate
        As in :class:`~celbo.model.SCVI`.
    n_background_latent, n_salient_latent
        Dimensions of the latents z that all cells have, and of those s that only target cells have.
    use_observed_lib_size
        Take the observed total counts as library size; otherwise it is a latent variable.
    wasserstein_penalty
        Weight of the distance from 0 of the salient latents that background cells would have. The paper takes 1.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.external.ContrastiveVI.setup_anndata(adata)
    >>> background, target = (list(range(start, start + 200)) for start in (0, 200))  # batch_0, batch_1
    >>> model = celbo.external.ContrastiveVI(adata)
    >>> model.train(background, target, max_epochs=2, verbose=0, seed=0)
    >>> model.get_latent_representation(representation_kind="salient").shape
    (400, 10)
    """

    _module_cls: ClassVar[type[ContrastiveVAE]] = ContrastiveVAE
    _data_splitter_cls: ClassVar[type] = ContrastiveDataSplitter

    _recipe: ClassVar[str | None] = "brief_cycle"  # latents are apart by then, see recombination_weight
    _own_recipe: ClassVar[Mapping[str, Any]] = {"recombination_weight": 5.0}
    _computed_arguments = library_arguments

    def __init__(
        self,
        adata: AnnData,
        n_hidden: int = 128,
        n_background_latent: int = 10,
        n_salient_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        use_observed_lib_size: bool = True,
        wasserstein_penalty: float = 0,
    ) -> None:
        super().__init__(adata)
        self._build_module()

    def _own_settings(self, recipe: str, asked: bool) -> Mapping[str, Any]:
        """Small minibatches of few cells: latents come apart with the number of steps."""
        n_pairs = min(_MOST, max(_LEAST, self.summary_stats["n_cells"] // _STEPS_AN_EPOCH))
        own = super()._own_settings(recipe, asked)
        return {"batch_size": n_pairs, **own} if own else own

    train = training(
        dict.fromkeys(("background_indices", "target_indices"), inspect.Parameter.empty),
        {"max_epochs": None},
        WHERE,
        SPLIT,
        {"load_sparse_tensor": False, "batch_size": 128, "early_stopping": False},
        PASSED_ON,
        own=_OWN,
        prepare=_prepared,
    )

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register background and target cells together; :meth:`train` is told which is which."""
        return bundles.counts(layer, use_raw) + bundles.cells(
            batch_key, labels_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys
        )
