"""``celbo denoise --ambient``: native counts by the soup of the raw droplets, and what goes wrong is one line."""

from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from celbo.cli.fitting import ambient
from celbo.external import SCAR
from celbo.store.matrices.matrix import StoredMatrix

QUICK = ["--seed", "1", "-q"]
N, G, EMPTY = 120, 40, 300


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Cells in two lanes with soups of their own; the file of all droplets has more genes, in another order."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("ambient")
    genes = [f"gene_{g}" for g in range(G)]
    profile_bg = rng.dirichlet(np.full(G, 0.5), 2)
    native_kg = rng.dirichlet(np.full(G, 0.3), 3)
    lane_n = np.arange(N) % 2
    native_ng = np.stack([rng.multinomial(300, native_kg[n % 3]) for n in range(N)])
    x = native_ng + np.stack([rng.multinomial(200, profile_bg[b]) for b in lane_n])
    obs = pd.DataFrame({"lane": np.array(["x", "y"])[lane_n]}, index=[f"cell_{n}" for n in range(N)])
    cells = anndata.AnnData(sp.csr_matrix(x.astype(np.float32)), obs=obs, var=pd.DataFrame(index=genes))
    cells.write_h5ad(folder / "cells.h5ad")
    lane_d = np.arange(EMPTY) % 2
    empty_dg = np.stack([rng.multinomial(8, profile_bg[b]) for b in lane_d])
    all_dg = np.concatenate([empty_dg, x])
    all_dg = np.concatenate([all_dg, np.zeros((len(all_dg), 2), int)], axis=1)
    of_raw = pd.DataFrame({"lane": np.array(["x", "y"])[np.concatenate([lane_d, lane_n])]})
    of_raw.index = [f"droplet_{d}" for d in range(len(of_raw))]
    raw = anndata.AnnData(
        sp.csr_matrix(all_dg.astype(np.float32)), obs=of_raw, var=pd.DataFrame(index=[*genes, "more_0", "more_1"])
    )
    raw[:, ::-1].copy().write_h5ad(folder / "raw.h5ad")
    return SimpleNamespace(folder=folder, cells=folder / "cells.h5ad", raw=folder / "raw.h5ad", adata=cells, empty=raw)


def profile_in_python(place, key=None):
    adata = place.adata.copy()
    SCAR.get_ambient_profile(adata, anndata.read_h5ad(place.raw), prob=0.3, batch_key=key, seed=0)
    return np.asarray(adata.varm["ambient_profile"])


def test_counts_are_those_of_python(place, celbo, tmp_path):
    out, kept = tmp_path / "native.h5ad", tmp_path / "model"
    given = ["--ambient", place.raw, "--ambient-prob", 0.3, "--max-epochs", 3, "--seed", 1, "--model-output", kept]
    done = celbo("denoise", place.cells, *given, "-o", out)
    assert done.exit_code == 0, done.stderr
    assert f"{N} cells: native counts, without those of the ambient RNA, in {out}" in done.stdout
    assert "ambient_profile" not in done.stderr
    adata = place.adata.copy()
    SCAR.setup_anndata(adata)
    model = SCAR(adata, profile_in_python(place))
    model.train(max_epochs=3, seed=1, verbose=0)
    found = anndata.read_h5ad(out)
    assert sp.issparse(found.X)
    np.testing.assert_array_equal(found.X.toarray(), model.get_denoised_counts(seed=1))
    assert list(found.var_names) == list(adata.var_names)
    assert list(found.obs.columns) == list(place.adata.obs.columns)
    assert list(found.obs["lane"]) == list(adata.obs["lane"])
    few = ["--gene", "gene_3", "--seed", 1, "-q"]
    assert celbo("denoise", kept, place.cells, *few, "-o", tmp_path / "few.zarr").exit_code == 0
    few_ng = anndata.read_zarr(tmp_path / "few.zarr")
    np.testing.assert_array_equal(few_ng.X.toarray(), found[:, ["gene_3"]].X.toarray())


def test_counts_of_raw(place, celbo, tmp_path):
    """``--raw`` takes the counts and the genes there, as a file from scanpy has them."""
    logged = anndata.AnnData(np.log1p(place.adata.X), obs=place.adata.obs, var=place.adata.var)[:, 5:].copy()
    logged.raw = place.adata
    logged.write_h5ad(tmp_path / "logged.h5ad")
    given = ["--ambient", place.raw, "--ambient-prob", 0.3, "--max-epochs", 3, *QUICK]
    for name, cells in {"x": [place.cells], "raw": [tmp_path / "logged.h5ad", "--raw"]}.items():
        done = celbo("denoise", *cells, *given, "-o", tmp_path / f"{name}.h5ad")
        assert done.exit_code == 0, done.stderr
    x, raw = (anndata.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("x", "raw"))
    np.testing.assert_array_equal(raw.X.toarray(), x.X.toarray())
    assert list(raw.var_names) == list(place.adata.var_names)


