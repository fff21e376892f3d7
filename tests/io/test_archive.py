"""celbo's own archive: what goes in comes out, and damage of any kind is named."""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from celbo.io import ArchiveError, ArchiveNotFoundError, archive, is_archive, read_archive, write_archive

STATE = {
    "px_r": torch.linspace(-1, 1, 7),
    "z_encoder.encoder.fc_layers.Layer 0.1.num_batches_tracked": torch.tensor(5),
    "half": torch.ones(2, 3).to(torch.bfloat16),
    "empty": torch.zeros(0, 4),
    "train_indices": np.arange(6)[::-1].reshape(2, 3),
    "times": np.array(["2024-01-01", "NaT"], dtype="M8[D]"),
}
DOCUMENT = {
    "class": "SCVI",
    "registry": defaultdict(dict, X={"state_registry": {"column_names": np.array(["a", "b"], dtype=object)}}),
    "history": {"elbo_train": pd.DataFrame({"elbo_train": [1.5, 2.5]}, index=pd.Index([0, 1], name="epoch"))},
    "split": np.arange(3000),
    "seed": None,
}


@pytest.fixture
def folder(tmp_path):
    write_archive(tmp_path / "model", STATE, DOCUMENT)
    return tmp_path / "model"


def names(path):
    return sorted(p.name for p in path.iterdir())


def test_round_trip(folder):
    arrays, document = read_archive(folder)
    assert list(arrays) == list(STATE)
    for name, value in STATE.items():
        assert type(arrays[name]) is type(value)
        assert arrays[name].dtype == value.dtype
        assert arrays[name].shape == value.shape
        assert arrays[name].tolist() == value.tolist()
    assert list(document) == list(DOCUMENT)
    assert document["registry"]["missing"] == {}
    assert document["registry"]["X"]["state_registry"]["column_names"].tolist() == ["a", "b"]
    pd.testing.assert_frame_equal(document["history"]["elbo_train"], DOCUMENT["history"]["elbo_train"])
    np.testing.assert_array_equal(document["split"], DOCUMENT["split"])
    assert names(folder) == ["model.json", "model.safetensors"]


def test_other_programs_can_read_both_files(folder):
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    assert torch.equal(weights["px_r"], STATE["px_r"])
    assert json.loads((folder / "model.json").read_text())["document"]["class"] == "SCVI"


def test_tensors_that_share_memory_or_are_views_are_saved_whole(tmp_path):
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    write_archive(tmp_path, {"a": base, "b": base, "t": base.T, "row": base[1]}, {})
    arrays, _ = read_archive(tmp_path)
    assert torch.equal(arrays["t"], base.T)
    assert torch.equal(arrays["row"], base[1])
    arrays["a"].zero_()
    assert torch.equal(arrays["b"], base)


def test_prefixes_live_side_by_side(tmp_path):
    for prefix in ("", "a_", "b_"):
        write_archive(tmp_path, {"x": torch.zeros(1)}, {"prefix": prefix}, prefix=prefix)
    for prefix in ("", "a_", "b_"):
        assert read_archive(tmp_path, prefix=prefix).document == {"prefix": prefix}
        assert is_archive(tmp_path, prefix)
    assert not is_archive(tmp_path, "c_")
    with pytest.raises(ArchiveError, match="without a path"):
        write_archive(tmp_path, {}, {}, prefix="../x")


def test_an_archive_is_not_replaced_unless_asked(folder):
    with pytest.raises(ArchiveError, match="overwrite=True"):
        write_archive(folder, {}, {"new": 1})
    assert read_archive(folder).document["class"] == "SCVI"
    write_archive(folder, {}, {"new": 1}, overwrite=True)
    assert read_archive(folder) == ({}, {"new": 1})


def test_other_files_in_the_folder_stay(tmp_path):
    for name in ("adata.h5ad", "model.pt", "notes.txt", "other_model.json", "model.final.safetensors"):
        (tmp_path / name).write_text(name)
    write_archive(tmp_path, {"x": torch.zeros(1)}, {})
    write_archive(tmp_path, {"x": torch.ones(1)}, {}, overwrite=True)
    for name in ("adata.h5ad", "model.pt", "notes.txt", "other_model.json", "model.final.safetensors"):
        assert (tmp_path / name).read_text() == name
    assert len(names(tmp_path)) == 7


