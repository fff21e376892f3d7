"""Read scvi-tools' archives: ``model.pt`` of 0.15 and later, or the three files before. None of their code runs."""

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core import checked
from ..errors import ArchiveError, ArchiveNotFoundError
from ..torch_file import read_torch_file
from .legacy import is_legacy_archive, read_legacy_archive

__all__ = ["OTHER_REGISTRIES", "ScviArchive", "is_scvi_archive", "read_scvi_archive"]

_VAR_NAMES_SUFFIX = "var_names"
_FLAX_STATE = {"params", "opt_state", "step"}
"""What the state of a model in JAX has; celbo wants the weights of it."""

OTHER_REGISTRIES = "other_registries"
"""Entry of the registry of a model of several data sets: the registries of all but the first."""


@dataclass(frozen=True)
class ScviArchive:
    """What scvi-tools saved of a model.

    Attributes
    ----------
    state_dict
        Weights and buffers by scvi-tools' names, on the CPU, without Pyro's store.
    var_names
        Names of the variables (genes) in training order, ``(g,)`` of ``str``; with several modalities a dict of such.
    attributes
        The model's saved attributes under their own names: ``registry_``, ``init_params_``, ``history_``,
        ``is_trained_``,
        ``train_indices_``, ``validation_indices_``, ``test_indices_`` and what else the class had. History is a dict
        of data frames.
    pyro_params
        ``params`` (tensors) and ``constraints`` (:class:`celbo.io.Constraint`) of the Pyro parameter store at saving
        time, by name. It was global: it may hold parameters of other models of that session.
    path
        The file that was read.
    is_legacy
        Whether it was an archive of scvi-tools before 0.15; ``registry_`` is then made of its setup dictionary and
        has no ``model_name``.
    """

    state_dict: dict[str, Tensor]
    var_names: np.ndarray | dict[str, np.ndarray]
    attributes: dict[str, Any]
    pyro_params: dict[str, dict[str, Any]] = field(default_factory=dict)
    path: Path = Path()
    is_legacy: bool = False


@checked
def is_scvi_archive(dir: str | PathLike[str], prefix: str = "") -> bool:
    """Whether a folder holds an archive of scvi-tools, of any version."""
    return (Path(dir) / f"{prefix}model.pt").is_file() or is_legacy_archive(Path(dir), prefix)


@checked
def read_scvi_archive(dir: str | PathLike[str], prefix: str = "") -> ScviArchive:
    """Read an archive that scvi-tools saved.

    Parameters
    ----------
    dir
        The folder.
    prefix
        What the file names begin with.

    Raises
    ------
    ArchiveNotFoundError
        The folder holds no such archive.
    ArchiveError
        The file is damaged, or holds something that no archive needs; the message names it. Nothing of the file is
        ever run.
    """
    path = Path(dir) / f"{prefix}model.pt"
    if path.is_file():
        return _modern(path, read_torch_file(path))
    if is_legacy_archive(Path(dir), prefix):
        state, var_names, attributes = read_legacy_archive(Path(dir), prefix)
        return ScviArchive(state, var_names, attributes, path=Path(dir) / f"{prefix}model_params.pt", is_legacy=True)
    raise ArchiveNotFoundError(
        f"No scvi-tools archive is at {Path(dir)}: neither {prefix}model.pt nor {prefix}model_params.pt is there. "
        "Name the folder that was passed to save(), and its prefix if it had one."
    )


def _modern(path: Path, content: object) -> ScviArchive:
    if not isinstance(content, dict) or not {"model_state_dict", "attr_dict"} <= content.keys():
        raise ArchiveError(
            f"{path} is a torch file, but no model of scvi-tools: it lacks 'model_state_dict' or 'attr_dict'."
        )
    state, attributes = content["model_state_dict"], content["attr_dict"]
    if (
        not isinstance(state, dict)
        or not isinstance(attributes, dict)
        or any(not isinstance(key, str) for key in attributes)
    ):
        raise ArchiveError(f"{path} is no model of scvi-tools: its weights or attributes are no dictionary of names.")
    if "registry_" not in attributes and "registries_" in attributes:
        attributes = attributes | {"registry_": _in_one(path, attributes["registries_"])}
    pyro_params = _pyro_params(path, state.get("pyro_param_store", {}))
    tensors = {key: value for key, value in state.items() if key != "pyro_param_store"}
    if tensors.keys() >= _FLAX_STATE:
        tensors = _flax_weights(tensors["params"])
        attributes = attributes | {"is_trained_": True}  # there is no such state before; Tangram does not say so there
    check_state_dict(path, tensors)
    return ScviArchive(tensors, _var_names(path, content), attributes, pyro_params, path)


def _flax_weights(params: object, name: str = "") -> dict[Any, Any]:
    """Weights of flax, which nests them by layer, under names with dots; what is no array is left for the check."""
    if not isinstance(params, dict):
        return {name: torch.from_numpy(params) if isinstance(params, np.ndarray) else params}
    return {
        full: weight
        for key, value in params.items()
        for full, weight in _flax_weights(value, f"{name}.{key}" if name else str(key)).items()
    }


def _in_one(path: Path, registries: object) -> dict[str, Any]:
    """The registry of the first of several data sets (GIMVI), with those of the others in it."""
    if not isinstance(registries, list) or not registries or not all(isinstance(one, dict) for one in registries):
        raise ArchiveError(f"{path} is no model of scvi-tools: its 'registries_' are no list of dictionaries.")
    return {**registries[0], OTHER_REGISTRIES: registries[1:]}


def _pyro_params(path: Path, store: object) -> dict[str, dict[str, Any]]:
    if not isinstance(store, dict) or any(not isinstance(part, dict) for part in store.values()):
        raise ArchiveError(f"{path} is damaged: its Pyro parameter store is no dictionary.")
    return {str(part): dict(values) for part, values in store.items()}


def check_state_dict(path: Path, tensors: dict[Any, Any]) -> None:
    """Refuse weights that are not tensors by name."""
    for key, value in tensors.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ArchiveError(
                f"{path} is no model of scvi-tools: the weight {str(key)[:80]!r} is a {type(value).__name__}, "
                "no tensor."
            )


def _var_names(path: Path, content: dict[Any, Any]) -> np.ndarray | dict[str, np.ndarray]:
    """Names of one modality, of several, or GIMVI's ``seq_var_names`` and ``spatial_var_names`` as a dict."""
    names = content.get("var_names")
    if names is None:
        ends = f"_{_VAR_NAMES_SUFFIX}"
        names = {str(key).removesuffix(ends): value for key, value in content.items() if str(key).endswith(ends)}
    parts = names.values() if isinstance(names, dict) else [names]
    if not parts or any(not isinstance(part, np.ndarray) or part.ndim != 1 for part in parts):
        raise ArchiveError(f"{path} is no model of scvi-tools: it has no list of variable names.")
    return names
