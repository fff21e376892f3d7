"""What a path holds, by its content: endings are only looked at for the words of an error."""

import zipfile
from enum import Enum, auto
from pathlib import Path

import h5py

from ..store.damage import DamagedDataError, naming_damage, require_regular
from .mtx import BEGINS, matrices_in
from .signatures import READ_HERE, Foreign, begins_with, foreign, unpacked
from .tenx_h5 import is_matrix

__all__ = ["ZARR_METADATA", "Kind", "is_zarr", "prefix_in_zip", "recognise"]

ZARR_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_ENDINGS = (".h5ad", ".h5mu", ".h5", ".hdf5", ".loom")
_SHOWN = 5


class Kind(Enum):
    """What is read in the same way."""

    HDF5 = auto()  # AnnData or MuData
    ZARR = auto()  # the same
    ZIP = auto()  # of a zarr store
    TENX = auto()
    LOOM = auto()
    MTX = auto()  # a file, or a folder with one
    TABLE = auto()


def recognise(path: Path) -> Kind:
    """What a file or folder is.

    Parameters
    ----------
    path
        A folder is a zarr store or has one matrix.

    Raises
    ------
    FileNotFoundError
        When there is nothing.
    ValueError
        When it is something that is not read here, with what to do about it.
    DamagedDataError
        When it is empty, or not what its ending says.
    """
    if path.is_dir():
        return Kind.MTX if not is_zarr(path) and matrices_in(path) else Kind.ZARR
    require_regular(path)
    with naming_damage(path):
        if h5py.is_hdf5(path):
            return _kind_of_hdf5(path)
        if zipfile.is_zipfile(path):
            return _kind_of_zip(path)
        if path.suffix.lower() == ".zarr":
            require_regular(path, folder=True)
        head = begins_with(path)
        inside = unpacked(path)
    return _kind_of_bytes(path, head if inside is None else inside, inside is not None)


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr store, or is called one."""
    return folder.suffix.lower() == ".zarr" or any((folder / name).is_file() for name in ZARR_METADATA)


def prefix_in_zip(names: list[str]) -> str | None:
    """Where in an archive a zarr store begins: ``""``, or a folder and ``/``; None for an archive of other things."""
    found = [name.rpartition("/")[0] for name in names if name.rpartition("/")[2] in ZARR_METADATA]
    if not found:
        return None
    shortest = min(found, key=len)
    return f"{shortest}/" if shortest else ""


def _refuse(path: Path, found: Foreign) -> ValueError:
    return ValueError(f"{path} is {found.what}, which celbo does not read: {found.advice}. {READ_HERE}.")


def _kind_of_hdf5(path: Path) -> Kind:
    with h5py.File(path, "r") as file:
        names = {name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)}
        groups = {name for name in names if _is_group(file, name)}
        if "mod" in groups or "obs" in names or "X" in names:
            return Kind.HDF5
        if {"row_attrs", "col_attrs"} <= groups and "matrix" in names - groups:
            return Kind.LOOM
        if any(is_matrix(file[name]) for name in groups):
            return Kind.TENX
    found = _other_hdf5(names)
    if found is not None:
        raise _refuse(path, found._replace(advice=found.advice.format(name=path.name, stem=path.stem)))
    if path.suffix.lower() == ".h5ad":  # its reader says what is missing
        return Kind.HDF5
    there = ", ".join(map(repr, sorted(names)[:_SHOWN])) or "nothing"
    raise ValueError(
        f"{path} is an HDF5 file that holds {there}: no counts of cells in a layout that is known. {READ_HERE}."
    )


def _is_group(file: h5py.File, name: str) -> bool:
    """By opening it: asking for its class makes libhdf5 walk the list of its links, which never ends if damaged."""
    try:
        return isinstance(file[name], h5py.Group)
    except (KeyError, OSError, RuntimeError):
        return False


def _other_hdf5(names: set[str]) -> Foreign | None:
    if {"assays", "cell.names"} <= names:
        return Foreign(
            "an h5Seurat file",
            'write an .h5ad from R: SeuratDisk::Convert("{name}", dest = "h5ad"), or anndataR::write_h5ad('
            'SeuratDisk::LoadH5Seurat("{name}"), "{stem}.h5ad")',
        )
    if {"barcode_idx", "count"} <= names:
        return Foreign(
            "10x's list of molecules",
            "the counts are in filtered_feature_bc_matrix.h5, in the folder that it comes from",
        )
    return None


def _kind_of_zip(path: Path) -> Kind:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if prefix_in_zip(names) is not None:
        return Kind.ZIP
    if any(name.startswith("xl/") for name in names):
        raise _refuse(
            path,
            Foreign(
                "an Excel workbook",
                f'save its sheet as .csv: pandas.read_excel("{path.name}", index_col=0).to_csv("{path.stem}.csv"), or '
                "Save "
                "As in Excel; look for gene names that became dates (1-Mar, 2-Sep)",
            ),
        )
    if names and all(name.endswith(".npy") for name in names):
        raise _refuse(
            path,
            Foreign(
                "arrays of numpy, without names of cells and genes",
                f'give them names: anndata.AnnData(scipy.sparse.load_npz("{path.name}"), obs=..., var=...).write_h5ad('
                f'"{path.stem}.h5ad")',
            ),
        )
    there = ", ".join(names[:_SHOWN]) or "nothing"
    raise _refuse(path, Foreign(f"a zip archive of {there}", f"unpack it (unzip {path.name}) and name what is inside"))


def _kind_of_bytes(path: Path, head: bytes, is_packed: bool) -> Kind:
    if head.startswith(BEGINS):
        return Kind.MTX
    if head.startswith(_HDF5):
        tool = {".bz2": "bunzip2", ".xz": "unxz"}.get(path.suffix.lower(), "gunzip")
        raise _refuse(path, Foreign("a packed HDF5 file", f"unpack it, to read any part of it: {tool} {path.name}"))
    found = foreign(path, head)
    if found is not None and found.what == "empty":
        raise DamagedDataError(f"{path} is empty{' inside' if is_packed else ''}: {found.advice}. {READ_HERE}.")
    if found is not None:
        raise _refuse(path, found)
    claims = path.suffix.lower() in _HDF5_ENDINGS
    if _is_text(head) and (not claims or _has_columns(head)):
        return Kind.TABLE
    what = {".loom": "loom", ".h5mu": "MuData", ".h5": "a 10x .h5"}.get(path.suffix.lower(), "AnnData")
    was = "it is text" if _is_text(head) else "it begins with bytes that no known format begins with"
    raise DamagedDataError(
        f"{path} ({path.stat().st_size} bytes) cannot be read as {what if claims else 'counts'}; it is damaged, cut "
        "short "
        f"or something else: {was}. Copy or download it again. {READ_HERE}."
    )


def _is_text(head: bytes) -> bool:
    return head.startswith((b"\xff\xfe", b"\xfe\xff")) or not any(byte < 9 or 13 < byte < 27 for byte in head)


def _has_columns(head: bytes) -> bool:
    lines = head.splitlines()[:2]
    return len(lines) == 2 and any(all(separator in line for line in lines) for separator in (b"\t", b",", b";"))
