"""Minified data: what a model needs of each cell without its counts, and models that work from it.

Instead of its counts a cell keeps mean and variance of its latents in ``obsm`` and its total count in ``obs``; ``uns``
says which kind of minification it is. Keys are scvi-tools', so that data and archives travel between the two.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from ...core import REGISTRY_KEYS, MinifiedDataError, unknown_name
from ...data import AnnDataManager
from ...data.access import is_mudata, minify_type_of
from ...data.constants import MINIFY_TYPE_UNS_KEY, RAW
from ...data.fields import BaseAnnDataField, LayerField, NumericalObsField, ObsmField, StringUnsField
from ...data.fields.bundles import in_modality
from ...data.fields.mudata import ModalityField
from ...data.modalities import with_modalities
from ...module.base.minified import LATENT_POSTERIOR, LATENT_POSTERIOR_WITH_COUNTS
from ...store.matrices.blocks import CompressedBlock, blocks
from .face import keep_manager
from .model import BaseModelClass

__all__ = ["BaseMinifiedModeModelClass", "BaseMudataMinifiedModeModelClass", "minified_copy"]

MinifiedDataType = Literal["latent_posterior_parameters", "latent_posterior_parameters_with_counts"]


def minified_copy(manager: AnnDataManager, keep_count_data: bool = False) -> Any:
    """AnnData or MuData with the metadata of a set-up one and, unless asked to keep them, without its counts.

    Parameters
    ----------
    manager
        Manager of the data; they are not changed.
    keep_count_data
        Copy everything. Otherwise ``X`` and all layers are empty CSR matrices of the same shape; so is ``raw``, where
        the counts lie in it, and else it is left out.

    Raises
    ------
    ValueError
        The manager has no data yet.
    """
    adata = manager.adata
    if adata is None:
        raise ValueError("This manager has no AnnData yet: call setup_anndata, or its register_fields, first.")
    if is_mudata(adata):
        return with_modalities(adata, {key: _copied(part, keep_count_data) for key, part in adata.mod.items()})
    of_raw = manager.data_registry.get(REGISTRY_KEYS.X_KEY, {}).get("attr_name") == RAW
    return _copied(adata, keep_count_data, of_raw)


def _copied(adata: AnnData, keep_count_data: bool, of_raw: bool = False) -> AnnData:
    if keep_count_data:
        return adata.to_memory() if adata.isbacked else adata.copy()
    empty = sp.csr_matrix(adata.shape, dtype=np.float32)
    parts = {name: dict(getattr(adata, name)) for name in ("uns", "obsm", "varm", "obsp", "varp")}
    layers = {key: empty.copy() for key in adata.layers}
    raw = {"X": sp.csr_matrix(adata.raw.shape, dtype=np.float32), "var": adata.raw.var.copy()} if of_raw else None
    return AnnData(empty, obs=adata.obs.copy(), var=adata.var.copy(), layers=layers, raw=raw, **parts)


def total_counts(manager: AnnDataManager) -> np.ndarray:
    """Total count of each cell over the model's genes, ``(n,)``, of the type that sums of the counts have.

    One pass, bounded memory. Zeros for cells without genes.
    """
    if REGISTRY_KEYS.X_KEY not in manager.data_registry:
        return np.zeros(manager.adata.n_obs, dtype=np.float32)  # type: ignore[union-attr]
    x = manager.get_from_registry(REGISTRY_KEYS.X_KEY)
    indexer = manager.get_column_indexer(REGISTRY_KEYS.X_KEY)
    used = np.isin(np.arange(x.shape[1]), np.arange(x.shape[1]) if indexer is None else indexer)
    total_n = np.zeros(x.shape[0])
    for block in blocks(x):
        if isinstance(block, CompressedBlock):
            kept = block.data * used[block.column_of_entry()]
            total_n += np.bincount(block.row_of_entry(), weights=kept, minlength=len(total_n))
        else:
            total_n[block.start : block.stop] += block.values[:, used].sum(axis=1, dtype=np.float64)
    rows_n = manager.get_row_indexer(REGISTRY_KEYS.X_KEY)
    total_n = total_n if rows_n is None else np.where(rows_n >= 0, total_n[rows_n], 0)
    return total_n.astype(np.zeros(0, x.dtype).sum().dtype)


class BaseMinifiedModeModelClass(BaseModelClass):
    """Abstract model that can go on from minified data.

    A subclass names the keys of ``obsm`` in ``_LATENT_QZM_KEY`` and ``_LATENT_QZV_KEY``; its module is a
    :class:`~celbo.module.base.BaseMinifiedModeModuleClass`.
    """

    _LATENT_QZM_KEY: ClassVar[str] = ""
    _LATENT_QZV_KEY: ClassVar[str] = ""

    @property
    def minified_data_type(self) -> str | None:  # type: ignore[override]
        """How the model's data are minified; None: they are not, or the setup passes over it."""
        stored = REGISTRY_KEYS.MINIFY_TYPE_KEY in self.registry_["field_registries"]
        return minify_type_of(self._adata) if stored else None

    @property
    def adata(self) -> AnnData | None:
        """The training data; None for a model loaded without."""
        return self._adata

    @adata.setter
    def adata(self, adata: AnnData) -> None:
        super(BaseMinifiedModeModelClass, type(self)).adata.fset(self, adata)  # type: ignore[attr-defined]
        self.module.minified_data_type = self.minified_data_type

    def minify_adata(
        self,
        minified_data_type: MinifiedDataType = "latent_posterior_parameters",
        use_latent_qzm_key: str = "X_latent_qzm",
        use_latent_qzv_key: str = "X_latent_qzv",
    ) -> None:
        """Exchange the model's data for minified ones; the AnnData that it had is not changed.

        ``obsm`` gets mean and variance of each cell's latents, ``obs["observed_lib_size"]`` its total count.

        Parameters
        ----------
        minified_data_type
            ``"latent_posterior_parameters"``: without the counts; what needs them then raises a ``ValueError``.
            ``"latent_posterior_parameters_with_counts"``: beside the counts; training and ELBO take these.
        use_latent_qzm_key, use_latent_qzv_key
            Keys of ``adata.obsm`` with the mean and the *variance* of the latents, ``(n, k)`` each, as
            ``get_latent_representation(return_dist=True)`` gives them.

        Raises
        ------
        ValueError
            Another type; the library size is a latent variable; the data are minified already; a shape or a variance is
            wrong.
        KeyError
            No such entry of ``obsm``.

        Examples
        --------
        >>> adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = model.get_latent_representation(return_dist=True)
        >>> model.minify_adata()
        >>> int(model.adata.X.sum())  # the counts are gone, the latents answer
        0
        """
        self._minify(minified_data_type, use_latent_qzm_key, use_latent_qzv_key)

    def _minify(self, minified_data_type: MinifiedDataType, use_latent_qzm_key: str, use_latent_qzv_key: str) -> None:
        if self.minified_data_type is not None:
            raise ValueError(f"The data of this model are minified already ({self.minified_data_type}).")
        if not self.module.use_observed_lib_size:
            raise ValueError("Minification is not supported for models that do not use observed library size.")
        old = self.adata_manager
        assert old.adata is not None
        mean_nk = _stored(old.adata, use_latent_qzm_key, self.module.n_latent)
        variance_nk = _stored(old.adata, use_latent_qzv_key, self.module.n_latent)
        if not (variance_nk > 0).all():
            raise ValueError(f"adata.obsm[{use_latent_qzv_key!r}] holds variances, which must be positive.")
        adata = minified_copy(old, keep_count_data=minified_data_type == LATENT_POSTERIOR_WITH_COUNTS)
        adata.uns[MINIFY_TYPE_UNS_KEY] = minified_data_type
        adata.obsm[self._LATENT_QZM_KEY], adata.obsm[self._LATENT_QZV_KEY] = mean_nk, variance_nk
        adata.obs[self._OBSERVED_LIB_SIZE_KEY] = total_counts(old)
        self._take_minified(adata, old)

    def _take_minified(self, adata: AnnData, old: AnnDataManager) -> None:
        del adata.uns["_scvi_uuid"]  # it is other data now
        fields = _without_checks(old.fields) if minify_type_of(adata) == LATENT_POSTERIOR else old.fields
        manager = AnnDataManager(list(fields), old._get_setup_method_args(), old.validation_checks)
        manager.register_fields(adata, old.registry)
        manager.register_new_fields(self._fields_of_minified(adata))
        keep_manager(type(self), manager)
        keep_manager(self, manager)
        self._adata, self._adata_manager, self.registry_ = adata, manager, manager.registry
        self.module.minified_data_type = self.minified_data_type

    @classmethod
    def _get_fields_for_adata_minification(cls, minified_data_type: str | None) -> list[BaseAnnDataField]:
        """Fields that minified data have beside the others."""
        return [
            ObsmField(REGISTRY_KEYS.LATENT_QZM_KEY, cls._LATENT_QZM_KEY),
            ObsmField(REGISTRY_KEYS.LATENT_QZV_KEY, cls._LATENT_QZV_KEY),
            NumericalObsField(REGISTRY_KEYS.OBSERVED_LIB_SIZE, cls._OBSERVED_LIB_SIZE_KEY),
            StringUnsField(REGISTRY_KEYS.MINIFY_TYPE_KEY, MINIFY_TYPE_UNS_KEY),
        ]

    @classmethod
    def _fields_of_minified(cls, adata: AnnData) -> list[BaseAnnDataField]:
        fields = cls._get_fields_for_adata_minification(minify_type_of(adata))
        return in_modality(None, fields) if is_mudata(adata) else fields

    @classmethod
    def _fields_of_setup(cls, adata: AnnData, fields: Sequence[BaseAnnDataField]) -> list[BaseAnnDataField]:
        kind = minify_type_of(adata)
        if kind is None:
            return list(fields)
        kept = _without_checks(fields) if kind == LATENT_POSTERIOR else list(fields)
        return [*kept, *cls._fields_of_minified(adata)]

    def _build_module(self, **computed: Any) -> None:
        super()._build_module(**computed)
        if self.module is not None:
            self.module.minified_data_type = self.minified_data_type

    def _manager_like_training(self, adata: AnnData, **kwargs: Any) -> AnnDataManager:
        if minify_type_of(adata) == self.minified_data_type:
            return super()._manager_like_training(adata, **kwargs)
        return self._replay_setup(adata, self.registry_, **kwargs)

    @classmethod
    def _replay_setup(cls, adata: AnnData, registry: Mapping[str, Any], **kwargs: Any) -> AnnDataManager:
        takes_stored = (registry.get("setup_args") or {}).get("use_minified", True)
        known = REGISTRY_KEYS.MINIFY_TYPE_KEY in registry["field_registries"]
        if minify_type_of(adata) is not None and takes_stored and not known:
            data = "mudata" if is_mudata(adata) else "adata"
            raise MinifiedDataError(  # in scvi-tools' words
                f"It appears you are trying to load a non-minified model with minified {data}"
            )
        return super()._replay_setup(adata, registry, **kwargs)


