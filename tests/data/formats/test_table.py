"""Tables of text as spreadsheets, R, pandas, UMI-tools, featureCounts and GEO write them, against what they hold."""

import bz2
import lzma

import numpy as np
import pandas as pd
import pytest

import celbo.data
from celbo.store.damage import DamagedDataError

from .conftest import CELLS, COUNTS, GENES, put

BY_CELLS = pd.DataFrame(COUNTS, index=CELLS, columns=GENES)
BY_GENES = BY_CELLS.T


def same(path, counts=COUNTS, cells=CELLS, genes=GENES, **more):
    for adata in (celbo.data.read(path, **more), celbo.data.open(path, stream=True, **more)):
        np.testing.assert_array_equal(adata.X[:].toarray(), counts)
        assert (list(adata.obs_names), list(adata.var_names)) == (list(cells), list(genes))
    return adata


@pytest.mark.parametrize("by_cells", [True, False])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt.gz", ".csv.bz2", ".dat.xz"])
@pytest.mark.parametrize("separator", [",", "\t", ";", " ", "|"])
def test_separators_packing_and_orientation(tmp_path, heard, by_cells, ending, separator):
    text = (BY_CELLS if by_cells else BY_GENES).to_csv(sep=separator)
    text = text.removeprefix(separator) if separator == " " else text  # as R's write.table, whose default it is
    path = put(tmp_path / f"a{ending}", text)
    if ending.endswith((".bz2", ".xz")):
        path.write_bytes((bz2 if ending.endswith("bz2") else lzma).compress(text.encode()))
    adata = same(path)
    assert adata.X.dtype == np.float32
    wanted = "cells, its 5 columns genes" if by_cells else "genes, its 6 columns cells"
    assert f"rows are {wanted}" in heard()


