"""Checkpoints on disk: numbered archives in a folder, each there whole or not at all, the newest two kept.

A checkpoint is written as ``partial-checkpoint``, brought to the disk, and renamed to ``checkpoint-000012``: a process
killed at any moment leaves the ones before it as they were. Archives carry checksums, so one that the disk damaged is
noticed, and the one before it is taken.
"""

import logging
import os
import re
import shutil
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from ...core import ArgumentError
from ...core.kinds import described
from ...io import ArchiveError, ArchiveNotFoundError, read_archive, write_archive
from ...io.files import sync_folder, writing_into
from .parts import check_document

__all__ = ["CheckpointFolder", "SavedRun", "checked_run", "find_checkpoints", "open_run", "told_of"]

logger = logging.getLogger("celbo")

SUBFOLDER = "checkpoints"
"""Where the command line keeps them in its output folder."""
KEPT = 2
_NAME = re.compile(r"checkpoint-(\d{6,})")
_PARTIAL = "partial-checkpoint"
_DISCARDED = "discarded-checkpoint"


def find_checkpoints(folder: str | PathLike[str]) -> list[Path]:
    """The checkpoints in a folder, oldest first; none where there is no such folder."""
    folder = Path(folder)
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=_number)


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


@dataclass(frozen=True)
class SavedRun:
    """A run as its newest readable checkpoint has it.

    Attributes
    ----------
    path
        The checkpoint.
    state
        What :func:`celbo.train.checkpoints.state.capture` took.
    damaged
        Newer ones that could not be read.
    """

    path: Path
    state: dict[str, Any]
    damaged: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the checkpoints of the run lie."""
        return self.path.parent

    @property
    def seed(self) -> int | None:
        """The run's seed."""
        return self.state["identity"]["trainer"]["seed"]

    @property
    def threads(self) -> int | None:
        """The number of threads that the run worked on, where the checkpoint says it."""
        threads = self.state.get("threads")
        return threads if isinstance(threads, int) else None


def open_run(folder: "str | PathLike[str] | SavedRun") -> SavedRun:
    """Read the newest checkpoint; where it is damaged, say so and read the one before it.

    Parameters
    ----------
    folder
        The folder of the checkpoints, or one that has them in ``checkpoints``; a run that was opened already is given
        back.

    Raises
    ------
    ArgumentError
        It is no path.
    ArchiveNotFoundError
        There are none.
    ArchiveError
        None of them can be read.
    """
    if isinstance(folder, SavedRun):
        return folder
    if not isinstance(folder, str | PathLike):
        raise ArgumentError.of("resume", f"resume must be the folder of a run's checkpoints, got {described(folder)}.")
    folder = Path(folder).absolute()
    paths = find_checkpoints(folder) or find_checkpoints(folder / SUBFOLDER)
    if not paths:
        raise ArchiveNotFoundError(
            f"There are no checkpoints in {folder}: give the folder that train(checkpoint_dir=...) wrote to. A run "
            "that was ended before its first checkpoint is started again without resume."
        )
    damaged: list[Path] = []
    reasons: list[str] = []
    for path in reversed(paths):
        try:
            state = read_archive(path).document
        except ArchiveError as error:
            damaged.append(path)
            reasons.append(str(error))
            continue
        if damaged:
            logger.warning(f"{damaged[0]} is damaged, {path.name} before it is taken. ({reasons[0]})")
        return SavedRun(path, state, tuple(damaged))
    raise ArchiveError(
        f"None of the {len(paths)} checkpoints in {paths[0].parent} can be read. The newest: {reasons[0]}"
    )


def checked_run(folder: "str | PathLike[str] | SavedRun") -> SavedRun:
    """As :func:`open_run`, for a run that is to go on: what it holds is a state of one, or an ``ArchiveError`` says."""
    run = open_run(folder)
    check_document(run.path, run.state)
    return run


def told_of(folder: str | PathLike[str]) -> str | None:
    """What the checkpoints in a folder are of and how to go on with them, in a sentence; None where there are none.

    Parameters
    ----------
    folder
        As :func:`open_run` takes it, or a checkpoint.
    """
    folder = Path(folder)
    folder = folder.parent if _NAME.fullmatch(folder.name) else folder
    if not (find_checkpoints(folder) or find_checkpoints(folder / SUBFOLDER)):
        return None
    state = checked_run(folder).state
    of_whom, epochs = state["identity"]["model"].get("class", "run"), state["identity"]["trainer"].get("max_epochs")
    reached = f"epoch {state['progress']['current_epoch']} of {epochs}"
    return f"{folder} holds checkpoints of a {of_whom} at {reached}: train(resume={str(folder)!r}) goes on."


@dataclass
class CheckpointFolder:
    """A folder that one run writes its checkpoints to.

    Attributes
    ----------
    path
        The folder; made with the first checkpoint.
    newest
        The checkpoint of this run that was written or read last.
    damaged
        Checkpoints that cannot be read; they go once there are two that can.
    """

    path: Path
    newest: Path | None = None
    damaged: set[Path] = field(default_factory=set)

    def write(self, state: dict[str, Any]) -> Path:
        """Write a checkpoint and remove those that are older than the one before it.

        Raises
        ------
        ArchiveError
            The disk refuses, a value in the state is of a kind that archives do not hold, or another run writes to
            the same folder. The checkpoints that were there are unchanged then.
        """
        present = find_checkpoints(self.path)
        if present and self.newest is not None and present[-1] not in (self.newest, *self.damaged):
            raise ArchiveError(f"Another run writes its checkpoints to {self.path} too: give each run its own folder.")
        path = self.path / f"checkpoint-{(_number(present[-1]) if present else 0) + 1:06d}"
        partial = self.path / _PARTIAL
        with writing_into(self.path):
            self._clear_away()
            try:
                write_archive(partial, {}, state)
                os.rename(partial, path)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            sync_folder(self.path)
        self.newest = path
        try:
            self._discard_old()
        except OSError as error:  # the new one is there; the next one tries again
            logger.warning(f"Old checkpoints in {self.path} cannot be removed: {error.strerror or error}.")
        return path

    def _discard_old(self) -> None:
        """By a rename first: a folder half deleted must not look like a checkpoint."""
        readable = [path for path in find_checkpoints(self.path) if path not in self.damaged]
        old = [*readable[:-KEPT], *(sorted(self.damaged) if len(readable) >= KEPT else ())]
        for path in old:
            os.rename(path, self.path / f"{_DISCARDED}-{path.name}")
            self.damaged.discard(path)
        self._clear_away()

    def _clear_away(self) -> None:
        """Delete what was discarded, and what a killed process left unfinished."""
        for path in self.path.iterdir():
            if path.name == _PARTIAL or path.name.startswith(f"{_DISCARDED}-"):
                shutil.rmtree(path)
