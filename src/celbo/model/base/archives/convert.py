"""Archives from scvi-tools to celbo and back, without making a model."""

import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from .... import io
from ....core import SCVI_FIGURES, SCVI_TOOLS_VERSION, checked, version_numbers
from ....core.kinds import Instance, Text
from ....data.constants import MODEL_NAME, RAW, SCVI_VERSION
from ....io.scvitools.global_store import from_store, into_store
from ....module import VAE
from ....ops.draws import initial_weights
from .archive import read_saved, versions
from .beside import copy_data

__all__ = ["convert_archive", "export_archive"]

logger = logging.getLogger("celbo")

_SAVED = Instance(
    "a path", lambda value: isinstance(value, str | PathLike), "Pass the folder that model.save wrote, not the model."
)
_TWO_LAYOUTS = "TorchMRVI"
_CHANGED_IN = (1, 4, 3)
_OWN_ARGUMENTS = (SCVI_FIGURES, "empty_droplets")
"""Arguments of models that scvi-tools does not have."""


@checked
def convert_archive(
    old: str | Path, new: str | Path, *, prefix: str = "", overwrite: bool = False, class_name: str | None = None
) -> Path:
    """Write a model that scvi-tools saved as an archive of celbo's: safetensors and JSON, no pickle.

    Nothing in the old archive is executed. Data saved beside the model are copied.

    Parameters
    ----------
    old
        Folder of an archive of scvi-tools, of any version.
    new
        Folder to write to; made if it does not exist.
    prefix
        What the names of the old files begin with; those of the new ones begin with the same.
    overwrite
        Whether an archive that is there may be replaced.
    class_name
        Name of the model's class, where the old archive does not say (before scvi-tools 0.15).

    Returns
    -------
    The new folder.

    Raises
    ------
    ArchiveNotFoundError
        There is no archive of scvi-tools at ``old``.
    ArchiveError
        It is damaged or holds what no model needs, or its class is not known.
    """
    if not io.is_scvi_archive(old, prefix):
        raise io.ArchiveNotFoundError(
            f"No archive of scvi-tools is at {old}: wanted {prefix}model.pt"
            + (". It is an archive of celbo already." if io.is_archive(old, prefix) else ".")
        )
    archive = io.read_scvi_archive(old, prefix)
    attributes = dict(archive.attributes)
    registry, init_params = attributes.pop("registry_", None), attributes.pop("init_params_", None)
    if not isinstance(registry, dict) or not isinstance(init_params, dict):
        raise io.ArchiveError(f"{archive.path} holds no registry or no constructor arguments: it cannot be converted.")
    name = class_name or registry.get("model_name")
    if not name:
        raise io.ArchiveError(f"{archive.path} does not say of which class it is: pass class_name, for example 'SCVI'.")
    weights = from_store(name, archive.state_dict, archive.pyro_params)
    if left_out := len(archive.pyro_params.get("params", ())) - (len(weights) - len(archive.state_dict)):
        logger.info(f"{left_out} parameters of Pyro's global store were left out.")
    document = {
        "class": name,
        "module": "",
        "registry": registry | {"model_name": name},
        "init_params": init_params,
        "attributes": attributes,
        "var_names": archive.var_names,
        "versions": versions() | {"converted_from": str(registry.get("scvi_version", "before 0.15"))},
    }
    io.write_archive(new, dict(weights), document, prefix=prefix, overwrite=overwrite)
    copy_data(old, new, prefix)
    return Path(new)


