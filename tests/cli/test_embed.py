"""``celbo embed``, ``info`` and ``demo``."""

import functools

import anndata
import numpy as np
import pandas as pd
import pytest

from celbo.cli import runs
from celbo.cli.answers import embedding
from celbo.model import SCVI


class TestEmbed:
    def test_equals_the_models_answer_for_genes_in_another_order(self, trained, small, celbo, tmp_path, rng):
        adata = small.adata[rng.permutation(150)[:60], rng.permutation(40)].copy()
        adata.write_h5ad(tmp_path / "query.h5ad")
        done = celbo("embed", trained.folder, tmp_path / "query.h5ad", "-o", tmp_path / "e.h5ad")
        assert done.exit_code == 0, done.stderr
        found = anndata.read_h5ad(tmp_path / "e.h5ad")
        assert list(found.obs_names) == list(adata.obs_names)
        model = SCVI.load(str(trained.folder / "model"), adata=False)
        np.testing.assert_array_equal(found.obsm["X_celbo"], model.get_latent_representation(adata))
        whole = anndata.read_h5ad(trained.folder / "embedding.h5ad")[adata.obs_names]
        np.testing.assert_allclose(found.obsm["X_celbo"], whole.obsm["X_celbo"], rtol=1e-5, atol=1e-6)
        assert set(found.obs.columns) == set(small.adata.obs.columns)

    @pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t")])
    def test_as_a_table(self, trained, small, celbo, tmp_path, suffix, separator):
        output = tmp_path / f"e{suffix}"
        assert celbo("embed", trained.folder, small.path, "-o", output, "-q").exit_code == 0
        found = pd.read_csv(output, sep=separator, index_col="cell")
        whole = anndata.read_h5ad(trained.folder / "embedding.h5ad")
        assert list(found.index) == list(whole.obs_names)
        assert list(found.columns) == [f"latent_{k}" for k in range(10)]
        np.testing.assert_allclose(found, whole.obsm["X_celbo"], rtol=1e-5, atol=1e-6)

    def test_overwrite_and_silence(self, trained, small, celbo, tmp_path):
        (tmp_path / "e.h5ad").write_text("old")
        done = celbo("embed", trained.folder / "model", small.path, "-o", tmp_path / "e.h5ad", "--overwrite", "-q")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
        assert anndata.read_h5ad(tmp_path / "e.h5ad").n_obs == 150

    def test_a_failure_leaves_the_old_file(self, trained, small, celbo, tmp_path, monkeypatch):
        def cut_short(path, obs, latent_nk):
            path.write_text("half")
            raise OSError("No space left on device")

        monkeypatch.setattr(embedding, "write_embedding", cut_short)
        (tmp_path / "e.h5ad").write_text("old")
        done = celbo("embed", trained.folder, small.path, "-o", tmp_path / "e.h5ad", "--overwrite")
        assert done.exit_code == 2
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("e.h5ad", "old")]


@pytest.mark.parametrize("below", ["", "model"])
def test_info(trained, celbo, below):
    done = celbo("info", trained.folder / below)
    assert done.exit_code == 0
    for text in ("SCVI", "150 cells, 30 genes, 2 batches", "batch_key=batch", "n_latent=10", "2 epochs", "torch="):
        assert text in done.stdout
    assert f"{trained.record['figures']['elbo_validation']:.2f}" in done.stdout


def test_info_of_an_archive_of_scvi_tools(celbo, shared_dir):
    archives = sorted(path.parent for path in (shared_dir / "parity").rglob("model.pt"))
    assert archives
    for archive in archives:
        done = celbo("info", archive)
        assert done.exit_code == 0, done.stderr


def test_demo(celbo, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_DEMO_CELLS", 400)
    monkeypatch.setattr(runs, "_DEMO_GENES", 60)
    monkeypatch.setattr(runs, "TrainOptions", functools.partial(runs.TrainOptions, max_epochs=2))
    done = celbo("demo", "-o", tmp_path / "demo")
    assert done.exit_code == 0, done.stderr
    assert "Simulated 400 cells" in done.stdout
    rows = {line[:34].strip(): line[34:].split() for line in done.stdout.splitlines() if line[:1].isalnum()}
    assert all(len(rows[name]) == 2 for name in ("15-NN label accuracy", "batch mixing (1: as by chance)"))
    text = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "PCA of log-normalised counts" in text
    assert celbo("demo", "-o", tmp_path / "demo").exit_code == 2
