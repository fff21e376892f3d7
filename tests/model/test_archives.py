"""Models on disk: celbo's own archives and those that scvi-tools wrote."""

import json

import numpy as np
import pytest
import torch
from anndata import read_h5ad

from celbo.core import ArgumentError
from celbo.data import synthetic_iid
from celbo.dataloaders import dataset, split
from celbo.io import ArchiveNotFoundError
from celbo.model import SCVI, LinearSCVI
from celbo.model.base import export_archive

CLASSES = {"SCVI": SCVI, "LinearSCVI": LinearSCVI}


@pytest.fixture
def saved(make, quick, tmp_path):
    model = quick(make(n_latent=4, encode_covariates=True))
    model.save(tmp_path / "model")
    return model, tmp_path / "model"


def assert_same(a, b):
    x, y = a.module.state_dict(), b.module.state_dict()
    assert list(x) == list(y)
    for name in x:
        torch.testing.assert_close(x[name], y[name], rtol=0, atol=0)


def test_round_trip(saved, adata):
    model, path = saved
    loaded = SCVI.load(path, adata)
    assert_same(model, loaded)
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    assert loaded.is_trained
    assert not loaded.module.training
    assert loaded.init_params_ == model.init_params_
    assert loaded.seed_ == model.seed_
    np.testing.assert_array_equal(loaded.train_indices, model.train_indices)
    for name, frame in model.history.items():
        np.testing.assert_array_equal(loaded.history[name].to_numpy(), frame.to_numpy())
        assert loaded.history[name].index.name == "epoch"
    assert repr(loaded) == repr(model)


