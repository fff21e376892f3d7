"""Every ``>>>`` example in a docstring runs and prints what it says.

An example of a method goes on where the example of its class ends: ``model`` and ``adata`` are those. A mixin has the
example of a model that has it.
"""

import doctest
import importlib
from pathlib import Path

import pytest

from celbo.external import METHYLVI
from celbo.model import MULTIVI, PEAKVI, SCANVI, SCVI

SOURCE = Path(__file__).resolve().parents[2] / "src"
FILES = sorted(path for path in (SOURCE / "celbo").rglob("*.py") if ">>> " in path.read_text())
MODELS = {
    "AccessibilityMixin": PEAKVI,
    "BaseMudataMinifiedModeModelClass": MULTIVI,
    "MethylationMixin": METHYLVI,
    "MultimodalMixin": MULTIVI,
    "SemisupervisedTrainingMixin": SCANVI,
}
"""Whose example a class without one goes on from, SCVI's apart."""
FINDER = doctest.DocTestFinder()


def example_of(cls):
    return next(test for test in FINDER.find(cls, module=False, globs={}) if test.name == cls.__name__)


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
