"""Archives go from scvi-tools to celbo and back without loss; scvi-tools itself loads what is exported."""

import json
import subprocess

import numpy as np
import pytest
import torch

from celbo import io
from celbo.model import SCVI, LinearSCVI
from celbo.model.base.archives.convert import convert_archive, export_archive

CASES = {"scvi_default": SCVI, "scvi_latent_library": SCVI, "linear_scvi": LinearSCVI}

LOAD_IN_PEER = """
import sys, json, warnings
warnings.simplefilter("ignore")
import numpy as np, scvi
model = getattr(scvi.model, sys.argv[1]).load(sys.argv[2], prefix=sys.argv[4] or None)
np.savez(sys.argv[3], latent=model.get_latent_representation())
print(json.dumps({"trained": model.is_trained, "epochs": len(model.history["elbo_train"]),
                  "train": int(len(model.train_indices)), "batch": model.get_setup_arg("batch_key")}))
"""


@pytest.mark.parametrize("case", CASES)
def test_convert(case, shared_dir, tmp_path):
    old = shared_dir / "parity" / case / "model"
    new = convert_archive(old, tmp_path / "new")
    assert sorted(path.name for path in new.iterdir() if path.name != "adata.h5ad") == [
        "model.json",
        "model.safetensors",
    ]
    from_old = CASES[case].load(str(old), adata=(adata := read(shared_dir, case)))
    from_new = CASES[case].load(str(new), adata=adata)
    for name, tensor in from_old.module.state_dict().items():
        assert torch.equal(from_new.module.state_dict()[name], tensor)
    assert from_new.init_params_ == from_old.init_params_
    np.testing.assert_array_equal(from_new.get_latent_representation(), from_old.get_latent_representation())


def read(shared_dir, case):
    from anndata import read_h5ad

    return read_h5ad(shared_dir / "parity" / case / "adata.h5ad")


@pytest.fixture
def saved(make, quick, tmp_path):
    model = quick(make(n_latent=4))
    model.save(tmp_path / "celbo", prefix="p_", save_anndata=True)
    return model, tmp_path / "celbo"


def test_export_and_convert_are_each_others_inverse(saved, tmp_path):
    model, path = saved
    exported = export_archive(path, tmp_path / "scvi", prefix="p_")
    assert sorted(file.name for file in exported.iterdir()) == ["p_adata.h5ad", "p_model.pt"]
    again = SCVI.load(str(convert_archive(exported, tmp_path / "again", prefix="p_")), prefix="p_")
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], tensor)
    assert again.history["elbo_train"].equals(model.history["elbo_train"])
    assert again.init_params_ == model.init_params_
    np.testing.assert_array_equal(again.train_indices, model.train_indices)


def test_scvi_tools_loads_what_is_exported(saved, tmp_path, peer_python):
    model, path = saved
    exported = export_archive(path, tmp_path / "scvi", prefix="p_")
    command = [peer_python, "-c", LOAD_IN_PEER, "SCVI", str(exported), str(tmp_path / "out.npz"), "p_"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "trained": True, "epochs": 2, "train": len(model.train_indices), "batch": "batch",
    }  # fmt: skip
    theirs = np.load(tmp_path / "out.npz")["latent"]
    np.testing.assert_allclose(theirs, model.get_latent_representation(), rtol=1e-5, atol=1e-6)


def test_nothing_is_overwritten_unasked(saved, tmp_path):
    _, path = saved
    exported = export_archive(path, tmp_path / "scvi", prefix="p_")
    with pytest.raises(io.ArchiveError, match="already exists"):
        export_archive(path, exported, prefix="p_")
    with pytest.raises(io.ArchiveError, match="already"):
        convert_archive(exported, path, prefix="p_")
    export_archive(path, exported, prefix="p_", overwrite=True)


def test_wrong_kind(saved, tmp_path):
    _, path = saved
    with pytest.raises(io.ArchiveNotFoundError, match="It is an archive of celbo already"):
        convert_archive(path, tmp_path / "x", prefix="p_")
    with pytest.raises(io.ArchiveNotFoundError, match="No archive of celbo"):
        export_archive(tmp_path, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_class_of_an_archive_that_does_not_say(saved, tmp_path):
    _, path = saved
    arrays, document = io.read_archive(path, prefix="p_")
    registry = document["registry"] | {"model_name": None}
    attributes = {"registry_": registry, "init_params_": document["init_params"]}
    io.write_scvi_archive(tmp_path / "old", arrays, document["var_names"], attributes)
    with pytest.raises(io.ArchiveError, match="pass class_name"):
        convert_archive(tmp_path / "old", tmp_path / "x")
    new = convert_archive(tmp_path / "old", tmp_path / "new", class_name="SCVI")
    assert io.read_archive(new).document["registry"]["model_name"] == "SCVI"


def test_convert_legacy_save_writes_a_safe_archive(saved, tmp_path):
    model, path = saved
    exported = export_archive(path, tmp_path / "scvi", prefix="p_")
    SCVI.convert_legacy_save(str(exported), str(tmp_path / "new"), prefix="p_")
    again = SCVI.load(str(tmp_path / "new"), prefix="p_")
    np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())
