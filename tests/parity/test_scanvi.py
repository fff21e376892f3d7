"""SCANVI against scvi-tools 1.4.2: its archives, read and asked."""

import json

import anndata
import numpy as np
import pytest
import torch
from torch.distributions import Normal

from celbo.model import SCANVI

TOLERANCE = 1e-5


@pytest.fixture(params=["scanvi_default", "scanvi_linear"])
def folder(request, shared_dir):
    return shared_dir / "parity" / request.param


@pytest.fixture
def expected(folder):
    with np.load(folder / "expected.npz", allow_pickle=True) as archive:  # names of classes; of this project's making
        return dict(archive)


@pytest.fixture
def model(folder):
    return SCANVI.load(str(folder / "model"), anndata.read_h5ad(folder / "adata.h5ad"), accelerator="cpu")


def test_classes_latents_and_predictions(model, expected):
    assert list(model.classes) == list(expected["classes"])
    soft = model.predict(soft=True)
    assert list(soft.columns) == list(expected["classes"])
    assert list(soft.index) == list(model.adata.obs_names)
    np.testing.assert_allclose(soft, expected["predict_soft"], atol=TOLERANCE)
    np.testing.assert_allclose(model.get_latent_representation(), expected["latent"], rtol=TOLERANCE, atol=TOLERANCE)
    assert model.predict().tolist() == expected["classes"][expected["predict_soft"].argmax(1)].tolist()


def test_any_other_figures_that_the_archive_expects(model, expected, monkeypatch):
    """Losses in eval mode at the posterior means; the first archives have none, later ones may."""
    monkeypatch.setattr(Normal, "rsample", lambda self, sample_shape=None: self.loc)
    batch = next(iter(model._make_data_loader(model.adata, batch_size=model.adata.n_obs)))
    with torch.inference_mode():
        inference, _, out = model.module(batch)
    figures = {
        "z": inference["z"],
        "qz_scale": inference["qz"].scale,
        "loss": out.loss,
        **{f"{name}_sum": getattr(out, f"{name}_sum") for name in ("reconstruction_loss", "kl_local", "kl_global")},
        **{f"reconstruction_loss/{name}": value for name, value in out.reconstruction_loss.items()},
        **{f"kl_local/{name}": value for name, value in out.kl_local.items()},
    }
    for name in expected.keys() & figures.keys():
        np.testing.assert_allclose(figures[name], expected[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
    assert torch.isfinite(figures["loss"])


def test_setup_is_read_from_the_archive(model, folder):
    case = json.loads((folder / "case.json").read_text())
    assert model.get_setup_arg("labels_key") == case["setup"]["labels_key"]
    assert model.unlabeled_category_ == case["setup"]["unlabeled_category"]
    assert model.n_labels == len(model.classes) == model.summary_stats["n_labels"] - 1


def test_goes_on_training_and_saves_as_its_own(model, tmp_path):
    model.train(max_epochs=1, verbose=0, seed=0, accelerator="cpu", n_samples_per_label=5)
    model.save(str(tmp_path / "own"))
    again = SCANVI.load(str(tmp_path / "own"), model.adata, accelerator="cpu")
    np.testing.assert_array_equal(again.predict(soft=True), model.predict(soft=True))
