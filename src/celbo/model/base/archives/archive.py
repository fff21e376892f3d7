"""Models to and from archives: celbo's own, and those that scvi-tools wrote."""

import inspect
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from .... import io
from ....core import (
    SCVI_FIGURES,
    SCVI_TOOLS_VERSION,
    ArgumentError,
    MinifiedDataError,
    __version__,
    unknown_name,
)
from ....data.access import is_mudata
from ....dataloaders.dataset import from_bits, to_bits
from ....io.errors import blaming, in_words
from ....io.saved_model import MismatchError, check_parts, set_attributes
from ....io.scvitools.global_store import from_store, only_in_store
from ....ops.draws import initial_weights
from ....store.mapped import is_mapped
from ....train import checkpoints
from ..face import ModelFace
from ..made_with import flat, with_registry
from ..setup import check_setup
from .beside import data_files, find_data, write_data
from .rehearsal import check_weights, on_meta, rehearse

__all__ = ["Saved", "delete", "load_model", "pick_device", "read_saved", "save_model", "versions", "without_data"]

_APART = ("registry_", "init_params_")
_BITS = "bits of row numbers"
_NO_LONGER_ARGUMENTS = ("use_cuda", "use_gpu", "pseudoinputs_data_indices")


@dataclass(frozen=True)
class Saved:
    """A model as it lies in an archive.

    Attributes
    ----------
    class_name
        Name of the model's class; empty where an old archive does not say.
    state_dict
        Weights and buffers of the module.
    registry, init_params
        Setup of the training data; constructor arguments in scvi-tools' layout.
    attributes
        The other attributes whose names end in ``_``.
    path, weights_path
        The files that they lay in, for messages.
    by_scvi_tools
        Whether scvi-tools saved it, maybe converted since.
    """

    class_name: str
    state_dict: dict[str, Tensor]
    registry: dict[str, Any]
    init_params: dict[str, dict[str, Any]]
    attributes: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()
    weights_path: Path = Path()
    by_scvi_tools: bool = False

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """Constructor arguments, flat; without those that say where to compute, or which cells weights begin as."""
        return {name: value for name, value in flat(self.init_params).items() if name not in _NO_LONGER_ARGUMENTS}


def save_model(
    model: ModelFace,
    dir_path: str | Path,
    prefix: str,
    overwrite: bool,
    save_anndata: bool,
    anndata_write_kwargs: Mapping[str, Any],
) -> None:
    """Write a model; see :meth:`celbo.model.base.BaseModelClass.save`.

    Raises a ``ValueError`` where data are to be saved with a model that has none, an ``ArgumentError`` for an argument
    that nobody knows.
    """
    _require_known(model, save_anndata, anndata_write_kwargs)
    if save_anndata and model._adata is None:
        raise ValueError("save_anndata=True, but this model was loaded without data.")
    attributes = {
        name: _packed(value) for name, value in vars(model).items() if name.endswith("_") and name not in _APART
    }
    document = {
        "class": type(model).__name__,
        "module": f"{type(model).__module__}.{type(model).__qualname__}",
        "registry": model.registry_,
        "init_params": model.init_params_,
        "attributes": attributes,
        "var_names": model.get_var_names(),
        "versions": versions(),
    }
    io.write_archive(dir_path, model.module.state_dict(), document, prefix=prefix, overwrite=overwrite)
    if save_anndata:
        write_data(model._adata, Path(dir_path), prefix, anndata_write_kwargs)


def _require_known(model: Any, save_anndata: bool, given: Mapping[str, Any]) -> None:
    """Refuse what neither ``save`` nor the writer of data takes; that of MuData takes what those below it do."""
    if save_anndata and is_mudata(model._adata):
        return
    own, of_data = (inspect.signature(function).parameters for function in (model.save, AnnData.write_h5ad))
    known = [name for name in (*own, *of_data) if name not in ("anndata_write_kwargs", "self", "filename")]
    for name in given:
        if name not in known:
            hint = "For scvi-tools: celbo.model.base.export_archive(folder, new_folder), in the shell celbo export."
            raise ArgumentError.of(name, f"{unknown_name('argument of save', name, known)} {hint}")


def _packed(value: object) -> Any:
    """Row numbers that lie in a file, a bit for each; all else as it is."""
    return {_BITS: to_bits(value)} if isinstance(value, np.ndarray) and is_mapped(value) else value


def _unpacked(value: object) -> Any:
    return from_bits(value[_BITS]) if isinstance(value, dict) and set(value) == {_BITS} else value


def versions() -> dict[str, str]:
    """Versions of celbo, of the API it follows, and of what it computes with."""
    installed = {name: metadata.version(name) for name in ("torch", "numpy", "anndata")}
    return {
        "celbo": __version__,
        "scvi_tools_api": SCVI_TOOLS_VERSION,
        "python": platform.python_version(),
        **installed,
    }


