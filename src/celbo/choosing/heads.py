"""What the top of each model's file says: what the model gives, and whose it is. Nothing is imported for it."""

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["Head", "head_of"]

_PACKAGE = Path(__file__).resolve().parents[1]


class Head(NamedTuple):
    """What a file of models says of itself.

    Attributes
    ----------
    gives
        What one gets, as a phrase.
    first_author
        Of the paper.
    paper
        Title, in asterisks, journal and year.
    """

    gives: str
    first_author: str
    paper: str

    @property
    def reference(self) -> str:
        """Author and paper, in Markdown."""
        return f"{self.first_author} et al., {self.paper}"

    @property
    def where(self) -> str:
        """Author, journal and year, without titles."""
        return re.sub(r"\*[^*]+\*,? ?", "", self.reference)


@functools.cache
def head_of(file: str) -> Head:
    """The head of a file.

    Parameters
    ----------
    file
        Below the package, such as ``"model/scvi.py"``: its docstring begins ``NAME: what it gives.`` and has a line
        ``Reference: authors, *title*, journal year``.

    Raises
    ------
    ValueError
        It does not.
    """
    text = ast.get_docstring(ast.parse((_PACKAGE / file).read_text(encoding="utf-8")))
    if text is None or "\n\nReference: " not in text:
        raise ValueError(f"{file} does not say what it gives and whose it is at its top.")
    first, reference = text.split("\n\nReference: ")
    gives = " ".join(first.partition(": ")[2].split()).rstrip(".")
    reference = " ".join(reference.split("\n\n")[0].split()).rstrip(".")
    paper = re.search(r"\*.+", reference)
    if paper is None:
        raise ValueError(f"{file} names no *title* of its paper.")
    return Head(gives[0].upper() + gives[1:], re.split(r",| and | et al", reference)[0], paper[0])
