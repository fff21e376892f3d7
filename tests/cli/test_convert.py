"""``celbo convert`` and ``celbo export``: there and back without a change."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import celbo
from celbo.cli import app, messages


@pytest.fixture
def saved(tmp_path):
    adata = celbo.data.synthetic_iid(seed=0)
    celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = celbo.model.SCVI(adata, n_latent=4)
    model.train(max_epochs=1, seed=0, verbose=0)
    model.save(str(tmp_path / "model"))
    return model, adata, tmp_path


def test_there_and_back(saved):
    model, adata, folder = saved
    for command in (("export", "model", "pt"), ("convert", "pt", "back")):
        name, source, target = command
        result = CliRunner().invoke(app, [name, str(folder / source), str(folder / target)])
        assert result.exit_code == 0, result.output
    assert (folder / "pt" / "model.pt").is_file()
    assert (folder / "back" / "model.safetensors").is_file()
    again = celbo.model.SCVI.load(str(folder / "back"), adata=adata.copy())
    expected = model.get_latent_representation()
    np.testing.assert_array_equal(again.get_latent_representation(), expected)


def test_there_is_no_scvi_tools_9(saved):
    folder = saved[2]
    line = ["export", str(folder / "model"), str(folder / "out"), "--version", "9"]
    result = CliRunner().invoke(app, line)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "wanted one of scvi-tools 1, as 1.4.2 or 1.5.0, got '9'" in result.stderr
    assert not (folder / "out").exists()


def test_a_model_without_recorded_epochs(saved):
    model, _, folder = saved
    model.history_ = None
    model.save(str(folder / "model"), overwrite=True)
    CliRunner().invoke(app, ["export", str(folder / "model"), str(folder / "pt")])
    result = CliRunner().invoke(app, ["info", str(folder / "pt")])
    assert "done; its epochs are not recorded" in result.stdout


def test_what_is_said_elsewhere_comes_from_files_that_there_are():
    files = {path.stem for path in Path(celbo.__file__).parent.rglob("*.py")}
    assert set(messages._SAID_ELSEWHERE) <= files


@pytest.mark.parametrize(("command", "message"), [("convert", "No archive of scvi-tools"), ("export", "no folder")])
def test_wrong_source(saved, command, message):
    _, _, folder = saved
    source = folder / ("model" if command == "convert" else "nothing")
    result = CliRunner().invoke(app, [command, str(source), str(folder / "out")])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (folder / "out").exists()
