"""10x folders and features by modality."""

import gzip
import tarfile

import anndata as ad
import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from celbo.data import (
    dataset_10x,
    organize_cite_seq_10x,
    organize_multiome_anndatas,
    read_10x_atac,
    read_10x_multiome,
    reads_to_fragments,
)

COUNTS = np.arange(12).reshape(4, 3)


@pytest.fixture
def folder(tmp_path):
    scipy.io.mmwrite(tmp_path / "matrix.mtx", sp.csr_matrix(COUNTS))
    (tmp_path / "barcodes.tsv").write_text("AA-1\nBB-1\nCC-2\n")
    (tmp_path / "peaks.bed").write_text("".join(f"chr{i}\t{i}00\t{i}50\n" for i in range(4)))
    kinds = ("Gene Expression", "Peaks")
    lines = [f"ENS{i}\tg{i}\t{kinds[i % 2]}\tchr{i}\t{i}00\t{i}50\n" for i in range(4)]
    with gzip.open(tmp_path / "features.tsv.gz", "wt") as file:
        file.writelines(lines)
    return tmp_path


def test_atac(folder):
    adata = read_10x_atac(folder)
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS.T)
    assert list(adata.obs_names) == ["AA", "BB", "CC"]
    assert adata.obs["batch_id"].tolist() == [1, 1, 2]
    assert adata.var_names[1] == "chr1:100-150"
    assert adata.var.iloc[1].tolist() == ["chr1", 100, 150]


def test_multiome(folder):
    adata = read_10x_multiome(str(folder))
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS.T)
    assert list(adata.var.columns) == ["ID", "modality", "chr", "start", "end"]
    assert adata.var.loc["g1", "modality"] == "Peaks"


def test_a_missing_file_is_named(folder):
    (folder / "peaks.bed").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither peaks\.bed nor peaks\.bed\.gz"):
        read_10x_atac(folder)


class TestDataSets:
    @pytest.fixture
    def archive(self, folder, tmp_path_factory):
        """As 10x packs a folder of counts, on a Mac: with a hidden file beside each."""
        (folder / "genes.tsv").write_text("".join(f"ENS{i}\tg{i}\n" for i in range(4)))
        (folder / "._barcodes.tsv").write_bytes(b"\x00\xb1\xff")
        path = tmp_path_factory.mktemp("there") / "filtered_gene_bc_matrices.tar.gz"
        with tarfile.open(path, "w:gz") as packed:
            for name in ("matrix.mtx", "barcodes.tsv", "genes.tsv", "._barcodes.tsv"):
                packed.add(folder / name, f"filtered_gene_bc_matrices/mm10/{name}")
        return path

    def test_from_an_address_once(self, archive, tmp_path):
        here = tmp_path / "10X"
        for _ in range(2):
            adata = dataset_10x("set", save_path=here, url=archive.as_uri())
            np.testing.assert_array_equal(adata.X.toarray(), COUNTS.T)
            assert list(adata.var_names) == ["g0", "g1", "g2", "g3"]
            archive.unlink(missing_ok=True)  # it is there by now
        assert [path.name for path in (here / "set").iterdir()] == ["filtered_gene_bc_matrices.tar.gz"]

    def test_by_its_usual_name_or_any(self, archive):
        adata = dataset_10x(save_path=archive.parent)
        assert adata.shape == (3, 4)
        archive.rename(archive.with_name("mine.tar.gz"))
        assert dataset_10x(filename="mine.tar.gz", save_path=archive.parent).shape == (3, 4)
        with pytest.raises(FileNotFoundError, match=r"no raw_feature_bc_matrix\.h5 and no .* as url="):
            dataset_10x(save_path=archive.parent, return_filtered=False)


@pytest.mark.parametrize("stored", [np.array, sp.csr_matrix])
def test_fragments(stored):
    adata = ad.AnnData(stored([[0.0, 1, 2], [3, 4, 5]]))
    adata.layers["reads"] = adata.X.copy()
    for layer in (None, "reads"):
        reads_to_fragments(adata, layer)
        assert sp.csr_matrix(adata.layers["fragments"]).toarray().tolist() == [[0, 1, 1], [2, 2, 3]]


@pytest.mark.parametrize("stored", [np.array, sp.csr_matrix])
def test_cite_seq(stored):
    x = np.arange(12.0).reshape(3, 4)
    adata = ad.AnnData(stored(x))
    adata.var["feature_types"] = ["Gene Expression", "Antibody Capture"] * 2
    split = organize_cite_seq_10x(adata, copy=True)
    assert (adata.shape, split.shape) == ((3, 4), (3, 2))
    np.testing.assert_array_equal(split.obsm["protein_expression"], x[:, [1, 3]])
    assert list(split.obsm["protein_expression"].columns) == ["1", "3"]
    assert organize_cite_seq_10x(adata) is None
    assert adata.shape == (3, 2)
    with pytest.raises(KeyError, match="feature_types"):
        organize_cite_seq_10x(ad.AnnData(x))


def test_multiome_organized():
    both = ad.AnnData(sp.csr_matrix(np.ones((3, 4), np.float32)))
    rna, atac = (ad.AnnData(sp.csr_matrix(np.full((2, 2), 2, np.float32))) for _ in range(2))
    rna.var_names, atac.var_names = both.var_names[:2], both.var_names[2:]
    both.var["modality"] = ["Gene Expression"] * 2 + ["Peaks"] * 2
    joined = organize_multiome_anndatas(both, rna, atac)
    assert joined.obs_names[[0, 3, 6]].tolist() == ["0_paired", "0_expression", "1_accessibility"]
    assert joined.obs["modality"].tolist() == ["paired"] * 3 + ["expression"] * 2 + ["accessibility"] * 2
    assert joined.X.toarray()[[0, 3, 6]].tolist() == [[1, 1, 1, 1], [2, 2, 0, 0], [0, 0, 2, 2]]
    assert joined.var["modality"].tolist() == both.var["modality"].tolist()
    assert organize_multiome_anndatas(both).n_obs == 3
