"""Public names of scvi-tools: parameters, order and defaults are the same in celbo, or the difference has a reason."""

import gzip
import importlib.util
import json
import sys
from pathlib import Path

import pytest

import celbo

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "make_compatibility.py"


def load():
    spec = importlib.util.spec_from_file_location("make_compatibility", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


make = load()


@pytest.fixture(scope="module")
def names():
    return make.surface()


def test_signatures_are_the_same_or_the_difference_has_a_reason(names):
    assert make.unexplained(names) == []


def test_no_reason_is_left_over(names):
    assert make.stale(names) == []


def test_the_page_is_current(names):
    assert make.PAGE.read_text() == make.page(names), "run python docs/make_compatibility.py"


def test_the_core_is_there(names):
    found = {name.name for name in names if name.found}
    assert {"scvi.model.SCVI", "scvi.module.base.LossOutput", "scvi.train.TrainingPlan", "scvi.nn.Encoder"} <= found
    assert len(names) > 250


def test_settings():
    entry = json.loads(gzip.decompress(make.PEER_API.read_bytes()))["scvi.settings"]
    listed = [shown.split(":")[0].split()[0] for shown in entry["properties"]]
    assert [name for name in listed if not hasattr(celbo.settings, name)] == []
    assert list(make.differences(entry["init"], type(celbo.settings).__init__)) in (
        [],
        ["default of `progress_bar_style` is `'rich'`, not `'tqdm'`"],
    )


class TestTheComparisonItself:
    def differ(self, theirs: str, ours) -> list[str]:
        return list(make.differences(theirs, ours))

    def test_same(self):
        def ours(self, a, b: int = 1, *, c: str = "x", extra: int = 0, **kwargs):
            pass

        assert self.differ("(a: int, b: int = 1, *, c: str = 'x', **kwargs) -> None", ours) == []

    def test_missing_and_default(self):
        def ours(a, b=2):
            pass

        assert self.differ("(a, b=1, c=None)", ours) == ["default of `b` is `2`, not `1`", "has no `c`"]
        assert self.differ("(a=1, b=2)", ours) == ["default of `a` is `none`, not `1`"]

    def test_order(self):
        def ours(b, a):
            pass

        assert self.differ("(a, b)", ours) == ["order is b, a"]

    def test_own_parameters_in_between(self):
        def ours(a, mine=0, b=1):
            pass

        assert self.differ("(a, b=1)", ours) == ["`mine` of celbo's own stands before scvi-tools' last parameter"]
        assert self.differ("(a, mine=0)", ours) == []

    def test_defaults_that_are_no_literals(self):
        class ReLU:
            pass

        def ours(f=ReLU, g=max):
            pass

        assert self.differ("(f: type = <class 'torch.nn.ReLU'>, g=<built-in function max>)", ours) == []
        assert len(self.differ("(f: type = <class 'torch.nn.Tanh'>, g=<built-in function max>)", ours)) == 1

    def test_methods_and_members(self):
        entry = {"kind": "class", "methods": {"get_from_registry": "(registry_key: str, nothing=1)", "fly": "()"}}
        found = make.compare("scvi.data.AnnDataManager", entry)
        assert found.differences == ["`get_from_registry`: has no `nothing`"]
        assert found.missing_members == ["fly"]

    def test_a_name_that_is_missing(self):
        assert not make.compare("scvi.data.no_such_thing", {"kind": "function", "signature": "()"}).found
        assert not make.compare("scvi.no_such_room.thing", {"kind": "function", "signature": "()"}).found
