"""scvi-tools' archives, read without its code: against torch's loader, the parity archives and live scvi-tools."""

import json
import os
import pickle
import re
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from celbo.io import (
    ArchiveError,
    ArchiveNotFoundError,
    Constraint,
    is_scvi_archive,
    read_archive,
    read_scvi_archive,
    write_archive,
    write_scvi_archive,
)

from .test_codec import assert_same

PARITY = Path(__file__).resolve().parents[2].parent / "shared" / "parity"
CASES = sorted(PARITY.glob("*/model/model.pt"))
PEER = os.environ.get("CELBO_PEER_PYTHON")
needs_parity = pytest.mark.skipif(not CASES, reason="the parity archives are not beside this repository")
needs_peer = pytest.mark.skipif(PEER is None, reason="CELBO_PEER_PYTHON does not name a python with scvi-tools")

STATE = {"px_r": torch.linspace(0, 1, 5), "steps": torch.tensor(3), "w": torch.arange(6.0).reshape(2, 3)}
NAMES = np.array(["a", "b", "c"], dtype=object)
ATTRIBUTES = {
    "registry_": {
        "scvi_version": "1.4.2",
        "model_name": "SCVI",
        "field_registries": {"X": {"state_registry": {"column_names": NAMES}}},
    },
    "init_params_": {"kwargs": {"kwargs": {}}, "non_kwargs": {"n_hidden": np.int64(8), "dropout_rate": 0.1}},
    "history_": {
        "elbo_train": pd.DataFrame(
            {"elbo_train": np.array([2.0, 1.0], dtype=object)}, index=pd.Index([0, 1], name="epoch")
        )
    },
    "is_trained_": True,
    "train_indices_": np.arange(7),
    "validation_indices_": None,
}


@pytest.fixture
def folder(tmp_path):
    write_scvi_archive(tmp_path / "model", STATE, NAMES, ATTRIBUTES)
    return tmp_path / "model"


def test_round_trip(folder):
    archive = read_scvi_archive(folder)
    assert_same(archive.state_dict, STATE)
    assert_same(archive.var_names, NAMES)
    assert_same(archive.attributes, ATTRIBUTES)
    assert archive.pyro_params == {"params": {}, "constraints": {}}
    assert archive.path == folder / "model.pt"
    assert not archive.is_legacy
    assert [p.name for p in folder.iterdir()] == ["model.pt"]


def test_torch_reads_the_same_from_what_is_written(folder):
    content = torch.load(folder / "model.pt", weights_only=False)
    assert list(content) == ["model_state_dict", "var_names", "attr_dict"]
    assert_same(content["attr_dict"], ATTRIBUTES)
    store = content["model_state_dict"].pop("pyro_param_store")
    assert store == {"params": {}, "constraints": {}}
    assert_same(dict(content["model_state_dict"]), STATE)


def test_pyro_parameters_are_split_off_and_go_back(tmp_path):
    params = {"params": {"a": torch.ones(2)}, "constraints": {"a": Constraint("_GreaterThan", {"lower_bound": 0.0})}}
    write_scvi_archive(tmp_path, STATE, NAMES, ATTRIBUTES, pyro_params=params)
    archive = read_scvi_archive(tmp_path)
    assert_same(archive.state_dict, STATE)
    assert archive.pyro_params["constraints"] == params["constraints"]
    assert torch.equal(archive.pyro_params["params"]["a"], torch.ones(2))
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)["model_state_dict"]["pyro_param_store"][
        "constraints"
    ]["a"]
    assert loaded.lower_bound == 0.0
    with pytest.raises(ArchiveError, match="_Cat"):
        write_scvi_archive(
            tmp_path / "x", STATE, NAMES, ATTRIBUTES, pyro_params={"constraints": {"a": Constraint("_Cat")}}
        )