def read_saved(dir_path: str | Path, prefix: str) -> Saved:
    """Read an archive of either kind; nothing in it is executed.

    Raises
    ------
    ArchiveNotFoundError
        No archive is there.
    ArchiveError
        It is damaged.
    """
    if not io.is_archive(dir_path, prefix):
        if not io.is_scvi_archive(dir_path, prefix):
            raise io.ArchiveNotFoundError(_nothing_in(Path(dir_path), prefix))
        return _from_scvi_tools(io.read_scvi_archive(dir_path, prefix))
    arrays, document = io.read_archive(dir_path, prefix=prefix)
    path = Path(dir_path) / f"{prefix}model.json"
    missing = [name for name in ("class", "registry", "init_params", "attributes", "versions") if name not in document]
    if missing:
        waiting = checkpoints.told_of(dir_path)
        raise io.ArchiveError(waiting or f"{path} is not the archive of a model: {missing[0]!r} is missing.")
    with blaming(path, "attributes"):
        attributes = {name: _unpacked(value) for name, value in document["attributes"].items()}
    with blaming(path, "class and versions"):
        if not isinstance(document["class"], str) or not isinstance(document["versions"], dict):
            raise io.ArchiveError("they are no text and no dictionary")
    for name, weight in arrays.items():
        if not isinstance(weight, Tensor):
            raise io.ArchiveError(f"{path}: the weight {name!r} is no tensor.")
    saved = Saved(document["class"], arrays, document["registry"], document["init_params"], attributes, path)
    check_parts(path, saved.registry, saved.init_params, attributes, _n_weights(arrays), own_format=True)
    converted = "converted_from" in document["versions"]
    return replace(saved, weights_path=path.with_name(f"{prefix}model.safetensors"), by_scvi_tools=converted)


def _nothing_in(folder: Path, prefix: str) -> str:
    """Why there is no archive in a folder, and what to name instead."""
    if folder.is_file():
        return f"{folder} is a file. Name the folder that holds it: {folder.parent}."
    nothing, below = f"Neither {prefix}model.json nor {prefix}model.pt is in {folder}", folder / "model"
    if io.is_archive(below, prefix) or io.is_scvi_archive(below, prefix):
        return f"{nothing}; there is one in {below}: load that."
    if (waiting := checkpoints.told_of(folder)) is not None:
        return waiting
    if not folder.is_dir():
        nothing = f"There is no folder {folder}"
    return (
        f"{nothing}. Name the folder that the model was saved to, and its prefix if it had one; copy all of its files."
    )


def _n_weights(state_dict: Mapping[str, Tensor]) -> int:
    return sum(weight.numel() for weight in state_dict.values())


def _from_scvi_tools(archive: io.ScviArchive) -> Saved:
    attributes = dict(archive.attributes)
    registry, init_params = attributes.pop("registry_", None), attributes.pop("init_params_", None)
    if not isinstance(registry, dict) or not isinstance(init_params, dict):
        raise io.ArchiveError(f"{archive.path} holds no registry or no constructor arguments: it is not a saved model.")
    if archive.is_legacy and registry.get("model_name"):  # no version of scvi-tools wrote or reads that
        raise io.ArchiveError(
            f"{archive.path} is a model of scvi-tools 0.15 or later in files of earlier versions: make an archive of "
            "it by convert_legacy_save."
        )
    kept = {name: value for name, value in attributes.items() if name.endswith("_")}
    check_parts(archive.path, registry, init_params, kept, _n_weights(archive.state_dict))
    name = registry.get("model_name") or ""
    state_dict = from_store(name, archive.state_dict, archive.pyro_params)
    return Saved(name, state_dict, registry, init_params, kept, archive.path, archive.path, True)


def load_model(
    cls: type[ModelFace],
    dir_path: str | Path,
    adata: object,
    accelerator: str,
    device: int | str,
    prefix: str,
    allowed_classes_names_list: list[str] | None,
) -> Any:
    """Read a model; see :meth:`celbo.model.base.BaseModelClass.load`.

    Raises an ``ArchiveError`` for an archive of another class.
    """
    saved = read_saved(dir_path, prefix)
    if saved.class_name and saved.class_name not in (cls.__name__, *cls._reads, *(allowed_classes_names_list or ())):
        there = "celbo has no models in JAX" if saved.class_name.startswith("Jax") else f"Use {saved.class_name}.load"
        raise io.ArchiveError(
            f"It appears you are loading a model from a different class: {saved.path} holds a {saved.class_name}, "
            f"not a {cls.__name__}. {there}."
        )
    if saved.by_scvi_tools:
        saved = replace(saved, init_params=_with_scvi_figures(cls, saved.init_params))
    adata = find_data(dir_path, prefix) if adata is None else adata
    with blaming(saved.path, "registry"):
        check_setup(cls, saved.registry)
    shapes_only = replace(saved, init_params=on_meta(saved.init_params))
    rehearse(cls, saved.path, saved.state_dict, lambda: _constructed(cls, shapes_only))
    model = _alone(cls, saved) if adata is None or adata is False else _with_data(cls, saved, adata)
    model.init_params_ = saved.init_params
    set_attributes(model, saved.attributes, saved.path)
    _put_weights(model, saved)
    with blaming(saved.path, "attributes"):
        model._when_loaded()
    model.module.eval()
    model.to_device(pick_device(accelerator, device))
    return model


