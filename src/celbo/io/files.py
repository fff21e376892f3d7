"""Files that are replaced whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import ArchiveError

__all__ = ["replacing", "sync_folder", "writing_into"]


def sync_folder(folder: Path) -> None:
    """Make the folder's own entries (renames) survive a power cut; Windows cannot open folders, so not there."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's bytes survive a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Make the folder if it is not there; what the disk refuses becomes an :class:`ArchiveError` that names it."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        _remove_if_empty(folder, made)
        reason = error.strerror or str(error)
        raise ArchiveError(
            f"Nothing was saved to {folder}: {reason}. What lay there before is unchanged; free some room or "
            "name a folder you may write to."
        ) from error
    except BaseException:
        _remove_if_empty(folder, made)
        raise


def _remove_if_empty(folder: Path, made: bool) -> None:
    if made and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A partial file beside ``path`` that takes its place when the block ends well and vanishes when it does not.

    The bytes are on disk before the rename, and the rename is one step, so at any moment ``path`` is the whole old or
    the whole new file. The partial name is fixed: one left by a killed process is overwritten by the next.
    """
    partial = path.with_name(f"partial-{path.name}")
    try:
        yield partial
        sync_file(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
