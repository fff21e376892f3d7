"""``scvi.model.base._save_load`` and ``_constants``: archives in parts, for code that puts them together itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ...data import align_genes
from ...data import read as read_data
from ...io.saved_model import set_attributes
from ...model.base.archives.archive import Saved, read_saved

__all__ = [
    "SAVE_KEYS",
    "_get_loaded_data",
    "_get_var_names",
    "_initialize_model",
    "_load_saved_files",
    "_validate_var_names",
]


class _SaveKeys(NamedTuple):
    ADATA_FNAME: str = "adata.h5ad"
    MDATA_FNAME: str = "mdata.h5mu"
    MODEL_FNAME: str = "model.pt"
    MODEL_STATE_DICT_KEY: str = "model_state_dict"
    VAR_NAMES_KEY: str = "var_names"
    ATTR_DICT_KEY: str = "attr_dict"
    LEGACY_MODEL_FNAME: str = "model_params.pt"
    LEGACY_VAR_NAMES_FNAME: str = "var_names.csv"
    LEGACY_SETUP_DICT_FNAME: str = "attr.pkl"


SAVE_KEYS = _SaveKeys()


def _load_saved_files(
    dir_path: str,
    load_adata: bool,
    prefix: str | None = None,
    map_location: Any = None,
    backup_url: str | None = None,
) -> tuple[dict[str, Any], np.ndarray, dict[str, torch.Tensor], Any]:
    """An archive of either kind as attributes, gene names, weights and, where asked for, data.

    Raises
    ------
    ArchiveError
        No archive is there, or it is damaged.
    ValueError
        Data are asked for and none were saved.
    """
    saved = read_saved(dir_path, prefix or "")
    attributes = {"registry_": saved.registry, "init_params_": saved.init_params, **saved.attributes}
    weights = saved.state_dict
    if map_location is not None:
        weights = {name: tensor.to(map_location) for name, tensor in weights.items()}
    return attributes, _names(saved), weights, _data(dir_path, prefix or "") if load_adata else None


def _get_loaded_data(
    reference_model: Any, device: Any = None, adata: Any = None
) -> tuple[dict[str, Any], np.ndarray, dict[str, torch.Tensor], dict[str, Any]]:
    """A reference model, or its archive, as attributes, gene names, weights and (empty) Pyro parameters."""
    if isinstance(reference_model, str):
        return *_load_saved_files(reference_model, load_adata=False, map_location=device)[:3], {
            "params": {},
            "constraints": {},
        }
    attributes = {name: value for name, value in vars(reference_model).items() if name.endswith("_")}
    weights = {name: tensor.clone() for name, tensor in reference_model.module.state_dict().items()}
    return attributes, np.asarray(reference_model.get_var_names()), weights, _no_pyro()


def _no_pyro() -> dict[str, Any]:
    return {"params": {}, "constraints": {}}


def _names(saved: Saved) -> np.ndarray:
    return np.asarray(saved.registry["field_registries"]["X"]["state_registry"]["column_names"])


def _data(dir_path: str, prefix: str) -> Any:
    path = Path(dir_path) / f"{prefix}{SAVE_KEYS.ADATA_FNAME}"
    if not path.is_file():
        raise ValueError(f"No data were saved with the model in {dir_path}: pass them as adata.")
    return read_data(path)


def _initialize_model(
    cls: Any, adata: object, registry: Mapping[str, Any] | None, attr_dict: Mapping[str, Any], datamodule: object = None
) -> Any:
    """A fresh model with the constructor arguments of a saved one."""
    init_params = attr_dict["init_params_"]
    arguments = dict(init_params.get("non_kwargs", {}))
    for star in init_params.get("kwargs", {}).values():
        arguments |= star
    model = cls(adata, **{name: value for name, value in arguments.items() if name not in ("adata", "registry")})
    attributes = {name: value for name, value in attr_dict.items() if name not in ("registry_", "init_params_")}
    set_attributes(model, attributes, Path("attr_dict"))
    return model


def _get_var_names(adata: Any, legacy_mudata_format: bool = False) -> np.ndarray:
    """Names of the genes of an AnnData."""
    return np.asarray(adata.var_names.astype(str))


def _validate_var_names(adata: Any, source_var_names: object, load_var_names: Any = None) -> None:
    """Refuse an AnnData that lacks genes of the model; another order is fine, genes are matched by name.

    Raises
    ------
    ValueError
        Names the genes that are missing.
    """
    names = load_var_names if adata is None else adata.var_names
    if names is not None:
        align_genes(np.asarray(names), np.asarray(source_var_names), where="adata.var_names").raise_if_missing()
