"""Write an archive that scvi-tools (1.4.2) loads."""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from ...core import checked
from ..errors import ArchiveError
from ..files import replacing, writing_into
from ..pickles.unpickle_torch import Constraint
from .read import read_scvi_archive

__all__ = ["write_scvi_archive"]


@checked
def write_scvi_archive(
    dir: str | PathLike[str],
    state_dict: dict[str, Tensor],
    var_names: np.ndarray | dict[str, np.ndarray],
    attributes: dict[str, Any],
    *,
    pyro_params: dict[str, dict[str, Any]] | None = None,
    prefix: str = "",
    overwrite: bool = False,
) -> Path:
    """Write ``{prefix}model.pt`` as scvi-tools lays it out.

    Parameters
    ----------
    dir
        The folder; made when it is not there. Other files in it stay.
    state_dict
        Weights and buffers by scvi-tools' names.
    var_names
        Names of the variables, ``(g,)`` of ``str``, or such by modality.
    attributes
        Attributes by name, each name ending in an underscore: at least ``registry_`` and ``init_params_``. Their
        values may be what archives hold: plain Python, numpy, pandas, tensors.
    pyro_params
        ``params`` and ``constraints`` of a Pyro model, as :attr:`celbo.io.ScviArchive.pyro_params` has them.
    prefix
        What the file name begins with.
    overwrite
        Replace a file that is there. The old one stays whole until the new one is complete.

    Returns
    -------
    The file.

    Raises
    ------
    ArchiveError
        The file exists, the disk refuses, or a value is of a kind that no archive can hold; nothing is left behind.

    Notes
    -----
    The new file is read back under the reader's rules before it takes its place, so what is written can be read.
    """
    path = Path(dir) / f"{prefix}model.pt"
    _check_attributes(attributes, path)
    if path.exists() and not overwrite:
        raise ArchiveError(f"{path} already exists. Name another folder, or pass overwrite=True.")
    state: OrderedDict[str, Any] = OrderedDict((key, tensor.detach().cpu()) for key, tensor in state_dict.items())
    if "registries_" not in attributes:  # scvi-tools' GIMVI takes weights alone
        state["pyro_param_store"] = _pyro_store(pyro_params or {})
    content = {"model_state_dict": state, **_names_content(var_names, attributes), "attr_dict": attributes}
    with writing_into(path.parent), replacing(path) as partial:
        partial.write_bytes(_saved(content, path))
        read_scvi_archive(partial.parent, prefix=partial.name.removesuffix("model.pt"))
    return path


def _saved(content: dict[str, Any], path: Path) -> bytes:
    """The file's bytes, made in memory: torch reports a full disk as an internal error, Python as one."""
    buffer = BytesIO()
    try:
        torch.save(content, buffer)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise ArchiveError(f"{path} was not written: an attribute cannot be saved ({error}).") from error
    return buffer.getvalue()


def _check_attributes(attributes: dict[str, Any], path: Path) -> None:
    wrong = [name for name in attributes if not name.endswith("_")]
    if wrong:
        raise ArchiveError(f"{path} was not written: scvi-tools' attributes end in '_', but {wrong[0]!r} does not.")
    if not {"registry_", "registries_"} & attributes.keys() or "init_params_" not in attributes:
        raise ArchiveError(
            f"{path} was not written: scvi-tools cannot load a model without 'registry_' and 'init_params_'."
        )


def _names_content(var_names: np.ndarray | dict[str, np.ndarray], attributes: dict[str, Any]) -> dict[str, Any]:
    """``var_names``; for a model of several data sets (GIMVI, which has ``registries_``) one entry a data set."""
    if isinstance(var_names, dict) and "registries_" in attributes:
        return {f"{name}_var_names": names for name, names in var_names.items()}
    return {"var_names": var_names}


def _pyro_store(pyro_params: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    constraint_by_name = pyro_params.get("constraints", {})
    return {
        "params": dict(pyro_params.get("params", {})),
        "constraints": {name: _torch_constraint(constraint) for name, constraint in constraint_by_name.items()},
    }


def _torch_constraint(constraint: Constraint) -> constraints.Constraint:
    makers: dict[str, Callable[..., constraints.Constraint]] = {
        "_Real": lambda: constraints.real,
        "_GreaterThan": constraints.greater_than,
        "_GreaterThanEq": constraints.greater_than_eq,
        "_Interval": constraints.interval,
        "_Simplex": lambda: constraints.simplex,
    }
    if constraint.name not in makers:
        raise ArchiveError(f"A Pyro parameter has the constraint {constraint.name!r}, which cannot be written.")
    return makers[constraint.name](**constraint.state)