class BaseMudataMinifiedModeModelClass(BaseMinifiedModeModelClass):
    """Abstract model that can go on from minified MuData, or AnnData."""

    def minify_mudata(
        self,
        minified_data_type: MinifiedDataType = "latent_posterior_parameters",
        use_latent_qzm_key: str = "X_latent_qzm",
        use_latent_qzv_key: str = "X_latent_qzv",
    ) -> None:
        """Exchange the model's MuData for a minified one; the MuData that it had is not changed.

        Its ``obsm`` gets mean and variance of each cell's joint latents, ``obs["observed_lib_size"]`` the total count
        of genes; without counts the matrices of all modalities are empty.

        Parameters
        ----------
        minified_data_type, use_latent_qzm_key, use_latent_qzv_key
            As in :meth:`minify_adata`; keys of ``mdata.obsm``.

        Raises
        ------
        ValueError, KeyError
            As :meth:`minify_adata`.

        Examples
        --------
        >>> mdata.obsm["X_latent_qzm"], mdata.obsm["X_latent_qzv"] = model.get_latent_representation(return_dist=True)
        >>> model.minify_mudata()
        """
        self._minify(minified_data_type, use_latent_qzm_key, use_latent_qzv_key)


def _stored(adata: AnnData, key: str, n_latent: int) -> np.ndarray:
    if key not in adata.obsm:
        raise KeyError(
            f"{unknown_name('entry of adata.obsm', key, adata.obsm)} Put the latents there first: adata.obsm[{key!r}], "
            "from get_latent_representation(return_dist=True), which gives mean and variance."
        )
    stored_nk = np.array(adata.obsm[key], dtype=np.float32)
    if stored_nk.shape != (adata.n_obs, n_latent):
        raise ValueError(f"adata.obsm[{key!r}] is {stored_nk.shape}, wanted {(adata.n_obs, n_latent)}: cells, latents.")
    return stored_nk


def _without_checks(fields: Sequence[BaseAnnDataField]) -> list[BaseAnnDataField]:
    """The fields, with count matrices that are taken as they are: they were emptied on purpose."""
    return [_unchecked(field) for field in fields]


def _unchecked(field: BaseAnnDataField) -> BaseAnnDataField:
    of_anndata = field.adata_field
    if not isinstance(of_anndata, LayerField):
        return field
    taken = LayerField(field.registry_key, field.attr_key, is_count_data=False, use_raw=of_anndata.use_raw)
    return taken if field is of_anndata else ModalityField(taken, field.mod_key)
