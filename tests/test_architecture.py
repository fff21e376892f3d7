"""The house keeps its own rules: which room may import which, what a file must have, how long things may grow.

The rules are those of docs/architecture.md. Tables of exceptions may only shrink: a row that is no longer needed fails
the test.
"""

import ast
import graphlib
import io
import itertools
import re
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch

from celbo.data import synthetic_iid
from celbo.model import SCVI
from celbo.ops.native.threads import working_threads

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "src" / "celbo"

CHAINS = (
    "core < ops < {distributions, nn} < module < train < model < external < {report, criticism, compat} < {pl, cli}",
    "core < store < formats < data < dataloaders < {train, posterior}",
    "data < utils < verbs < model",
    "{module, distributions} < posterior < verbs < model",
    "core < io < train < model",
    "data < choosing < cli",
    "ops < dataloaders",
    "external < tl",
)
"""What is left of `<` may be imported by what is right of it. These very lines stand in docs/architecture.md."""

ABOVE_ALL = {"testing": "model", "__main__": "cli"}
"""Rooms outside the chains: each may import the room named and everything below that."""

FORBIDDEN = {
    "core": {"torch", "anndata", "pandas", "jax"},
    "store": {"torch", "jax"},
    "formats": {"torch", "jax"},
    "data": {"torch", "jax"},
    "io": {"anndata", "jax"},
}
"""Packages that no module-level import of a room may name."""

FORBIDDEN_EVERYWHERE = {"store": {"torch", "jax"}, "formats": {"torch", "jax"}, "data": {"torch", "jax"}}
"""Packages that a room may not name even inside a function."""

IMPORT_NAMES = {"scikit-learn": "sklearn"}
"""Distribution name -> import name, where the two differ."""

TOP_LEVEL_OPTIONAL: set[tuple[str, str]] = set()
"""(file, package): optional packages imported at module level, in files that are only imported with them."""

DYNAMIC_IMPORTS = {
    "__init__.py": "rooms load when first named",
    "compat/aliases.py": "public names of scvi-tools that a higher room has here",
    "compat/finder.py": "the import hook of the name scvi: tables of names, checked by tests/compat",
    "core/lazy.py": "optional packages",
    "ops/native/machine_code.py": "numba is heavy, linking takes a moment: with the first use of a compiled loop",
}
"""File -> why it imports by a name worked out at run time, which the checks here cannot see through."""

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
"""Signs to think at. Docstrings of a function do not count."""

MAX_FILES_IN_A_FOLDER = 22
SHARED_BY_EXTERNAL_MODELS = {"celbo.external.converging"}
OTHER_PATHS = {("mrvi_torch", "mrvi")}
MAX_SHARE_OF_A_ROOM = 0.12
MAX_SHARE_OF_ANY = 0.04
MAX_FILES_ENTERED = 60
MAX_ASKED_FOR = 12
"""Files beside a folder's face; lines of a room over those of the package. More than a reader keeps in mind.

Arguments that are ``Any`` over all of them; calls of ``getattr`` with a default. Files that Python enters between
``SCVI(adata)`` and the first backward pass.
"""

LINES_OF_A_MODEL = {
    ("model/scvi.py",): 55,
    ("model/scanvi.py",): 120,
    ("model/destvi.py",): 150,
    ("model/peakvi.py", "module/peakvae.py"): 190,
    ("external/cellassign/model.py",): 105,
    ("external/solo/model.py",): 130,
    ("external/stereoscope/model.py",): 90,
}
"""Files -> lines of code that they may have together: without docstrings, comments and blank lines."""

BANNED_PHRASES = (
    "that is said",
    "is said.",
    "need not say",
    "let go of",
    "loaders of others",
    "for scvi-tools' sake",
    "of someone's own",
    "anew",
    '"""Hook."""',
    "in this room",
)
"""What reads as translated, in docstrings, comments and messages; say who does what, in plain words."""

NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}

SELF_EVIDENT_ERRORS = {"AssertionError", "AttributeError", "KeyboardInterrupt", "NotImplementedError", "StopIteration"}
"""Errors that no docstring has to name."""

# Exceptions: these tables may only shrink.

