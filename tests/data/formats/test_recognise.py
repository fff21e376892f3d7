"""Content decides, not the ending; what is not read is called by its name, with what to do."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile

import anndata as ad
import h5py
import numpy as np
import pytest

import celbo.data
from celbo.store.damage import DamagedDataError

from .conftest import COUNTS, GENES, put, tenx_v3


@pytest.mark.parametrize("name", ["a.h5", "a.dat", "a", "a.csv", "a.h5mu", "a.loom"])
def test_an_h5ad_under_any_name(tmp_path, name):
    ad.AnnData(COUNTS.astype(np.float32)).write_h5ad(tmp_path / "x.h5ad")
    os.rename(tmp_path / "x.h5ad", tmp_path / name)
    for stream in (None, False, True):
        assert celbo.data.open(tmp_path / name, stream=stream).shape == COUNTS.shape
    np.testing.assert_array_equal(celbo.data.read(tmp_path / name).X, COUNTS)


@pytest.mark.parametrize("name", ["a.h5ad", "a.hdf5", "filtered"])
def test_a_10x_file_under_any_name(tmp_path, name):
    np.testing.assert_array_equal(celbo.data.read(tenx_v3(tmp_path / name)).X.toarray(), COUNTS)


def tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("matrix.mtx"))
    return out.getvalue()


def zipped(*names):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return out.getvalue()


def hdf5(*groups, arrays=()):
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name in groups:
            file.create_group(name)
        for name in arrays:
            file[name] = np.arange(3)
    return out.getvalue()


FOREIGN = {
    "x.rds": (gzip.compress(b"X\n\0\0\0\x03\0\4"), ["an R data file", 'write_h5ad(readRDS("x.rds"), "x.h5ad")']),
    "x.rda": (bz2.compress(b"RDX3\nX\n\0\0"), ["an R data file", 'get(load("x.rda"))']),
    "x.RData": (lzma.compress(b"RDX3\nX\n"), ["an R data file", 'get(load("x.RData"))']),
    "ascii.rds": (b"A\n196611\n", ["an R data file"]),
    "x.h5seurat": (hdf5("assays", arrays=["cell.names"]), ["h5Seurat", 'SeuratDisk::Convert("x.h5seurat"']),
    "molecule_info.h5": (hdf5(arrays=["barcode_idx", "count"]), ["list of molecules", "filtered_feature_bc_matrix"]),
    "x.hdf5": (hdf5("images"), ["holds 'images'", "celbo reads .h5ad"]),
    "x.xlsx": (zipped("[Content_Types].xml", "xl/workbook.xml"), ["Excel", "read_excel"]),
    "x.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(90), ["Excel", "read_excel"]),
    "x.npz": (zipped("data.npy"), ["numpy", "load_npz"]),
    "mex.zip": (zipped("matrix.mtx", "genes.tsv"), ["zip archive of matrix.mtx", "unzip mex.zip"]),
    "x.tar.gz": (tar(), ["archive", "tar -xf x.tar.gz"]),
    "x_1.fastq.gz": (gzip.compress(b"@A:1\nACGT\n+\nFFFF\n" * 20), ["reads, not counts", "STARsolo"]),
    "x.bam": (gzip.compress(b"BAM\1" + bytes(99)), ["reads, not counts"]),
    "x.parquet": (b"PAR1" + bytes(99), ["Arrow", "read_parquet"]),
    "x.pkl": (b"\x80\x04\x95" + bytes(9), ["pickle", "write_h5ad"]),
    "x.mat": (b"MATLAB 5.0 MAT-file" + bytes(99), ["MATLAB", "loadmat"]),
    "x.h5ad": (b"<!DOCTYPE html><html>", ["a web page", "download"]),
    "lfs.h5ad": (b"version https://git-lfs.github.com/spec/v1\noid", ["Git LFS", "git lfs pull"]),
    "x.h5ad.gz": (gzip.compress(hdf5("obs")), ["packed HDF5", "gunzip x.h5ad.gz"]),
    "fragments.tsv.gz": (gzip.compress(b"chr1\t10\t40\tACGT-1\t2\n" * 9), ["fragments of ATAC", "peaks"]),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_read(tmp_path, name):
    content, said = FOREIGN[name]
    put(tmp_path / "in" / "x", b"").unlink()
    (tmp_path / "in" / name).write_bytes(content)
    for opening in (celbo.data.read, celbo.data.open):
        with pytest.raises(ValueError, match=r"celbo reads \.h5ad") as raised:
            opening(tmp_path / "in" / name)
        assert [words for words in said if words not in str(raised.value)] == []
        assert "\n" not in str(raised.value)


DAMAGED = {
    "x.h5": bytes(100),
    "x.loom": bytes(100),
    "x.h5mu": b"text",
    "x.csv": bytes(100),
    "x.tsv": b"",
    "y.gz": b"\x1f\x8b",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_nothing(tmp_path, name):
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(DamagedDataError, match=rf"{name}"):
        celbo.data.read(tmp_path / name)


def test_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(DamagedDataError, match=r"pipe\.h5 is a named pipe"):
        celbo.data.read(tmp_path / "pipe.h5")
    with pytest.raises(FileNotFoundError, match="no file"):
        celbo.data.read(tmp_path / "nothing.loom")


def test_folders(tmp_path):
    with pytest.raises(ValueError, match="holds no counts that celbo knows, but nothing"):
        celbo.data.read(tmp_path)
    put(tmp_path / "notes.pdf", "x")
    with pytest.raises(ValueError, match=r"holds no counts that celbo knows, but notes\.pdf"):
        celbo.data.open(tmp_path)
    table = "gene,cell_1,cell_2\n" + "".join(f"{gene},1,{i}\n" for i, gene in enumerate(GENES))
    put(tmp_path / "a.csv", table)
    assert celbo.data.read(tmp_path).shape == (2, 5)
    put(tmp_path / "b.tsv.gz", table)
    with pytest.raises(ValueError, match=r"2 tables of text \(a\.csv, b\.tsv\.gz\)"):
        celbo.data.read(tmp_path)
    tenx_v3(tmp_path / "filtered_feature_bc_matrix.h5")
    put(tmp_path / "raw_feature_bc_matrix.h5", "x")
    assert celbo.data.read(tmp_path).shape == COUNTS.shape
