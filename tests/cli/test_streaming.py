"""Commands on many files, and on data that stay on disk."""

import json

import anndata
import numpy as np
import pytest

from celbo.data import opening
from celbo.model import SCVI

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2 data")


@pytest.fixture(scope="module")
def halves(small, tmp_path_factory):
    """A folder with two files that are the halves of the small one, one with its genes the other way round."""
    folder = tmp_path_factory.mktemp("halves")
    small.adata[:70].copy().write_h5ad(folder / "a.h5ad", compression="gzip")
    small.adata[70:, ::-1].copy().write_zarr(folder / "b.zarr")
    return folder


def latents(folder):
    return anndata.read_h5ad(folder / "embedding.h5ad")


def test_a_folder_is_trained_on_from_disk(small, halves, celbo, tmp_path):
    options = ["--batch-key", "batch", "--max-epochs", 2, "--n-top-genes", 30, "--seed", 5]
    done = celbo("train", halves, "--data", "stream", *options, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    found = latents(tmp_path / "run")
    assert list(found.obs_names) == list(small.adata.obs_names)
    model = SCVI.load(str(tmp_path / "run" / "model"), adata=False)
    np.testing.assert_allclose(found.obsm["X_celbo"], model.get_latent_representation(small.adata.copy()), atol=1e-5)
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert (settings["data"], settings["streamed"]) == ("stream", True)
    assert celbo("train", halves, "--data", "stream", *options, "-q", "-o", tmp_path / "again").exit_code == 0
    np.testing.assert_array_equal(latents(tmp_path / "again").obsm["X_celbo"], found.obsm["X_celbo"])


def test_what_does_not_fit_is_streamed_and_said(small, celbo, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "available_memory", lambda: 10**4)
    done = celbo("train", small.path, "--layer", "counts", "--max-epochs", 1, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    assert "is available: streamed from disk" in done.stderr
    assert latents(tmp_path / "run").obsm["X_celbo"].shape == (150, 10)


def test_denoise_is_what_the_model_says(trained, small, halves, celbo, tmp_path):
    out = tmp_path / "expression.zarr"
    done = celbo("denoise", trained.folder, halves / "a.h5ad", halves / "b.zarr", "-o", out, "--seed", 3)
    assert done.exit_code == 0, done.stderr
    model = SCVI.load(str(trained.folder / "model"), adata=False)
    wanted = model.get_normalized_expression(small.adata.copy(), seed=3)
    found = anndata.read_zarr(out)
    np.testing.assert_allclose(found.X, wanted.to_numpy(), rtol=1e-4, atol=1e-7)
    assert list(found.obs_names) == list(wanted.index)
    assert list(found.var_names) == list(wanted.columns)
    assert celbo("denoise", trained.folder, small.path, "-o", out).exit_code == 2
    few = ["--gene", wanted.columns[3], "--transform-batch", "batch_1"]
    assert celbo("denoise", trained.folder, small.path, "-o", tmp_path / "few.h5ad", *few).exit_code == 0
    assert anndata.read_h5ad(tmp_path / "few.h5ad").shape == (150, 1)


def test_shard_and_train_on_it(small, halves, celbo, tmp_path):
    done = celbo("shard", halves, "-o", tmp_path / "s.zarr")
    assert done.exit_code == 0, done.stderr
    found = anndata.read_zarr(tmp_path / "s.zarr")
    np.testing.assert_array_equal(found.X.toarray(), small.adata.X[found.obs["_celbo_row"].to_numpy()].toarray())
    train = celbo("train", tmp_path / "s.zarr", "--data", "stream", "--max-epochs", 1, "-o", tmp_path / "run")
    assert train.exit_code == 0, train.stderr
    assert celbo("shard", halves, "-o", tmp_path / "s.zarr").exit_code == 2
    assert celbo("shard", halves / "b.zarr", "-o", halves / "b.zarr", "--overwrite").exit_code == 2
    assert (halves / "b.zarr").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--data", "strem"], "'strem'"),
        (["--data", "stream", "--layer", "count"], "'counts'"),
    ],
)
def test_wrong_input(small, celbo, tmp_path, args, said):
    done = celbo("train", small.path, *args, "-o", tmp_path / "run")
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_damage_found_in_training_names_file_and_rows(small, celbo, tmp_path):
    small.adata.write_h5ad(tmp_path / "x.h5ad", compression="gzip")
    import h5py

    with h5py.File(tmp_path / "x.h5ad") as file:
        place = file["X/data"].id.get_chunk_info(0)
    with (tmp_path / "x.h5ad").open("r+b") as file:
        file.seek(place.byte_offset + 5)
        file.write(b"\x00" * 50)
    done = celbo("train", tmp_path / "x.h5ad", "--data", "stream", "-o", tmp_path / "run")
    assert done.exit_code == 2
    assert "x.h5ad (X) cannot be read" in done.stderr
    assert "Rows 0 to 149" in done.stderr