LONG_FILES: dict[str, int] = {"module/vae.py": 460, "ops/native/kernels.py": 478}
"""File -> lines it may have."""

LONG_FUNCTIONS: dict[str, int] = {
    "external/resolvi/module.py:__init__": 75,  # half of it are its arguments, which are scvi-tools'
    "module/vae.py:__init__": 100,
    "train/trainer.py:__init__": 75,
}
"""file:function -> lines it may have."""

LOCAL_IMPORTS_IN_FUNCTIONS: set[tuple[str, str]] = {
    ("cli/__init__.py", "celbo.cli.commands"),  # so that Ctrl-C is answered while typer loads
    ("cli/commands.py", "celbo.cli.runs"),  # so that `celbo --help` loads no torch
}
"""(file, module): imports inside a function that are not of a third-party package."""

NO_DOCSTRING: set[str] = set()
NO_ALL: set[str] = set()
"""Files without a docstring at the top, without `__all__`."""


When = Literal["loading", "calling", "typing"]
"""An import runs at module level, runs inside a function, or is for type checkers only."""


@dataclass(frozen=True)
class Import:
    """One import statement's target, in the file that holds it."""

    file: str
    line: int
    target: str
    when: When

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


class House:
    """A package on disk, read but never run."""

    def __init__(self, folder: Path):
        self.name = folder.name
        self.folder = folder
        self.files = {path.relative_to(folder).as_posix(): ast.parse(path.read_text()) for path in folder.rglob("*.py")}
        self.modules = {self.module_of(file): file for file in self.files}
        self.imports = [found for file, tree in self.files.items() for found in self._imports(file, tree)]

    def module_of(self, file: str) -> str:
        """Dotted name of a file: ``data/manager.py`` is ``celbo.data.manager``."""
        parts = (self.name, *file.removesuffix(".py").split("/"))
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def room_of(self, module: str) -> str:
        """First name below the root; the root itself is ``""``."""
        return module.split(".")[1] if "." in module else ""

    def is_own(self, target: str) -> bool:
        return target.split(".")[0] == self.name

    def _imports(self, file: str, tree: ast.Module) -> Iterator[Import]:
        for node, when in _walk(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(file, node)
                # `from . import sibling` names a module, `from .sibling import thing` something in one.
                names_rooms = file == "__init__.py" and base == self.name
                inner = [f"{base}.{alias.name}" for alias in node.names]
                targets = [name if names_rooms or name in self.modules else base for name in inner]
            else:
                continue
            for target in dict.fromkeys(targets):
                yield Import(file, node.lineno, target, when)

    def _absolute(self, file: str, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return str(node.module)
        package = (self.name, *file.split("/")[:-1])
        above = package[: len(package) - node.level + 1]
        return ".".join((*above, *([node.module] if node.module else [])))


def _walk(node: ast.AST, when: When = "loading") -> Iterator[tuple[ast.AST, When]]:
    """Every node, with when Python comes to it."""
    for child in ast.iter_child_nodes(node):
        then: When = when
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and when == "loading":
            then = "calling"
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            then = "typing"
        yield child, then
        yield from _walk(child, then)


def rooms_below(chains: tuple[str, ...]) -> dict[str, set[str]]:
    """Room -> every room that it may import, from lines such as ``a < {b, c} < d``."""
    direct: dict[str, set[str]] = {}
    for chain in chains:
        steps = [set(re.findall(r"\w+", step)) for step in chain.split("<")]
        for lower, upper in itertools.pairwise(steps):
            for room in upper:
                direct.setdefault(room, set()).update(lower)
    below: dict[str, set[str]] = {}
    order = graphlib.TopologicalSorter(direct).static_order()
    for room in order:
        below[room] = direct.get(room, set()).union(*(below[lower] for lower in direct.get(room, set())))
    return below


def layering_faults(house: House) -> list[str]:
    """Imports that go up, or sideways between siblings."""
    below = rooms_below(CHAINS)
    below |= {room: below[highest] | {highest} for room, highest in ABOVE_ALL.items()}
    below[""] = set(below)  # The root names its rooms for type checkers; what it loads is tested by running it.
    faults = []
    for found in house.imports:
        if not house.is_own(found.target):
            continue
        room, target = house.room_of(house.module_of(found.file)), house.room_of(found.target)
        if room not in below:
            faults.append(f"{found.file}: room {room!r} stands in no chain of docs/architecture.md")
        elif target not in below[room] | {room}:
            faults.append(f"{found}: {room} may import {sorted(below[room])}")
    return faults


def root_imports(house: House) -> list[str]:
    """Imports of the package root, and absolute imports of the package."""
    return [
        str(found)
        for found in house.imports
        if found.target == house.name or (found.target.split(".")[0] == house.name and _is_absolute(house, found))
    ]


def _is_absolute(house: House, found: Import) -> bool:
    nodes = [node for node, _ in _walk(house.files[found.file]) if getattr(node, "lineno", None) == found.line]
    return any(isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.level == 0) for node in nodes)


def cycle(house: House) -> list[str] | None:
    """Modules of one import cycle, or None; imports inside functions count, and those for type checkers."""
    graph: dict[str, set[str]] = {module: set() for module in house.modules}
    for found in house.imports:
        if house.is_own(found.target):
            graph[house.module_of(found.file)].add(found.target)
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return list(error.args[1])
    return None


def is_third_party(house: House, target: str) -> bool:
    top = target.split(".")[0]
    return top != house.name and top not in sys.stdlib_module_names


def function_lengths(house: House) -> dict[str, int]:
    """file:function -> lines without the docstring and without decorators."""
    lengths = {}
    for file, tree in house.files.items():
        for node, _ in _walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = node.body[0] if ast.get_docstring(node) is not None else None
                written = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
                name = f"{file}:{node.name}"
                lengths[name] = max(lengths.get(name, 0), node.end_lineno - node.lineno + 1 - written)
    return lengths


def lines_of_code(path: Path) -> int:
    """Lines with more than a docstring or a comment."""
    text = path.read_text(encoding="utf-8")
    described = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    written = {line for one in tokens if one.type not in NO_CODE for line in range(one.start[0], one.end[0] + 1)}
    return len(written - described)


def arguments(tree: ast.Module) -> list[ast.arg]:
    """Arguments of all functions, without ``*args`` and ``**kwargs``."""
    functions = [node.args for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [argument for args in functions for argument in (*args.posonlyargs, *args.args, *args.kwonlyargs)]


def is_any(annotation: ast.expr | None) -> bool:
    return annotation is not None and ast.unparse(annotation).strip('"') == "Any"


def any_arguments(tree: ast.Module) -> list[ast.arg]:
    """Arguments of which nothing is known."""
    return [argument for argument in arguments(tree) if is_any(argument.annotation)]


def has_all(tree: ast.Module) -> bool:
    targets = [
        target
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def named_public(tree: ast.Module) -> set[str]:
    """What ``__all__`` lists."""
    lists = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and "__all__" in map(ast.unparse, node.targets)
    ]
    return {node.value for listed in lists for node in ast.walk(listed) if isinstance(node, ast.Constant)}


def raised_in(function: ast.FunctionDef) -> set[str]:
    """Errors that a function raises itself, without those of functions inside of it."""
    errors: set[str] = set()
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            errors |= {name for name in re.findall(r"\w+", ast.unparse(made)) if name[0].isupper()}
        waiting.extend(ast.iter_child_nodes(node))
    return errors - SELF_EVIDENT_ERRORS


def unnamed_errors(tree: ast.Module) -> list[str]:
    """Errors that a public function or method raises without a word in its docstring (of ``__init__``, the class's)."""
    faults, public = [], named_public(tree)
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name not in public:
            continue
        members = (
            [node] if isinstance(node, ast.FunctionDef) else [m for m in node.body if isinstance(m, ast.FunctionDef)]
        )
        for member in members:
            if member is not node and member.name.startswith("_") and member.name != "__init__":
                continue
            # a property's setter is explained where its getter is
            explained = [m for m in members if m.name == member.name] + [node] * (member.name == "__init__")
            words = {word for m in explained for word in re.findall(r"\w+", ast.get_docstring(m) or "")}
            faults += [f"{node.name}: {member.name} raises {error}" for error in sorted(raised_in(member) - words)]
    return faults


def too_long(lengths: dict[str, int], limit: int, allowed: dict[str, int]) -> list[str]:
    """What is longer than it may be, and rows of the table of exceptions that are no longer needed."""
    grown = [f"{name} has {n} lines" for name, n in lengths.items() if n > allowed.get(name, limit)]
    stale = [f"take {name} out of the table, it is fine now" for name in allowed if lengths.get(name, 0) <= limit]
    return grown + stale


@pytest.fixture(scope="module")
def house() -> House:
    return House(PACKAGE)


class TestHouse:
    def test_the_document_says_the_same(self):
        text = (REPOSITORY / "docs" / "architecture.md").read_text()
        assert [chain for chain in CHAINS if f"`{chain}`" not in text] == []

    def test_imports_go_down_only(self, house):
        assert layering_faults(house) == []

    def test_nobody_imports_the_root_and_imports_are_relative(self, house):
        assert root_imports(house) == []

    def test_no_cycles(self, house):
        assert cycle(house) is None

    def test_external_models_do_not_import_each_other(self, house):
        def model_of(module: str) -> list[str]:
            return module.split(".")[2:3]

        faults = [
            str(found)
            for found in house.imports
            if found.file.startswith("external/") and found.target.startswith("celbo.external.")
            if model_of(house.module_of(found.file)) not in ([], model_of(found.target))
            if found.target not in SHARED_BY_EXTERNAL_MODELS
            if (*model_of(house.module_of(found.file)), *model_of(found.target)) not in OTHER_PATHS
        ]
        assert faults == []

    def test_imports_in_functions_are_of_third_party_packages(self, house):
        local = {
            (f.file, f.target) for f in house.imports if f.when == "calling" and not is_third_party(house, f.target)
        }
        assert local == LOCAL_IMPORTS_IN_FUNCTIONS

    def test_packages_that_a_room_does_without(self, house):
        faults = []
        for found in house.imports:
            room, top = house.room_of(house.module_of(found.file)), found.target.split(".")[0]
            table = FORBIDDEN if found.when == "loading" else FORBIDDEN_EVERYWHERE
            if top in table.get(room, set()):
                faults.append(str(found))
        assert faults == []

    def test_optional_packages_are_imported_late(self, house):
        extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        names = {
            re.split(r"[\[<>=~! ]", need)[0] for extra, needs in extras.items() if extra != "test" for need in needs
        }
        optional = {IMPORT_NAMES.get(name, name) for name in names}
        early = {(f.file, f.target.split(".")[0]) for f in house.imports if f.when == "loading"}
        assert {(file, top) for file, top in early if top in optional} == TOP_LEVEL_OPTIONAL

    def test_imports_by_name_worked_out_at_run_time(self, house):
        def imports_dynamically(tree: ast.Module) -> bool:
            return any(
                isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}
                for node in ast.walk(tree)
            )

        assert {file for file, tree in house.files.items() if imports_dynamically(tree)} == set(DYNAMIC_IMPORTS)

    def test_file_lengths(self, house):
        lengths = {file: len((PACKAGE / file).read_text().splitlines()) for file in house.files}
        assert too_long(lengths, MAX_FILE_LINES, LONG_FILES) == []

    def test_function_lengths(self, house):
        assert too_long(function_lengths(house), MAX_FUNCTION_LINES, LONG_FUNCTIONS) == []

    @pytest.mark.parametrize("files", LINES_OF_A_MODEL, ids=lambda files: files[0])
    def test_models_stay_short(self, files):
        assert sum(lines_of_code(PACKAGE / file) for file in files) <= LINES_OF_A_MODEL[files]

    def test_folders_stay_small(self):
        files = Counter(path.parent for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
        assert {folder.name: n for folder, n in files.items() if n > MAX_FILES_IN_A_FOLDER} == {}

    def test_rooms_stay_small(self, house):
        """external/ is a shelf whose models know nothing of one another: each folder there counts as a room."""
        lines: Counter[str] = Counter()
        for file in house.files:
            room = house.room_of(house.module_of(file))
            name = "/".join(Path(file).parts[:2]) if room == "external" else room
            lines[name] += len((PACKAGE / file).read_text().splitlines())
        most = MAX_SHARE_OF_A_ROOM * lines.total()
        assert {room: n for room, n in lines.items() if n > most} == {}

    def test_no_underscore_in_front_of_a_name(self):
        paths = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if "__pycache__" not in path.parts]
        hidden = [path.as_posix() for path in paths if path.name.startswith("_")]
        assert [path for path in hidden if Path(path).name not in {"__init__.py", "__main__.py"}] == []

    def test_plain_english(self, house):
        texts = {file: (PACKAGE / file).read_text().lower() for file in house.files}
        found = [f"{file}: {phrase!r}" for file, text in texts.items() for phrase in BANNED_PHRASES if phrase in text]
        assert found == []

    def test_arguments_say_what_they_are(self, house):
        notes = [
            argument.annotation for tree in house.files.values() for argument in arguments(tree) if argument.annotation
        ]
        assert sum(map(is_any, notes)) / len(notes) <= MAX_SHARE_OF_ANY

    def test_verbs_know_their_model(self, house):
        """No verb takes its model, or anything else, as ``Any``; a mixin derives from what it asks of."""
        of_verbs = [file for file in house.files if file.startswith("verbs/")]
        unknown = [f"{file}: {argument.arg}" for file in of_verbs for argument in any_arguments(house.files[file])]
        assert unknown == []
        pretending = [file for file, tree in house.files.items() if "= object\n" in ast.unparse(tree) + "\n"]
        assert pretending == []

    def test_models_are_made_in_one_way(self, house):
        rooms = ("model/", "external/")
        assert [
            file for file, tree in house.files.items() if file.startswith(rooms) and "__new__" in ast.unparse(tree)
        ] == []

    def test_files_that_the_document_sends_readers_to(self):
        text = (REPOSITORY / "docs" / "architecture.md").read_text()
        table = text[text.index("## Where to change what") : text.index("## Contracts")]
        named = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.(?:py|md))?)(?::\w+)?`", table)
        missing = [path for path in named if not (PACKAGE / path).exists() and not (REPOSITORY / path).exists()]
        assert len(named) >= 20
        assert missing == []

    def test_attributes_are_there(self, house):
        """An attribute that may be missing is asked for in few places: what a class has, it declares."""
        asking = [
            f"{file}:{node.lineno}"
            for file, tree in house.files.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and len(node.args) == 3
        ]
        assert len(asking) <= MAX_ASKED_FOR, asking

    def test_every_file_starts_with_a_docstring(self, house):
        assert {file for file, tree in house.files.items() if not ast.get_docstring(tree)} == NO_DOCSTRING

    def test_docstrings_name_the_errors(self, house):
        """What a public function or method raises itself, its docstring says."""
        assert [f"{file}: {fault}" for file, tree in house.files.items() for fault in unnamed_errors(tree)] == []

    def test_every_module_names_what_is_public(self, house):
        without = {file for file, tree in house.files.items() if not has_all(tree) and not file.endswith("__main__.py")}
        assert without == NO_ALL

    def test_every_package_folder_has_a_face(self):
        folders = {path.parent for path in PACKAGE.rglob("*.py")}
        assert [folder.name for folder in folders if not (folder / "__init__.py").exists()] == []


def test_few_files_are_entered_on_the_way_to_the_first_gradients(monkeypatch):
    """On one thread: more of them look around for who else wants the processors."""
    adata = synthetic_iid(batch_size=50, seed=0)
    SCVI.setup_anndata(adata, batch_key="batch")
    SCVI(adata).train(max_epochs=1, max_steps=1, accelerator="cpu", verbose=0)  # compiles, where nobody has yet
    entered = set()

    def enter(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            entered.add(frame.f_code.co_filename)

    def arrive(*args, **kwargs):
        raise KeyError("as far as here")

    monkeypatch.setattr(torch.Tensor, "backward", arrive)
    before = sys.getprofile()
    with working_threads(1):
        sys.setprofile(enter)
        try:
            with pytest.raises(KeyError, match="as far as here"):
                SCVI(adata).train(max_epochs=2, accelerator="cpu", verbose=0)
        finally:
            sys.setprofile(before)
    assert 30 < len(entered) <= MAX_FILES_ENTERED, sorted(entered)


class TestTheChecksThemselves:
    """On a small package with one fault each: a check that cannot fail protects nothing."""

    @pytest.fixture
    def build(self, tmp_path):
        def build(**files: str) -> House:
            for name, text in {"": "", **files}.items():
                folder = tmp_path / "celbo" / Path(*name.split("__")) if name else tmp_path / "celbo"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "__init__.py").write_text(text)
            return House(tmp_path / "celbo")

        return build

    def test_order(self):
        below = rooms_below(CHAINS)
        assert below["core"] == set()
        assert below["nn"] == {"core", "ops"}
        reading = {"store", "formats", "data", "dataloaders"}
        assert below["posterior"] == {"core", "ops", "distributions", "nn", "module", *reading}
        assert below["io"] == {"core"}
        assert {"train", "posterior", "io"} < below["model"]
        assert "report" in below["cli"]

    def test_upward_and_sideways(self, build):
        house = build(core="from ..ops import f", ops="", nn="from .. import distributions", distributions="")
        assert len(layering_faults(house)) == 2

    def test_upward_inside_a_function(self, build):
        assert layering_faults(build(core="def f():\n    from ..ops import g", ops=""))

    def test_downward_is_fine(self, build):
        house = build(core="", ops="from ..core import f", module__base="from ...ops import f", module="")
        assert layering_faults(house) == []
        assert cycle(house) is None

    def test_unknown_room(self, build):
        assert "stands in no chain" in layering_faults(build(attic="from ..core import f", core=""))[0]

    @pytest.mark.parametrize("text", ["from .. import f", "import celbo", "from celbo import f", "import celbo.ops"])
    def test_root(self, build, text):
        assert root_imports(build(core=text, ops=""))

    def test_relative_import_of_a_room_is_not_the_root(self, build):
        assert root_imports(build(ops="from .. import core", core="")) == []

    def test_cycle(self, build):
        assert set(cycle(build(data="from .a import f", data__a="def f():\n    from .. import data"))) >= {"celbo.data"}

    def test_imports_for_type_checkers_make_cycles_and_have_a_direction(self, build):
        typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {} import f"
        assert cycle(build(data="from .a import f", data__a=typed.format("..")))
        assert layering_faults(build(core=typed.format("..ops"), ops=""))

    def test_lengths(self):
        assert too_long({"a": 5, "b": 9}, 6, {}) == ["b has 9 lines"]
        assert too_long({"b": 9}, 6, {"b": 9}) == []
        assert too_long({"b": 10}, 6, {"b": 9}) == ["b has 10 lines"]
        assert too_long({"b": 6}, 6, {"b": 9}) == ["take b out of the table, it is fine now"]

    def test_lines_of_code(self, tmp_path):
        described = '"""What it is,\n\nand more."""\n\n# why\nimport re  # here\n\n\n'
        text = described + 'def f():\n    """Do."""\n    return """a\nb"""\n'
        (path := tmp_path / "some.py").write_text(text)
        assert lines_of_code(path) == 4

    def test_docstrings_do_not_count(self, build):
        house = build(core='def f():\n    """One.\n\n    Two.\n    """\n    return 1')
        assert function_lengths(house) == {"core/__init__.py:f": 2}

    @pytest.mark.parametrize(
        ("text", "faults"),
        [
            ("def f():\n    'Refuse.'\n    raise KeyError('k')", ["f: f raises KeyError"]),
            ("def f():\n    'Raise a MissingKeyError.'\n    raise KeyError('k')", ["f: f raises KeyError"]),
            ("def f():\n    raise errors.OwnError.of('k')", ["f: f raises OwnError"]),
            ("def f():\n    'Raise a ``KeyError``.'\n    raise KeyError('k')", []),
            ("def f():\n    def g():\n        raise KeyError('k')", []),
            ("def g():\n    raise KeyError('k')", []),
            ("class f:\n    'Raises KeyError.'\n    def __init__(self):\n        raise KeyError('k')", []),
            (
                "class f:\n    'Raises KeyError.'\n    def g(self):\n        raise KeyError('k')",
                ["f: g raises KeyError"],
            ),
        ],
    )
    def test_errors_of_public_functions(self, text, faults):
        assert unnamed_errors(ast.parse(f"__all__ = ['f']\n{text}")) == faults
