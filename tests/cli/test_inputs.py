"""Inputs of every format on the command line: they train, stream and embed, or one line says what to type."""

import gzip

import anndata
import h5py
import numpy as np
import pytest

from celbo.data import simulate_counts

CELLS, GENES = 60, 20


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The same counts in several formats."""
    folder = tmp_path_factory.mktemp("inputs")
    adata = simulate_counts(CELLS, GENES, n_cell_types=2, seed=0)
    adata.obs_names = [f"cell_{i}" for i in range(CELLS)]
    adata.var_names = [f"gene_{i}" for i in range(GENES)]
    table = adata.to_df().astype(int)
    table.T.to_csv(folder / "counts.csv.gz")
    table.set_axis([f"x{i}" for i in range(CELLS)]).set_axis([f"y{i}" for i in range(GENES)], axis=1).to_csv(
        folder / "unclear.csv"
    )
    x = adata.X.tocsr()
    with h5py.File(folder / "tenx.h5", "w") as file:
        for name in ("data", "indices", "indptr"):
            file[f"matrix/{name}"] = getattr(x, name).astype(int)
        file["matrix/shape"] = np.array(x.shape[::-1])
        file["matrix/barcodes"] = np.array(adata.obs_names, dtype="S")
        file["matrix/features/id"] = file["matrix/features/name"] = np.array(adata.var_names, dtype="S")
        types = ["Gene Expression"] * 18 + ["Antibody Capture"] * 2
        file["matrix/features/feature_type"] = np.array(types, dtype="S")
    with h5py.File(folder / "a.loom", "w") as file:
        file["matrix"] = x.toarray().T
        file["col_attrs/CellID"] = np.array(adata.obs_names, dtype="S")
        file["row_attrs/Gene"] = np.array(adata.var_names, dtype="S")
    (folder / "mtx").mkdir()
    coo = x.tocoo()
    lines = [f"{g + 1} {n + 1} {int(v)}" for n, g, v in zip(coo.row, coo.col, coo.data)]
    text = f"%%MatrixMarket matrix coordinate integer general\n{GENES} {CELLS} {x.nnz}\n" + "\n".join(lines) + "\n"
    (folder / "mtx" / "matrix.mtx.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "mtx" / "barcodes.tsv").write_text("\n".join(adata.obs_names))
    (folder / "mtx" / "genes.tsv").write_text("\n".join(f"ENSG{i}\tgene_{i}" for i in range(GENES)))
    return folder


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("counts.csv.gz", []),
        ("unclear.csv", ["--orientation", "cells-by-genes"]),
        ("tenx.h5", ["--data", "stream"]),
        ("a.loom", ["--data", "stream"]),
        ("mtx", ["--data", "stream"]),
    ],
)
def test_train_and_embed(celbo, inputs, tmp_path, name, more):
    run = tmp_path / "run"
    done = celbo("train", inputs / name, *more, "--max-epochs", "1", "--seed", "0", "-o", run)
    assert done.exit_code == 0, done.stderr
    assert anndata.read_h5ad(run / "embedding.h5ad").shape == (CELLS, 0)
    if name == "counts.csv.gz":
        for other in ("a.loom", "mtx"):
            done = celbo("embed", run, inputs / other, "-q", "-o", tmp_path / f"{other}.h5ad")
            assert done.exit_code == 0, done.stderr
        files = [anndata.read_h5ad(tmp_path / f"{other}.h5ad") for other in ("a.loom", "mtx")]
        np.testing.assert_array_equal(files[0].obsm["X_celbo"], files[1].obsm["X_celbo"])
        assert list(files[0].obs_names[:2]) == ["cell_0", "cell_1"]


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("unclear.csv", [], "--orientation genes-by-cells"),
        ("unclear.csv", ["--orientation", "genes"], "value of --orientation"),
        ("tenx.h5", ["--modality", "antibody capture"], "Did you mean 'Antibody Capture'?"),
        ("a.loom", ["--modality", "rna"], "leave --modality rna out"),
    ],
)
def test_what_to_type(celbo, inputs, tmp_path, name, more, said):
    done = celbo("train", inputs / name, *more, "-q", "-o", tmp_path / "run")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr


def test_what_is_taken_is_said_with_the_option_to_type(celbo, inputs, tmp_path):
    done = celbo("train", inputs / "tenx.h5", "--max-epochs", "1", "-o", tmp_path / "run")
    assert "18 features of type 'Gene Expression' are taken" in done.stderr
    assert "For these: --modality 'Antibody Capture'." in done.stderr
