"""The name ``scvi`` gives celbo: same objects, private paths, reasons for refusing, and no trace afterwards."""

import importlib
import subprocess
import sys
import types
import warnings

import pytest

import celbo
from celbo.compat import as_scvi, install_as_scvi, is_installed, uninstall
from celbo.compat.__main__ import main
from celbo.compat.aliases import PRIVATE
from celbo.core.planned import PUBLIC_API
from celbo.core.rules import CELBO, followed
from celbo.train.recipes import default_recipe


@pytest.fixture
def scvi():
    with as_scvi():
        yield importlib.import_module("scvi")


def here(room: str) -> bool:
    """Whether celbo has a public module of that path."""
    try:
        importlib.import_module(f"celbo.{room}")
    except ModuleNotFoundError:
        return False
    return True


def missing_in(room: str) -> list[str]:
    """Public names of scvi-tools that celbo's room does not have itself."""
    with followed(CELBO):
        return sorted(name for name in PUBLIC_API[room] if not hasattr(importlib.import_module(f"celbo.{room}"), name))


class TestPublicNames:
    def test_version_settings_keys(self, scvi):
        assert scvi.__version__ == "1.4.2"
        assert scvi.settings is celbo.settings
        assert scvi.REGISTRY_KEYS is celbo.REGISTRY_KEYS

    @pytest.mark.parametrize("room", sorted(PUBLIC_API))
    def test_modules_are_the_same_objects_or_say_that_they_are_missing(self, scvi, room):
        if here(room):
            assert importlib.import_module(f"scvi.{room}") is importlib.import_module(f"celbo.{room}")
        else:
            with pytest.raises(ModuleNotFoundError, match=r"scvi-tools' scvi\.[\w.]+ is not in celbo yet"):
                importlib.import_module(f"scvi.{room}")

    def test_rooms_load_by_attribute(self, scvi):
        assert scvi.model.SCVI is celbo.model.SCVI
        assert scvi.model.base.BaseModelClass is celbo.model.base.BaseModelClass
        assert scvi.data.AnnTorchDataset is celbo.dataloaders.AnnTorchDataset

    def test_isinstance_holds_across_names(self, scvi):
        from scvi.distributions import NegativeBinomial
        from scvi.module.base import LossOutput

        assert LossOutput is celbo.module.base.LossOutput
        assert issubclass(celbo.distributions.ZeroInflatedNegativeBinomial, NegativeBinomial)

    def test_importing_changes_no_module_of_celbo(self, scvi):
        before = celbo.model.__spec__, celbo.model.__name__
        importlib.import_module("scvi.model")
        assert (celbo.model.__spec__, celbo.model.__name__) == before
        assert before[1] == "celbo.model"

    def test_names_that_are_missing(self, scvi):
        missing = missing_in("external")
        if not missing:
            pytest.skip("everything of scvi.external is there")
        message = f"scvi-tools' scvi.external.{missing[0]} is not in celbo yet"
        imported: dict = {}
        exec(f"from scvi.external import {missing[0]}", imported)
        stand_in = imported[missing[0]]
        with pytest.raises(NotImplementedError, match=message):
            stand_in()
        with pytest.raises(NotImplementedError, match=message):
            stand_in.setup_anndata(None)
        subclass = type(stand_in)("Sub", (stand_in,), {"__doc__": stand_in.__doc__})
        with pytest.raises(NotImplementedError, match=message):
            subclass()
        assert getattr(scvi.external, missing[0]) is stand_in  # as decorators of tests name them

    def test_names_that_are_missing_without_the_stand_in_library(self):
        missing = missing_in("external")
        with pytest.raises(ImportError, match=f"scvi-tools' scvi.external.{missing[0]} is not in celbo yet"):
            exec(f"from celbo.external import {missing[0]}")

    def test_modules_that_scvi_tools_does_not_have(self, scvi):
        with pytest.raises(ModuleNotFoundError, match=r"scvi-tools 1\.4\.2 has no such public module"):
            importlib.import_module("scvi.nonsense")
        with pytest.raises(ModuleNotFoundError, match="no such public module"):
            importlib.import_module("scvi.ops")
        with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
            scvi.nonsense  # noqa: B018
        with pytest.raises(AttributeError, match=r"scvi\.hub is not in celbo yet"):
            scvi.hub  # noqa: B018