def test_nothing_there_is_said_so(tmp_path):
    with pytest.raises(ArchiveNotFoundError, match=r"model\.json is not there"):
        read_archive(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        read_archive(tmp_path)


def test_a_missing_tensor_file_is_said_so(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ArchiveNotFoundError, match=r"model\.safetensors is not there"):
        read_archive(folder)


@pytest.mark.parametrize("file", ["model.json", "model.safetensors"])
def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path, file):
    write_archive(tmp_path, {"x": torch.arange(3)}, {"seed": 1, "name": "é"})
    path = tmp_path / file
    good = path.read_bytes()
    for i in range(len(good)):
        bit = 1 << (i % 8)
        path.write_bytes(good[:i] + bytes([good[i] ^ bit]) + good[i + 1 :])
        with pytest.raises(ArchiveError, match=re.escape(file)):
            read_archive(tmp_path)
        path.write_bytes(good[:i])
        with pytest.raises(ArchiveError, match=re.escape(file)):
            read_archive(tmp_path)
    path.write_bytes(good + b"x")
    with pytest.raises(ArchiveError):
        read_archive(tmp_path)
    path.write_bytes(good)
    assert read_archive(tmp_path).document["seed"] == 1


def test_files_of_two_archives_do_not_mix(tmp_path):
    write_archive(tmp_path / "a", {"x": torch.zeros(2)}, {})
    write_archive(tmp_path / "b", {"x": torch.ones(2)}, {})
    os.replace(tmp_path / "b" / "model.safetensors", tmp_path / "a" / "model.safetensors")
    with pytest.raises(ArchiveError, match="belongs to another model"):
        read_archive(tmp_path / "a")


def forge(folder, change):
    """Change the JSON body and make its checksum right again."""
    import hashlib

    body = json.loads((folder / "model.json").read_text())
    del body["sha256"]
    change(body)
    rest = json.dumps(body).removeprefix("{").encode()
    (folder / "model.json").write_bytes(f'{{"sha256": "{hashlib.sha256(rest).hexdigest()}", '.encode() + rest)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b.update(celbo_archive=archive.FORMAT + 1), "newer celbo"),
        (lambda b: b.pop("document"), "'document' is missing"),
        (lambda b: b.update(document=[1]), "'document' is missing or of the wrong kind"),
        (lambda b: b.update(document={"$": "tuple", "v": []}), "no dictionary"),
        (lambda b: b.update(document={"$": "nonsense"}), "nonsense"),
        (lambda b: b.update(document={"x": {"$": "tuple"}}), "no sense"),
        (
            lambda b: b.update(document={"x": {"$": "numpy.array", "dtype": "<f8", "shape": [2**60], "data": ""}}),
            "cannot be read",
        ),
        (
            lambda b: b.update(
                document={"x": {"$": "numpy.array", "dtype": "O", "shape": [1], "data": "AAAAAAAAAAA="}}
            ),
            "cannot be read",
        ),
        (lambda b: b.update(arrays={}), "list of arrays"),
        (lambda b: b["arrays"].update(px_r={"dtype": "|O", "shape": [1]}), "cannot be read"),
        (lambda b: b.update(tensors_sha256="../../etc"), "does not name its tensor file"),
    ],
)
def test_forged_documents_are_refused(folder, change, says):
    forge(folder, change)
    with pytest.raises(ArchiveError, match=re.escape(says)):
        read_archive(folder)


def test_deeply_nested_json_is_refused(folder):
    forge(folder, lambda body: None)
    import hashlib

    rest = b'"celbo_archive": 1, "document": ' + b"[" * 100_000
    (folder / "model.json").write_bytes(f'{{"sha256": "{hashlib.sha256(rest).hexdigest()}", '.encode() + rest)
    with pytest.raises(ArchiveError, match="no JSON"):
        read_archive(folder)


def test_a_document_that_is_too_large_names_its_heaviest_part(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_DOCUMENT_BYTES", 10_000)
    with pytest.raises(ArchiveError, match=r"\['init'\]\['names'\]"):
        write_archive(tmp_path / "m", {}, {"init": {"names": ["gene"] * 5000, "n": 3}, "small": "x" * 100})
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array(["a"]), "text"),
        (np.array([None]), "numpy dtype object"),
        ([1.0], "list"),
        (torch.ones(1, dtype=torch.complex128), "complex128"),
        (torch.eye(2).to_sparse(), "sparse"),
    ],
)
def test_arrays_that_cannot_be_stored_are_named(tmp_path, array, says):
    with pytest.raises(ArchiveError, match=f"'w'.*{says}"):
        write_archive(tmp_path / "m", {"w": array}, {})
    assert not (tmp_path / "m").exists()


