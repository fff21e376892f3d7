"""Stereoscope: cell-type proportions of tissue spots, by signatures learned from single cells.

Reference: Andersson, Bergenstråhle, Asp, Bergenstråhle, Jurek, Fernández Navarro and Lundeberg, *Single-cell and
spatial transcriptomics enables probabilistic inference of cell type topography*, Communications Biology 2020.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from ...core import REGISTRY_KEYS, listed, position_of
from ...data import align_genes
from ...data.fields import bundles
from ...model.base import BaseModelClass, setup_method
from ...model.base.face import gene_names
from ...train.method import PASSED_ON, SPLIT, WHERE, training
from ...verbs.keys import offers_key
from ..converging import ConvergingTrainingMixin
from .module import RNADeconv, SpatialDeconv

__all__ = ["RNAStereoscope", "SpatialStereoscope"]

_ALL = {"train_size": 1}  # every spot has parameters of its own: none can be held out


class RNAStereoscope(ConvergingTrainingMixin, BaseModelClass):
    r"""Expression profiles of cell types, from single cells of known type.

    .. math:: x_{ng} \sim \mathrm{NB}\bigl(\text{total count } \ell_n\, \mathrm{softplus}(W_{g y_n}),\,
              \text{log-odds } o_g\bigr)

    Parameters
    ----------
    sc_adata
        Single cells, set up with :meth:`setup_anndata`.
    **model_kwargs
        Further arguments of :class:`~celbo.external.stereoscope.RNADeconv`: ``ct_weight``; ``ct_weights`` is the same.

    Examples
    --------
    >>> import celbo
    >>> cells = celbo.data.synthetic_iid(batch_size=100, seed=0)
    >>> celbo.external.RNAStereoscope.setup_anndata(cells, labels_key="labels")
    >>> of_cells = celbo.external.RNAStereoscope(cells)
    >>> of_cells.train(max_epochs=2, verbose=0, seed=0)
    >>> rates, dispersions = of_cells.module.get_params()
    >>> rates.shape, dispersions.shape
    ((100, 3), (100,))
    """

    _module_cls: ClassVar[type[RNADeconv]] = RNADeconv

    _sizes: ClassVar[Mapping[str, str]] = {"n_genes": "n_vars"}
    _renamed: ClassVar[Mapping[str, str | None]] = {"ct_weights": "ct_weight"}

    def __init__(self, sc_adata: AnnData, **model_kwargs: Any) -> None:
        super().__init__(sc_adata)
        self._build_module()

    train = training({"max_epochs": 400, "lr": 0.01}, WHERE, SPLIT, {"train_size": 1, "batch_size": 128}, PASSED_ON)

    @classmethod
    @setup_method
    def setup_anndata(
        cls, adata: AnnData, labels_key: str | None = None, layer: str | None = None, *, use_raw: bool = False
    ) -> bundles.Fields:
        """Register single cells of known type."""
        return [*bundles.counts(layer, use_raw), *bundles.labels(labels_key)]


class SpatialStereoscope(ConvergingTrainingMixin, BaseModelClass):
    r"""Proportions of cell types in the spots of a tissue.

    .. math:: x_{sg} \sim \mathrm{NB}\Bigl(\text{total count } \beta_g \sum_c v_{sc} w_{gc} + \gamma_s \eta_g,\,
              \text{log-odds } o_g\Bigr)

    with :math:`w` and :math:`o` of :class:`RNAStereoscope`, and a noise term :math:`\gamma_s \eta_g` for what is in
    the tissue and not among the types.

    Parameters
    ----------
    st_adata
        Spots, set up with :meth:`setup_anndata`.
    sc_params
        ``W`` ``(g, c)`` and ``px_o`` ``(g,)`` of a trained :class:`RNAStereoscope` for the genes of ``st_adata``, in
        their order. :meth:`from_rna_model` sees to that.
    cell_type_mapping
        Names of the types, ``(c,)``.
    prior_weight
        ``"n_obs"`` scales the likelihood of a minibatch to all spots, ``"minibatch"`` leaves it as it is.
    **model_kwargs
        Further arguments of :class:`~celbo.external.stereoscope.SpatialDeconv`.

    Raises
    ------
    ValueError
        ``sc_params`` that do not have the sizes of the genes and types.

    Examples
    --------
    >>> import celbo
    >>> cells, adata = (celbo.data.synthetic_iid(batch_size=100, seed=seed) for seed in (0, 1))
    >>> celbo.external.RNAStereoscope.setup_anndata(cells, labels_key="labels")
    >>> of_cells = celbo.external.RNAStereoscope(cells)
    >>> of_cells.train(max_epochs=2, verbose=0, seed=0)
    >>> celbo.external.SpatialStereoscope.setup_anndata(adata)
    >>> model = celbo.external.SpatialStereoscope.from_rna_model(adata, of_cells)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> model.get_proportions().shape
    (200, 3)
    """

    _module_cls: ClassVar[type[SpatialDeconv]] = SpatialDeconv
    _sizes: ClassVar[Mapping[str, str]] = {"n_spots": "n_cells"}

    def __init__(
        self,
        st_adata: AnnData,
        sc_params: tuple[np.ndarray, np.ndarray],
        cell_type_mapping: np.ndarray,
        prior_weight: Literal["n_obs", "minibatch"] = "n_obs",
        **model_kwargs: Any,
    ) -> None:
        super().__init__(st_adata)
        self.cell_type_mapping = np.asarray(cell_type_mapping)
        _check_sizes(sc_params, self.summary_stats["n_vars"], len(self.cell_type_mapping))
        self._build_module()
        of_types = f"{self.module.n_spots} spots and the cell types {', '.join(map(str, self.cell_type_mapping))}"
        self._model_summary_string = f"SpatialStereoscope of {of_types}."

    @classmethod
    def from_rna_model(
        cls,
        st_adata: AnnData,
        sc_model: RNAStereoscope,
        prior_weight: Literal["n_obs", "minibatch"] = "n_obs",
        **model_kwargs: Any,
    ) -> Self:
        """Model of spots under the types that an :class:`RNAStereoscope` has learnt.

        Parameters
        ----------
        st_adata
            Spots, set up with :meth:`setup_anndata`. Their genes are matched with those of ``sc_model`` by name.
        sc_model
            The trained model of single cells; it may have more genes.
        prior_weight, **model_kwargs
            As in the constructor.

        Raises
        ------
        ValueError
            Genes of the spots that ``sc_model`` does not know.

        Examples
        --------
        >>> celbo.external.SpatialStereoscope.from_rna_model(adata, of_cells, prior_weight="minibatch").is_trained
        False
        """
        sc_model._check_if_trained(warn=False)
        match = align_genes(
            sc_model.get_var_names(), gene_names(cls, st_adata), where="the genes of the RNAStereoscope"
        )
        match.raise_if_missing()
        w_gc, px_o = sc_model.module.get_params()
        types = np.asarray(sc_model.get_state_registry(REGISTRY_KEYS.LABELS_KEY)["categorical_mapping"])
        sc_params = (w_gc[match.indexer], px_o[match.indexer])
        return cls(st_adata, sc_params, types, prior_weight=prior_weight, **model_kwargs)

    @offers_key()
    def get_proportions(self, keep_noise: bool = False, *, key_added: str | None = None) -> pd.DataFrame:
        """Share of each cell type in each spot.

        Parameters
        ----------
        keep_noise
            Whether the noise has a share too.
        key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        Spots by types, rows that sum to 1; the last column is ``"noise_term"`` with ``keep_noise``. Spots have their
        names, or numbers where the model was loaded without data.

        Examples
        --------
        >>> list(model.get_proportions(keep_noise=True))
        ['label_0', 'label_1', 'label_2', 'noise_term']
        """
        self._check_if_trained()
        columns = [*self.cell_type_mapping, *["noise_term"] * keep_noise]
        index = None if self.adata is None else self.adata.obs_names
        return pd.DataFrame(self.module.get_proportions(keep_noise), index=index, columns=columns)

    def get_scale_for_ct(self, y: np.ndarray) -> np.ndarray:
        """Profile of cell types as the spots have it.

        Parameters
        ----------
        y
            Names of types, ``(n,)``.

        Returns
        -------
        ``(n, g)``: expected total count of each gene for one unit of the type.

        Raises
        ------
        ValueError
            A name that is not a type of this model.

        Examples
        --------
        >>> model.get_scale_for_ct(["label_0", "label_1"]).shape
        (2, 100)
        """
        self._check_if_trained()
        known = list(self.cell_type_mapping)
        codes_n = torch.tensor([position_of(name, known, "cell type") for name in listed(y)], dtype=torch.int64)
        return self.module.get_ct_specific_expression(codes_n[:, None]).cpu().numpy()

    train = training(
        {"max_epochs": 400, "lr": 0.01}, WHERE, {"shuffle_set_split": True, "batch_size": 128}, PASSED_ON, fixed=_ALL
    )

    @classmethod
    @setup_method
    def setup_anndata(cls, adata: AnnData, layer: str | None = None, *, use_raw: bool = False) -> bundles.Fields:
        """Register spots; the number of each row is kept in ``adata.obs["_indices"]``."""
        return [*bundles.counts(layer, use_raw), *bundles.row_numbers(adata)]


def _check_sizes(sc_params: tuple[np.ndarray, np.ndarray], n_genes: int, n_types: int) -> None:
    w_gc, px_o = map(np.shape, sc_params)
    if w_gc != (n_genes, n_types) or px_o != (n_genes,):
        raise ValueError(
            f"sc_params must be W of shape {(n_genes, n_types)}, genes by cell types, and px_o of shape {(n_genes,)}; "
            f"got {w_gc} and {px_o}. from_rna_model takes them from a model of single cells, gene by gene."
        )
