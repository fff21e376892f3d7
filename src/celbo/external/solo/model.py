"""SOLO: which droplets hold two cells.

Reference: Bernstein, Fong, Lam, Roy, Hendrickson and Kelley, *Solo: doublet identification in single-cell RNA-seq via
semi-supervised deep learning*, Cell Systems 2020.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import REGISTRY_KEYS, ArgumentError
from ...core.rules import rules
from ...data import AnnDataManager
from ...data.fields import bundles
from ...data.fields.values import ValuesField
from ...model import SCVI
from ...model.base import BaseModelClass, UnsupervisedTrainingMixin, setup_method
from ...posterior.passes import Rows, evaluating, on_device
from ...train import ClassifierTrainingPlan, Plan
from ...train.method import PASSED_ON, SPLIT, STOPPING, WHERE, training
from ...verbs.keys import offers_key
from .doublets import cells_of_batch, simulated_doublets
from .module import DoubletClassifier

__all__ = ["SOLO"]

_COVARIATES = {REGISTRY_KEYS.CAT_COVS_KEY, REGISTRY_KEYS.CONT_COVS_KEY}
_LABEL, _SINGLET, _DOUBLET = "_solo_doub_sim", "singlet", "doublet"


def _cells_to_write_to(model: object, given: Mapping[str, Any]) -> AnnData:
    if given.get("into") is None:
        raise ArgumentError.of(
            "into", "key_added writes into the data with the cells, and SOLO keeps none: pass into=."
        )
    return given["into"]


class SOLO(UnsupervisedTrainingMixin, BaseModelClass):
    r"""Classifier that tells cells from simulated doublets, by their latents and library sizes in a trained SCVI.

    .. math:: q(\mathrm{doublet} \mid x_n) = \mathrm{softmax}\bigl(f(E_q[z_n \mid x_n], \log \ell_n)\bigr)

    Made by :meth:`from_scvi_model`.

    Parameters
    ----------
    adata
        Latents and log library sizes, set up with :meth:`setup_anndata`.
    **classifier_kwargs
        Arguments of :class:`~celbo.module.Classifier`: ``n_hidden``, ``n_layers``, ``dropout_rate``, ...

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.model.SCVI.setup_anndata(adata)
    >>> scvi = celbo.model.SCVI(adata, n_latent=5)
    >>> scvi.train(max_epochs=2, verbose=0, seed=0)
    >>> solo = celbo.external.SOLO.from_scvi_model(scvi)
    >>> solo.train(max_epochs=2, verbose=0, seed=0)
    >>> solo.predict().columns.tolist()
    ['doublet', 'singlet']
    """

    _module_cls: ClassVar[type[DoubletClassifier]] = DoubletClassifier
    _training_plan_cls: ClassVar[type[Plan]] = ClassifierTrainingPlan

    def __init__(self, adata: AnnData | None = None, **classifier_kwargs: Any) -> None:
        super().__init__(adata)
        _require_both_kinds(self)
        self._build_module(**({"n_labels": 2, "logits": True} | classifier_kwargs))

    @classmethod
    def from_scvi_model(
        cls,
        scvi_model: SCVI,
        adata: AnnData | None = None,
        restrict_to_batch: str | None = None,
        doublet_ratio: int = 2,
        **classifier_kwargs: Any,
    ) -> Self:
        """Model of the cells that an SCVI was trained on.

        Parameters
        ----------
        scvi_model
            The trained model. It is not changed.
        adata
            Other cells with the same genes and columns; None: its training data.
        restrict_to_batch
            Batch whose cells to take; None: all. Doublets arise within a batch, so do one batch at a time.
        doublet_ratio
            Simulated doublets per cell.
        **classifier_kwargs
            Of :class:`SOLO`.

        Raises
        ------
        RuntimeError
            ``scvi_model`` is not trained.
        ValueError
            No such batch. Where scvi-tools' rules hold, also a model with covariates.

        Warns
        -----
        UserWarning
            Several batches at once.

        Examples
        --------
        >>> celbo.external.SOLO.from_scvi_model(scvi, doublet_ratio=1).is_trained
        False
        """
        scvi_model._check_if_trained(warn=False)
        adata = scvi_model._validate_anndata(adata)
        manager = scvi_model.get_anndata_manager(adata, required=True)
        assert manager is not None
        if not rules().doublets_with_covariates and _COVARIATES & manager.data_registry.keys():
            raise ValueError("Initializing a SOLO model from SCVI with registered covariates is not supported.")
        cells_n = cells_of_batch(manager, restrict_to_batch)
        doublets = cls.create_doublets(manager, doublet_ratio, indices=cells_n)
        scvi_model.transfer_fields(doublets)
        names = adata.obs_names[cells_n].append(doublets.obs_names)
        features_nk = np.concatenate([_features(scvi_model, adata, cells_n), _features(scvi_model, doublets)])
        described = AnnData(features_nk, obs=pd.DataFrame(index=names))
        described.obs[_LABEL] = np.repeat([_SINGLET, _DOUBLET], [len(cells_n), doublets.n_obs]).astype(object)
        cls.setup_anndata(described, labels_key=_LABEL)
        return cls(described, **classifier_kwargs)

    @classmethod
    def create_doublets(
        cls,
        adata_manager: AnnDataManager,
        doublet_ratio: int,
        indices: Sequence[int] | np.ndarray | None = None,
        seed: int = 1,
    ) -> AnnData:
        """Simulate doublets: the counts of two random cells, added up.

        Parameters
        ----------
        adata_manager
            Manager of the AnnData with the counts.
        doublet_ratio
            Doublets per cell.
        indices
            Cells to take, row numbers or a mask; None: all.
        seed
            Of the draws.

        Returns
        -------
        AnnData with the counts as CSR where the setup had them, and the columns of the first of each pair.

        Raises
        ------
        ValueError
            ``doublet_ratio`` is not positive.

        Examples
        --------
        >>> celbo.external.SOLO.create_doublets(scvi.adata_manager, doublet_ratio=1, seed=0).shape
        (400, 100)
        """
        return simulated_doublets(adata_manager, doublet_ratio, indices, seed)

    @classmethod
    @setup_method
    def setup_anndata(
        cls, adata: AnnData, labels_key: str | None = None, layer: str | None = None, *, use_raw: bool = False
    ) -> bundles.Fields:
        """Register an AnnData with latents.

        Parameters
        ----------
        adata
            Cells by latents and log library size.
        labels_key
            Column of ``adata.obs`` that says ``"doublet"`` for simulated cells and ``"singlet"`` for the others.
        layer, use_raw
            Layer with the latents (None: ``X``), or whether they are those of ``adata.raw``.
        """
        latents = ValuesField(layer, use_raw=use_raw)
        return [latents, *bundles.labels(labels_key)]

    train = training(
        {"max_epochs": 400, "lr": 1e-3},
        WHERE,
        SPLIT,
        {"batch_size": 128},
        PASSED_ON,
        STOPPING,
        fixed={"early_stopping_monitor": "validation_loss"},
    )

    @offers_key("named", about=_cells_to_write_to)
    def predict(
        self,
        soft: bool = True,
        include_simulated_doublets: bool = False,
        return_logits: bool = False,
        *,
        into: AnnData | None = None,
        key_added: str | None = None,
    ) -> pd.DataFrame | pd.Series:
        """Say which cells are doublets.

        Parameters
        ----------
        soft
            Give the probability of either kind, or the more probable one.
        include_simulated_doublets
            Also classify the simulated doublets; their rows follow the cells.
        return_logits
            Give logits instead of probabilities.
        into
            The data with the cells, which ``key_added`` writes to: the model keeps none of them.
        key_added
            Write the answer into ``into.obsm``, without ``soft`` into ``into.obs``, under this key. Cells go by their
            names, so that the models of several batches write side by side; None: write nothing.

        Returns
        -------
        Frame of cells by ``doublet`` and ``singlet``, rows that sum to 1; without ``soft`` a series of these names.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> solo.predict(soft=False).shape
        (400,)
        """
        self._check_if_trained(warn=False)
        adata = self._validate_anndata()
        kind_n = adata.obs[self.get_setup_arg("labels_key")].to_numpy()
        asked_n = np.flatnonzero((kind_n == _SINGLET) | include_simulated_doublets)
        answers = Rows(len(asked_n))
        with evaluating(self.module):
            for tensors in on_device(self._make_data_loader(adata, asked_n), self.module):
                output_nc = self.module(tensors[REGISTRY_KEYS.X_KEY])
                log_prob_nc = self.module.log_probs_of(output_nc)
                logits_nc = output_nc if return_logits and self.module.logits else log_prob_nc
                answers.append(logits_nc if return_logits else logits_nc.exp())
        kinds = self.get_state_registry(REGISTRY_KEYS.LABELS_KEY)["categorical_mapping"]
        frame = pd.DataFrame(answers.array(), adata.obs_names[asked_n], kinds)
        return frame if soft else frame.idxmax(axis=1)


def _require_both_kinds(model: SOLO) -> None:
    found = list(model.get_state_registry(REGISTRY_KEYS.LABELS_KEY)["categorical_mapping"])
    if sorted(map(str, found)) != [_DOUBLET, _SINGLET]:
        raise ArgumentError(
            f"SOLO tells {_DOUBLET!r} from {_SINGLET!r}, and the column of labels_key holds "
            f"{', '.join(map(repr, found[:5]))}: SOLO.from_scvi_model(model) makes cells of both kinds."
        )


def _features(model: SCVI, adata: AnnData, cells: Any = None) -> np.ndarray:
    """Mean latents and natural log of the library size, ``(n, k + 1)``."""
    latent_nk = model.get_latent_representation(adata, indices=cells)
    library_n1 = model.get_latent_library_size(adata, indices=cells, give_mean=not model.module.use_observed_lib_size)
    return np.concatenate([latent_nk, np.log(library_n1)], axis=1).astype(np.float32)