def test_reserved_names_are_refused(tmp_path):
    with pytest.raises(ArchiveError, match="begins with"):
        write_archive(tmp_path, {"document:0": torch.ones(1)}, {})


@pytest.mark.parametrize("step", ["write_bytes", "fsync", "replace"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_disk_that_refuses_leaves_the_old_archive_and_no_litter(folder, monkeypatch, caplog, step, at):
    calls = 0

    def refusing(original):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == at:
                raise OSError(28, "No space left on device")
            return original(*args, **kwargs)

        return call

    owner = archive.Path if step == "write_bytes" else os
    with monkeypatch.context() as patched:
        patched.setattr(owner, step, refusing(getattr(owner, step)))
        outcome = None
        try:
            write_archive(folder, {"x": torch.ones(1)}, {"class": "new"}, overwrite=True)
        except ArchiveError as error:
            outcome = str(error)
    # A refusal before the new document took its place must leave the old one; after it, the new one must be whole.
    assert calls >= min(at, 2)
    # The third rename only gives the tensors their final name: the archive is whole under the other one, and only a
    # warning tells.
    last = step == "replace" and at == 3
    assert (outcome is None) == (calls < at or last)
    assert outcome is None or "No space left on device" in outcome
    assert read_archive(folder).document["class"] in ({"SCVI"} if outcome and at == 1 else {"SCVI", "new"})
    if last:
        assert "the next save puts it right" in caplog.text
        write_archive(folder, {"x": torch.ones(1)}, {"class": "new"}, overwrite=True)
    assert names(folder) == ["model.json", "model.safetensors"]


def test_a_full_disk_for_real(tmp_path):
    """The file size limit of the process stands for the end of the disk."""
    resource = pytest.importorskip("resource")
    assert resource
    write_archive(tmp_path, {"x": torch.zeros(2)}, {"class": "old"})
    code = (
        "import resource, signal, sys, torch; from celbo.io import write_archive, ArchiveError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: write_archive(sys.argv[1], {'x': torch.zeros(100_000)}, {}, overwrite=True)\n"
        "except ArchiveError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "Nothing was saved" in done.stdout
    assert "too large" in done.stdout
    assert read_archive(tmp_path).document == {"class": "old"}
    assert names(tmp_path) == ["model.json", "model.safetensors"]


def test_a_place_that_cannot_be_a_folder_is_said_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArchiveError, match="Nothing was saved"):
        write_archive(tmp_path / "file" / "model", {}, {})
    with pytest.raises(ArchiveError, match="Nothing was saved"):
        write_archive(tmp_path / "file", {}, {})
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_read_only_folder_is_said_so(folder):
    folder.chmod(0o500)
    try:
        with pytest.raises(ArchiveError, match="Permission denied"):
            write_archive(folder, {}, {}, overwrite=True)
    finally:
        folder.chmod(0o700)
    assert read_archive(folder).document["class"] == "SCVI"


def test_states_that_a_kill_can_leave_are_readable_and_cleaned_by_the_next_save(folder, tmp_path):
    write_archive(tmp_path / "new", {"x": torch.ones(3)}, {"class": "new"})
    digest = json.loads((tmp_path / "new" / "model.json").read_text())["tensors_sha256"][:16]
    new_tensors = (tmp_path / "new" / "model.safetensors").read_bytes()

    (folder / f"partial-model.{digest}.safetensors").write_bytes(new_tensors[:20])
    (folder / f"model.{digest}.safetensors").write_bytes(new_tensors)
    (folder / "partial-model.json").write_text('{"sha')
    assert read_archive(folder).document["class"] == "SCVI"

    os.replace(tmp_path / "new" / "model.json", folder / "model.json")
    assert read_archive(folder).document["class"] == "new"
    assert torch.equal(read_archive(folder).arrays["x"], torch.ones(3))

    write_archive(folder, {}, {"class": "third"}, overwrite=True)
    assert read_archive(folder).document["class"] == "third"
    assert names(folder) == ["model.json", "model.safetensors"]
