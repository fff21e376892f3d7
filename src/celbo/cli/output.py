"""Output that is there whole or not at all: built beside its place under another name, renamed when it is complete."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError

__all__ = ["RUN_FILES", "new_file", "new_folder"]

RUN_FILES = (
    "model",
    "embedding.h5ad",
    "predictions.csv",
    "genes.csv",
    "history.csv",
    "run.json",
    "report.html",
    "checkpoints",
)
"""What a run's folder may hold (the last of them only until the run is complete), and all that ``--overwrite`` may
remove."""


@contextmanager
def new_folder(target: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> Iterator[Path]:
    """A new folder to fill, which takes its place at the end.

    Parameters
    ----------
    target
        Its place.
    overwrite
        Whether a run's folder there may be replaced; it stays whole until the new one is complete.
    inputs
        Paths that are read, and so must not lie in the folder that is replaced.

    Yields
    ------
    The folder to fill. After an error, or Ctrl-C, nothing of it is left.

    Raises
    ------
    UserError
        When something is there that may not be replaced, or the place cannot be written to.
    """
    target = target.absolute()
    _require_replaceable(target, overwrite, inputs)
    made = _make_parents(target)
    building = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        _make(building, target)
        yield building
        _put(building, target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # someone else may use it by now
                folder.rmdir()
        raise


@contextmanager
def new_file(target: Path, overwrite: bool) -> Iterator[Path]:
    """A path to write a file to, which takes its place at the end; see :func:`new_folder`."""
    target = target.absolute()
    if target.is_dir():
        raise UserError(f"{target} is a folder; name a file with -o.")
    if target.exists() and not overwrite:
        raise UserError(f"{target} is there already: choose another file with -o, or replace it with --overwrite.")
    if not target.parent.is_dir():
        raise UserError(f"There is no folder {target.parent}: make it, or choose another place with -o.")
    building = target.with_name(f".partial-{os.getpid()}-{target.name}")
    try:
        yield building
        os.replace(building, target)
    finally:
        building.unlink(missing_ok=True)


def _require_replaceable(target: Path, overwrite: bool, inputs: Sequence[Path]) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir() or target.is_symlink():
        raise UserError(f"{target} is there and is no folder: choose another place with -o.")
    if not overwrite:
        raise UserError(f"{target} is there already: choose another folder with -o, or replace it with --overwrite.")
    foreign = sorted(path.name for path in target.iterdir() if path.name not in RUN_FILES)
    if foreign:
        raise UserError(
            f"{target} holds {foreign[0]!r}, which no run of celbo wrote, so it is not replaced: move it away."
        )
    for path in inputs:
        if path.absolute().resolve().is_relative_to(target.resolve()):
            raise UserError(
                f"The input {path} lies in {target}, which would be replaced: choose another folder with -o."
            )


def _make_parents(target: Path) -> list[Path]:
    """Make the folders above; those that were made, innermost first."""
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(target, error) from error
    return made


def _make(folder: Path, target: Path) -> None:
    try:
        folder.mkdir()
    except OSError as error:
        raise _not_writable(target, error) from error


def _not_writable(target: Path, error: OSError) -> UserError:
    return UserError(f"{target} cannot be written ({error.strerror}): choose another place with -o.")


def _put(building: Path, target: Path) -> None:
    """Rename the new folder to its place; an old one there moves aside first, and back if that fails."""
    if not target.exists():
        os.rename(building, target)
        return
    aside = target.with_name(f".{target.name}.old-{os.getpid()}")
    os.rename(target, aside)
    try:
        os.rename(building, target)
    except BaseException:
        os.rename(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