def _with_scvi_figures(cls: type[ModelFace], init_params: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Arguments of a model that keeps scvi-tools' figures, where its module can keep them."""
    bases = [] if cls._module_cls is None else cls._module_cls.__mro__  # a module may hand it on by **kwargs
    takes = any(SCVI_FIGURES in inspect.signature(base).parameters for base in bases if base is not object)
    if not takes or SCVI_FIGURES in flat(init_params):
        return init_params
    star, given = next(iter(init_params["kwargs"].items()), ("model_kwargs", {}))
    return init_params | {"kwargs": {**init_params["kwargs"], star: {**given, SCVI_FIGURES: True}}}


def _put_weights(model: Any, saved: Saved) -> None:
    model.module.on_load(model, scvi_version=saved.registry.get("scvi_version"))
    check_weights(saved.weights_path, saved.state_dict, model.module)
    own = model.module.state_dict()
    as_made = {name: own[name] for name in only_in_store(saved.class_name) if name in own}
    try:
        model.module.load_state_dict(as_made | saved.state_dict)
    except RuntimeError as error:
        raise io.ArchiveError(
            f"The weights in {saved.weights_path} do not fit {type(model).__name__} as it was saved: {error}"
        ) from None


def _alone(cls: type[ModelFace], saved: Saved) -> Any:
    with blaming(saved.path, "registry and init_params"):
        return without_data(cls, saved)


def _with_data(cls: type[ModelFace], saved: Saved, adata: object) -> Any:
    """A model of the user's data: what does not fit them is said as it is, with the file whose setup it is."""
    try:
        cls._replay_setup(adata, saved.registry)
        sets = adata if isinstance(adata, tuple) else (adata,)  # a model may be of several data sets
        return cls(*sets, **saved.init_kwargs)  # type: ignore[call-arg]  # a subclass names them
    except KeyError as error:
        raise MismatchError(f"{error.args[0] if error.args else error} {_whose(saved)}") from error
    except (MinifiedDataError, OSError, MemoryError, ImportError, Warning):
        raise
    except Exception as error:
        text = str(error) if isinstance(error, ValueError) else in_words(error)
        raise io.ArchiveError(f"{text} {_whose(saved)}") from error


def _whose(saved: Saved) -> str:
    return f"(This is about the setup and arguments in {saved.path}, on the data that were given.)"


def without_data(cls: type[ModelFace], saved: Saved) -> Any:
    """A model whose constructor finds the registry instead of an AnnData."""
    with initial_weights(0):  # initial weights are drawn, though those of the archive replace them
        return _constructed(cls, saved)


def _constructed(cls: type[ModelFace], saved: Saved) -> Any:
    with with_registry(cls, saved.registry):
        return type.__call__(cls, None, **saved.init_kwargs)  # past the door, which would ask for data


def pick_device(accelerator: str = "auto", device: int | str = "auto") -> torch.device:
    """The torch device for scvi-tools' pair of arguments.

    Parameters
    ----------
    accelerator
        ``"auto"`` (CUDA where there is any), ``"cpu"``, ``"gpu"``, ``"cuda"`` or ``"mps"``.
    device
        Index of the device, or ``"auto"``.

    Raises
    ------
    ValueError
        There is no such device.
    """
    found = {name: getattr(torch, name).is_available() for name in ("cuda", "mps")}
    first = next((name for name, is_there in found.items() if is_there), "cpu")
    kind = {"auto": "cuda" if found["cuda"] else "cpu", "gpu": first}.get(accelerator, accelerator)
    if (accelerator == "gpu" and kind == "cpu") or not found.get(kind, True):
        raise ValueError(f"accelerator={accelerator!r}, but torch finds no such device here: take 'cpu', or 'auto'.")
    if kind == "cpu" or device == "auto":
        return torch.device(kind)
    if kind == "cuda" and int(device) >= torch.cuda.device_count():
        raise ValueError(f"device={device!r}, but there are {torch.cuda.device_count()} devices, counted from 0.")
    return torch.device(kind, int(device))


def delete(dir_path: str | Path) -> None:
    """Remove the files of an archive, and the folder if it is empty then."""
    folder = Path(dir_path)
    for path in (folder / "model.json", folder / "model.safetensors", *data_files(folder, "")):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
