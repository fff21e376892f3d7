"""DestVI: cell-type proportions of tissue spots, and the state of each type within them.

Reference: Lopez, Li, Keren-Shaul, Boyeau, Kedmi, Pilzer, Jelinski, Yofe, David, Wagner, Ergen, Addadi, Golani,
Ronchese, Jordan, Amit and Yosef, *DestVI identifies continuums of cell types in spatial transcriptomics data*, Nature
Biotechnology 2022.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor

from ..core import REGISTRY_KEYS
from ..core.kinds import Instance
from ..data.fields import LayerField, bundles
from ..module.deconvolution.module import SMOOTHED_KEY, MRDeconv
from ..posterior.deconvolution import fine_proportions, spot_latents, spot_proportions
from ..train.method import PASSED_ON, SPLIT, WHERE, training
from ..verbs.cells import asked
from ..verbs.keys import offers_key
from ..verbs.spots import SpotStatesMixin
from .base import BaseModelClass, UnsupervisedTrainingMixin, setup_method
from .base.face import gene_names, kept_manager
from .condscvi import CondSCVI

__all__ = ["DestVI"]

_PRIOR_OF_MODULE = {"mean_vprior": "mean_vprior", "var_vprior": "var_vprior", "weights_vprior": "mp_vprior"}


class DestVI(SpotStatesMixin, UnsupervisedTrainingMixin, BaseModelClass):
    r"""Proportions of cell types in the spots of a tissue, and the state of each type in each spot.

    .. math::
        x_{sg} \sim \mathrm{NB}\Bigl(\ell_s \sum_c v_{sc}\, h_g(\gamma_{sc}, c),\ \theta_g\Bigr)

    with the decoder :math:`h` of a :class:`CondSCVI`, proportions :math:`v_s` and states :math:`\gamma_{sc}` that are
    found at the maximum of their posterior; see :mod:`celbo.module.deconvolution.module`. :meth:`from_rna_model` makes
    one.

    Parameters
    ----------
    st_adata
        Spots, set up with :meth:`setup_anndata`.
    cell_type_mapping
        Names of the cell types, ``(c,)``.
    decoder_state_dict, px_decoder_state_dict, px_r, per_ct_bias
        Weights of a :class:`CondSCVI`'s module.
    n_hidden, n_latent, n_layers, dropout_decoder
        Its sizes, and its dropout.
    **module_kwargs
        Further arguments of :class:`~celbo.module.MRDeconv`: ``amortization``, ``add_celltypes``, ...

    Notes
    -----
    Common arguments: ``indices`` (row numbers of spots in any order or a boolean mask; None: all), ``batch_size``
    (spots a minibatch; None: ``celbo.settings.batch_size``), ``label`` (a cell type; an unknown one is a
    ``ValueError``). Before training, questions are a ``RuntimeError``.

    Examples
    --------
    >>> import celbo
    >>> cells, adata = (celbo.data.synthetic_iid(batch_size=100, seed=seed) for seed in (0, 1))
    >>> celbo.model.CondSCVI.setup_anndata(cells, labels_key="labels")
    >>> of_cells = celbo.model.CondSCVI(cells, n_hidden=16)
    >>> of_cells.train(max_epochs=2, verbose=0, seed=0)
    >>> model = celbo.model.DestVI.from_rna_model(adata, of_cells, vamp_prior_p=4)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> model.get_proportions().shape
    (200, 3)
    """

    _module_cls: ClassVar[type[MRDeconv]] = MRDeconv
    # Half as many steps leave the shares of few spots unsettled, see docs/models/destvi.md.
    _recipe, _fewest_steps = "short_cycle", 240
    _own_recipe: ClassVar[Mapping[str, Any]] = {**CondSCVI._own_recipe, "n_epochs_kl_warmup": None}
    _sizes: ClassVar[Mapping[str, str]] = {"n_spots": "n_cells", "n_genes": "n_vars"}

    def __init__(
        self,
        st_adata: AnnData,
        cell_type_mapping: np.ndarray,
        decoder_state_dict: Mapping[str, Tensor],
        px_decoder_state_dict: Mapping[str, Tensor],
        px_r: Tensor,
        per_ct_bias: Tensor,
        n_hidden: int,
        n_latent: int,
        n_layers: int,
        dropout_decoder: float,
        **module_kwargs: Any,
    ) -> None:
        super().__init__(st_adata)
        self.cell_type_mapping = np.asarray(cell_type_mapping)
        self._build_module(n_labels=len(self.cell_type_mapping))
        extra = [f"additional_{i}" for i in range(self.module.add_celltypes)]
        self.cell_type_mapping_extended = [*self.cell_type_mapping, *extra]
        listed = ", ".join(map(str, self.cell_type_mapping))
        self._model_summary_string = f"DestVI Model of {self.module.n_spots} spots and the cell types {listed}."

    @classmethod
    def from_rna_model(
        cls,
        st_adata: AnnData,
        sc_model: Annotated[CondSCVI, Instance("a CondSCVI", lambda model: hasattr(model, "get_vamp_prior"))],
        vamp_prior_p: int = 15,
        anndata_setup_kwargs: dict[str, Any] | None = None,
        **module_kwargs: Any,
    ) -> Self:
        """Model of spots under the types that a :class:`CondSCVI` has learnt.

        Parameters
        ----------
        st_adata
            Spots, set up with :meth:`setup_anndata`. Their genes are matched with those of ``sc_model`` by name.
        sc_model
            The trained model of single cells; it may have more genes.
        vamp_prior_p
            Components of the prior of each type's states, see :meth:`CondSCVI.get_vamp_prior`; 0: none, a standard
            normal prior.
        anndata_setup_kwargs
            Arguments of :meth:`setup_anndata`, for spots that are to be set up here.
        **module_kwargs
            Further arguments of :class:`~celbo.module.MRDeconv`.

        Raises
        ------
        RuntimeError
            ``sc_model`` is not trained.
        ValueError
            Genes of the spots that ``sc_model`` does not know.

        Examples
        --------
        >>> celbo.model.DestVI.from_rna_model(adata, of_cells, vamp_prior_p=4).is_trained
        False
        """
        sc_model._check_if_trained(warn=False, message="This CondSCVI is not trained: its decoder says nothing yet.")
        if anndata_setup_kwargs is not None or kept_manager(cls, st_adata) is None:
            cls.setup_anndata(st_adata, **(anndata_setup_kwargs or {}))
        prior: dict[str, Any] = {"prior_mode": "normal"}
        if vamp_prior_p:
            mixture = sc_model.get_vamp_prior(p=vamp_prior_p)
            prior = {_PRIOR_OF_MODULE[name]: torch.as_tensor(value) for name, value in mixture.items()}
        sc_module = sc_model.module
        return cls(
            st_adata,
            np.asarray(sc_model.get_state_registry(REGISTRY_KEYS.LABELS_KEY)["categorical_mapping"]),
            **sc_model.decoder_for(gene_names(cls, st_adata)),
            n_hidden=sc_module.n_hidden,
            n_latent=sc_module.n_latent,
            n_layers=sc_module.n_layers,
            dropout_decoder=sc_module.dropout_rate,
            **(prior | module_kwargs),
        )

    @offers_key()
    def get_proportions(
        self,
        keep_additional: bool = False,
        normalize: bool = True,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        key_added: str | None = None,
    ) -> pd.DataFrame:
        """Share of each cell type in each spot.

        Parameters
        ----------
        keep_additional
            Whether the additional types, which stand for what is in the tissue and not among the single cells, have
            columns too.
        normalize
            Whether rows sum to 1 over the types that are given.
        indices, batch_size, key_added
            See the class.

        Returns
        -------
        Spots by types.

        Examples
        --------
        >>> model.get_proportions(indices=range(50)).sum(axis=1).round(3).unique()
        array([1.], dtype=float32)
        """
        cells = self._asked(indices, batch_size)
        share_st = spot_proportions(self.module, cells.batches, n_cells=cells.n_cells)
        share_st = share_st if keep_additional else share_st[:, : self.module.n_labels]
        if normalize:
            share_st = share_st / share_st.sum(1, keepdims=True)
        names = self.cell_type_mapping_extended[: share_st.shape[1]]
        return pd.DataFrame(share_st, index=cells.names, columns=names)

    @offers_key()
    def get_fine_celltypes(
        self,
        sc_model: CondSCVI,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        key_added: str | None = None,
    ) -> dict[str, pd.DataFrame]:
        """Probability of each fine label within each cell type of each spot.

        Parameters
        ----------
        sc_model
            The model of single cells that this one was made from; without fine labels: a ``RuntimeError``.
        indices, batch_size, key_added
            See the class.

        Returns
        -------
        For each type a frame of spots by fine labels, rows that sum to 1: what the classifier of ``sc_model`` says of
        the states.

        Examples
        --------
        >>> celbo.model.CondSCVI.setup_anndata(cells, labels_key="batch", fine_labels_key="labels")
        >>> fine = celbo.model.CondSCVI(cells, n_hidden=16)
        >>> fine.train(max_epochs=2, verbose=0, seed=0)
        >>> model = celbo.model.DestVI.from_rna_model(adata, fine, vamp_prior_p=4)
        >>> model.train(max_epochs=2, verbose=0, seed=0)
        >>> {name: table.shape for name, table in model.get_fine_celltypes(fine).items()}
        {'batch_0': (200, 3), 'batch_1': (200, 3)}
        """
        if sc_model.module.classifier is None:
            raise RuntimeError(
                "Single cell model does not contain fine labels: train a CondSCVI that was set up with fine_labels_key."
            )
        cells = self._asked(indices, batch_size)
        share_scf = fine_proportions(self.module, cells.batches, sc_model.module, n_cells=cells.n_cells)
        return {
            name: pd.DataFrame(share_scf[:, c], index=cells.names, columns=sc_model.fine_labels)
            for c, name in enumerate(self.cell_type_mapping)
        }

    @offers_key(parts=("mean", "variance"))
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        give_mean: bool = True,
        mc_samples: int = 5000,
        batch_size: int | None = None,
        return_dist: bool = False,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Latent representation of each spot, from which proportions and states are amortized.

        Parameters
        ----------
        adata, indices, give_mean, mc_samples, batch_size, return_dist, seed, key_added
            See :meth:`celbo.model.base.VAEMixin.get_latent_representation`.

        Returns
        -------
        ``(s, k)``, or with ``return_dist`` two of these: mean and variance.

        Raises
        ------
        ValueError
            A model made without ``n_latent_amortization``: it has no such latents.

        Examples
        --------
        >>> model = celbo.model.DestVI.from_rna_model(adata, of_cells, vamp_prior_p=4, n_latent_amortization=3)
        >>> model.train(max_epochs=2, verbose=0, seed=0)
        >>> model.get_latent_representation().shape
        (200, 3)
        """
        self._check_if_trained(warn=False)
        if self.module.n_latent_amortization is None:
            raise ValueError("Spots have no latents of their own here: make the model with n_latent_amortization=.")
        cells = asked(self, adata, indices, batch_size)
        draw = not give_mean and not return_dist
        first, variance = spot_latents(self.module, cells.batches, draw=draw, n_cells=cells.n_cells, seed=seed)
        return (first, variance) if return_dist else first

    train = training(
        {"max_epochs": 2000, "lr": 3e-3},
        WHERE,
        SPLIT,
        {"train_size": 1.0, "batch_size": 128, "n_epochs_kl_warmup": 200},
        PASSED_ON,
    )

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        smoothed_layer: str | None = None,
        batch_key: str | None = None,
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register spots; the number of each row is kept in ``adata.obs["_indices"]``.

        Parameters
        ----------
        smoothed_layer
            Layer with counts smoothed over neighbouring spots, for which the model should give similar answers.
        """
        smoothed = [] if smoothed_layer is None else [LayerField(SMOOTHED_KEY, smoothed_layer, False, use_raw=use_raw)]
        return [*bundles.counts(layer, use_raw), *bundles.row_numbers(adata), *bundles.batch(batch_key), *smoothed]
