"""Faults of saving and loading seen elsewhere (numbers of the list of traps), each gone here."""

import pickle

import numpy as np
import pytest
import torch

from celbo.data import synthetic_iid
from celbo.model import SCVI, LinearSCVI


@pytest.fixture
def model():
    adata = synthetic_iid(batch_size=30, n_genes=20, seed=0)
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata, n_hidden=6, n_latent=2)
    model.train(max_epochs=1, verbose=0, seed=0, accelerator="cpu")
    return model


def test_trap_3c_1_gene_order_is_no_mere_warning_on_load(model, tmp_path):
    model.save(tmp_path / "m")
    reversed_genes = model.adata[:, ::-1].copy()
    loaded = SCVI.load(tmp_path / "m", reversed_genes)
    np.testing.assert_allclose(loaded.get_latent_representation(), model.get_latent_representation(), atol=1e-5)
    with pytest.raises(ValueError, match="gene_0"):
        SCVI.load(tmp_path / "m", model.adata[:, 1:].copy())


def test_trap_3c_5_loading_runs_no_code(model, tmp_path):
    """A pickle in the place of a model is refused, not executed."""
    model.save(tmp_path / "m")
    assert not any(path.suffix in (".pt", ".pkl") for path in (tmp_path / "m").iterdir())
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return open, (str(ran), "w")

    (tmp_path / "hostile").mkdir()
    torch.save({"model_state_dict": Bomb(), "attr_dict": {}, "var_names": []}, tmp_path / "hostile" / "model.pt")
    with pytest.raises(ValueError):
        SCVI.load(tmp_path / "hostile", model.adata)
    (tmp_path / "hostile" / "model.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError):
        SCVI.load(tmp_path / "hostile", model.adata)
    assert not ran.exists()


def test_trap_3c_9_the_registry_does_not_grow(model, tmp_path):
    """Saving, loading and saving again writes no more."""
    sizes = []
    for i in range(3):
        model.save(tmp_path / str(i))
        sizes.append((tmp_path / str(i) / "model.json").stat().st_size)
        model = SCVI.load(tmp_path / str(i), model.adata)
    assert max(sizes) - min(sizes) < 50  # history and arguments may be noted a few characters longer


@pytest.mark.parametrize("cls", [SCVI, LinearSCVI])
def test_trap_3c_10_models_load_without_data(cls, tmp_path):
    """LinearSCVI and SCANVI cannot in scvi-tools (#3628)."""
    adata = synthetic_iid(batch_size=30, n_genes=20, seed=0)
    cls.setup_anndata(adata, batch_key="batch")
    cls(adata, n_hidden=6).save(tmp_path / "m")
    assert cls.load(tmp_path / "m", adata=False).adata is None


def test_loading_saved_data_does_not_unseat_those_in_memory(model, tmp_path):
    """In scvi-tools the original AnnData can build no model after its copy was loaded from a file."""
    model.save(tmp_path / "m", save_anndata=True)
    SCVI.load(tmp_path / "m")
    again = SCVI(model.adata, n_hidden=4)
    again.train(max_epochs=1, verbose=0, accelerator="cpu")


def test_archives_hold_no_weights_of_other_models(model, tmp_path):
    """scvi-tools saves the global Pyro store of the process with every model."""
    model.save(tmp_path / "m")
    other = SCVI.load(tmp_path / "m", model.adata)
    assert list(other.module.state_dict()) == list(model.module.state_dict())


def test_a_failed_save_leaves_the_archive_before_it(model, tmp_path):
    model.save(tmp_path / "m")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    model.bad_ = object()
    with pytest.raises((TypeError, ValueError)):
        model.save(tmp_path / "m", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before
