"""Output that is there whole or not at all: built beside its place under another name, renamed when it is complete."""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..core.replacing import BusyError, building, printable
from .errors import UserError

__all__ = ["EMBEDDING_KEY", "RUN_FILES", "new_file", "new_folder", "require_name", "require_new_file", "require_suffix"]

_SHOWN = 80

EMBEDDING_KEY = "X_celbo"
"""Where the latent representation lies in ``obsm`` of files."""

RUN_FILES = (
    "model",
    "embedding.h5ad",
    "predictions.csv",
    "genes.csv",
    "imputed.h5ad",
    "mapping.h5ad",
    "reference.h5ad",
    "history.csv",
    "run.json",
    "report.html",
    "checkpoints",
)
"""What a run's folder may hold (the last of them only until the run is complete), and all that ``--overwrite`` may
remove."""


def require_suffix(output: Path, suffixes: Iterable[str], written: str) -> None:
    """Raise a ``UserError`` for a file of another suffix; ``written`` says what is written, and as what."""
    if output.suffix not in suffixes:
        raise UserError(f"{output} ends in {output.suffix or 'nothing'!r}; {written}.")


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
    require_name(target)
    _require_replaceable(target, overwrite, inputs)
    made, begun = _make_parents(target), False
    try:
        with building(target) as partial:
            partial.mkdir()
            begun = True
            yield partial
    except BaseException as error:
        for folder in made:
            with suppress(OSError):  # someone else may use it by now
                folder.rmdir()
        if isinstance(error, BusyError):
            raise UserError(f"{error} -o names another.") from None
        if isinstance(error, OSError) and not begun:
            raise _not_writable(target, error) from error
        raise


@contextmanager
def new_file(target: Path, overwrite: bool) -> Iterator[Path]:
    """A path to write a file to, which takes its place at the end; see :func:`new_folder`."""
    target = target.absolute()
    require_new_file(target, overwrite)
    with building(target) as partial:
        yield partial


def require_new_file(target: Path, overwrite: bool) -> None:
    """Refuse a file that cannot be written, before anything is computed for it.

    Raises
    ------
    UserError
        Something is there that may not be replaced, there is no such folder, or the name is too long.
    """
    require_name(target)
    if target.is_dir() and target.suffix != ".zarr":
        raise UserError(f"{printable(target)} is a folder; name a file with -o.")
    if target.exists() and not overwrite:
        raise UserError(
            f"{printable(target)} is there already: choose another file with -o, or replace it with --overwrite."
        )
    if not target.absolute().parent.is_dir():
        raise UserError(
            f"There is no folder {printable(target.absolute().parent)}: make it, or choose another place with -o."
        )


def require_name(target: Path) -> None:
    """Raise a ``UserError`` for a name that the file system does not take."""
    try:
        os.lstat(target)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        is_too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
        why = "is too long for the file system" if is_too_long else "is no name"
        raise UserError(f"-o {_shortened(printable(target))} {why}: choose a shorter one.") from None


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} letters)"


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


def _not_writable(target: Path, error: OSError) -> UserError:
    return UserError(f"{target} cannot be written ({error.strerror}): choose another place with -o.")
