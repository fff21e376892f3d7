"""ArchesMixin: a query mapped onto a trained reference. No logic here: genes in ``query``, weights in ``surgery``."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from torch import Tensor

from ....core import REGISTRY_KEYS, checked_methods, unknown_name
from ....data import data_registry_of, state_registry_of
from ....data.access import is_mudata, raw_of
from ....data.constants import RAW
from ....data.genes import align_genes
from ....data.modalities import listed_modalities, with_modalities
from ....data.registry import names_by_modality
from .. import archives
from ..face import ModelFace
from . import surgery
from .genes import match_genes, with_counts_in_x, with_raw, with_reference_genes

__all__ = ["ArchesMixin"]

logger = logging.getLogger("celbo")

_CANNOT_MOVE = """\
Training on this query cannot move the latents of its cells: {reason}. They stay where the reference puts them; only \
the decoder learns. {cure}"""

_NO_COVARIATE = (
    "the encoder of the reference sees no covariate (encode_covariates=False)",
    "To let it adapt, train the reference with encode_covariates=True, or pass freeze_expression=False, with which the "
    "reference's cells move too.",
)
_NOTHING_NEW = (
    "it has no batch or category that the reference does not know",
    "If these cells are of a new batch, give it a name of its own in the batch column.",
)


@checked_methods
class ArchesMixin(ModelFace):
    """Mapping of query cells onto a trained reference model (scArches, Lotfollahi et al. 2022).

    Attributes
    ----------
    surgery_
        Of a model made by :meth:`load_query_data`: whether the reference was trained, the options, and for each weight
        that grew which of its entries are new. It is in the archive: a model saved and loaded is frozen as before.
    """

    surgery_: Mapping[str, Any] | None = None

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData | None = None,
        reference_model: "str | PathLike[str] | ModelFace | None" = None,
        registry: Mapping[str, Any] | None = None,
        inplace_subset_query_vars: bool = False,
        accelerator: str = "auto",
        device: int | str = "auto",
        unfrozen: bool = False,
        freeze_dropout: bool = False,
        freeze_expression: bool = True,
        freeze_decoder_first_layer: bool = True,
        freeze_batchnorm_encoder: bool = True,
        freeze_batchnorm_decoder: bool = False,
        freeze_classifier: bool = True,
        transfer_batch: bool = True,
        datamodule: object = None,
    ) -> Self:
        """Model of a query: the reference with weights for the query's new batches and categories.

        Train it on the query: what is new moves, and of what was learnt only what the options free. With the defaults
        cells of known categories keep their latents bit for bit. Weight decay is 0 unless ``plan_kwargs`` gives it.

        Parameters
        ----------
        adata
            Query cells with the reference's genes, by name and in any order, and the columns it was set up with.
            Registered here: ``setup_anndata`` is not needed. Missing genes: see :meth:`prepare_query_anndata`.
        reference_model
            Trained model of this class, or the folder of its archive, celbo's or scvi-tools'. It is not changed.
        registry
            Registry to take instead of ``adata``, for a model whose data come later.
        inplace_subset_query_vars
            Bring ``adata`` itself into the reference's genes and order. Not needed.
        accelerator, device
            Where the module goes.
        unfrozen
            Let every weight move. The reference's cells then move too.
        freeze_dropout
            Train without dropout.
        freeze_expression
            Keep the encoder's first layer, apart from new columns.
        freeze_decoder_first_layer
            Keep the decoder's first layer, apart from new columns.
        freeze_batchnorm_encoder, freeze_batchnorm_decoder
            Keep batch normalizations whole: scale, shift, and the reference's mean and variance, in training too.
        freeze_classifier
            Keep the classifier whole (SCANVI).
        transfer_batch
            Admit batches that the reference does not know.
        datamodule
            Pass it to ``train``.

        Raises
        ------
        ValueError
            A reference of another class; genes that are missing; new batches with ``transfer_batch=False``; neither
            data nor a registry.

        Notes
        -----
        Where scvi-tools 1.4.2 differs: it puts the columns of a new batch behind those of the other covariates, which
        then read each other's weights; it starts them at random and lets the columns of known categories move, so that
        reference cells move where the encoder sees covariates; it keeps new rows of an embedding and new dispersions
        at random values; it lets the classifier's batch normalization move; a query model that is saved and loaded is
        frozen no more.

        Examples
        --------
        >>> query = celbo.data.synthetic_iid(seed=1)
        >>> mapped = celbo.model.SCVI.load_query_data(query, model)
        >>> mapped.train(max_epochs=1, verbose=0)
        >>> mapped.get_latent_representation().shape
        (400, 5)
        """
        if datamodule is not None:
            raise ValueError("Pass datamodule= to train(); here registry= says what it holds.")
        if adata is None and registry is None:
            raise ValueError("Please provide either an AnnData or a registry dictionary.")
        reference = cls._reference(reference_model)
        saved = archives.Saved(cls.__name__, {}, dict(registry or reference.registry_), reference.init_params_)
        if adata is None:
            model = archives.without_data(cls, saved)
        else:
            cls._set_up_query(adata, reference, inplace_subset_query_vars)
            model = cls(adata, **saved.init_kwargs)  # type: ignore[call-arg]  # a subclass names them
        model.init_params_ = reference.init_params_
        if not transfer_batch:
            _require_known_batches(model, reference)
        model.module.on_load(model, scvi_version=reference.registry_.get("scvi_version"))
        model._operate(
            reference,
            surgery.Freezing(
                unfrozen=unfrozen,
                freeze_dropout=freeze_dropout,
                freeze_expression=freeze_expression,
                freeze_decoder_first_layer=freeze_decoder_first_layer,
                freeze_batchnorm_encoder=freeze_batchnorm_encoder,
                freeze_batchnorm_decoder=freeze_batchnorm_decoder,
                freeze_classifier=freeze_classifier,
            ),
        )
        model.to_device(archives.pick_device(accelerator, device))
        return model

    def _operate(self, reference: Any, options: surgery.Freezing) -> None:
        """Put the reference's weights in, extended, and freeze them."""
        module = self.module
        state, new = surgery.extended_state(
            {name: tensor.cpu() for name, tensor in reference.module.state_dict().items()},
            module.state_dict(),
            surgery.covariates_of(reference.module),
            surgery.covariates_of(module),
            frozenset(name for name, _ in module.named_buffers()),
            frozenset(module.parameters_of_cells),
        )
        module.load_state_dict(state)
        free = self._freeze(new, options)
        self.surgery_ = {
            "of_trained": reference.is_trained_,
            "options": asdict(options),
            "new": {name: is_new.numpy() for name, is_new in new.items()},
        }
        sees_covariates = bool(module.encode_covariates)
        if not surgery.frees_encoder(free, sees_covariates):
            reason, cure = _NOTHING_NEW if sees_covariates else _NO_COVARIATE
            logger.warning(_CANNOT_MOVE.format(reason=reason, cure=cure))

    def _freeze(self, new: Mapping[str, Tensor], options: surgery.Freezing) -> dict[str, Any]:
        self._plan_defaults = {**type(self)._plan_defaults, "weight_decay": 0.0}
        free = surgery.operate(self.module, new, options)
        self.module.eval()
        return free

    def _when_loaded(self) -> None:
        if self.surgery_ is not None:
            new = {name: torch.from_numpy(is_new) for name, is_new in self.surgery_["new"].items()}
            self._freeze(new, surgery.Freezing(**self.surgery_["options"]))

    @classmethod
    def _reference(cls, reference_model: object) -> Any:
        if reference_model is None:
            raise ValueError("Please provide a reference model as string or loaded model.")
        if isinstance(reference_model, str | PathLike):
            return archives.load_model(cls, str(reference_model), False, "cpu", "auto", "", None)
        if type(reference_model) is not cls:
            raise ValueError(
                f"reference_model is a {type(reference_model).__name__}, wanted a {cls.__name__} or the folder of its "
                f"archive: use {type(reference_model).__name__}.load_query_data."
            )
        return reference_model

    @classmethod
    def _set_up_query(cls, adata: AnnData, reference: Any, subset: bool) -> None:
        """Register the query like the reference's data, new categories behind the known ones."""
        in_raw = _lies_in_raw(reference.registry_)
        if is_mudata(adata):
            for key, names in names_by_modality(reference.registry_).items():
                cls._require_features(
                    _modality(adata, key).var_names, names, f"modality {key!r} of the query", "prepare_query_mudata"
                )
        else:
            names = reference.get_var_names()
            own = raw_of(adata).var_names if in_raw else adata.var_names
            whose = "the query's raw" if in_raw else "the query"
            cls._require_features(own, names, whose, "prepare_query_anndata")
        if subset and not in_raw and not is_mudata(adata):
            adata._inplace_subset_var(list(names))
        cls._replay_setup(adata, reference.registry_, extend_categories=True, allow_missing_labels=True)

    @classmethod
    def _require_features(cls, own: pd.Index, names: Any, whose: str, prepare: str) -> None:
        missing = align_genes(own, names, where=f"var_names of {whose}").missing
        if len(missing):
            raise ValueError(
                f"{whose[0].upper()}{whose[1:]} lacks {len(missing)} of the reference's {len(names)} genes: "
                f"{', '.join(map(repr, map(str, missing[:5])))}{', ...' if len(missing) > 5 else ''}. "
                f"{cls.__name__}.{prepare}(adata, reference_model) counts them as zeros."
            )

    @staticmethod
    def prepare_query_anndata(
        adata: AnnData,
        reference_model: "str | PathLike[str] | ModelFace",
        return_reference_var_names: bool = False,
        inplace: bool = True,
    ) -> AnnData | pd.Index | None:
        """Give a query the reference's genes, in its order, with zeros for those that it lacks.

        How many were found, padded and left out goes to the log. Metadata of cells are kept; ``X`` and all layers are
        padded; ``raw`` and ``varp`` are left out. Where the reference takes its counts from ``raw``, so does this: then
        ``raw`` alone is changed.

        Parameters
        ----------
        adata
            The query.
        reference_model
            Trained model, or the folder of its archive, celbo's or scvi-tools'.
        return_reference_var_names
            Only give the names of the reference's genes.
        inplace
            Change ``adata`` and give None, or give a new AnnData.

        Raises
        ------
        ValueError
            No gene of the reference is there; a name occurs twice; the data lie in a file.

        Warns
        -----
        UserWarning
            Less than 80% of the reference's genes are there.

        Examples
        --------
        >>> query = celbo.data.synthetic_iid(seed=1)[:, ::-1].copy()
        >>> celbo.model.SCVI.prepare_query_anndata(query, model)
        >>> list(query.var_names) == list(adata.var_names)
        True
        """
        registry = _registry_of(reference_model)
        names = state_registry_of(registry, REGISTRY_KEYS.X_KEY)["column_names"]
        if return_reference_var_names:
            return pd.Index(names)
        in_raw = _lies_in_raw(registry)
        counts = with_counts_in_x(adata) if in_raw else adata
        prepared = with_reference_genes(counts, match_genes(counts, names), names)
        prepared = with_raw(adata, prepared) if in_raw else prepared
        if not inplace:
            return prepared
        adata._init_as_actual(prepared)  # anndata's own way to change the genes of an object that exists
        return None

    @staticmethod
    def prepare_query_mudata(
        mdata: Any,
        reference_model: "str | PathLike[str] | ModelFace",
        return_reference_var_names: bool = False,
        inplace: bool = True,
    ) -> Any:
        """Give each modality of a query the reference's features, in its order, with zeros for those that it lacks.

        A modality that the query does not have is added without a cell. How many features were found, padded and left
        out goes to the log.

        Parameters
        ----------
        mdata
            The query; the names of its modalities are the reference's.
        reference_model
            Trained model, or the folder of its archive, celbo's or scvi-tools'.
        return_reference_var_names
            Only give the names of the reference's features, by modality.
        inplace
            Put the modalities into ``mdata`` and give None, or give a new MuData.

        Raises
        ------
        ValueError
            A reference of an AnnData; a modality with no feature of the reference; a name that occurs twice.

        Examples
        --------
        >>> prepared = MULTIVI.prepare_query_mudata(query, model, inplace=False)  # doctest: +SKIP
        """
        by_modality = names_by_modality(_registry_of(reference_model))
        if not by_modality:
            raise ValueError("This reference was trained on an AnnData: prepare_query_anndata is for its queries.")
        if return_reference_var_names:
            return {key: pd.Index(names) for key, names in by_modality.items()}
        prepared = {key: _with_features(mdata, key, names) for key, names in by_modality.items()}
        others = {key: part for key, part in mdata.mod.items() if key not in prepared}
        made = with_modalities(mdata, prepared | others, other_features=True, into=mdata if inplace else None)
        return None if inplace else made


