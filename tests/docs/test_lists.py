"""Lists in the documentation that are made from the code are as the code says."""

import inspect
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from celbo import external, model
from celbo.choosing.table import CHOICES
from celbo.model.base import BaseModelClass

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def make_models():
    spec = spec_from_file_location("make_models", REPOSITORY / "docs" / "make_models.py")
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("page", ["README.md", "docs/models.md", "docs/command_line.md"])
def test_tables_of_models(make_models, page):
    path = REPOSITORY / page
    text = path.read_text()
    assert make_models.BEGIN in text
    assert text == make_models.written(path), "stale: run python docs/make_models.py"


def test_every_model_is_listed():
    listed = {name for choice in CHOICES for name in choice.classes}
    public = {name for room in (model, external) for name in room.__all__}
    models = {
        name
        for name in public
        if isinstance(found := getattr(model, name, None) or getattr(external, name), type)
        and issubclass(found, BaseModelClass)
    }
    assert listed == models


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.file)
def test_a_row_is_of_its_file(choice):
    for name in choice.names:
        room, _, cls = name.partition(".")
        path = Path(inspect.getfile(getattr({"model": model, "external": external}[room], cls)))
        assert path.as_posix().endswith(f"celbo/{choice.file}")
    assert (REPOSITORY / "docs" / choice.page).exists()
