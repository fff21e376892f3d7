"""Folders and files of Matrix Market: of 10x, STARsolo, Parse, kallisto, alevin-fry, R, and of repositories."""

import numpy as np
import pytest

import celbo.data
from celbo.store.damage import DamagedDataError

from .conftest import CELLS, COUNTS, GENES, IDS, mtx, put

NAMES = "\n".join(CELLS) + "\n"
FEATURES = "".join(f"{i}\t{name}\tGene Expression\n" for i, name in zip(IDS, GENES))
OLD = "".join(f"{i}\t{name}\n" for i, name in zip(IDS, GENES))
PARSE = "gene_id,gene_name,genome\n" + "".join(f"{i},{name},hg38\n" for i, name in zip(IDS, GENES))
PARSE_CELLS = "bc_wells,sample,tscp_count\n" + "".join(f"{i}_01,s{i % 2},{i}\n" for i in range(6))

BY_GENES, BY_CELLS = mtx(COUNTS.T), mtx(COUNTS)

LAYOUTS = {
    "10x v3": {"matrix.mtx.gz": BY_GENES, "barcodes.tsv.gz": NAMES, "features.tsv.gz": FEATURES},
    "10x v2": {"matrix.mtx": BY_GENES, "barcodes.tsv": NAMES, "genes.tsv": OLD},
    "STARsolo": {"Gene/filtered/matrix.mtx": BY_GENES, "Gene/filtered/barcodes.tsv": NAMES}
    | {"Gene/filtered/features.tsv": FEATURES, "Gene/raw/matrix.mtx": "x", "Gene/Summary.csv": "a,b\n"},
    "Cell Ranger": {"outs/filtered_feature_bc_matrix/matrix.mtx.gz": BY_GENES}
    | {"outs/filtered_feature_bc_matrix/barcodes.tsv.gz": NAMES, "outs/web_summary.html": "<html>"}
    | {"outs/filtered_feature_bc_matrix/features.tsv.gz": FEATURES, "outs/raw_feature_bc_matrix/matrix.mtx.gz": "x"},
    "Cell Ranger 2": {"filtered_gene_bc_matrices/mm10/matrix.mtx": BY_GENES}
    | {"filtered_gene_bc_matrices/mm10/barcodes.tsv": NAMES, "filtered_gene_bc_matrices/mm10/genes.tsv": OLD},
    "kallisto": {"cells_x_genes.mtx": BY_CELLS, "cells_x_genes.barcodes.txt": NAMES}
    | {"cells_x_genes.genes.txt": "\n".join(GENES)},
    "alevin-fry": {"quants_mat.mtx": BY_CELLS, "quants_mat_rows.txt": NAMES, "quants_mat_cols.txt": "\n".join(GENES)},
    "GEO": {"GSM1_s1_matrix.mtx.gz": BY_GENES, "GSM1_s1_barcodes.tsv.gz": NAMES, "GSM1_s1_features.tsv.gz": FEATURES},
    "R, with headers": {
        "counts.mtx": BY_GENES,
        "barcodes.csv": '"","x"\n' + "".join(f'"{i + 1}","{c}"\n' for i, c in enumerate(CELLS)),
    }
    | {"genes.csv": '"","x"\n' + "".join(f'"{i + 1}","{g}"\n' for i, g in enumerate(GENES))},
    "Windows": {"matrix.mtx": BY_GENES.replace("\n", "\r\n"), "barcodes.tsv": NAMES.replace("\n", "\r\n")}
    | {"features.tsv": "\ufeff" + FEATURES.replace("\n", "\r\n")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    for name, text in LAYOUTS[layout].items():
        put(tmp_path / "in" / name, text)
    for adata in (celbo.data.read(tmp_path / "in"), celbo.data.open(tmp_path / "in")):
        np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
        assert list(adata.obs_names) == CELLS
        assert list(adata.var_names) == GENES
    if "\t" in "".join(LAYOUTS[layout].values()):
        assert list(adata.var["gene_ids"]) == IDS
    streamed = celbo.data.open(tmp_path / "in", stream=True)
    np.testing.assert_array_equal(streamed.X[[5, 0]].toarray(), COUNTS[[5, 0]])


@pytest.mark.parametrize("folder", ["all-sample/DGE_filtered", "DGE_unfiltered"])
def test_parse(tmp_path, folder):
    for name, text in {"DGE.mtx": BY_CELLS, "all_genes.csv": PARSE, "cell_metadata.csv": PARSE_CELLS}.items():
        put(tmp_path / folder / name, text)
    adata = celbo.data.read(tmp_path if "/" in folder else tmp_path / folder)
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    assert (list(adata.obs_names), list(adata.var_names)) == ([f"{i}_01" for i in range(6)], GENES)
    assert adata.obs["tscp_count"].tolist() == list(range(6))
    assert list(adata.var["gene_ids"]) == IDS


@pytest.mark.parametrize(("field", "wanted"), [("integer", COUNTS), ("real", COUNTS), ("pattern", COUNTS > 0)])
@pytest.mark.parametrize("by_cells", [False, True])
def test_a_single_file_either_way_round(tmp_path, field, wanted, by_cells):
    path = put(tmp_path / "matrix.mtx.gz", mtx(COUNTS if by_cells else COUNTS.T, field))
    put(tmp_path / "barcodes.tsv", NAMES)
    adata = celbo.data.read(path)  # without names of genes
    np.testing.assert_array_equal(adata.X.toarray(), wanted)
    assert adata.var_names[0] == "gene_0"


def test_types_of_features(tmp_path, heard):
    types = ["Gene Expression", "Antibody Capture", "Gene Expression", "Gene Expression", "Gene Expression"]
    put(tmp_path / "features.tsv.gz", "".join(f"{i}\t{n}\t{t}\n" for i, n, t in zip(IDS, GENES, types)))
    put(tmp_path / "matrix.mtx.gz", BY_GENES)
    put(tmp_path / "barcodes.tsv.gz", NAMES)
    np.testing.assert_array_equal(celbo.data.read(tmp_path).X.toarray(), COUNTS[:, [0, 2, 3, 4]])
    assert "1 of type 'Antibody Capture'" in heard()
    assert list(celbo.data.read(tmp_path, modality="Antibody Capture").var_names) == ["GAPDH"]


def test_velocyto(tmp_path):
    put(tmp_path / "Velocyto/raw/barcodes.tsv", NAMES)
    put(tmp_path / "Velocyto/raw/features.tsv", FEATURES)
    for i, name in enumerate(("spliced", "unspliced", "ambiguous"), 1):
        put(tmp_path / f"Velocyto/raw/{name}.mtx", mtx(COUNTS.T * i))
    adata = celbo.data.read(tmp_path / "Velocyto")
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    np.testing.assert_array_equal(adata.layers["unspliced"].toarray(), COUNTS * 2)


def test_peaks(tmp_path):
    put(tmp_path / "matrix.mtx", BY_GENES)
    put(tmp_path / "barcodes.tsv", NAMES)
    put(tmp_path / "peaks.bed", "".join(f"chr1\t{i}00\t{i}50\n" for i in range(5)))
    assert celbo.data.read(tmp_path).var_names[3] == "chr1:300-350"


def test_several_samples_of_one_folder_or_of_folders(tmp_path):
    for i in (1, 2):
        for name, text in {"matrix.mtx": BY_GENES, "barcodes.tsv": NAMES, "features.tsv": FEATURES}.items():
            put(tmp_path / "flat" / f"GSM{i}_{name}", text)
            put(tmp_path / "deep" / f"sample{i}" / "outs" / "filtered_feature_bc_matrix" / name, text)
    for folder in ("flat", "deep"):
        adata = celbo.data.open(tmp_path / folder)
        np.testing.assert_array_equal(adata.X.toarray(), np.vstack([COUNTS, COUNTS]))
    with pytest.raises(ValueError, match="holds 2 inputs"):
        celbo.data.read(tmp_path / "flat")


def test_without_names_it_is_asked(tmp_path):
    path = put(tmp_path / "matrix.mtx", BY_GENES)
    with pytest.raises(ValueError, match=r"no names of cells and genes.*orientation='genes-by-cells'"):
        celbo.data.read(path)
    np.testing.assert_array_equal(celbo.data.read(path, orientation="genes-by-cells").X.toarray(), COUNTS)
    np.testing.assert_array_equal(celbo.data.read(path, orientation="cells-by-genes").X.toarray(), COUNTS.T)
    with pytest.raises(ValueError, match=r"orientation must be 'genes-by-cells' .* got 'genes'"):
        celbo.data.read(path, orientation="genes")


SPOILT = {
    "empty": "",
    "cut short": BY_GENES[: len(BY_GENES) // 2],
    "no sizes": "%%MatrixMarket matrix coordinate integer general\n",
    "out of range": BY_GENES.replace("5 6 ", "5 5 ", 1),
    "too many entries": "%%MatrixMarket matrix coordinate integer general\n5 6 999999999999\n1 1 1\n",
    "too large": "%%MatrixMarket matrix array integer general\n99999999 999999\n1\n",
    "complex": "%%MatrixMarket matrix coordinate complex general\n5 6 1\n1 1 1.0 2.0\n",
}


@pytest.mark.parametrize("fault", SPOILT)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_damage_is_named(tmp_path, fault, ending):
    put(tmp_path / "barcodes.tsv", NAMES)
    put(tmp_path / "features.tsv", FEATURES)
    put(tmp_path / f"matrix.mtx{ending}", SPOILT[fault])
    with pytest.raises(DamagedDataError, match=r"matrix\.mtx"):
        celbo.data.read(tmp_path)


def test_names_of_other_data(tmp_path):
    put(tmp_path / "barcodes.tsv", NAMES * 3)
    put(tmp_path / "matrix.mtx", BY_GENES)
    with pytest.raises(DamagedDataError, match="is 5 x 6, and beside it there are 18 names of cells"):
        celbo.data.read(tmp_path)
