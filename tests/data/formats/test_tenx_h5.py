"""10x .h5 of all versions, loaded and streamed: the same counts and names as were written."""

import h5py
import numpy as np
import pytest

import celbo.data
from celbo.data import StoredMatrix
from celbo.store.damage import DamagedDataError

from .conftest import CELLS, COUNTS, GENES, IDS, tenx_group, tenx_v3


def dense(adata):
    x = adata.X
    return (x.to_memory() if isinstance(x, StoredMatrix) else x).toarray()


def both(path, **more):
    """Loaded, after a look that the streamed one is the same and lies on disk."""
    loaded, streamed = (celbo.data.open(path, stream=stream, **more) for stream in (False, True))
    assert isinstance(streamed.X, StoredMatrix)
    np.testing.assert_array_equal(dense(streamed), dense(loaded))
    assert list(streamed.obs_names) == list(loaded.obs_names)
    assert streamed.var.equals(loaded.var)
    return loaded


def test_version_3(tmp_path):
    adata = both(tenx_v3(tmp_path / "a.h5"))
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    assert (list(adata.obs_names), list(adata.var_names), list(adata.var["gene_ids"])) == (CELLS, GENES, IDS)
    assert set(adata.var["feature_types"]) == {"Gene Expression"}


def test_rows_and_columns_of_a_streamed_one(tmp_path):
    x = celbo.data.open(tenx_v3(tmp_path / "a.h5"), stream=True).X
    np.testing.assert_array_equal(x[[4, 1, 1], :][:, [3, 0]].toarray(), COUNTS[[4, 1, 1]][:, [3, 0]])


@pytest.mark.parametrize("other", ["Antibody Capture", "CRISPR Guide Capture", "Peaks", "Custom"])
def test_of_several_types_the_genes_are_taken_and_it_is_said(tmp_path, heard, other):
    types = ["Gene Expression", other, "Gene Expression", other, "Gene Expression"]
    path = tenx_v3(tmp_path / "a.h5", types=types)
    np.testing.assert_array_equal(both(path).X.toarray(), COUNTS[:, [0, 2, 4]])
    assert "3 features of type 'Gene Expression' are taken" in heard()
    assert f"modality='{other}'" in heard()
    adata = both(path, modality=other)
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS[:, [1, 3]])
    assert list(adata.var_names) == [GENES[1], GENES[3]]


def test_other_types_without_genes(tmp_path):
    only = tenx_v3(tmp_path / "a.h5", types=["Peaks"] * 5)
    np.testing.assert_array_equal(both(only).X.toarray(), COUNTS)
    two = tenx_v3(tmp_path / "b.h5", types=["Antibody Capture"] * 3 + ["Custom"] * 2)
    with pytest.raises(ValueError, match=r"2 types of features.*'Antibody Capture' \(3 features\).*modality='Antibody"):
        celbo.data.read(two)
    with pytest.raises(ValueError, match=r"No modality is called 'Antibody'. Did you mean 'Antibody Capture'"):
        celbo.data.read(two, modality="Antibody")


def test_symbols_that_come_twice(tmp_path, heard):
    adata = both(tenx_v3(tmp_path / "a.h5", names=["A", "B", "A", "A-1", "A"]))
    assert adata.var_names.is_unique
    assert list(adata.var_names[:2]) == ["A", "B"]
    assert list(adata.var["gene_ids"]) == IDS
    assert "more than once ('A')" in heard()


def test_probes_of_flex(tmp_path, heard):
    features = {"gene_id": [IDS[0], IDS[0], *IDS[2:]], "filtered_probes": np.array([1, 0, 1, 1, 1], bool)}
    called = np.array([1, 1, 0, 1, 0, 0], bool)
    adata = both(tenx_v3(tmp_path / "raw_probe_bc_matrix.h5", features=features, filtered_barcodes=called))
    assert list(adata.var["probe_ids"]) == IDS
    assert adata.var["gene_ids"].iloc[1] == IDS[0]
    assert adata.var["filtered_probes"].tolist() == [True, False, True, True, True]
    assert adata.obs["filtered_barcodes"].tolist() == called.tolist()
    assert "5 probes of 4 genes" in heard()


def test_version_2_of_one_genome_and_of_two(tmp_path):
    with h5py.File(tmp_path / "one.h5", "w") as file:
        tenx_group(file.create_group("mm10"), barcodes=CELLS, genes=IDS, gene_names=GENES)
    adata = both(tmp_path / "one.h5")
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    assert (list(adata.var_names), list(adata.var["gene_ids"])) == (GENES, IDS)
    with h5py.File(tmp_path / "one.h5", "a") as file:
        tenx_group(file.create_group("hg19"), COUNTS * 2, barcodes=CELLS, genes=IDS, gene_names=GENES)
        file["hg19"].create_dataset("a_scalar", data=3)
        file.create_dataset("another_scalar", data=3)
    with pytest.raises(ValueError, match=r"2 genomes.*'hg19' \(6 cells, 5 genes\).*modality='hg19'"):
        celbo.data.read(tmp_path / "one.h5")
    np.testing.assert_array_equal(both(tmp_path / "one.h5", modality="hg19").X.toarray(), COUNTS * 2)


def test_without_names(tmp_path, heard):
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        tenx_group(file.create_group("mm10"))
    adata = both(tmp_path / "bare.h5")
    assert (adata.obs_names[5], adata.var_names[4]) == ("cell_5", "gene_4")
    assert "no names of cells: they are numbered" in heard()


def test_stored_by_genes_is_loaded_and_said(tmp_path, heard):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        tenx_group(file.create_group("mm10"), by_cells=False, barcodes=CELLS, genes=IDS)
    np.testing.assert_array_equal(celbo.data.open(tmp_path / "a.h5", stream=True).X.to_memory().toarray(), COUNTS)
    assert "stored by genes" in heard()


@pytest.mark.parametrize("name", ["indptr", "indices", "barcodes", "shape"])
def test_damage_is_named(tmp_path, name):
    path = tenx_v3(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        old = file["matrix"][name][:]
        del file["matrix"][name]
        changed = old[::-1] if name == "indptr" else old[:-1] if name == "barcodes" else old + 100
        file["matrix"].create_dataset(name, data=changed)
    for stream in (False, True):
        with pytest.raises(DamagedDataError, match=r"a\.h5"):
            dense(celbo.data.open(path, stream=stream))


def test_beside_files_of_other_kinds(tmp_path):
    adata = celbo.data.read(tenx_v3(tmp_path / "a.h5"))
    adata[:, ::-1].copy().write_h5ad(tmp_path / "b.h5ad")
    (tmp_path / "c.csv").write_text("gene,ACGTACGTA-7\n" + "".join(f"{gene},{i}\n" for i, gene in enumerate(GENES)))
    both = celbo.data.open([tmp_path / name for name in ("a.h5", "b.h5ad", "c.csv")], stream=False)
    np.testing.assert_array_equal(both.X.toarray(), np.vstack([COUNTS, COUNTS, np.arange(5)]))
    assert list(both.var_names) == GENES


def test_nothing_of_another_file_is_read(tmp_path):
    other, path = tenx_v3(tmp_path / "other.h5"), tenx_v3(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["matrix"]["data"]
        file["matrix"]["data"] = h5py.ExternalLink(str(other), "/matrix/data")
    for stream in (False, True):
        with pytest.raises(DamagedDataError, match=r"a\.h5.*link to .*other\.h5"):
            celbo.data.open(path, stream=stream)
