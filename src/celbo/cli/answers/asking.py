"""How every question to a trained model begins: the model is loaded, the cells are opened, the file is made."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..kind import Fitted, Kind
from ..messages import speaking
from ..models import load
from ..options import Asked
from ..output import new_file, require_new_file
from ..streams import data_for

__all__ = ["Question", "answering", "writing"]


@dataclass(frozen=True)
class Question:
    """A trained model and the cells that it is asked about.

    Attributes
    ----------
    kind, fitted
        The model's row of the table, and the model.
    data
        AnnData or MuData of the cells.
    path
        Where to write: for :func:`writing` a place beside the output, which it takes in the end.
    """

    kind: Kind
    fitted: Fitted
    data: Any
    path: Path


@contextmanager
def answering(asked: Asked, verb: str, does: Callable[[Kind], bool]) -> Iterator[Question]:
    """Load the model and open the cells; ``verb`` and ``does`` as of :func:`celbo.cli.models.load`.

    Raises
    ------
    UserError
        An output that cannot be written, no such model, or one that does not do what is asked.
    """
    with speaking(asked.quiet):
        require_new_file(asked.output, asked.overwrite)
        yield _question(asked, verb, does, asked.output)


@contextmanager
def writing(asked: Asked, verb: str, does: Callable[[Kind], bool]) -> Iterator[Question]:
    """As :func:`answering`, for what cannot see to it itself that its file is there whole or not at all."""
    with speaking(asked.quiet), new_file(asked.output, asked.overwrite) as path:
        yield _question(asked, verb, does, path)


def _question(asked: Asked, verb: str, does: Callable[[Kind], bool], path: Path) -> Question:
    kind, fitted = load(asked.model_dir, verb, does)
    return Question(kind, fitted, data_for(kind, fitted, asked.inputs, asked.how), path)