def test_several_modalities_and_several_data_sets(tmp_path):
    by_modality = {"rna": NAMES, "protein": NAMES[:1]}
    write_scvi_archive(tmp_path / "mu", STATE, by_modality, ATTRIBUTES)
    assert_same(read_scvi_archive(tmp_path / "mu").var_names, by_modality)
    attributes = {"registries_": [{}, {}], "init_params_": {}}
    write_scvi_archive(tmp_path / "gimvi", STATE, {"seq": NAMES, "spatial": NAMES[:2]}, attributes)
    content = torch.load(tmp_path / "gimvi" / "model.pt", weights_only=False)
    assert "seq_var_names" in content
    assert list(content["model_state_dict"]) == list(STATE)  # no store of Pyro, which scvi-tools would not take there
    assert_same(read_scvi_archive(tmp_path / "gimvi").var_names, {"seq": NAMES, "spatial": NAMES[:2]})


def test_prefix_and_overwrite(folder):
    write_scvi_archive(folder, {"x": torch.ones(1)}, NAMES, ATTRIBUTES, prefix="b_")
    assert list(read_scvi_archive(folder, prefix="b_").state_dict) == ["x"]
    assert is_scvi_archive(folder, "b_")
    assert not is_scvi_archive(folder, "c_")
    with pytest.raises(ArchiveError, match="overwrite=True"):
        write_scvi_archive(folder, {}, NAMES, ATTRIBUTES)
    write_scvi_archive(folder, {"y": torch.ones(1)}, NAMES, ATTRIBUTES, overwrite=True)
    assert list(read_scvi_archive(folder).state_dict) == ["y"]


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"registry": {}}, "'registry' does not"),
        ({"init_params_": {}}, "registry_"),
        (ATTRIBUTES | {"f_": lambda x: x}, "cannot be saved"),
        (ATTRIBUTES | {"f_": torch.nn.ReLU}, "torch.nn.modules.activation.ReLU"),
        (ATTRIBUTES | {"f_": np.random.default_rng(0)}, "Generator|generator"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(folder, attributes, says):
    with pytest.raises(ArchiveError, match=says):
        write_scvi_archive(folder, STATE, NAMES, attributes, overwrite=True)
    assert_same(read_scvi_archive(folder).state_dict, STATE)
    assert [p.name for p in folder.iterdir()] == ["model.pt"]


def test_a_disk_that_refuses_leaves_the_old_file(folder, monkeypatch):
    def refuse(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(ArchiveError, match="No space left"):
            write_scvi_archive(folder, {}, NAMES, ATTRIBUTES, overwrite=True)
    assert_same(read_scvi_archive(folder).state_dict, STATE)
    assert [p.name for p in folder.iterdir()] == ["model.pt"]


def test_nothing_there_is_said_so(tmp_path):
    with pytest.raises(ArchiveNotFoundError, match=r"neither model\.pt nor model_params\.pt"):
        read_scvi_archive(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_scvi_archive(tmp_path / "none", prefix="x_")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1], "no model of scvi-tools"),
        ({"model_state_dict": {}}, "attr_dict"),
        ({"model_state_dict": [], "attr_dict": {}, "var_names": NAMES}, "no dictionary"),
        ({"model_state_dict": {"w": 1}, "attr_dict": {}, "var_names": NAMES}, "'w' is a int"),
        ({"model_state_dict": {}, "attr_dict": {1: 2}, "var_names": NAMES}, "no dictionary of names"),
        ({"model_state_dict": {}, "attr_dict": {}}, "variable names"),
        ({"model_state_dict": {}, "attr_dict": {}, "var_names": ["a"]}, "variable names"),
        ({"model_state_dict": {"pyro_param_store": 1}, "attr_dict": {}, "var_names": NAMES}, "Pyro"),
    ],
)
def test_torch_files_that_are_no_models(tmp_path, content, says):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ArchiveError, match=re.escape(says)):
        read_scvi_archive(tmp_path)


@needs_parity
@pytest.mark.parametrize("path", CASES, ids=lambda p: p.parent.parent.name)
def test_parity_archives_read_as_torch_reads_them(path):
    archive = read_scvi_archive(path.parent)
    content = torch.load(path, weights_only=False)
    state = content["model_state_dict"]
    state.pop("pyro_param_store", None)
    assert_same(archive.state_dict, dict(state))
    assert_same(archive.var_names, content["var_names"])
    assert_same(archive.attributes, content["attr_dict"])
    case = json.loads((path.parent.parent / "case.json").read_text())
    assert archive.attributes["registry_"]["model_name"] in case.values()
    with h5py.File(path.parent.parent / "adata.h5ad") as file:
        assert len(archive.var_names) == len(next(iter(file["var"].values())))