class TestPrivateNames:
    @pytest.mark.parametrize("rest", sorted(PRIVATE))
    def test_every_row_of_the_table_serves_names(self, scvi, rest):
        module = importlib.import_module(f"scvi.{rest}")
        names = dir(module)
        assert names
        for name in names:
            assert getattr(module, name) is not None, f"{rest}.{name}"

    def test_they_are_found_from_a_public_module(self, scvi):
        from scvi.data import _constants
        from scvi.data._constants import _SETUP_ARGS_KEY

        assert _constants._SETUP_ARGS_KEY == _SETUP_ARGS_KEY == "setup_args"
        assert importlib.import_module("scvi.data._constants") is _constants

    def test_by_attribute_after_import(self, scvi):
        importlib.import_module("scvi.model._utils")
        assert scvi.model._utils.get_max_epochs_heuristic(40_000) == 200

    def test_they_can_be_patched(self, scvi, monkeypatch):
        module = importlib.import_module("scvi.model._utils")
        monkeypatch.setattr(module, "parse_device_args", lambda: "patched")
        from scvi.model._utils import parse_device_args

        assert parse_device_args() == "patched"

    def test_public_classes_under_private_paths(self, scvi):
        from scvi.model.base._base_model import BaseModelClass
        from scvi.module._vae import VAE
        from scvi.nn._base_components import FCLayers
        from scvi.train._trainingplans import TrainingPlan

        assert BaseModelClass is celbo.model.base.BaseModelClass
        assert (VAE, FCLayers) == (celbo.module.VAE, celbo.nn.FCLayers)
        assert TrainingPlan is celbo.train.TrainingPlan

    def test_public_names_that_are_missing_say_so_under_private_paths_too(self, scvi):
        missing = missing_in("model")
        if not missing:
            pytest.skip("everything of scvi.model is there")
        module = importlib.import_module("scvi.model._totalvi")
        stand_in = getattr(module, missing[0])
        with pytest.raises(NotImplementedError, match=f"scvi.model.{missing[0]} is not in celbo yet"):
            stand_in()
        assert stand_in is getattr(scvi.model, missing[0])

    def test_what_is_not_served_is_named(self, scvi):
        with pytest.raises(ImportError, match=r"scvi\.model\._utils has no 'nothing': it serves .*_init"):
            from scvi.model._utils import nothing  # noqa: F401
        with pytest.raises(ModuleNotFoundError, match="private module of scvi-tools that celbo"):
            importlib.import_module("scvi.model._nothing")


class TestSwitching:
    def test_nothing_is_left_afterwards(self):
        with as_scvi():
            importlib.import_module("scvi.data._constants")
            importlib.import_module("scvi.model.base._save_load")
            assert default_recipe() == "classic"
        assert not is_installed()
        assert default_recipe() == "one_cycle"
        assert [name for name in sys.modules if name.partition(".")[0] == "scvi"] == []
        assert "_constants" not in vars(celbo.data)
        assert "AnnTorchDataset" not in vars(celbo.data)
        with pytest.raises(AttributeError):
            celbo.data._constants  # noqa: B018

    def test_twice_is_once(self):
        with as_scvi():
            install_as_scvi()
            assert sum(type(finder).__name__ == "CelboFinder" for finder in sys.meta_path) == 1
        uninstall()
        assert default_recipe() == "one_cycle"

    def test_it_refuses_beside_the_real_one(self, monkeypatch):
        real = types.ModuleType("scvi")
        real.__file__ = "site-packages/scvi/__init__.py"
        monkeypatch.setitem(sys.modules, "scvi", real)
        with pytest.raises(RuntimeError, match=r"already imported.*site-packages/scvi/__init__\.py"):
            install_as_scvi()
        assert not is_installed()
        assert default_recipe() == "one_cycle"

    def test_star_import(self, scvi):
        names = {}
        exec("from scvi.model import *", names)
        assert names["SCVI"] is celbo.model.SCVI


class TestCommand:
    def run(self, *arguments: str, cwd=None) -> subprocess.CompletedProcess:
        command = [sys.executable, "-W", "error", "-m", "celbo.compat", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd)

    def test_script(self, tmp_path):
        (tmp_path / "neighbour.py").write_text("value = 3")
        script = tmp_path / "script.py"
        script.write_text(
            "import sys, scvi, neighbour\n"
            "from celbo.train.recipes import default_recipe\n"
            "print(__name__, sys.argv[1:], scvi.__version__, neighbour.value, default_recipe())\n"
        )
        done = self.run(str(script), "a", "-m")
        assert done.stdout.split("\n")[0] == "__main__ ['a', '-m'] 1.4.2 3 classic", done.stderr
        assert done.stderr == ""

    def test_module(self, tmp_path):
        (tmp_path / "here.py").write_text("import sys, scvi\nprint(__name__, sys.argv[1:], scvi.__version__)\n")
        done = self.run("-m", "here", "x", cwd=tmp_path)
        assert done.stdout == "__main__ ['x'] 1.4.2\n", done.stderr

    def test_pytest_runs_tests_written_for_scvi_tools(self, tmp_path):
        (tmp_path / "test_it.py").write_text("import scvi\n\ndef test_it():\n    assert scvi.model.SCVI\n")
        done = self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path), cwd=tmp_path)
        assert "1 passed" in done.stdout, done.stdout + done.stderr

    def test_exit_code_and_usage(self, tmp_path):
        script = tmp_path / "script.py"
        script.write_text("raise SystemExit(3)")
        assert self.run(str(script)).returncode == 3
        assert "python -m celbo.compat SCRIPT.py" in self.run("-m").stderr

    @pytest.mark.parametrize(("arguments", "code"), [([], 2), (["-m"], 2), (["--help"], 0), (["-h"], 0)])
    def test_exit_code_of_usage(self, arguments, code, capsys):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == code
        assert "python -m celbo.compat SCRIPT.py" in capsys.readouterr().err


def test_nothing_warns_when_everything_is_imported():
    with as_scvi(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for rest in PRIVATE:
            importlib.import_module(f"scvi.{rest}")
