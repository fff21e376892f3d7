"""scvi-tools' archives from before version 0.15: ``model_params.pt``, ``var_names.csv`` and ``attr.pkl``.

Their data setup is one dictionary, ``scvi_setup_dict_``; here it becomes the ``registry_`` of later versions.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core import REGISTRY_KEYS, read_regular
from ..errors import ArchiveError, ArchiveNotFoundError, blaming
from ..torch_file import read_pickle_file, read_torch_file

__all__ = ["LEGACY_KEYS", "is_legacy_archive", "read_legacy_archive", "registry_of_setup"]

LEGACY_KEYS = {
    "X": REGISTRY_KEYS.X_KEY,
    "batch_indices": REGISTRY_KEYS.BATCH_KEY,
    "labels": REGISTRY_KEYS.LABELS_KEY,
    "cat_covs": REGISTRY_KEYS.CAT_COVS_KEY,
    "cont_covs": REGISTRY_KEYS.CONT_COVS_KEY,
    "protein_expression": REGISTRY_KEYS.PROTEIN_EXP_KEY,
    "ind_x": REGISTRY_KEYS.INDICES_KEY,
}
"""Registry keys of setup dictionaries -> those of registries."""

_DATA_SETS = ("seq", "spatial")
"""Parts of an archive of GIMVI."""

_OBS_CATEGORIES = {"batch_indices": "batch_key", "labels": "labels_key"}


def is_legacy_archive(folder: Path, prefix: str) -> bool:
    """Whether a folder holds an archive of scvi-tools before 0.15."""
    return (folder / f"{prefix}model_params.pt").is_file()


def read_legacy_archive(
    folder: Path, prefix: str
) -> tuple[dict[str, Tensor], np.ndarray | dict[str, np.ndarray], dict[str, Any]]:
    """Weights, variable names ``(g,)`` (of several data sets by their names) and attributes, as in later versions.

    Raises
    ------
    ArchiveNotFoundError
        The file of names or that of attributes is missing.
    ArchiveError
        That of the weights is missing, or a file is damaged or holds something that no archive needs.
    """
    weights_path, attributes_path = folder / f"{prefix}model_params.pt", folder / f"{prefix}attr.pkl"
    var_names = _names_in(folder, prefix)
    if not attributes_path.is_file():
        raise ArchiveNotFoundError(
            f"{attributes_path} is missing: an archive of scvi-tools before 0.15 needs it. Copy all of its files."
        )
    state, attributes = read_torch_file(weights_path), read_pickle_file(attributes_path)
    if not isinstance(state, dict) or any(
        not isinstance(k, str) or not isinstance(v, Tensor) for k, v in state.items()
    ):
        raise ArchiveError(f"{weights_path} is damaged: it holds something else than tensors by name.")
    if isinstance(attributes, dict) and isinstance(attributes.get("registry_"), dict):
        return dict(state), var_names, dict(attributes)  # a later model in files of old
    if not isinstance(attributes, dict) or not isinstance(attributes.get("scvi_setup_dict_"), dict):
        raise ArchiveError(
            f"{attributes_path} has no 'scvi_setup_dict_': it is no archive of scvi-tools between 0.7 and 0.14."
        )
    attributes = dict(attributes)
    with blaming(attributes_path, "scvi_setup_dict_"):
        setup, unlabeled = attributes.pop("scvi_setup_dict_"), _pop_unlabeled_category(attributes)
        names_of_one = None if isinstance(var_names, dict) else var_names
        attributes["registry_"] = registry_of_setup(setup, names_of_one, unlabeled)
        return _with_protein_efficiency(dict(state), attributes["registry_"]), var_names, attributes


def _names_in(folder: Path, prefix: str) -> np.ndarray | dict[str, np.ndarray]:
    parts = {name: folder / f"{prefix}var_names_{name}.csv" for name in _DATA_SETS}
    if all(path.is_file() for path in parts.values()):
        return {name: _var_names(path) for name, path in parts.items()}
    return _var_names(folder / f"{prefix}var_names.csv")


def _var_names(path: Path) -> np.ndarray:
    try:
        return np.array(read_regular(path).decode("utf-8").splitlines(), dtype=object)
    except FileNotFoundError as error:
        message = f"{path} is missing: an archive of scvi-tools before 0.15 needs it. Copy all of its files."
        raise ArchiveNotFoundError(message) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{path} cannot be read: {error}.") from error


def _field(data: dict[str, Any], state: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    return {"data_registry": dict(data), "state_registry": state, "summary_stats": summary}


def registry_of_setup(
    setup: dict[str, Any], var_names: np.ndarray | None = None, unlabeled_category: object = None
) -> dict[str, Any]:
    """The registry that a setup dictionary stands for; ``model_name`` was not saved then.

    Parameters
    ----------
    setup
        The ``scvi_setup_dict_`` of an archive.
    var_names
        Names of the variables, ``(g,)``: they lay in a file beside it.
    unlabeled_category
        The label that means "none": SCANVI of that time took it as an argument of the constructor, later it is one of
        the setup.

    Raises
    ------
    KeyError
        An entry is missing.
    """
    fields: dict[str, Any] = {}
    setup_args: dict[str, Any] = {}
    for add in (_add_counts, _add_obs_categories, _add_covariates, _add_proteins, _add_indices):
        add(setup, fields, setup_args)
    if var_names is not None:
        fields[REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"] = var_names
    if unlabeled_category is not None:
        setup_args["unlabeled_category"] = unlabeled_category
        fields[REGISTRY_KEYS.LABELS_KEY]["state_registry"]["unlabeled_category"] = unlabeled_category
    return {
        "scvi_version": setup.get("scvi_version"),
        "model_name": None,
        "setup_method_name": "setup_anndata",
        "setup_args": setup_args,
        "field_registries": fields,
    }


def _add_counts(setup: dict[str, Any], fields: dict[str, Any], setup_args: dict[str, Any]) -> None:
    data, stats = setup["data_registry"]["X"], dict(setup["summary_stats"])
    state = {"n_obs": stats["n_cells"], "n_vars": stats["n_vars"]}
    fields[REGISTRY_KEYS.X_KEY] = _field(data, state, {name: stats[name] for name in ("n_vars", "n_cells")})
    setup_args["layer"] = data["attr_key"] if data["attr_name"] == "layers" else None


def _add_obs_categories(setup: dict[str, Any], fields: dict[str, Any], setup_args: dict[str, Any]) -> None:
    for old_key, argument in _OBS_CATEGORIES.items():
        key, data = LEGACY_KEYS[old_key], setup["data_registry"].get(old_key)
        if data is None:
            continue
        known = setup["categorical_mappings"][data["attr_key"]]
        state = {"categorical_mapping": known["mapping"], "original_key": known["original_key"]}
        fields[key] = _field(data, state, {f"n_{key}": len(known["mapping"])})
        # A column that scvi-tools made itself means that the user had named none.
        setup_args[argument] = None if known["original_key"] == data["attr_key"] else known["original_key"]


def _add_covariates(setup: dict[str, Any], fields: dict[str, Any], setup_args: dict[str, Any]) -> None:
    registry = setup["data_registry"]
    if "cat_covs" in registry:
        known = setup["extra_categoricals"]
        keys = list(known["keys"])
        state = {"mappings": known["mappings"], "field_keys": keys, "n_cats_per_key": list(known["n_cats_per_key"])}
        data = {"attr_name": "obsm", "attr_key": "_scvi_extra_categorical_covs"}
        fields[REGISTRY_KEYS.CAT_COVS_KEY] = _field(data, state, {"n_extra_categorical_covs": len(keys)})
        setup_args["categorical_covariate_keys"] = keys
    if "cont_covs" in registry:
        columns = np.asarray(setup["extra_continuous_keys"], dtype=object)
        data = {"attr_name": "obsm", "attr_key": "_scvi_extra_continuous_covs"}
        fields[REGISTRY_KEYS.CONT_COVS_KEY] = _field(
            data, {"columns": columns}, {"n_extra_continuous_covs": len(columns)}
        )
        setup_args["continuous_covariate_keys"] = columns.tolist()


def _add_proteins(setup: dict[str, Any], fields: dict[str, Any], setup_args: dict[str, Any]) -> None:
    data = setup["data_registry"].get("protein_expression")
    if data is None:
        return
    names = list(setup["protein_names"])
    state: dict[str, Any] = {"column_names": names}
    if setup.get("totalvi_batch_mask") is not None:
        state["protein_batch_mask"] = setup["totalvi_batch_mask"]
    fields[REGISTRY_KEYS.PROTEIN_EXP_KEY] = _field(data, state, {"n_proteins": len(names)})
    setup_args["protein_expression_obsm_key"] = data["attr_key"]


def _add_indices(setup: dict[str, Any], fields: dict[str, Any], setup_args: dict[str, Any]) -> None:
    if "ind_x" in setup["data_registry"]:
        fields[REGISTRY_KEYS.INDICES_KEY] = _field(setup["data_registry"]["ind_x"], {}, {})


def _pop_unlabeled_category(attributes: dict[str, Any]) -> Any:
    return attributes.get("init_params_", {}).get("non_kwargs", {}).pop("unlabeled_category", None)


def _with_protein_efficiency(state: dict[str, Tensor], registry: dict[str, Any]) -> dict[str, Tensor]:
    """TOTALVI of that time had no ``log_per_batch_efficiency``; zeros are what it did, ``(p, b)``."""
    fields = registry["field_registries"]
    if REGISTRY_KEYS.PROTEIN_EXP_KEY in fields and "log_per_batch_efficiency" not in state:
        n_proteins = fields[REGISTRY_KEYS.PROTEIN_EXP_KEY]["summary_stats"]["n_proteins"]
        n_batch = fields[REGISTRY_KEYS.BATCH_KEY]["summary_stats"]["n_batch"]
        state["log_per_batch_efficiency"] = torch.zeros(n_proteins, n_batch)
    return state
