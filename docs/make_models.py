"""Write the tables of models in README.md and docs/models.md from the models themselves.

``python docs/make_models.py`` rewrites the tables; tests/docs/test_lists.py fails when one is stale. The top of each
model file says what it gives and whose it is: ``NAME: what it gives.``, ``Reference: authors, *title*, journal year``.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from celbo.model.base import BaseModelClass

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = (REPOSITORY / "README.md", REPOSITORY / "docs" / "models.md")
BEGIN, END = "<!-- models: python docs/make_models.py -->", "<!-- end of models -->"


class Entry(NamedTuple):
    """What one file of models says of itself."""

    names: tuple[str, ...]
    gives: str
    first_author: str
    paper: str
    page: Path | None

    def row(self, page: Path) -> str:
        """A line of the table, its links as seen from a page."""
        names = ", ".join(f"`{name}`" for name in self.names)
        if self.page is not None:
            names = f"[{names}]({self.page.relative_to(page.parent).as_posix()})"
        return f"| {self.gives} | {names} | {self.first_author} et al., {self.paper} |"


def entries() -> Iterator[Entry]:
    """The models of ``celbo.model`` and ``celbo.external``, a file of them at a time, in their rooms' order."""
    seen: dict[str, list[str]] = {}
    for room in ("celbo.model", "celbo.external"):
        package = importlib.import_module(room)
        for name in package.__all__:
            cls = getattr(package, name)
            if inspect.isclass(cls) and issubclass(cls, BaseModelClass):
                seen.setdefault(cls.__module__, []).append(f"{room.removeprefix('celbo.')}.{name}")
    for module, names in sorted(seen.items(), key=lambda pair: (pair[0].startswith("celbo.external"), pair[0])):
        yield _entry(module, tuple(names))


def _entry(module: str, names: tuple[str, ...]) -> Entry:
    source = Path(inspect.getfile(importlib.import_module(module)))
    text = ast.get_docstring(ast.parse(source.read_text()))
    if text is None or "\n\nReference: " not in text:
        raise ValueError(f"{module} does not say what it gives and whose it is at its top.")
    first, reference = text.split("\n\nReference: ")
    gives = " ".join(first.partition(": ")[2].split()).rstrip(".")
    reference = " ".join(reference.split("\n\n")[0].split()).rstrip(".")
    paper = re.search(r"\*.+", reference)
    if paper is None:
        raise ValueError(f"{module} names no *title* of its paper.")
    author = re.split(r",| and | et al", reference)[0]
    stem = source.parent.name if source.stem == "model" else source.stem
    page = REPOSITORY / "docs" / "models" / f"{stem}.md"
    return Entry(names, gives[0].upper() + gives[1:], author, paper[0], page if page.exists() else None)


def table(page: Path) -> str:
    """What stands between the marks of a page."""
    head = ["| You want | Model | Paper |", "|---|---|---|"]
    return "\n".join([BEGIN, *head, *(entry.row(page) for entry in entries()), END])


def written(page: Path) -> str:
    """A page with its table as it should be."""
    before, _, rest = page.read_text().partition(BEGIN)
    return before + table(page) + rest.partition(END)[2]


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page))
