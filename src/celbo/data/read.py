"""Reading an AnnData from disk, with errors of one line."""

from pathlib import Path

import anndata

__all__ = ["read"]

_READERS = {".h5ad": "h5ad", ".zarr": "zarr"}


def read(path: str | Path) -> anndata.AnnData:
    """Read an AnnData from ``.h5ad`` or ``.zarr``.

    Parameters
    ----------
    path
        The file, or the folder for zarr.

    Raises
    ------
    FileNotFoundError
        When there is nothing at that path.
    ValueError
        When the suffix is another one, or the file is damaged or no AnnData.
    ModuleNotFoundError
        When zarr is not installed, with the pip line.
    """
    path = Path(path)
    kind = _READERS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'!r}; an AnnData is read from .h5ad or .zarr.")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    return _read_h5ad(path) if kind == "h5ad" else _read_zarr(path)


def _read_h5ad(path: Path) -> anndata.AnnData:
    try:
        return anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _read_zarr(path: Path) -> anndata.AnnData:
    from ..core import optional

    optional("zarr", extra="zarr", purpose="Reading .zarr")
    try:
        return anndata.read_zarr(path)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    size = path.stat().st_size if path.is_file() else None
    note = f" ({size} bytes)" if size is not None else ""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ValueError(f"{path}{note} cannot be read as AnnData; it is damaged, cut short or something else: {lines[0]}")
