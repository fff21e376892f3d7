"""A run goes on only with the very data that it began with: the fingerprint covers every registered value."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from celbo.data import check_counts
from celbo.data import open as open_data
from celbo.data.counts import digest_of_counts
from celbo.model import SCVI
from celbo.store.matrices.blocks import blocks
from celbo.store.matrices.digest import MatrixDigest, digest_of
from celbo.train import DifferentRunError


def counts(n=300, g=40):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"batch": [f"b{i % 2}" for i in range(n)], "age": rng.normal(size=n)})
    obs.index = [f"c{i}" for i in range(n)]
    return anndata.AnnData(sp.csr_matrix(rng.poisson(0.6, (n, g)).astype(np.float32)), obs=obs)


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_the_cuts_do_not_matter(form):
    x = form(counts().X.toarray())
    found = set()
    for rows in (1, 7, 1000):
        digest = MatrixDigest()
        for block in blocks(x, rows):
            digest.add(block)
        found.add(digest.hexdigest())
    assert found == {digest_of(x)}


def test_a_file_has_the_fingerprint_of_the_matrix_in_memory(tmp_path):
    adata = counts()
    adata.write_h5ad(tmp_path / "a.h5ad")
    stored = open_data(tmp_path / "a.h5ad", stream=True)
    assert digest_of_counts(stored.X) == digest_of(adata.X)
    check_counts(stored.X)
    assert digest_of_counts(stored.X) == digest_of(adata.X.astype(np.float64))


def test_storage_does_not_matter():
    x = counts().X
    with_zeros = sp.csr_matrix((np.r_[x.data, 0], np.r_[x.indices, 0], np.r_[x.indptr[:-1], len(x.data) + 1]), x.shape)
    assert digest_of(x) == digest_of(x.toarray()) == digest_of(with_zeros) == digest_of(x.astype(np.int64))


def test_streaming_a_run_that_was_in_memory_is_named(tmp_path):
    counts().write_h5ad(tmp_path / "a.h5ad")
    settings = {"max_epochs": 1, "seed": 0, "verbose": 0, "accelerator": "cpu"}
    for stream in (False, True):
        adata = open_data(tmp_path / "a.h5ad", stream=stream)
        SCVI.setup_anndata(adata)
        model = SCVI(adata, n_hidden=8, n_latent=2)
        if not stream:
            model.train(checkpoint_dir=tmp_path / "run", **settings)
    said = r"the data were in memory and are streamed from disk \(celbo.data.read, --data load\)"
    with pytest.raises(DifferentRunError, match=said):
        model.train(resume=tmp_path / "run", **settings)


def swap_two_counts(adata):
    """Keeps the totals of the cell, and which entries are zero."""
    start, stop = adata.X.indptr[[123, 124]]
    low, high = start + np.argmin(adata.X.data[start:stop]), start + np.argmax(adata.X.data[start:stop])
    assert adata.X.data[low] != adata.X.data[high]
    adata.X.data[[low, high]] = adata.X.data[[high, low]]


def change_one_count(adata):
    adata.X.data[777] += 1


def change_a_covariate(adata):
    adata.obs.loc["c77", "age"] += 1e-3


@pytest.mark.parametrize("change", [change_one_count, swap_two_counts, change_a_covariate])
@pytest.mark.parametrize("stream", [False, True])
def test_one_changed_value_is_another_run(tmp_path, change, stream):
    def model(adata):
        if stream:
            path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5ad"
            adata.write_h5ad(path)
            adata = open_data(path, stream=True)
        SCVI.setup_anndata(adata, batch_key="batch", continuous_covariate_keys=["age"])
        return SCVI(adata, n_hidden=8, n_latent=2)

    settings = {"max_epochs": 1, "seed": 0, "verbose": 0, "accelerator": "cpu"}
    model(counts()).train(checkpoint_dir=tmp_path / "run", **settings)
    model(counts()).train(resume=tmp_path / "run", **settings)
    changed = counts()
    change(changed)
    with pytest.raises(DifferentRunError, match=r"the counts \(or another registered column\) are others\. Resume"):
        model(changed).train(resume=tmp_path / "run", **settings)