@needs_parity
@pytest.mark.parametrize("path", CASES, ids=lambda p: p.parent.parent.name)
def test_parity_archives_go_through_both_formats(path, tmp_path):
    archive = read_scvi_archive(path.parent)
    write_archive(tmp_path / "own", archive.state_dict, {"var_names": archive.var_names, **archive.attributes})
    arrays, document = read_archive(tmp_path / "own")
    assert_same(arrays, archive.state_dict)
    assert_same(document.pop("var_names"), archive.var_names)
    assert_same(document, archive.attributes)
    write_scvi_archive(tmp_path / "peer", arrays, archive.var_names, document)
    assert_same(read_scvi_archive(tmp_path / "peer").attributes, archive.attributes)


SETUP = {
    "scvi_version": "0.14.0",
    "data_registry": {
        "X": {"attr_name": "layers", "attr_key": "counts"},
        "batch_indices": {"attr_name": "obs", "attr_key": "_scvi_batch"},
        "labels": {"attr_name": "obs", "attr_key": "_scvi_labels"},
        "local_l_mean": {"attr_name": "obs", "attr_key": "_scvi_local_l_mean"},
        "cat_covs": {"attr_name": "obsm", "attr_key": "_scvi_extra_categoricals"},
        "cont_covs": {"attr_name": "obsm", "attr_key": "_scvi_extra_continuous"},
        "protein_expression": {"attr_name": "obsm", "attr_key": "prot"},
        "ind_x": {"attr_name": "obs", "attr_key": "_indices"},
    },
    "categorical_mappings": {
        "_scvi_batch": {"original_key": "batch", "mapping": np.array(["b0", "b1"], dtype=object)},
        "_scvi_labels": {"original_key": "_scvi_labels", "mapping": np.array([0])},
    },
    "summary_stats": {"n_batch": 2, "n_cells": 10, "n_vars": 4, "n_labels": 1, "n_proteins": 3, "n_continuous_covs": 2},
    "extra_categoricals": {
        "mappings": {"d": np.array(["u", "v"], dtype=object), "e": np.array(["x"], dtype=object)},
        "keys": ["d", "e"],
        "n_cats_per_key": [2, 1],
    },
    "extra_continuous_keys": np.array(["c1", "c2"], dtype=object),
    "protein_names": ["p0", "p1", "p2"],
    "totalvi_batch_mask": {"0": np.array([True, False, True])},
}


def write_legacy(folder, setup=SETUP, new_zip=True):
    folder.mkdir()
    torch.save({"w": torch.ones(2, 3)}, folder / "model_params.pt", _use_new_zipfile_serialization=new_zip)
    (folder / "var_names.csv").write_text("g0\ng1\ng 2\ng3\n")
    attributes = {"is_trained_": True, "init_params_": {"kwargs": {}, "non_kwargs": {}}, "scvi_setup_dict_": setup}
    (folder / "attr.pkl").write_bytes(pickle.dumps(attributes))
    return folder


@pytest.mark.parametrize("new_zip", [True, False])
def test_legacy_archives_get_a_registry(tmp_path, new_zip):
    archive = read_scvi_archive(write_legacy(tmp_path / "old", new_zip=new_zip))
    assert archive.is_legacy
    assert is_scvi_archive(tmp_path / "old")
    assert archive.var_names.tolist() == ["g0", "g1", "g 2", "g3"]
    assert torch.equal(archive.state_dict["w"], torch.ones(2, 3))
    assert archive.state_dict["log_per_batch_efficiency"].shape == (3, 2)
    assert list(archive.attributes) == ["is_trained_", "init_params_", "registry_"]
    registry = archive.attributes["registry_"]
    assert registry["setup_args"] == {
        "layer": "counts",
        "batch_key": "batch",
        "labels_key": None,
        "categorical_covariate_keys": ["d", "e"],
        "continuous_covariate_keys": ["c1", "c2"],
        "protein_expression_obsm_key": "prot",
    }
    stats = {key: field["summary_stats"] for key, field in registry["field_registries"].items()}
    assert stats == {
        "X": {"n_vars": 4, "n_cells": 10},
        "batch": {"n_batch": 2},
        "labels": {"n_labels": 1},
        "extra_categorical_covs": {"n_extra_categorical_covs": 2},
        "extra_continuous_covs": {"n_extra_continuous_covs": 2},
        "proteins": {"n_proteins": 3},
        "ind_x": {},
    }
    states = {key: field["state_registry"] for key, field in registry["field_registries"].items()}
    assert states["batch"]["categorical_mapping"].tolist() == ["b0", "b1"]
    assert states["extra_categorical_covs"]["field_keys"] == ["d", "e"]
    assert states["proteins"]["protein_batch_mask"]["0"].tolist() == [True, False, True]