@checked
def export_archive(
    new: Annotated[str | Path, _SAVED],
    old: str | Path,
    *,
    prefix: str = "",
    overwrite: bool = False,
    version: Annotated[str | None, Text()] = None,
) -> Path:
    """Write a model that celbo saved as an archive that scvi-tools 1.4.2 loads.

    Parameters
    ----------
    new
        Folder of an archive of celbo, the one that ``model.save`` wrote.
    old
        Folder to write ``model.pt`` to; made if it does not exist.
    prefix
        What the file names begin with.
    overwrite
        Whether a ``model.pt`` that is there may be replaced.
    version
        Version of scvi-tools that is to load it; None: 1.4.2, or for a :class:`~celbo.external.MRVI` 1.4.3.

    Returns
    -------
    The folder written to.

    Raises
    ------
    ArchiveNotFoundError
        There is no archive of celbo at ``new``.
    ArchiveError
        It is damaged, or that version is none of scvi-tools 1, or has another network for these weights.

    Notes
    -----
    What celbo notes beyond scvi-tools (the seed, the recipe) goes along as attributes that scvi-tools does not read.
    """
    if not io.is_archive(new, prefix):
        raise io.ArchiveNotFoundError(f"No archive of celbo is at {new}: wanted {prefix}model.json.")
    saved = read_saved(new, prefix)
    attributes = {
        "registry_": _of_version(_without_raw(saved.registry), version),
        "init_params_": _without_figures(saved.init_params),
        **saved.attributes,
    }
    document: dict[str, Any] = io.read_archive(new, prefix=prefix).document
    weights, store = into_store(saved.class_name, _with_unused(saved.class_name, saved.state_dict))
    options: dict[str, Any] = {"pyro_params": store, "prefix": prefix, "overwrite": overwrite}
    io.write_scvi_archive(old, weights, document["var_names"], attributes, **options)
    copy_data(new, old, prefix)
    return Path(old)


def _of_version(registry: dict[str, Any], version: str | None) -> dict[str, Any]:
    """A registry of a version of scvi-tools, by which it chooses the network; from 1.5 on there is one name of MRVI."""
    own = str(registry.get(SCVI_VERSION) or SCVI_TOOLS_VERSION)
    if version is None or version == own:
        return registry
    name, wanted = registry.get(MODEL_NAME), version_numbers(version)
    if wanted[:1] != (1,):
        raise io.ArchiveError(
            f"version: wanted one of scvi-tools 1, as 1.4.2 or 1.5.0, got {version!r}. Archives of other versions have "
            "another form."
        )
    if name == _TWO_LAYOUTS and (wanted >= _CHANGED_IN) != (version_numbers(own) >= _CHANGED_IN):
        raise io.ArchiveError(
            f"scvi-tools {version} has another network for MRVI than {own}, whose weights these are: export for that "
            f"one, or train a {'MRVI' if wanted >= _CHANGED_IN else 'TorchMRVI'}."
        )
    renamed = "MRVI" if name == _TWO_LAYOUTS and wanted >= (1, 5) else name
    return {**registry, SCVI_VERSION: version, MODEL_NAME: renamed}


def _with_unused(class_name: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with those that scvi-tools' class has, never runs and yet wants: CellAssign's is an autoencoder, too."""
    if class_name != "CellAssign":
        return dict(state_dict)
    with initial_weights(0):
        unused = VAE(len(state_dict["b_g_0"])).state_dict()
    return unused | dict(state_dict)


def _without_figures(init_params: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Arguments without those that scvi-tools does not have; its figures differ where the model's own are right."""

    def known(arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in arguments.items() if name not in _OWN_ARGUMENTS}

    stars = {star: known(arguments) for star, arguments in init_params.get("kwargs", {}).items()}
    return {"kwargs": stars, "non_kwargs": known(init_params.get("non_kwargs", {}))}


def _without_raw(registry: Mapping[str, Any]) -> dict[str, Any]:
    """A registry whose counts lie in ``X``: scvi-tools cannot take them from ``raw``, and is not to be told to."""
    setup_args = dict(registry.get("setup_args") or {})
    setup_args.pop("measured_proteins", None)  # the masks that follow from it are in the registry
    if setup_args.pop("neighbors", "two_hops") != "two_hops":
        setup_args["prepare_data"] = False  # scvi-tools would find others: the data have those of this model
    if not setup_args.pop("use_raw", False):
        return {**registry, "setup_args": setup_args}
    logger.warning(
        "This model takes its counts from adata.raw, which scvi-tools does not do: give it adata.raw.to_adata() with "
        "the columns of adata.obs, whose X holds them."
    )
    fields = {key: dict(field) for key, field in registry["field_registries"].items()}
    for field in fields.values():
        if field["data_registry"].get("attr_name") == RAW:
            field["data_registry"] = {"attr_name": "X", "attr_key": None}
    return {**registry, "setup_args": setup_args, "field_registries": fields}