def test_each_batch_has_its_soup(place, celbo, tmp_path, monkeypatch):
    """The profile is that of the empty droplets of the lane, and these stay on disk."""
    seen = []
    of_droplets = SCAR.get_ambient_profile

    def noted(cells, droplets, **given):
        seen.append((cells, droplets))
        of_droplets(cells, droplets, **given)

    monkeypatch.setattr(ambient.SCAR, "get_ambient_profile", staticmethod(noted))
    given = ["--ambient", place.raw, "--ambient-prob", 0.3, "--batch-key", "lane", "--max-epochs", 2, *QUICK]
    done = celbo("train", place.cells, "--model", "scar", *given, "-o", tmp_path / "run")
    assert (done.exit_code, done.stderr) == (0, "")
    cells, droplets = seen[0]
    assert isinstance(droplets.X, StoredMatrix)
    assert list(cells.varm["ambient_profile"]) == ["x", "y"]
    np.testing.assert_allclose(cells.varm["ambient_profile"], profile_in_python(place, "lane"))
    model = SCAR.load(str(tmp_path / "run" / "model"), adata=False)
    np.testing.assert_allclose(model.module.ambient_profile, profile_in_python(place, "lane").T, rtol=1e-6)
    assert (tmp_path / "run" / "report.html").exists()


def test_without_droplets_the_cells_profile_is_taken_and_said(place, celbo, tmp_path):
    done = celbo("train", place.cells, "--model", "scar", "--max-epochs", 1, "-o", tmp_path / "run")
    assert done.exit_code == 0
    assert "--ambient is not given" in done.stderr
    assert "Better: --ambient RAW.h5" in done.stderr
    assert "adata" not in done.stderr


def other_genes(place, path):
    raw = place.empty.copy()
    raw.var_names = [f"ENSG{g}" for g in range(raw.n_vars)]
    raw.write_h5ad(path)


def filtered(place, path):
    place.empty[EMPTY:].copy().write_h5ad(path)


def one_lane(place, path):
    place.empty[place.empty.obs["lane"] == "x"].copy().write_h5ad(path)


def no_lanes(place, path):
    raw = place.empty.copy()
    del raw.obs["lane"]
    raw.write_h5ad(path)


WRONG = {
    "other genes": (other_genes, [], ["wrong.h5ad lacks 40 of the 40 genes", "'ENSG0'", "same kind of names"]),
    "too few": (filtered, [], ["wrong.h5ad has 0 droplets", f"of {N} in all", "raw_feature_bc_matrix.h5"]),
    "one lane": (one_lane, ["--batch-key", "lane"], ["wrong.h5ad: No batch in 'lane' is called 'y'"]),
    "no lanes": (no_lanes, ["--batch-key", "lane"], ["wrong.h5ad: No column of obs", "leave it out"]),
    "nothing there": (None, [], ["There is no file", "wrong.h5ad"]),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_droplets(place, celbo, tmp_path, fault):
    write, more, said = WRONG[fault]
    if write is not None:
        write(place, tmp_path / "wrong.h5ad")
    done = celbo("denoise", place.cells, "--ambient", tmp_path / "wrong.h5ad", *more, "-q", "-o", tmp_path / "n.h5ad")
    assert_one_line(done, said)
    assert not (tmp_path / "n.h5ad").exists()


def assert_one_line(done, said):
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert [text for text in said if text not in done.stderr] == [], done.stderr


def test_wrong_lines(place, trained, celbo, tmp_path):
    out = ["-o", tmp_path / "n.h5ad"]
    assert_one_line(celbo("denoise", trained.folder, *out), ["Which cells?", "--ambient"])
    both = celbo("denoise", trained.folder, place.cells, "--ambient", place.raw, *out)
    assert_one_line(both, ["holds a trained model", "leave one of them out"])
    no_raw = celbo("denoise", place.cells, "--ambient", place.raw, "--raw", *out)
    assert_one_line(no_raw, ["has no raw"])
    unused = celbo("denoise", trained.folder, place.cells, "--raw", *out)
    assert_one_line(unused, ["--raw says nothing without --ambient"])
    alone = celbo("denoise", trained.folder, place.cells, "--batch-key", "lane", *out)
    assert_one_line(alone, ["--batch-key says nothing without --ambient"])
    prob = celbo("train", place.cells, "--model", "scar", "--ambient-prob", 0.5, "-o", tmp_path / "run")
    assert_one_line(prob, ["--ambient-prob is of the droplets that --ambient names"])
    scaled = celbo("denoise", place.cells, "--ambient", place.raw, "--library-size", "9", *out)
    assert_one_line(scaled, ["--library-size says nothing without a trained model"])
    decoded = celbo("denoise", place.cells, "--ambient", place.raw, "--transform-batch", "x", *out)
    assert_one_line(decoded, ["--transform-batch says nothing without a trained model"])
    other = celbo("train", place.cells, "--ambient", place.raw, "-o", tmp_path / "run")
    assert_one_line(other, ["scvi takes no --ambient", "--model scar"])
