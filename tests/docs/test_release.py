"""What the repository says of itself to those who cite, report or install agrees with the code."""

import re
import tomllib
from pathlib import Path

import pytest

import celbo
from celbo.core.version import __version__

yaml = pytest.importorskip("yaml")

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.md"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_citation_is_of_this_version():
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert cited["version"] == __version__
    assert cited["license"] == PROJECT["license"]
    assert cited["title"] == PROJECT["name"]
    assert {"cff-version", "message", "authors"} <= cited.keys()


def test_security_names_this_version():
    said = re.search(r"celbo is at version (\S+)\. ", (REPOSITORY / "SECURITY.md").read_text())
    assert said is not None
    assert __version__.startswith(said[1])


def test_security_names_files_that_are_there():
    text = (REPOSITORY / "SECURITY.md").read_text()
    for path in re.findall(r"`((?:src|tests)/[\w./]+)`", text):
        assert (REPOSITORY / path).exists(), path


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_templates_have_a_head(template):
    _, head, body = template.read_text().split("---\n", 2)
    assert {"name", "about"} <= yaml.safe_load(head).keys()
    for name in re.findall(r"`celbo\.([\w.]+)`?", body):
        thing = celbo
        for part in name.split("."):
            thing = getattr(thing, part)


def test_classifiers_agree_with_what_is_required():
    classifiers = PROJECT["classifiers"]
    assert classifiers == sorted(classifiers)
    assert "Typing :: Typed" in classifiers
    assert (REPOSITORY / "src" / "celbo" / "py.typed").exists()
    assert not any(one.startswith("License ::") for one in classifiers)  # PEP 639: the licence is an expression
