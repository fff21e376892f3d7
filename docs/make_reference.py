"""Write the pages of the reference from what the packages' faces name as public.

``make docs`` calls :func:`write`; the pages are made anew each time and are not in the repository. A package's page has
its functions and a table of all its names; a class has a page of its own.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import typer.main
from typer.core import TyperGroup

import celbo
from celbo.cli import app
from celbo.core.planned import PUBLIC_API
from celbo.model.base import BaseModelClass

__all__ = ["Name", "names_of", "packages", "write"]

FOR_DEVELOPERS = ("core", "core.kinds", "data.fields.bundles", "train.method", "train.plans.base")
"""Modules that a model of one's own needs beside those that ``celbo`` names."""


class Name(NamedTuple):
    """A public name, where it was met first."""

    package: str
    name: str
    value: object

    @property
    def full(self) -> str:
        """As a user writes it."""
        return f"{self.package}.{self.name}"

    @property
    def is_class(self) -> bool:
        """Whether it has a page of its own."""
        return inspect.isclass(self.value)

    @property
    def is_function(self) -> bool:
        """Whether it is described on the page of its package."""
        return inspect.isroutine(self.value)

    @property
    def home(self) -> str:
        """The module that defines a class or function."""
        return str(inspect.getmodule(self.value).__name__)

    @property
    def says(self) -> str:
        """The first sentence of its docstring, on one line."""
        if not (self.is_class or self.is_function):
            return ""
        return " ".join((inspect.getdoc(self.value) or "").split("\n\n")[0].split())


def packages() -> list[str]:
    """Public packages, those of ``celbo`` before what is below them."""
    rooms = [name for name in celbo.__all__ if isinstance(getattr(celbo, name), ModuleType)]
    found = {path for room in rooms for path in (room, *_below(room)) if path in rooms or path in PUBLIC_API}
    return ["celbo", *(f"celbo.{path}" for path in sorted(found, key=_depth)), *(f"celbo.{p}" for p in FOR_DEVELOPERS)]


def _below(room: str) -> Iterator[str]:
    package = importlib.import_module(f"celbo.{room}")
    for found in pkgutil.walk_packages(package.__path__, f"{room}."):
        yield found.name


def _depth(path: str) -> tuple[int, str]:
    return path.count("."), path


def names_of(package: str) -> list[Name]:
    """What a package names in ``__all__``, modules left out."""
    face = importlib.import_module(package)
    found = [Name(package, name, getattr(face, name)) for name in face.__all__]
    return [name for name in found if not isinstance(name.value, ModuleType)]


def write(folder: Path) -> None:
    """Write all pages into ``folder/generated``, and take away those that are no longer due."""
    made = folder / "generated"
    made.mkdir(parents=True, exist_ok=True)
    due = dict(_pages()) | {"command_line.rst": _command_line(), "contents.txt": _contents()}
    for stale in {path.name for path in made.iterdir()} - set(due):
        (made / stale).unlink()
    for name, text in due.items():
        path = made / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _pages() -> Iterator[tuple[str, str]]:
    met: dict[int, Name] = {}
    for package in packages():
        names = names_of(package)
        new = [name for name in names if met.setdefault(id(name.value), name) is name]
        yield f"{package}.rst", _package(package, names, new, met)
        for name in new:
            if name.is_class:
                yield f"{name.full}.rst", _class(name)


def _contents() -> str:
    """A table of contents for the page above, which includes it: classes are below their packages."""
    pages = [f"generated/{name}" for name in ("command_line", *packages())]
    return "\n".join(["```{toctree}", ":hidden:", "", *pages, "```", ""])


def _title(text: str) -> list[str]:
    return [text, "=" * len(text), ""]


def _package(package: str, names: list[Name], new: list[Name], met: dict[int, Name]) -> str:
    lines = _title(package)
    lines += [f".. automodule:: {package}", "   :no-members:", ""]
    lines += [".. list-table::", "   :widths: 35 65", ""] if names else []
    for name in names:
        lines += [f"   * - {_link(met[id(name.value)])}", f"     - {name.says}"]
    lines += ["", ".. toctree::", "   :hidden:", ""] + [f"   {name.full}" for name in new if name.is_class] + [""]
    for name in new:
        if not name.is_class:
            lines += [*_one(name), ""]
    return "\n".join(lines)


def _link(name: Name) -> str:
    role = "class" if name.is_class else "func" if name.is_function else "data"
    return f":py:{role}:`{name.name} <{name.full}>`"


def _one(name: Name) -> list[str]:
    if name.is_function and not name.home.startswith("celbo"):
        home = f"{name.home.partition('.')[0]}.{name.name}"
        arguments = ", ".join(inspect.signature(name.value).parameters)
        return [f".. py:function:: {name.full}({arguments})", "", f"   It is ``{home}``, and documented there."]
    if name.is_function:
        return [f".. autofunction:: {name.full}"]
    value = repr(name.value)
    shown = value if len(value) < 300 else f"{value[:300]} ..."
    return [f".. py:data:: {name.full}", "", "   .. code-block:: text", "", f"      {shown}"]


def _class(name: Name) -> str:
    lines = [*_title(name.name), f".. autoclass:: {name.full}"]
    if issubclass(name.value, BaseModelClass):  # all that a model answers, wherever it is written
        lines += ["   :inherited-members:"]
    return "\n".join([*lines, ""])


def _command_line() -> str:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    lines = _title("The command celbo")
    for name, command in group.commands.items():
        context = typer.Context(command, info_name=f"celbo {name}", terminal_width=100, max_content_width=100)
        said = command.get_help(context).splitlines()
        lines += [f"celbo {name}", "-" * (len(name) + 6), "", ".. code-block:: text", ""]
        lines += [f"   {line}".rstrip() for line in said] + [""]
    return "\n".join(lines)
