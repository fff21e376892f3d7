"""Data beside a model in its archive: ``adata.h5ad``, or ``mdata.h5mu`` for those of several modalities."""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....data import read as read_anndata
from ....data.access import is_mudata
from ....data.multimodal import read_mudata

__all__ = ["DATA_FILES", "copy_data", "find_data", "write_data", "write_whole"]

logger = logging.getLogger("celbo")

_ANNDATA, _MUDATA = "adata.h5ad", "mdata.h5mu"
_OF_GIMVI = ("adata_seq.h5ad", "adata_spatial.h5ad")
DATA_FILES = (_ANNDATA, _MUDATA, *_OF_GIMVI)
"""Names that data beside a model may have."""


def write_data(data: Any, folder: Path, prefix: str, write_kwargs: Mapping[str, Any]) -> None:
    """Write data beside a model, whole or not at all; those of the other kind that lie there are of an older model."""
    mine, other = (_MUDATA, _ANNDATA) if is_mudata(data) else (_ANNDATA, _MUDATA)
    write_whole(data, folder / f"{prefix}{mine}", write_kwargs)
    (folder / f"{prefix}{other}").unlink(missing_ok=True)


def write_whole(data: Any, path: Path, write_kwargs: Mapping[str, Any]) -> None:
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
    for name in DATA_FILES:
        data = Path(source) / f"{prefix}{name}"
        if data.is_file():
            partial = Path(target) / f"partial-{prefix}{name}"
            shutil.copyfile(data, partial)
            os.replace(partial, Path(target) / f"{prefix}{name}")
