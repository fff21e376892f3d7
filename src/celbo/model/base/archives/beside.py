"""Data beside a model in its archive: ``adata.h5ad``, ``mdata.h5mu`` for those of several modalities, and for several
data sets ``adata_NAME.h5ad`` each.
"""

import glob
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from anndata import AnnData

from ....data import read as read_anndata
from ....data.access import is_mudata
from ....data.multimodal import read_mudata

__all__ = ["copy_data", "data_files", "find_data", "find_sets", "write_data", "write_sets"]

logger = logging.getLogger("celbo")

_ANNDATA, _MUDATA = "adata.h5ad", "mdata.h5mu"


def data_files(folder: Path, prefix: str) -> list[Path]:
    """The files of data that lie beside a model: of one data set, or of several by name."""
    one = [folder / f"{prefix}{name}" for name in (_ANNDATA, _MUDATA)]
    return [path for path in one if path.is_file()] + sorted(folder.glob(f"{glob.escape(prefix)}adata_*.h5ad"))


def _of_set(folder: Path, prefix: str, name: str) -> Path:
    return folder / f"{prefix}adata_{name}.h5ad"


def write_sets(adatas: Mapping[str, AnnData], folder: Path, prefix: str, write_kwargs: Mapping[str, Any]) -> None:
    """Write several data sets beside a model, each into a file of its name."""
    for name, adata in adatas.items():
        _write_whole(adata, _of_set(folder, prefix, name), write_kwargs)


def find_sets(folder: Path, prefix: str, names: Iterable[str]) -> dict[str, AnnData] | None:
    """The data sets of these names beside a model; None where one is missing."""
    paths = {name: _of_set(folder, prefix, name) for name in names}
    there = all(path.is_file() for path in paths.values())
    return {name: read_anndata(path) for name, path in paths.items()} if there else None


def write_data(data: Any, folder: Path, prefix: str, write_kwargs: Mapping[str, Any]) -> None:
    """Write data beside a model, whole or not at all; those of the other kind that lie there are of an older model."""
    mine, other = (_MUDATA, _ANNDATA) if is_mudata(data) else (_ANNDATA, _MUDATA)
    _write_whole(data, folder / f"{prefix}{mine}", write_kwargs)
    (folder / f"{prefix}{other}").unlink(missing_ok=True)


def _write_whole(data: Any, path: Path, write_kwargs: Mapping[str, Any]) -> None:
    """Write data to a file, whole or not at all."""
    partial = path.with_name(f"partial-{path.name}")
    write = data.write_h5mu if is_mudata(data) else data.write_h5ad
    write(partial, **write_kwargs)
    os.replace(partial, path)


def find_data(dir_path: str | Path, prefix: str) -> Any:
    """The data beside a model; None, which is logged, where there are none."""
    for name, read in ((_ANNDATA, read_anndata), (_MUDATA, read_mudata)):
        path = Path(dir_path) / f"{prefix}{name}"
        if path.is_file():
            return read(path)
    logger.info("No data were saved with this model and none were passed: pass adata= to its methods.")
    return None


def copy_data(source: str | Path, target: str | Path, prefix: str) -> None:
    """Copy what lies beside a model to another folder."""
    if Path(source).resolve() == Path(target).resolve():
        return
    for data in data_files(Path(source), prefix):
        partial = Path(target) / f"partial-{data.name}"
        shutil.copyfile(data, partial)
        os.replace(partial, Path(target) / data.name)
