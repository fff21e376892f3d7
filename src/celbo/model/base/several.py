"""Models of several data sets that share no cells: a manager of each, their registries, their files in an archive."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData

from ...core import REGISTRY_KEYS
from ...data import AnnDataManager, state_registry_of
from ...io.scvitools.read import OTHER_REGISTRIES
from .archives.beside import find_sets, write_sets
from .face import keep_manager
from .model import BaseModelClass

__all__ = ["SeveralSetsMixin"]


class SeveralSetsMixin(BaseModelClass):
    """What a model of several data sets keeps of them. A subclass says their names, and takes them in its constructor.

    Attributes
    ----------
    adata_managers
        Manager of each data set by its name; none of a model that was loaded without data.
    registries_
        Registry of each, in the same order. The first one is the model's, which has the others in it.
    """

    adata_managers: dict[str, AnnDataManager]
    registries_: list[Mapping[str, Any]]

    @property
    def set_names(self) -> list[str]:
        """Names of the data sets, in their order."""
        raise NotImplementedError

    def _registries_by_name(self) -> dict[str, Mapping[str, Any]]:
        return dict(zip(self.set_names, self.registries_, strict=True))

    def _take_sets(self, adatas: Mapping[str, AnnData]) -> None:
        """Keep each data set with its manager; of a model without data its registries alone."""
        self.adata_managers = {name: self._class_manager(adata) for name, adata in adatas.items()}
        for manager in self.adata_managers.values():
            keep_manager(self, manager)
        if not adatas:
            self.registries_ = [self.registry_, *self.registry_[OTHER_REGISTRIES]]
            return
        self.registries_ = [manager.registry for manager in self.adata_managers.values()]
        self.registry_ = {**self.registries_[0], OTHER_REGISTRIES: self.registries_[1:]}

    @classmethod
    def _replay_setups(cls, adatas: Iterable[AnnData], registry: Mapping[str, Any], **kwargs: Any) -> AnnDataManager:
        """Repeat the setup of each data set; the manager of the first."""
        registries = [registry, *registry[OTHER_REGISTRIES]]
        managers = [cls._replay_setup(*both, **kwargs) for both in zip(adatas, registries, strict=True)]
        return managers[0]

    def get_var_names(self, legacy_mudata_format: bool = False) -> dict[str, np.ndarray]:  # type: ignore[override]
        """Names of the features of each data set, by its name.

        Parameters
        ----------
        legacy_mudata_format
            Accepted for compatibility with scvi-tools.

        Examples
        --------
        >>> [len(names) for names in model.get_var_names().values()]
        [30, 20]
        """
        states = (state_registry_of(one, REGISTRY_KEYS.X_KEY) for one in self.registries_)
        return {name: np.asarray(state["column_names"]) for name, state in zip(self.set_names, states, strict=True)}

    def save(  # type: ignore[override]
        self,
        dir_path: str,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        save_kwargs: dict[str, Any] | None = None,
        **anndata_write_kwargs: Any,
    ) -> None:
        """Write the model as :meth:`BaseModelClass.save <celbo.model.base.BaseModelClass.save>` does.

        Parameters
        ----------
        dir_path, prefix, overwrite, save_kwargs, **anndata_write_kwargs
            As there.
        save_anndata
            Write the training data beside it, each data set as ``adata_NAME.h5ad``.

        Raises
        ------
        ValueError
            ``save_anndata`` of a model that was loaded without data; an argument that nobody knows.

        Examples
        --------
        >>> model.save("my_model", save_anndata=True)
        """
        if save_anndata and not self.adata_managers:
            raise ValueError("save_anndata=True, but this model was loaded without data.")
        super().save(dir_path, prefix, overwrite, **anndata_write_kwargs)
        if save_anndata:
            sets = {name: manager.adata for name, manager in self.adata_managers.items() if manager.adata is not None}
            write_sets(sets, Path(dir_path), prefix or "", anndata_write_kwargs)

    @staticmethod
    def _sets_beside(dir_path: str, prefix: str | None, names: Iterable[str]) -> dict[str, AnnData] | None:
        """The data sets that :meth:`save` wrote beside an archive, if all are there."""
        return find_sets(Path(dir_path), prefix or "", names)