VARIANTS = {
    "Windows": lambda text: text.replace("\n", "\r\n"),
    "Mac": lambda text: text.replace("\n", "\r"),
    "BOM": lambda text: "\ufeff" + text,
    "UTF-16": lambda text: text.encode("utf-16"),
    "quoted": lambda text: "\n".join(
        ",".join(f'"{field}"' for field in line.split(",")) for line in text.split("\n")[:-1]
    ),
    "no end of line": lambda text: text.rstrip("\n"),
    "empty lines": lambda text: "\n" + text.replace("\n", "\n\n") + "\n",
    "remarks": lambda text: "# by a tool, v2, on a day\n#\n" + text,
    "shorter header": lambda text: text.removeprefix(","),
    "named corner": lambda text: "gene" + text,
    "a hash in the corner": lambda text: "#GENE" + text,
    "trailing separators": lambda text: text.replace("\n", ",\n"),
    "trailing separators but the header": lambda text: text.replace("\n", ",\n").replace(",\n", "\n", 1),
    "spaces": lambda text: text.replace(",", ", "),
    "floats": lambda text: "\n".join(
        ",".join(f"{field}.0" if field.isdigit() else field for field in line.split(",")) for line in text.split("\n")
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_ways_of_writing(tmp_path, variant):
    same(put(tmp_path / "a.csv", VARIANTS[variant](BY_GENES.to_csv())))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_comma(tmp_path, separator):
    half = BY_CELLS + 0.5
    path = put(tmp_path / "a.csv", half.to_csv(sep=separator, decimal=","))
    same(path, COUNTS + 0.5)
    large = put(tmp_path / "b.csv", 'gene,cell_1,cell_2\nACTB,"1,234",0\nGAPDH,"12,000",3\n')
    same(large, [[1234, 12000], [0, 3]], ["cell_1", "cell_2"], ["ACTB", "GAPDH"])


def test_names_that_come_twice_and_names_that_look_missing(tmp_path, heard):
    path = put(tmp_path / "a.csv", BY_GENES.set_axis(["ACTB", "GAPDH", "NA", "ACTB", "nan"]).to_csv())
    adata = celbo.data.read(path)
    assert list(adata.var_names) == ["ACTB", "GAPDH", "NA", "ACTB-1", "nan"]
    assert "more than once ('ACTB')" in heard()


def test_columns_that_are_no_counts(tmp_path, heard):
    table = BY_CELLS.assign(cell_type=list("aabbcc"), n_counts=range(100, 106), batch=[1, 1, 1, 2, 2, 2])
    adata = same(put(tmp_path / "a.csv", table.to_csv()))
    assert adata.obs["cell_type"].tolist() == list("aabbcc")
    assert sorted(adata.obs.columns) == ["batch", "cell_type", "n_counts"]
    assert "3 columns are not counts and stand in obs" in heard()
    many = pd.DataFrame(np.tile(COUNTS, 4), index=CELLS, columns=[f"gene{i}" for i in range(20)])
    adata = celbo.data.read(put(tmp_path / "b.csv", many.assign(mito=np.linspace(0, 0.1, 6)).to_csv()))
    assert adata.shape == (6, 20)
    np.testing.assert_allclose(adata.obs["mito"], np.linspace(0, 0.1, 6))


def test_feature_counts(tmp_path):
    about = pd.DataFrame({"Chr": "chr1", "Start": 5, "End": 9, "Strand": "+", "Length": 4}, index=GENES)
    text = '# Program:featureCounts v2.0.1; Command:"featureCounts" "-a" "x.gtf"\n'
    text += pd.concat([about, BY_GENES], axis=1).rename_axis("Geneid").to_csv(sep="\t")
    adata = same(put(tmp_path / "counts.txt", text))
    assert adata.var["Length"].tolist() == [4] * 5
    assert adata.var["Chr"].tolist() == ["chr1"] * 5


def test_a_row_for_each_count(tmp_path):
    long = BY_GENES.rename_axis("gene").reset_index().melt("gene", var_name="cell", value_name="count")
    adata = celbo.data.read(put(tmp_path / "umi_tools.tsv.gz", long[long["count"] > 0].to_csv(sep="\t", index=False)))
    found = adata.to_df().reindex(index=CELLS, columns=GENES, fill_value=0).fillna(0)
    np.testing.assert_array_equal(found, COUNTS)


CLEAR = {
    "identifiers": (["ENSMUSG00000000001", "ENSMUSG00000000028"], ["a", "b", "c"]),
    "wells": (["x1", "x2"], ["plate1_A01", "plate1_A02", "plate1_P24"]),
    "barcodes of several runs": (
        ["q", "w"],
        ["s1_ACGTACGTACGTACGT-1", "s2_ACGTACGTACGTACGA-1", "s2_CCGTACGTACGTACGA-1"],
    ),
    "numbered": (["gene_1", "gene_2"], ["cell_1", "cell_2", "cell_3"]),
    "symbols of mouse": (["Actb", "Gapdh"], ["one", "two", "three"]),
    "flies": (["FBgn0000003", "FBgn0000008"], ["one", "two", "three"]),
    "peaks": (["chr1:10-20", "chr2:30-40"], ["one", "two", "three"]),
}


@pytest.mark.parametrize("names", CLEAR)
def test_orientation_that_can_be_told(tmp_path, names):
    genes, cells = CLEAR[names]
    table = pd.DataFrame([[1, 2, 3], [0, 5, 0]], index=genes, columns=cells)
    for path in (put(tmp_path / "a.csv", table.to_csv()), put(tmp_path / "b.csv", table.T.to_csv())):
        same(path, table.T.to_numpy(), cells, genes)


def test_orientation_that_cannot(tmp_path):
    table = pd.DataFrame([[1, 2, 3], [0, 5, 0]], index=["u", "v"], columns=["x", "y", "z"])
    path = put(tmp_path / "a.csv", table.to_csv())
    with pytest.raises(ValueError, match=r"2 rows \('u', 'v'\) and 3 columns.*orientation='genes-by-cells'"):
        celbo.data.open(path)
    same(path, table.T.to_numpy(), "xyz", "uv", orientation="genes-by-cells")
    same(path, table.to_numpy(), "uv", "xyz", orientation="cells-by-genes")
    named = put(tmp_path / "b.csv", table.rename_axis("gene_symbol").to_csv())
    same(named, table.T.to_numpy(), "xyz", "uv")
    named = put(tmp_path / "c.csv", table.rename_axis("barcode").to_csv())
    same(named, table.to_numpy(), "uv", "xyz")


def test_without_names(tmp_path):
    path = put(tmp_path / "a.csv", "\n".join(",".join(map(str, row)) for row in COUNTS))
    same(path, COUNTS, "012345", "01234", orientation="cells-by-genes")
    path = put(tmp_path / "b.csv", BY_CELLS.to_csv(index=False))
    same(path, COUNTS, "012345", GENES)
    path = put(tmp_path / "c.csv", BY_CELLS.reset_index(drop=True).to_csv())
    same(path, COUNTS, "012345", GENES)


def test_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("celbo.formats.table._ENTRIES", 12)
    same(put(tmp_path / "a.csv", BY_CELLS.to_csv()))
    same(put(tmp_path / "b.csv", BY_GENES.to_csv()))


def test_large_counts_stay_exact(tmp_path):
    table = BY_CELLS.copy()
    table.iloc[0, 0] = 2**24 + 1
    assert celbo.data.read(put(tmp_path / "a.csv", table.to_csv())).X[0, 0] == 2**24 + 1


SPOILT = {
    "text below": (
        "gene,cell_1\n" + "ACTB,1\n" * 70 + "GAPDH,many\n",
        r"row 71 \('GAPDH'\) has 'many' in the column 'cell_1'",
    ),
    "cut short": ("gene,cell_1,cell_2\nACTB,1,2\nGAPDH,1", r"row 2 \('GAPDH'\) ends after 1 of 2 values"),
    "too long a row": ("gene,cell_1\n" + "ACTB,1\n" * 70 + "GAPDH,1,2\n", "a.csv"),
    "no numbers": ("gene,type\nACTB,a\nGAPDH,b\n", "without a column of numbers"),
    "a sentence": ("This is no table.\nIt has two lines.\n", "a.csv"),
    "a header alone": ("gene,cell_1,cell_2\n", "a header and no rows"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_what_is_no_table(tmp_path, fault):
    text, said = SPOILT[fault]
    with pytest.raises(DamagedDataError, match=said):
        celbo.data.read(put(tmp_path / "a.csv", text))


def test_cut_short_when_packed(tmp_path):
    path = put(tmp_path / "a.csv.gz", pd.concat([BY_CELLS] * 200).to_csv())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedDataError, match=r"a\.csv\.gz"):
        celbo.data.read(path)