def test_row_numbers_of_many_cells_are_bits(make, quick, adata, tmp_path, monkeypatch):
    sizes = {}
    for many in (2**22, 0):
        for module in (dataset, split):
            monkeypatch.setattr(module, "MANY", many)
        model = quick(make(), train_size=0.6, validation_size=0.3)
        model.save(tmp_path / str(many))
        loaded = SCVI.load(tmp_path / str(many), adata)
        for name in ("train_indices", "validation_indices", "test_indices"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
        sizes[many] = sum(file.stat().st_size for file in (tmp_path / str(many)).iterdir())
    assert sizes[0] < sizes[2**22]


def test_a_loaded_model_trains_on(saved, adata, quick):
    _, path = saved
    loaded = quick(SCVI.load(path, adata))
    assert loaded.history["elbo_train"].index.tolist() == [0, 1, 2, 3]


def test_without_data(saved, adata):
    model, path = saved
    loaded = SCVI.load(path)
    assert loaded.adata is None
    assert_same(model, loaded)
    assert "Trained" in repr(loaded)
    with pytest.raises(ValueError, match="adata="):
        loaded.get_latent_representation()
    with pytest.raises(ValueError, match="without data"):
        loaded.save(path, overwrite=True, save_anndata=True)
    np.testing.assert_array_equal(loaded.get_latent_representation(adata), model.get_latent_representation())
    loaded.save(path, overwrite=True)
    assert_same(model, SCVI.load(path))


def test_linear_scvi_without_data(make, quick, tmp_path, adata):
    """scvi-tools cannot."""
    model = quick(make(cls=LinearSCVI))
    model.save(tmp_path / "m")
    loaded = LinearSCVI.load(tmp_path / "m", adata=False)
    assert_same(model, loaded)
    np.testing.assert_array_equal(loaded.get_loadings().to_numpy(), model.get_loadings().to_numpy())
    np.testing.assert_array_equal(loaded.get_latent_representation(adata), model.get_latent_representation())


def test_saved_with_its_data(make, quick, tmp_path):
    model = quick(make())
    model.save(tmp_path / "m", save_anndata=True)
    loaded = SCVI.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    assert SCVI.load(tmp_path / "m", adata=False).adata is None
    SCVI(model.adata, n_hidden=4)  # the data in memory are as usable as before


def test_prefix_and_overwrite(saved, make, adata, tmp_path):
    model, path = saved
    with pytest.raises(ValueError, match="already"):
        model.save(path)
    make().save(path, prefix="other_")
    make().save(path, prefix="other_", overwrite=True)
    assert_same(SCVI.load(path, adata), model)
    assert not SCVI.load(path, adata, prefix="other_").is_trained


def test_another_class_is_refused(saved, adata):
    _, path = saved
    with pytest.raises(ValueError, match=r"It appears you are loading a model from a different class.*SCVI\.load"):
        LinearSCVI.load(path, adata)


def test_no_archive_there(tmp_path, adata):
    with pytest.raises(ValueError, match="nowhere"):
        SCVI.load(tmp_path / "nowhere", adata)


def test_a_folder_above_and_a_file_in_it(tmp_path, saved, adata):
    model, _ = saved
    model.save(tmp_path / "run" / "model")
    with pytest.raises(
        ArchiveNotFoundError, match=r"Neither model.json nor model.pt is in .*; there is one in .*run/model"
    ):
        SCVI.load(tmp_path / "run", adata)
    with pytest.raises(
        ArchiveNotFoundError, match=r"model\.json is a file\. Name the folder that holds it: .*run/model\."
    ):
        SCVI.load(tmp_path / "run" / "model" / "model.json", adata)


def test_arguments_that_no_writer_takes(saved, tmp_path):
    model, _ = saved
    for given in ({"format": "scvi"}, {"nonsense": 3, "save_anndata": True}):
        with pytest.raises(ArgumentError, match=r"argument of save is called .*celbo\.model\.base\.export_archive"):
            model.save(tmp_path / "refused", **given)
    assert not (tmp_path / "refused").exists()
    model.save(tmp_path / "taken", compression="gzip")  # though there are no data to compress, as in scvi-tools


def test_a_model_is_no_folder_to_export(saved, tmp_path):
    with pytest.raises(ArgumentError, match=r"new must be a path, got .*Pass the folder that model\.save wrote"):
        export_archive(saved[0], tmp_path / "out")


def test_permuted_genes_give_the_same_latents(saved, adata):
    model, path = saved
    permuted = adata[:, np.random.default_rng(0).permutation(100)].copy()
    loaded = SCVI.load(path, permuted)
    np.testing.assert_allclose(loaded.get_latent_representation(), model.get_latent_representation(), atol=1e-6)
    assert loaded.get_var_names().tolist() == model.get_var_names().tolist()


def test_missing_genes_are_listed(saved, adata):
    _, path = saved
    with pytest.raises(ValueError, match="gene_7"):
        SCVI.load(path, adata[:, [i for i in range(100) if i != 7]].copy())


def test_surplus_genes_are_left_out(saved):
    """More genes than the model knows: those it knows are found by name."""
    _, path = saved
    wide = synthetic_iid(batch_size=40, n_genes=130, seed=2)
    narrow = wide[:, :100].copy()
    np.testing.assert_allclose(
        SCVI.load(path, wide).get_latent_representation(),
        SCVI.load(path, narrow).get_latent_representation(),
        atol=1e-6,
    )


def test_registry_without_the_model(saved, capsys):
    _, path = saved
    assert SCVI.load_registry(path)["model_name"] == "SCVI"
    SCVI.view_setup_args(path)
    assert "batch_key='batch'" in capsys.readouterr().out


def test_an_untrained_model_is_saved_too(make, tmp_path, adata):
    make().save(tmp_path / "m")
    loaded = SCVI.load(tmp_path / "m", adata)
    assert not loaded.is_trained
    assert loaded.history is None


@pytest.mark.usefixtures("global_rng_untouched")
def test_loading_draws_nothing_from_the_global_generators(saved, adata):
    _, path = saved
    SCVI.load(path, adata)
    SCVI.load(path)


CASES = ["linear_scvi", "scvi_default", "scvi_genecell_embed", "scvi_latent_library", "scvi_nb_deep", "scvi_poisson_ln"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("data", ["passed", "later"])
def test_archives_of_scvi_tools(parity, case, data, tmp_path):
    folder = parity / case
    cls = CLASSES[json.loads((folder / "case.json").read_text())["class"]]
    adata, expected = read_h5ad(folder / "adata.h5ad"), np.load(folder / "expected.npz")
    model = cls.load(folder / "model", adata=adata if data == "passed" else False)
    assert not model.module.training
    mean, scale = model.get_latent_representation(adata, return_dist=True)
    np.testing.assert_allclose(np.sqrt(scale), expected["qz_scale"], rtol=1e-5, atol=1e-5)
    if "latent" in expected:  # the mean of a logistic normal is sampled
        np.testing.assert_allclose(mean, expected["latent"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(model.get_latent_representation(adata), expected["latent"], rtol=1e-5, atol=1e-5)
    model.save(tmp_path / "again")
    again = cls.load(tmp_path / "again", adata=adata)
    assert_same(model, again)
    np.testing.assert_array_equal(again.get_latent_representation(return_dist=True)[0], mean)
