"""Names that scvi-tools has and celbo does not have yet say so, however they are asked for."""

import importlib
import sys

import pytest

from celbo.core.planned import PUBLIC_API, planned_names

ROOM = "celbo.attic"


@pytest.fixture
def attic(monkeypatch):
    """A package with one name, in place of one of scvi-tools' whose other names are missing."""
    monkeypatch.setattr("celbo.core.planned.PUBLIC_API", {"attic": frozenset({"Here", "Missing"})})
    package = type(sys)(ROOM)
    package.__path__ = []
    package.Here = 1
    package.__getattr__ = planned_names(ROOM)
    monkeypatch.setitem(sys.modules, ROOM, package)
    return package


def test_what_exists_is_found(attic):
    from celbo.attic import Here

    assert Here == attic.Here == 1


def test_attribute(attic):
    with pytest.raises(AttributeError, match=r"scvi-tools' scvi\.attic\.Missing is not in celbo yet"):
        attic.Missing  # noqa: B018
    assert not hasattr(attic, "Missing")


def test_import_statement(attic):
    with pytest.raises(ImportError, match=r"scvi-tools' scvi\.attic\.Missing is not in celbo yet"):
        from celbo.attic import Missing  # noqa: F401


def test_what_nobody_has(attic):
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        attic.Nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from celbo.attic import Nothing  # noqa: F401


@pytest.mark.parametrize("name", ["hub", "autotune"])
def test_rooms_that_are_missing(name):
    with pytest.raises(AttributeError, match=f"scvi-tools' scvi.{name} is not in celbo yet"):
        getattr(importlib.import_module("celbo"), name)


@pytest.mark.parametrize("room", ["data", "data.fields", "dataloaders", "distributions", "external", "nn", "utils"])
def test_every_room_asks_the_table(room):
    package = importlib.import_module(f"celbo.{room}")
    missing = sorted(name for name in PUBLIC_API[room] if not hasattr(package, name))
    for name in missing:
        with pytest.raises(AttributeError, match="is not in celbo"):
            getattr(package, name)


def test_a_name_that_will_not_come_says_what_to_use():
    with pytest.raises(ImportError, match=r"AmortizedLDAPyroModule is not in celbo: use celbo\.module\.AmortizedLDAM"):
        from celbo.module import AmortizedLDAPyroModule  # noqa: F401
