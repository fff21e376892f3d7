"""The site's reference names what is public, all of it and once; formulas become MathML that browsers draw."""

import importlib
import re
import xml.etree.ElementTree as ET
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import celbo

DOCS = Path(__file__).resolve().parents[2] / "docs"
DESCRIBED = re.compile(r"^\.\. (?:autofunction|autoclass|py:data|py:function):: ([\w.]+)", re.MULTILINE)


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(name, DOCS / f"{name}.py")
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    """Name of each page of the reference -> its text."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "generated").mkdir()
    (folder / "generated" / "celbo.of.old.rst").write_text("a name that is gone")
    script("make_reference").write(folder)
    return {path.stem: path.read_text() for path in folder.rglob("*.rst")}


def public_objects() -> dict[int, str]:
    """Identity of everything that a room of celbo names -> one of its names."""
    rooms = [name for name in celbo.__all__ if isinstance(getattr(celbo, name), ModuleType)]
    faces = [celbo, *(importlib.import_module(f"celbo.{room}") for room in rooms)]
    named = {f"{face.__name__}.{name}": getattr(face, name) for face in faces for name in face.__all__}
    return {id(value): name for name, value in named.items() if not isinstance(value, ModuleType)}


def value_of(full: str) -> object:
    package, _, name = full.rpartition(".")
    return getattr(importlib.import_module(package), name)


class TestReference:
    def test_every_public_name_is_described_once(self, pages):
        described = [id(value_of(name)) for text in pages.values() for name in DESCRIBED.findall(text)]
        assert {name for key, name in public_objects().items() if described.count(key) != 1} == set()

    def test_nothing_private(self, pages):
        names = [name for text in pages.values() for name in DESCRIBED.findall(text)]
        private = [name for name in names if any(part.startswith("_") for part in name.split("."))]
        assert private == ["celbo.__version__"]

    def test_every_class_is_in_the_table_of_contents_of_its_package(self, pages):
        classes = [name for name, text in pages.items() if ".. autoclass::" in text]
        assert len(classes) > 100
        lost = [name for name in classes if f"\n   {name}\n" not in pages[name.rpartition(".")[0]]]
        assert lost == []

    def test_pages_of_names_that_are_gone_go(self, pages):
        assert "celbo.of.old" not in pages

    def test_every_command(self, pages):
        for command in ("train", "embed", "predict", "info", "convert"):
            assert f"Usage: celbo {command} " in pages["command_line"]


class TestFormulas:
    @pytest.fixture
    def markup(self):
        for package in ("latex2mathml", "docutils", "sphinx"):
            pytest.importorskip(package, reason="the site's packages are not installed: pip install celbo[docs]")
        return script("mathml").markup

    def test_lines_are_rows(self, markup):
        tree = ET.fromstring(markup(r"\begin{aligned} a &= b \\ c &= d \end{aligned}", block=True))
        assert tree.get("display") == "block"
        assert len(tree.findall(".//{*}mtr")) == 2

    def test_lines_without_an_environment_are_aligned(self, markup):
        assert len(ET.fromstring(markup(r"a &= b \\ c &= d", block=True)).findall(".//{*}mtr")) == 2

    def test_inline(self, markup):
        assert ET.fromstring(markup(r"q(z_n \mid x_n)")).get("display") == "inline"
