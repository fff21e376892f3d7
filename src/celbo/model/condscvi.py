"""CondSCVI: variation within each known cell type, the single-cell half of DestVI.

Reference: Lopez, Li, Keren-Shaul, Boyeau, Kedmi, Pilzer, Jelinski, Yofe, David, Wagner, Ergen, Addadi, Golani,
Ronchese, Jordan, Amit and Yosef, *DestVI identifies continuums of cell types in spatial transcriptomics data*, Nature
Biotechnology 2022.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from anndata import AnnData

from ..core import REGISTRY_KEYS
from ..core.kinds import Whole
from ..data import align_genes
from ..data.fields import LabelsWithUnlabeledObsField, bundles
from ..module.vaec import FINE_LABELS_KEY, VAEC
from ..posterior.cell_types import fine_label_probabilities, label_swaps, mixtures_of_groups
from ..train.method import PASSED_ON, SPLIT, WHERE, training
from ..verbs.cells import asked
from ..verbs.keys import offers_key
from .base import BaseModelClass, RNASeqMixin, UnsupervisedTrainingMixin, VAEMixin, setup_method

__all__ = ["CondSCVI"]

_RAREST_SHARE = 0.05


class CondSCVI(RNASeqMixin, VAEMixin, UnsupervisedTrainingMixin, BaseModelClass):
    r"""Variational autoencoder of UMI counts given the cell type: its latents say what varies within a type.

    .. math::
        z_n \sim p(z \mid c_n), \qquad
        x_{ng} \sim \mathrm{NB}\bigl(\ell_n\, \mathrm{softmax}(f(z_n, c_n, b_n))_g,\ \theta_g\bigr)

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    n_hidden, n_latent, n_layers
        Size of hidden layers, size of the latent space, number of hidden layers.
    weight_obs
        Whether cells weigh in the loss by the inverse of their type's share (of 5% for rarer types).
    dropout_rate
        Dropout of encoder and decoder.
    **module_kwargs
        Further arguments of :class:`~celbo.module.VAEC`: ``prior="mog"``, ``num_classes_mog``, ...

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.model.CondSCVI.setup_anndata(adata, labels_key="labels", batch_key="batch")
    >>> model = celbo.model.CondSCVI(adata, n_hidden=16)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> model.get_latent_representation().shape
    (400, 5)
    """

    _module_cls: ClassVar[type[VAEC]] = VAEC
    _recipe = "short_cycle"
    _own_recipe: ClassVar[Mapping[str, Any]] = {"max_epochs": None, "lr": 2e-2}

    def __init__(
        self,
        adata: AnnData,
        n_hidden: int = 128,
        n_latent: int = 5,
        n_layers: int = 2,
        weight_obs: bool = False,
        dropout_rate: float = 0.05,
        **module_kwargs: Any,
    ) -> None:
        super().__init__(adata)
        computed = {}
        if weight_obs and self._adata_manager is not None:  # without data an archive brings the weights
            codes_n = np.asarray(self._adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY)).ravel()
            computed["ct_weight"] = _inverse_shares(codes_n, self.summary_stats["n_labels"])
        self._build_module(**computed)

    def get_vamp_prior(
        self, adata: AnnData | None = None, p: Annotated[int, Whole(1)] = 10, *, seed: int | None = 0
    ) -> dict[str, np.ndarray]:
        """Empirical prior of the latents within each cell type, a mixture of normal distributions.

        Parameters
        ----------
        adata
            Cells; None: the training data.
        p
            Components a type: the cells' posteriors are clustered by k-means, and each cluster is summed up by its mean
            and variance. A module with ``prior="mog"`` gives the mixture it learnt instead, whatever ``p``.
        seed
            Of the clustering.

        Returns
        -------
        ``mean_vprior`` and ``var_vprior`` ``(c, p, k)``, ``weights_vprior`` ``(c, p)`` (rows that sum to 1; components
        that a type has no cells for have weight 0, mean 0 and variance 1).

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> {name: value.shape for name, value in model.get_vamp_prior(p=4, seed=0).items()}
        {'mean_vprior': (3, 4, 5), 'var_vprior': (3, 4, 5), 'weights_vprior': (3, 4)}
        """
        self._check_if_trained(warn=False)
        if self.module.prior == "mog":
            return self.module.learned_mixture()
        cells = asked(self, adata)
        mean_nk, var_nk = self.get_latent_representation(cells.adata, return_dist=True)
        labels_n = np.asarray(self.get_from_registry(cells.adata, REGISTRY_KEYS.LABELS_KEY)).ravel()
        parts = mixtures_of_groups(mean_nk, var_nk, labels_n, self.module.n_labels, p, seed=seed)
        return dict(zip(("mean_vprior", "var_vprior", "weights_vprior"), parts, strict=True))

    @offers_key()
    def predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        soft: bool = False,
        batch_size: int | None = None,
        use_posterior_mean: bool = True,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Predict the fine label of each cell.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        soft
            Give the probability of each fine label instead of the most probable one.
        use_posterior_mean
            Classify the mean of the latents' posterior, or a draw from it.

        Returns
        -------
        Names of fine labels, ``(n,)``; with ``soft`` a frame of cells by fine labels, rows that sum to 1. "Not
        labelled" is not among them.

        Raises
        ------
        RuntimeError
            Before training.
        ValueError
            Data that were set up without ``fine_labels_key``.

        Examples
        --------
        >>> celbo.model.CondSCVI.setup_anndata(adata, labels_key="batch", fine_labels_key="labels")
        >>> fine = celbo.model.CondSCVI(adata, n_hidden=16)
        >>> fine.train(max_epochs=2, verbose=0, seed=0)
        >>> fine.predict(soft=True).shape
        (400, 3)
        """
        self._check_if_trained(warn=False)
        names = self.fine_labels
        cells = asked(self, adata, indices, batch_size)
        probability_nf = fine_label_probabilities(
            self.module, cells.batches, use_posterior_mean=use_posterior_mean, n_cells=cells.n_cells, seed=seed
        )
        if soft:
            return pd.DataFrame(probability_nf, index=cells.names, columns=names)
        return names[probability_nf.argmax(1)]

    @property
    def fine_labels(self) -> np.ndarray:
        """Names of the fine labels, without "not labelled"; ``ValueError`` for data set up without them."""
        if FINE_LABELS_KEY not in self.registry_["field_registries"]:
            raise ValueError("This CondSCVI has no fine labels: give setup_anndata a fine_labels_key.")
        return np.asarray(self.get_state_registry(FINE_LABELS_KEY)["categorical_mapping"])[:-1]

    def confusion_coarse_celltypes(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        r"""How much worse cells of one type are explained as another: types that are too fine stand out.

        Parameters
        ----------
        adata, indices, batch_size
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        Frame of labels by labels. Row :math:`a`, column :math:`b`: the mean over the cells of type :math:`a` of
        :math:`\log p(x_n \mid \bar z_{nb}, b) - \log p(x_n \mid \bar z_{na}, a)` in nats, where :math:`\bar z_{nb}` is
        the mean of :math:`q(z \mid x_n, b)`. 0 on the diagonal; near 0 where two types could be one; NaN for a type
        without cells.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> model.confusion_coarse_celltypes().shape
        (3, 3)
        """
        self._check_if_trained(warn=False)
        names = np.asarray(self.get_state_registry(REGISTRY_KEYS.LABELS_KEY)["categorical_mapping"])
        cells = asked(self, adata, indices, batch_size)
        ratio_cc = label_swaps(self.module, cells.batches)
        return pd.DataFrame(ratio_cc, index=names, columns=names)

    def decoder_for(self, genes: Sequence[str] | pd.Index) -> dict[str, Any]:
        """Weights of the decoder for some of the genes, as :class:`~celbo.model.DestVI` takes them.

        Parameters
        ----------
        genes
            Names, in the order wanted.

        Raises
        ------
        ValueError
            Genes that this model does not know.

        Examples
        --------
        >>> sorted(model.decoder_for(["gene_3", "gene_7"]))
        ['decoder_state_dict', 'per_ct_bias', 'px_decoder_state_dict', 'px_r']
        """
        match = align_genes(self.get_var_names(), pd.Index(genes), where="the genes of the CondSCVI")
        match.raise_if_missing()
        state = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}

        def part(prefix: str) -> dict[str, Any]:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        return {
            "decoder_state_dict": part("decoder."),
            "px_decoder_state_dict": {name: value[match.indexer] for name, value in part("px_decoder.").items()},
            "px_r": state["px_r"][match.indexer],
            "per_ct_bias": state["per_ct_bias"][:, match.indexer],
        }

    train = training(
        {"max_epochs": 300, "lr": 1e-3},
        WHERE,
        SPLIT,
        {"train_size": 1, "batch_size": 128},
        PASSED_ON,
    )

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str | None = None,
        labels_key: str | None = None,
        fine_labels_key: str | None = None,
        layer: str | None = None,
        unlabeled_category: str = "unlabeled",
        size_factor_key: str | None = None,
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register single cells of known type.

        Parameters
        ----------
        fine_labels_key
            Column with labels within the types, which a classifier of the latents learns; None: no such labels.
        unlabeled_category
            Fine label that means "not labelled"; so does NaN.
        """
        fields = [*bundles.counts(layer, use_raw), *bundles.labels(labels_key), *bundles.batch(batch_key)]
        fields += bundles.size_factor(size_factor_key)
        if fine_labels_key is not None:
            fields.append(LabelsWithUnlabeledObsField(FINE_LABELS_KEY, fine_labels_key, unlabeled_category))
        return fields


def _inverse_shares(codes_n: np.ndarray, n_labels: int) -> np.ndarray:
    """Inverse of the share of each label among the cells, ``(c,)``; of 5% for rarer ones."""
    share_c = np.bincount(codes_n, minlength=n_labels) / len(codes_n)
    return 1.0 / np.maximum(share_c, _RAREST_SHARE)
