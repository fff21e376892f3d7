"""Damage of every sort, at random places: an archive reads as it was or is refused; nothing else ever happens.

``CELBO_FUZZ`` sets the number of damaged files a format (300 when not set).
"""

import io
import os
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks.damage import damage_bytes

from celbo.io import ArchiveError, read_archive, read_scvi_archive, write_archive, write_scvi_archive
from celbo.io.torch_file import read_pickle_file, read_torch_file

from .test_codec import assert_same
from .test_scvi import ATTRIBUTES, NAMES, STATE

N = int(os.environ.get("CELBO_FUZZ", "300"))


def damaged_files(raw, seed):
    rng = np.random.default_rng(seed)
    return (damage_bytes(raw, rng)[0] for _ in range(N))


def outcome(read):
    """What was read, or None for a refusal; pandas and numpy may warn at damaged labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read()
        except ArchiveError:
            return None


@pytest.mark.parametrize("file", ["model.json", "model.safetensors"])
def test_own_archives_are_whole_or_refused(tmp_path, file):
    write_archive(tmp_path, STATE, ATTRIBUTES)
    good = (tmp_path / file).read_bytes()
    refused = 0
    for raw in damaged_files(good, seed=1):
        (tmp_path / file).write_bytes(raw)
        archive = outcome(lambda: read_archive(tmp_path))
        assert archive is None or raw == good
        refused += archive is None
    assert refused > 0.9 * N


def test_scvi_archives_are_whole_or_refused(tmp_path):
    """The zip's checksums cover all that is read, so damage that goes through is damage to bytes that nobody reads."""
    write_scvi_archive(tmp_path, STATE, NAMES, ATTRIBUTES)
    good = (tmp_path / "model.pt").read_bytes()
    refused = 0
    for raw in damaged_files(good, seed=2):
        (tmp_path / "model.pt").write_bytes(raw)
        archive = outcome(lambda: read_scvi_archive(tmp_path))
        if archive is not None:
            assert_same(archive.state_dict, STATE)
            assert_same(archive.attributes, ATTRIBUTES)
        refused += archive is None
    assert refused > 0.3 * N


def pickled_samples():
    frame = pd.DataFrame(
        {"a": [1, 2], "b": pd.Categorical(["p", "q"]), "c": pd.array(["x", None], dtype="string")}, index=["r", "s"]
    )
    value = {"frame": frame, "arrays": [np.arange(5), NAMES, np.float32(2)], "tensor": torch.ones(3), **ATTRIBUTES}
    return [pickle.dumps(value, protocol) for protocol in (2, 4, 5)]


def test_bare_pickles_are_read_or_refused(tmp_path):
    """No checksum here: damaged values may come through, but nothing but data does, and nothing else happens."""
    for seed, good in enumerate(pickled_samples()):
        refused = 0
        for raw in damaged_files(good, seed):
            (tmp_path / "attr.pkl").write_bytes(raw)
            refused += outcome(lambda: (read_pickle_file(tmp_path / "attr.pkl"),)) is None
        assert refused > 0.3 * N


def test_old_streams_are_read_or_refused(tmp_path):
    buffer = io.BytesIO()
    torch.save({"state": STATE, "attributes": ATTRIBUTES}, buffer, _use_new_zipfile_serialization=False)
    refused = 0
    for raw in damaged_files(buffer.getvalue(), seed=3):
        (tmp_path / "model_params.pt").write_bytes(raw)
        refused += outcome(lambda: (read_torch_file(tmp_path / "model_params.pt"),)) is None
    assert refused > 0.3 * N
