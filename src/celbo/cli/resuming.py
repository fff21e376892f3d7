"""Checkpoints of a run of the command line: in ``checkpoints`` in its output folder, until the run is complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from ..core import is_first_process
from ..core.replacing import printable
from ..train.checkpoints.folder import SUBFOLDER, find_checkpoints
from ..train.checkpoints.schedule import TerminatedError
from ..train.engines.engine import asks_for_several
from .errors import UserError

__all__ = ["FinishedError", "checkpoints_of", "keep_for_resuming", "keeping_checkpoints", "writes_and_speaks"]

_OF_A_SHORT_RUN = 2
"""Checkpoints of a run that ended before one was due: its beginning and, maybe, its end."""


class FinishedError(Exception):
    """There is nothing to resume: the run is complete."""


def writes_and_speaks(devices: object, num_nodes: int) -> bool:
    """Whether this process does, of those that torchrun, Fabric, or srun for these devices and nodes started."""
    of_srun = int(os.environ.get("SLURM_PROCID", "0")) if asks_for_several(devices, num_nodes) else 0
    return is_first_process() and of_srun == 0


def checkpoints_of(output: Path, resume: bool, overwrite: bool) -> Path | None:
    """The folder of the checkpoints to go on with; None: there are none, training begins.

    Parameters
    ----------
    output
        Folder of the run.
    resume, overwrite
        As on the command line.

    Raises
    ------
    FinishedError
        To resume a run that is complete.
    UserError
        Checkpoints are there, and it was not said what to do with them.
    """
    folder = output.absolute() / SUBFOLDER
    there = find_checkpoints(folder)
    if resume and there:
        return folder
    if resume and (output / "run.json").exists():
        raise FinishedError
    if there and not overwrite:
        raise UserError(
            f"{printable(output)} holds checkpoints of a run that was not finished: go on with --resume, or start "
            "again with --overwrite."
        )
    return None


def keep_for_resuming(checkpoints: Path, folder: Path) -> bool:
    """Put the checkpoints of a run that Ctrl-C ended into its new folder too; whether there are any.

    They stay where they are until the folder takes its place, so a kill in between loses nothing.
    """
    if not find_checkpoints(checkpoints):
        return False
    try:
        shutil.copytree(checkpoints, folder / SUBFOLDER, copy_function=os.link)
    except OSError:  # a file system without hard links
        shutil.rmtree(folder / SUBFOLDER, ignore_errors=True)
        shutil.copytree(checkpoints, folder / SUBFOLDER)
    return True


@contextmanager
def keeping_checkpoints(output: Path, resumed: Path | None) -> Iterator[Path]:
    """The folder for a run's checkpoints. When the run fails they stay, unless it was over before one was due.

    Parameters
    ----------
    output
        Folder of the run.
    resumed
        The checkpoints that the run goes on with; others that lie there are removed first.

    Notes
    -----
    A run that is complete takes the place of its checkpoints: see :func:`celbo.cli.output.new_folder`.
    """
    folder = output.absolute() / SUBFOLDER
    if resumed is None:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    except TerminatedError:
        raise
    except BaseException as error:
        there = find_checkpoints(folder)
        if there and (resumed is not None or int(there[-1].name.split("-")[1]) > _OF_A_SHORT_RUN):
            kept = f"the checkpoints in {printable(folder)} are kept: the same line with --resume goes on"
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(f"interrupted; {kept}.") from None
            typer.echo(f"celbo: {kept}.", err=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # an earlier run is there
                folder.parent.rmdir()
        raise
