"""Every ``>>>`` example in a docstring runs and prints what it says.

An example of a method goes on where the example of its class ends: ``model`` and ``adata`` are those. A mixin has the
example of a model that has it.
"""

import doctest
import functools
import importlib
import inspect
import re
from pathlib import Path

import pytest

from celbo import external, model
from celbo.external import (
    CYTOVI,
    DIAGVI,
    GIMVI,
    METHYLVI,
    MRVI,
    RESOLVI,
    SCVIVA,
    VELOVI,
    ContrastiveTOTALVI,
    ContrastiveVI,
)
from celbo.model import MULTIVI, PEAKVI, SCANVI, SCVI, TOTALVI, DestVI
from celbo.model.base import BaseModelClass
from celbo.report.summary import summarise

SOURCE = Path(__file__).resolve().parents[2] / "src"
FILES = sorted(path for path in (SOURCE / "celbo").rglob("*.py") if ">>> " in path.read_text())
MODELS = {
    "AbundanceMixin": CYTOVI,
    "AccessibilityMixin": PEAKVI,
    "BaseMudataMinifiedModeModelClass": MULTIVI,
    "ContrastiveMixin": ContrastiveVI,
    "ContrastiveTOTALMixin": ContrastiveTOTALVI,
    "CounterfactualMixin": MRVI,
    "CytometryMixin": CYTOVI,
    "DifferencesMixin": RESOLVI,
    "DiagviMixin": DIAGVI,
    "GimviMixin": GIMVI,
    "ImputingMixin": CYTOVI,
    "MRVIMixin": MRVI,
    "MethylationMixin": METHYLVI,
    "MultimodalMixin": MULTIVI,
    "NicheMixin": SCVIVA,
    "ProteinMixin": TOTALVI,
    "ResolvedMixin": RESOLVI,
    "SeveralSetsMixin": GIMVI,
    "SemisupervisedTrainingMixin": SCANVI,
    "SpotStatesMixin": DestVI,
    "VelocityMixin": VELOVI,
    "VelocityUncertaintyMixin": VELOVI,
}
"""Whose example a class without one goes on from, SCVI's apart."""
SHOWN_BY_THE_CLASS = {"setup_anndata", "setup_mudata", "train"}
"""Methods that the example of every model calls."""
WITHOUT_EXAMPLE = {
    "convert_legacy_save": "needs an archive of scvi-tools",
    "register_manager": "for the inside of setup methods",
    "shap_predict": "needs the package shap, which the tests do not have",
    "update_setup_method_args": "for the inside of setup methods",
    "view_anndata_setup": "prints",
    "view_registry": "prints",
    "view_setup_args": "prints",
    "view_setup_method_args": "prints",
}
"""Method -> why its docstring shows no call."""
PUBLIC = [
    found
    for room in (model, external)
    for name in room.__all__
    if isinstance(found := getattr(room, name), type) and issubclass(found, BaseModelClass)
]
FINDER = doctest.DocTestFinder()


def example_of(cls):
    return next(test for test in FINDER.find(cls, module=False, globs={}) if test.name == cls.__name__)


@functools.cache
def left_by(cls):
    """The names that the example of a class, or of a model that derives from it, leaves behind."""
    example = example_of(cls)
    if not example.examples:
        example = example_of(MODELS.get(cls.__name__, SCVI))
    assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0
    return example.globs


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_examples(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = file.relative_to(SOURCE).with_suffix("").parts
    module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    runner = doctest.DocTestRunner()
    for test in FINDER.find(module, module.__name__):
        owner, _, method = test.name.removeprefix(module.__name__).strip(".").partition(".")
        if test.examples and method:
            test.globs |= left_by(getattr(module, owner))
        runner.run(test)
    assert runner.tries > 0
    assert runner.failures == 0


def answers_of(cls):
    """Name -> public method of a class, those apart that only say that the model has none of it."""
    return {
        name: method
        for name, method in inspect.getmembers(cls, callable)
        if not name.startswith("_")
        and not isinstance(method, type)
        and "raises a ``NotImplementedError``" not in (inspect.getdoc(method) or "")
    }


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_every_verb_of_a_model_has_an_example(cls):
    texts = {name: inspect.getdoc(method) or "" for name, method in answers_of(cls).items()}
    excused = SHOWN_BY_THE_CLASS | WITHOUT_EXAMPLE.keys()
    assert [name for name, text in texts.items() if ">>> " not in text and name not in excused] == []


def documented(method):
    """Names in the heads of the section of parameters."""
    section = re.split(r"\n\n(?=\w+\n---)", (inspect.getdoc(method) or "").partition("Parameters\n----------\n")[2])[0]
    return {name.strip(" *") for line in section.splitlines() if line[:1] != " " for name in line.split(",")}


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_every_verb_of_a_model_names_its_arguments(cls):
    missing = {
        f"{name}({argument})"
        for name, method in answers_of(cls).items()
        for argument in inspect.signature(method).parameters.keys() - documented(method) - {"self"}
    }
    assert missing == set()


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_the_report_of_every_model_is_whole(cls):
    example = example_of(cls)
    if not example.examples:
        pytest.skip("the class shows no example: it goes by that of the class it derives from")
    (found,) = {id(value): value for value in left_by(cls).values() if type(value) is cls}.values()
    if found.adata is None:
        pytest.skip("it keeps no single AnnData to report on")
    assert summarise(found, max_cells=100).problems == {}
