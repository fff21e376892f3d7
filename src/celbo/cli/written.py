"""Denoised values as files: of one matrix as an AnnData, of several modalities as a MuData.

Dims: n cells, h features of all modalities.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

from ..core import __version__, unknown_name
from ..core.replacing import building
from ..data import data_registry_of
from ..data.modalities import gathered_obs, obs_of
from ..store.writing.matrix import write_table
from ..verbs.outputs import names_of
from .errors import UserError

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["MODALITY_OF", "write_expression", "write_modalities", "write_native"]

_HEAD, _FORMAT = 512, "0.1.0"
"""Bytes before HDF5 begins, and version of the layout."""

MODALITY_OF = {"expression": "rna", "accessibility": "atac"}
"""Output of a model -> modality of the file, where it is called otherwise."""


def write_expression(model: Any, data: Any, path: Path, *, library_size: float | None = None, **options: Any) -> str:
    """Write denoised expression to an AnnData, or all that a model of several modalities explains to a ``.h5mu``.

    Parameters
    ----------
    model, data
        A model, and cells.
    path
        ``.h5ad``, ``.zarr`` or ``.h5mu``.
    library_size
        What each cell's expression sums to; None: 1.
    **options
        As of ``write_normalized_expression``.

    Returns
    -------
    What was written, in words.
    """
    size = 1.0 if library_size is None else library_size
    if path.suffix.lower() == ".h5mu":
        return write_modalities(model, data, path, library_size=size, **options)
    model.write_normalized_expression(path, data, library_size=size, **options)
    return f"denoised expression, each cell's summing to {size:g}"


def write_native(
    model: Any,
    data: Any,
    path: Path,
    *,
    transform_batch: object = None,
    library_size: float | None = None,
    **options: Any,
) -> str:
    """Write counts without those of the ambient RNA; see :func:`write_expression`.

    Raises
    ------
    UserError
        A batch to decode as, or a sum: counts are those of the cell's own.
    """
    if library_size is not None:
        raise UserError("Native counts are whole counts of each cell: leave --library-size out.")
    if transform_batch is not None:
        raise UserError("Native counts are of each cell's own batch: leave --transform-batch out.")
    model.write_denoised_counts(path, data, **options)
    return "native counts, without those of the ambient RNA"


def write_modalities(
    model: Any,
    data: "MuData",
    path: Path,
    *,
    gene_list: list[str] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> str:
    """Write all that a model explains of cells to a ``.h5mu``, a modality each, a minibatch in memory at a time.

    Parameters
    ----------
    model, data
        A model of several modalities, and a MuData of the cells.
    path
        The file; it is there whole or not at all.
    gene_list
        Features to write, of any modality; None: all. A modality of which none is named is left out.
    overwrite
        Whether a file that is there may be replaced.
    **options
        As of ``write_normalized_expression``.

    Returns
    -------
    What was written, in words.

    Raises
    ------
    UserError
        A feature that no modality has.
    """
    wanted = _features(model, gene_list)
    place = path.absolute()
    if place.exists() and not overwrite:
        raise UserError(f"{path} is there already: choose another file with -o, or replace it with --overwrite.")
    with building(place) as partial, TemporaryDirectory(dir=place.parent) as folder, _new(partial) as root:
        group, obs = root.create_group("mod"), gathered_obs(data)
        for output, features in wanted.items():
            one = Path(folder) / f"{output}.h5ad"
            model.write_normalized_expression(one, data, output=output, gene_list=features, **options)
            with h5py.File(one, "r") as file:
                file.copy(file["/"], group, name=MODALITY_OF.get(output, output))
            one.unlink()
            _replace_obs(group[MODALITY_OF.get(output, output)], _obs_of(model, data, output))
        order = [MODALITY_OF.get(output, output) for output in wanted]
        _write_whole(root, {name: group[name] for name in order}, obs)
    return "denoised " + ", ".join(f"{output} ({len(names):,})" for output, names in wanted.items())


def _features(model: Any, names: list[str] | None) -> dict[str, list[str]]:
    """Output -> its features that are wanted."""
    known = {one.name: list(map(str, names_of(model, one))) for one in model._outputs}
    for name in names or ():
        if not any(name in some for some in known.values()):
            raise UserError(
                unknown_name("feature of the model", name, [one for some in known.values() for one in some])
            )
    chosen = {output: [name for name in some if names is None or name in names] for output, some in known.items()}
    return {output: some for output, some in chosen.items() if some}


@contextmanager
def _new(path: Path) -> Iterator[h5py.File]:
    """A file to fill; its first bytes say what it is, as mudata looks for."""
    with h5py.File(path, "w", userblock_size=_HEAD) as root:
        yield root
    with path.open("r+b") as file:
        file.write(f"MuData (format-version={_FORMAT};creator=celbo;creator-version={__version__})".encode())


def _obs_of(model: Any, data: Any, output: str) -> pd.DataFrame:
    """The columns that the modality of an output has of its own."""
    (matrix,) = (one.data for one in model._outputs if one.name == output)
    key = data_registry_of(model.registry_)[matrix].get("mod_key")
    return obs_of(data, key) if key is not None else pd.DataFrame(index=data.obs_names)


def _replace_obs(group: h5py.Group, obs: pd.DataFrame) -> None:
    del group["obs"]
    write_table(group, "obs", obs)


def _write_whole(root: h5py.File, modalities: Mapping[str, h5py.Group], obs: pd.DataFrame) -> None:
    """Write what a MuData has beside its modalities, all of which have all cells; all columns of cells stand here."""
    names: list[str] = []
    stops: dict[str, int] = {}
    for name, group in modalities.items():
        names += list(group["var"][group["var"].attrs["_index"]].asstr()[:])
        stops[name] = len(names)
    root.attrs.update({"encoding-type": "MuData", "encoding-version": _FORMAT, "axis": 0})
    root["mod"].attrs["mod-order"] = list(modalities)
    write_table(root, "obs", obs)
    write_table(root, "var", pd.DataFrame(index=pd.Index(names, dtype=object)))
    for name in ("obsm", "varm", "obsp", "varp", "uns"):
        write_table(root, name, {})
    starts = dict(zip(stops, (0, *stops.values())))
    write_table(root, "obsmap", {name: _places(0, len(obs), len(obs)) for name in modalities})
    write_table(root, "varmap", {name: _places(starts[name], stop, len(names)) for name, stop in stops.items()})


def _places(start: int, stop: int, n: int) -> np.ndarray:
    """Where each of ``n`` lies in a modality that has a stretch of them, ``(n,)``: from 1, 0 where it has none."""
    place_n = np.zeros(n, np.uint32)
    place_n[start:stop] = np.arange(1, stop - start + 1)
    return place_n
