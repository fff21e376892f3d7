"""Registries and written codes equal scvi-tools 1.4.2's, key by key (made by make_registry_golden.py)."""

import json
import runpy
from pathlib import Path

import pytest

from celbo.data import AnnDataManager, fields

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "registry_golden.json").read_text())
CASES = runpy.run_path(str(HERE / "registry_cases.py"))

pytestmark = pytest.mark.filterwarnings("ignore:.*does not exist. every cell is taken:UserWarning")


@pytest.fixture(scope="module")
def ours():
    return json.loads(json.dumps(CASES["run_all"](AnnDataManager, fields)))


def test_golden_is_of_the_release_we_follow():
    assert GOLDEN["scvi_version"] == "1.4.2"
    assert set(GOLDEN["cases"]) == set(CASES["CASES"]) | {f"transfer_{name}" for name in CASES["TRANSFERS"]}


@pytest.mark.parametrize("name", sorted(GOLDEN["cases"]))
def test_registry_and_codes_equal_scvi_tools(ours, name):
    theirs, mine = GOLDEN["cases"][name], ours[name]
    if name.startswith("transfer_"):
        # scvi-tools forgets the method's name on transfer; celbo keeps it
        assert mine["registry"].pop("setup_method_name") == "setup_anndata"
    assert mine["registry"].keys() == theirs["registry"].keys()
    assert mine["registry"]["field_registries"].keys() == theirs["registry"]["field_registries"].keys()
    for key, part in theirs["registry"]["field_registries"].items():
        assert mine["registry"]["field_registries"][key] == part, key
    assert mine == theirs


def test_sparse_data_give_the_same_registry(ours):
    build, make = CASES["build_adata"], CASES["CASES"]["scvi"]
    manager = AnnDataManager(fields=make(fields), setup_method_args=CASES["SETUP_METHOD_ARGS"])
    manager.register_fields(build(sparse=True))
    assert json.loads(json.dumps(CASES["describe"](manager.registry))) == ours["scvi"]["registry"]
