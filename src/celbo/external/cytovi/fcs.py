"""Files of flow and mass cytometry (.fcs), read and written through the package ``flowio``.

Dims: n cells, g channels.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import ArgumentError, checked, optional, unknown_name

__all__ = ["read_fcs", "write_fcs"]

logger = logging.getLogger("celbo")

_FILE, _SAMPLE = "filename", "sample_id"


@checked
def read_fcs(
    path: str | Path,
    return_raw_layer: bool = True,
    include_hidden: bool = False,
    remove_markers: list[str] | None = None,
    sample_name_extractor: dict[str, str | int] | None = None,
    verbose: bool = True,
) -> AnnData:
    """Read a file of cytometry, or all of a folder.

    Parameters
    ----------
    path
        A file, or a folder of files that end in ``.fcs``. Channels go by the marker's name ($PnS), or by the
        detector's ($PnN) where there is none.
    return_raw_layer
        Whether intensities are also put into the layer ``"raw"``.
    include_hidden
        Whether files whose names begin with a dot are read.
    remove_markers
        Channels to leave out, such as ``"Time"``.
    sample_name_extractor
        ``{"split": "_", "index": 0}``: the sample of each file, ``obs["sample_id"]``, is that part of its name.
    verbose
        Whether to log each file.

    Returns
    -------
    Cells by channels, float32, with ``obs["filename"]``. Channels that a file lacks are NaN for its cells.

    Raises
    ------
    ModuleNotFoundError
        ``flowio`` is not installed.
    ArgumentError
        No such file, or none in the folder.
    """
    flowio = optional("flowio", extra="fcs", purpose="read_fcs")
    files = _files(Path(path), include_hidden)
    parts = []
    for file in files:
        adata = _read(flowio, file, remove_markers or [])
        if sample_name_extractor is not None:
            adata.obs[_SAMPLE] = _sample_name(file, sample_name_extractor)
        if verbose:
            logger.info(f"{file.name}: {adata.n_obs:,} cells, {adata.n_vars} channels.")
        parts.append(adata)
    joined = parts[0] if len(parts) == 1 else ad.concat(parts, join="outer", fill_value=np.nan)
    if return_raw_layer:
        joined.layers["raw"] = joined.X.copy()
    return joined


def _files(path: Path, include_hidden: bool) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ArgumentError(f"{str(path)!r} is neither a file nor a folder: name a .fcs file, or a folder of them.")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".fcs")
    files = [file for file in files if include_hidden or not file.name.startswith(".")]
    if not files:
        raise ArgumentError(f"There is no .fcs file in {str(path)!r}.")
    return files


def _read(flowio: Any, file: Path, left_out: list[str]) -> AnnData:
    data = flowio.FlowData(str(file))
    values_ng = np.asarray(data.as_array(preprocess=True), np.float32)
    labels = list(data.pns_labels or [""] * values_ng.shape[1])
    names = [label or detector for label, detector in zip(labels, data.pnn_labels, strict=True)]
    var = pd.DataFrame({"detector": list(data.pnn_labels)}, index=_unique(names))
    adata = AnnData(
        values_ng, pd.DataFrame({_FILE: file.name}, index=[f"{file.stem}_{n}" for n in range(len(values_ng))]), var
    )
    return adata[:, ~adata.var_names.isin(left_out)].copy()


def _unique(names: list[str]) -> pd.Index:
    """Names; repeated ones get a number appended."""
    return ad.utils.make_index_unique(pd.Index(names))


def _sample_name(file: Path, extractor: Mapping[str, Any]) -> str:
    for key in ("split", "index"):
        if key not in extractor:
            raise ArgumentError(f'sample_name_extractor must be {{"split": ..., "index": ...}}: {key!r} is missing.')
    parts = file.stem.split(str(extractor["split"]))
    if not -len(parts) <= int(extractor["index"]) < len(parts):
        raise ArgumentError(
            f"sample_name_extractor: {file.name!r} has {len(parts)} parts, and number {extractor['index']} is wanted."
        )
    return parts[int(extractor["index"])]


@checked
def write_fcs(
    adata: AnnData,
    output_path: str | Path | None = None,
    split_by: str | None = None,
    layer: str | None = None,
    prefix: str = "export",
    verbose: bool = True,
    write_kwargs: dict[str, Any] | None = None,
) -> None:
    """Write markers as a file of cytometry, or as one for each group of cells.

    Parameters
    ----------
    adata
        Cells by markers.
    output_path
        Folder; None: the current one. Made if it does not exist.
    split_by
        Column of ``adata.obs``: a file ``{prefix}_{group}.fcs`` for each group. None: ``{prefix}.fcs``.
    layer
        Layer to write; None: ``X``.
    prefix
        First part of the names of the files.
    verbose
        Whether to log each file.
    write_kwargs
        Further arguments of ``flowio.create_fcs``: ``metadata_dict``, ``opt_channel_names``.

    Raises
    ------
    ModuleNotFoundError
        ``flowio`` is not installed.
    ArgumentError
        No such layer or column.

    Notes
    -----
    Cells with a missing marker are left out, and the log says how many: the format has no missing values.
    """
    flowio = optional("flowio", extra="fcs", purpose="write_fcs")
    if layer is not None and layer not in adata.layers:
        raise ArgumentError(unknown_name("layer of adata.layers", layer, adata.layers))
    if split_by is not None and split_by not in adata.obs:
        raise ArgumentError(unknown_name("column of adata.obs (split_by)", split_by, map(str, adata.obs)))
    folder = Path(output_path or ".")
    folder.mkdir(parents=True, exist_ok=True)
    groups = {"": np.arange(adata.n_obs)}
    if split_by is not None:
        values = adata.obs[split_by].astype(str)
        groups = {f"_{_safe(group)}": np.flatnonzero(values == group) for group in values.unique()}
    for name, rows in groups.items():
        part = adata[rows].to_df(layer).to_numpy(np.float32)
        complete_n = np.isfinite(part).all(1)
        if not complete_n.all():
            logger.warning(f"{(~complete_n).sum():,} cells with a missing marker are not in {prefix}{name}.fcs.")
        file = folder / f"{prefix}{name}.fcs"
        with file.open("wb") as handle:
            flowio.create_fcs(handle, part[complete_n].ravel(), list(map(str, adata.var_names)), **(write_kwargs or {}))
        if verbose:
            logger.info(f"{file}: {complete_n.sum():,} cells, {adata.n_vars} channels.")


def _safe(group: str) -> str:
    """A group's name as part of a file's."""
    return re.sub(r"[^\w.+-]", "_", group)
