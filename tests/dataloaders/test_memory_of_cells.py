"""Data that stream take no memory for each cell, however many there are."""

import gc
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata.io import write_elem

import celbo
from celbo.dataloaders import dataset, semisupervised, split
from celbo.store import mapped as scratch
from celbo.store.hdf5 import heap as hdf5_heap
from celbo.store.hdf5 import strings as hdf5_strings
from celbo.store.matrices import blocks, row_pointers
from celbo.store.matrices import matrix as stored_matrix
from celbo.store.tables import names as cell_names
from celbo.store.tables import obs as stored_obs
from celbo.store.writing.matrix import new_anndata

GENES = 30


@pytest.fixture(autouse=True)
def as_for_many(monkeypatch):
    monkeypatch.setattr(scratch, "COMPACT_FROM", 0)
    monkeypatch.setattr(scratch, "STRETCH", 2**14)
    monkeypatch.setattr(cell_names, "STEP", 2**12)
    monkeypatch.setattr(stored_obs, "STEP", 2**12)
    monkeypatch.setattr(split, "MANY", 0)
    monkeypatch.setattr(semisupervised, "MANY", 0)
    monkeypatch.setattr(dataset, "MANY", 0)
    monkeypatch.setattr(dataset, "PIECE", 2**14)
    monkeypatch.setattr(blocks, "_ENTRIES_ON_DISK", 2**14)  # pieces of fixed size are to be small beside the cells
    monkeypatch.setattr(hdf5_heap, "_PIECE", 2**19)
    monkeypatch.setattr(hdf5_strings, "_PIECE", 2**14)
    monkeypatch.setattr(row_pointers, "PIECE", 2**14)
    monkeypatch.setattr(stored_matrix, "PIECE_BYTES", 2**16)
    monkeypatch.setattr(stored_matrix, "GAP_BYTES", 2**10)
    monkeypatch.setattr(stored_obs, "PIECE", 2**14)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of three files with more and more cells."""
    folder = tmp_path_factory.mktemp("cells")
    return [written(folder / f"{n}.h5ad", n) for n in (10_000, 100_000, 400_000)]


def written(path, n):
    """An h5ad of ``n`` cells with two counts each, names of 20 characters and columns of several kinds."""
    with new_anndata(path, overwrite=True) as file:
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n, GENES]})
        x["data"] = np.ones(2 * n, np.float32)
        x["indices"] = (np.arange(2 * n) % GENES).astype(np.int32)
        x["indptr"] = 2 * np.arange(n + 1)
        obs = {f"score {i}": np.arange(n) / 7 for i in range(5)}
        for name in ("batch", "type", "donor"):
            obs[name] = pd.Categorical.from_codes(np.arange(n) % 4, list("abcd"))
        write_elem(file, "obs", pd.DataFrame(obs, index=[f"a-name-of-20-{i:07d}" for i in range(n)]))
        write_elem(file, "var", pd.DataFrame(index=[f"g{i}" for i in range(GENES)]))
    return path


def set_up_scvi(adata):
    celbo.model.SCVI.setup_anndata(
        adata,
        batch_key="batch",
        labels_key="type",
        categorical_covariate_keys=["donor"],
        continuous_covariate_keys=["score 0", "score 1"],
    )
    return celbo.model.SCVI(adata, n_hidden=4, n_latent=2)


def set_up_scanvi(adata):
    celbo.model.SCANVI.setup_anndata(adata, labels_key="type", unlabeled_category="c", batch_key="batch")
    return celbo.model.SCANVI(adata, n_hidden=4, n_latent=2)


def resident():
    """Bytes of the temporary files that are in memory."""
    total, is_ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_ours = line.endswith("(deleted)")  # they have no name
        elif is_ours and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


def trained(path, set_up):
    """A model after two steps and one validation."""
    adata = celbo.data.open(path, stream=True)
    model = set_up(adata)
    model.train(
        max_epochs=1,
        max_steps=2,
        seed=0,
        verbose=0,
        accelerator="cpu",
        datasplitter_kwargs={"pool_bytes": 2**18},
    )
    return model


def traced(path, set_up):
    """Bytes that numpy and Python hold at the end of training, and at the most; bytes of mapped files at the end."""
    tracemalloc.start()
    try:
        model = trained(path, set_up)  # noqa: F841 what it holds is counted
        _, at_most = tracemalloc.get_traced_memory()
        gc.collect()  # rings of objects go when Python likes; they are nobody's
        return tracemalloc.get_traced_memory()[0], at_most, resident()
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for the memory of this process")
@pytest.mark.parametrize("set_up", [set_up_scvi, set_up_scanvi])
def test_no_bytes_a_cell(files, set_up):
    first, few, many = files
    trained(first, set_up)  # what is made once
    small, large = traced(few, set_up), traced(many, set_up)
    at_end, at_most, mapped = ((large[i] - small[i]) / 300_000 for i in range(3))
    assert at_end < 1  # nothing that there is one of for each cell; a table of pandas' alone would be 130
    assert at_most < 2  # pandas asks once which names are missing: a byte each
    assert mapped < 4
