"""Optional packages."""

import importlib
import sys

import pytest

import celbo
from celbo.core import optional


def test_present():
    assert optional("json.decoder", extra="x", purpose="This test") is sys.modules["json.decoder"]


def test_absent_says_what_to_type():
    with pytest.raises(ModuleNotFoundError, match=r"This test needs the package 'no_such_package_xyz'.*celbo\[xyz\]"):
        optional("no_such_package_xyz.inner", extra="xyz", purpose="This test")


def test_name_of_the_missing_package_is_kept():
    with pytest.raises(ModuleNotFoundError) as caught:
        optional("no_such_package_xyz", extra="xyz", purpose="This test")
    assert caught.value.name == "no_such_package_xyz"


def test_a_broken_package_is_not_called_absent(tmp_path, monkeypatch):
    """A package that is there but lacks one of its own needs keeps its own error."""
    (tmp_path / "celbo_test_broken.py").write_text("import no_such_package_xyz")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_package_xyz'"):
        optional("celbo_test_broken", extra="x", purpose="This test")


@pytest.mark.parametrize("name", ["export_archive", "convert_archive", "model_report"])
def test_names_that_are_looked_for_at_the_root_say_where_they_are(name):
    with pytest.raises(AttributeError, match=rf"^celbo\.{name} is celbo\.([\w.]+)\.$") as caught:
        getattr(celbo, name)
    *rooms, last = str(caught.value).removesuffix(".").split(" is celbo.")[1].split(".")
    assert callable(getattr(importlib.import_module(f"celbo.{'.'.join(rooms)}"), last))