def _modality(mdata: Any, key: str) -> AnnData:
    if key not in mdata.mod:
        raise ValueError(
            f"The query has no modality {key!r} (it has {listed_modalities(mdata)}): prepare_query_mudata adds it, "
            "without a cell."
        )
    return mdata.mod[key]


def _with_features(mdata: Any, key: str, names: Any) -> AnnData:
    if key not in mdata.mod:
        logger.info("The query has no modality %r: no cell of it.", key)
        return AnnData(sp.csr_matrix((0, len(names)), dtype=np.float32), var=pd.DataFrame(index=pd.Index(names)))
    return with_reference_genes(mdata.mod[key], match_genes(mdata.mod[key], names), names)


def _registry_of(reference_model: Any) -> Mapping[str, Any]:
    if not isinstance(reference_model, str | PathLike):
        return reference_model.registry_
    return archives.read_saved(Path(reference_model), "").registry


def _lies_in_raw(registry: Mapping[str, Any]) -> bool:
    """Whether the counts of a setup are those of ``raw``."""
    return data_registry_of(registry).get(REGISTRY_KEYS.X_KEY, {}).get("attr_name") == RAW


def _require_known_batches(model: Any, reference: Any) -> None:
    own, known = (
        list(one.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]) for one in (model, reference)
    )
    for batch in own[len(known) :]:
        raise ValueError(
            "This model does not allow for query having batch categories missing from the reference: "
            f"{unknown_name('batch of the reference', batch, known)} transfer_batch=True admits it."
        )
