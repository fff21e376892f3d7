"""Loom of all its layouts, against what was written."""

import h5py
import numpy as np
import pytest

import celbo.data
from celbo.store.damage import DamagedDataError

from .conftest import COUNTS


def write_loom(path, cells="CellID", genes="Gene", new=True, dtype="f4", layers=(), n=1):
    counts = np.tile(COUNTS, (n, 1))
    with h5py.File(path, "w") as file:
        file.create_dataset("matrix", data=counts.T.astype(dtype), chunks=(5, 4), compression="gzip")
        text = h5py.string_dtype() if new else "S9"
        (file.create_group("attrs") if new else file.attrs)["LOOM_SPEC_VERSION"] = "3.0.0" if new else "2.0.1"
        columns, rows = file.create_group("col_attrs"), file.create_group("row_attrs")
        if cells:
            columns.create_dataset(cells, data=np.array([f"c{i}" for i in range(6 * n)], dtype=object).astype(text))
        if genes:
            rows.create_dataset(
                genes, data=np.array(["A", "B", "&alpha;" if not new else "α", "D", "E"], object).astype(text)
            )
        columns["Cluster"] = np.arange(6 * n)
        columns["pca"] = np.zeros((6 * n, 2))
        rows["Accession"] = np.array([f"ENSG{i}" for i in range(5)], dtype="S")
        for name in layers:
            file.create_dataset(f"layers/{name}", data=counts.T * 2)
        file.create_group("col_graphs" if new else "col_edges")
    return path


@pytest.mark.parametrize("cells", ["CellID", "obs_names", "cell_names", None])
@pytest.mark.parametrize("genes", ["Gene", "var_names", "gene_names", None])
@pytest.mark.parametrize("new", [True, False])
def test_layouts(tmp_path, cells, genes, new):
    path = write_loom(tmp_path / "a.loom", cells, genes, new)
    loaded, streamed = (celbo.data.open(path, stream=stream) for stream in (False, True))
    np.testing.assert_array_equal(loaded.X.toarray(), COUNTS)
    np.testing.assert_array_equal(streamed.X[[5, 0, 2]].toarray(), COUNTS[[5, 0, 2]])
    for adata in (loaded, streamed, celbo.data.read(path)):
        assert adata.obs_names[3] == ("c3" if cells else "cell_3")
        assert adata.var_names[2] == ("α" if genes else "ENSG2")
        assert adata.var["gene_ids"].iloc[2] == "ENSG2" if genes else True
        assert adata.obs["Cluster"].tolist() == list(range(6))
        assert adata.obsm["pca"].shape == (6, 2)


def test_layers(tmp_path):
    path = write_loom(tmp_path / "a.loom", layers=("spliced", "unspliced"))
    for stream in (False, True):
        adata = celbo.data.open(path, stream=stream)
        assert sorted(adata.layers) == ["spliced", "unspliced"]
        np.testing.assert_array_equal(adata.layers["spliced"][:].toarray(), COUNTS * 2)
        assert not celbo.data.open(path, stream=stream, layers=[]).layers
    with pytest.raises(KeyError, match=r"No layer is called 'splice'. Did you mean 'spliced'"):
        celbo.data.open(path, layers=["splice"])


def test_a_long_one_is_read_by_its_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("celbo.formats.loom._PIECE", 60)
    path = write_loom(tmp_path / "a.loom", n=20)
    np.testing.assert_array_equal(celbo.data.read(path).X.toarray(), np.tile(COUNTS, (20, 1)))
    assert celbo.data.open(path, stream=True).X.parts[0].chunk_rows == 4


def test_damage(tmp_path):
    path = write_loom(tmp_path / "a.loom", n=200, layers=("spliced",))
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DamagedDataError, match=r"a\.loom"):
        celbo.data.read(path)
    write_loom(path)
    with h5py.File(path, "a") as file:
        file["layers/odd"] = np.zeros((4, 4))
    with pytest.raises(DamagedDataError, match="layer 'odd' has 4 cells"):
        celbo.data.read(path)
