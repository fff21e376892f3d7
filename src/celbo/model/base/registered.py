"""Registered: what setup found out about the data of a model, by name."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData

from ...core import REGISTRY_KEYS, checked_methods, unknown_name
from ...data import attrdict, state_registry_of
from ...data.registry import names_by_modality
from ...verbs.base import Model
from .describe import registry_text, setup_call_text

__all__ = ["Registered"]


@checked_methods
class Registered(Model):
    """A model that looks things up in the registry of its data."""

    @property
    def registry(self) -> Mapping[str, Any]:
        """What setup found out about the training data."""
        return self.registry_

    def data_registry(self, registry_key: str) -> Any:
        """The data of a field as they lie in the training data.

        Parameters
        ----------
        registry_key
            Key of the field, such as ``"X"``, ``"batch"`` or ``"labels"``.

        Raises
        ------
        ValueError
            The model was loaded without data.

        Examples
        --------
        >>> model.data_registry("batch").shape
        (400, 1)
        """
        return self.adata_manager.get_from_registry(registry_key)

    def get_from_registry(self, adata: AnnData, registry_key: str) -> Any:
        """The data of a field as they lie in an AnnData.

        Parameters
        ----------
        adata
            Data that the model has seen.
        registry_key
            As in :meth:`data_registry`.

        Raises
        ------
        ValueError
            The model has not seen these data.

        Examples
        --------
        >>> model.get_from_registry(adata, "X").shape
        (400, 100)
        """
        return self.get_anndata_manager(adata, required=True).get_from_registry(registry_key)

    def get_state_registry(self, registry_key: str) -> attrdict:
        """What setup learnt about a field: categories, column names.

        Parameters
        ----------
        registry_key
            Key of the field, such as ``"X"``, ``"batch"`` or ``"labels"``.

        Examples
        --------
        >>> list(model.get_state_registry("batch")["categorical_mapping"])
        ['batch_0', 'batch_1']
        """
        return state_registry_of(self.registry_, registry_key)

    def get_setup_arg(self, setup_arg: str) -> Any:
        """An argument of the setup call.

        Parameters
        ----------
        setup_arg
            Name of the argument.

        Raises
        ------
        KeyError
            An argument that the setup method does not have.

        Examples
        --------
        >>> model.get_setup_arg("batch_key")
        'batch'
        """
        known = self.registry_["setup_args"]
        if setup_arg not in known:
            raise KeyError(unknown_name("argument of the setup call (setup_arg)", setup_arg, known))
        return known[setup_arg]

    def get_var_names(self, legacy_mudata_format: bool = False) -> np.ndarray:
        """Names of the features, in the model's order.

        Parameters
        ----------
        legacy_mudata_format
            Of MuData, give the names of all modalities in one array.

        Returns
        -------
        ``(g,)``; for a model of MuData a dictionary of such, by modality.

        Examples
        --------
        >>> list(model.get_var_names()[:2])
        ['gene_0', 'gene_1']
        """
        by_modality = names_by_modality(self.registry_)
        if not by_modality:
            return np.asarray(self.get_state_registry(REGISTRY_KEYS.X_KEY)["column_names"])
        if legacy_mudata_format:
            return np.concatenate(list(by_modality.values()))
        return by_modality  # type: ignore[return-value]  # verbs of MuData ask for the names of a field

    def update_setup_method_args(self, setup_method_args: dict[str, Any]) -> None:
        """Change setup arguments in the registry.

        Parameters
        ----------
        setup_method_args
            Arguments by name.
        """
        self.adata_manager.update_setup_method_args(setup_method_args)

    def view_anndata_setup(self, adata: AnnData | None = None, hide_state_registries: bool = False) -> None:
        """Print the setup of an AnnData; None: of the training data.

        Parameters
        ----------
        adata
            Data that the model has seen; None: the training data.
        hide_state_registries
            Leave out categories and other states of the fields.
        """
        manager = self.adata_manager if adata is None else self.get_anndata_manager(adata, required=True)
        manager.view_registry(hide_state_registries=hide_state_registries)

    def view_setup_method_args(self) -> None:
        """Print the setup call."""
        print(setup_call_text(self.registry_))

    def view_registry(self, hide_state_registries: bool = False) -> None:
        """Print the registry that the model carries, with or without its data.

        Parameters
        ----------
        hide_state_registries
            Leave out categories and other states of the fields.
        """
        print(registry_text(self.registry_, hide_state_registries))