@pytest.mark.parametrize("file", ["var_names.csv", "attr.pkl"])
def test_legacy_archives_with_a_missing_file(tmp_path, file):
    folder = write_legacy(tmp_path / "old")
    (folder / file).unlink()
    with pytest.raises(ArchiveNotFoundError, match=re.escape(file)):
        read_scvi_archive(folder)


@pytest.mark.parametrize(
    "setup", [None, {}, {**SETUP, "categorical_mappings": {}}, {**SETUP, "extra_categoricals": [1]}]
)
def test_legacy_archives_with_a_damaged_setup(tmp_path, setup):
    with pytest.raises(ArchiveError, match=r"attr\.pkl"):
        read_scvi_archive(write_legacy(tmp_path / "old", setup))


def peer(code, *arguments):
    """Run code in the interpreter that has scvi-tools; its last line of output is JSON."""
    setup = "import json, sys, warnings; warnings.simplefilter('ignore'); import numpy as np, scvi, torch; "
    "scvi.settings.seed = 0\n"
    command = [PEER, "-c", setup + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


TRAIN_AND_SAVE = """
adata = scvi.data.synthetic_iid()
cls = getattr(scvi.model, sys.argv[2])
proteins = {"protein_expression_obsm_key": "protein_expression"} if cls is scvi.model.TOTALVI else {}
setup = {} if cls is scvi.model.AmortizedLDA else {"batch_key": "batch", **proteins}
if cls is scvi.model.SCANVI:
    setup |= {"labels_key": "labels", "unlabeled_category": "label_0"}
cls.setup_anndata(adata, **setup)
model = cls(adata)
model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
model.save(sys.argv[1])
adata.write_h5ad(sys.argv[1] + "/adata.h5ad")
scvi.settings.seed = 1  # AmortizedLDA samples its latent
latent = np.asarray(model.get_latent_representation(), dtype=np.float64)
print(json.dumps({"latent": latent.sum(0).tolist(), "n": len(model.module.state_dict())}))
"""
LOAD = """
model = getattr(scvi.model, sys.argv[2]).load(sys.argv[1])
scvi.settings.seed = 1  # AmortizedLDA samples its latent
latent = np.asarray(model.get_latent_representation(), dtype=np.float64)
print(json.dumps({"latent": latent.sum(0).tolist(), "n": len(model.module.state_dict()), "history":
sorted(model.history)}))
"""


@needs_peer
@pytest.mark.parametrize("name", ["SCVI", "SCANVI", "TOTALVI", "AUTOZI", "LinearSCVI", "AmortizedLDA"])
def test_scvi_tools_loads_what_we_read_and_wrote(tmp_path, name):
    saved = peer(TRAIN_AND_SAVE, tmp_path / "theirs", name)
    archive = read_scvi_archive(tmp_path / "theirs")
    assert len(archive.state_dict) == saved["n"]
    write_archive(tmp_path / "own", archive.state_dict, archive.attributes)
    arrays, document = read_archive(tmp_path / "own")
    write_scvi_archive(tmp_path / "ours", arrays, archive.var_names, document, pyro_params=archive.pyro_params)
    os.replace(tmp_path / "theirs" / "adata.h5ad", tmp_path / "ours" / "adata.h5ad")
    loaded = peer(LOAD, tmp_path / "ours", name)
    assert loaded["n"] == saved["n"]
    assert loaded["latent"] == pytest.approx(saved["latent"], rel=1e-5, abs=1e-4)
    assert loaded["history"] == sorted(document["history_"])
