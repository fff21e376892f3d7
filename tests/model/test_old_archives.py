"""Archives of scvi-tools' earlier versions, made by hand from a model: what their attributes lacked or had besides."""

import copy
import pickle

import numpy as np
import pytest
import torch

from celbo.io import write_scvi_archive
from celbo.model import SCANVI, SCVI

SINCE = {  # attributes that came later than 0.15
    "get_normalized_function_name_": (1, 2),
    "run_name_": (1, 4),
    "run_id_": (1, 4),
    "test_indices_": (0, 17),
}


def attributes_of(model, version: str) -> dict:
    """The attributes of an archive as that version wrote them."""
    number = tuple(map(int, version.split(".")[:2]))
    kept = ("history_", "is_trained_", "train_indices_", "validation_indices_", *SINCE)
    attributes = {name: getattr(model, name) for name in kept if SINCE.get(name, (0, 0)) <= number}
    registry = copy.deepcopy(dict(model.registry_))
    registry["scvi_version"] = version
    if number < (0, 17):  # there was one setup method, and no size factors
        del registry["setup_method_name"]
        del registry["setup_args"]["size_factor_key"]
        del registry["field_registries"]["size_factor"]
    star = "model_kwargs" if number < (1, 0) else "kwargs"
    given = model.init_params_
    init_params = {"non_kwargs": dict(given["non_kwargs"]), "kwargs": {star: dict(*given["kwargs"].values())}}
    return attributes | {"registry_": registry, "init_params_": init_params}


@pytest.fixture
def model(make, quick):
    return quick(make(setup={"batch_key": "batch", "categorical_covariate_keys": ["site"]}, encode_covariates=True))


@pytest.mark.parametrize("version", ["0.15.0", "0.16.4", "0.20.3", "1.0.4", "1.1.0rc2", "1.3.3"])
@pytest.mark.parametrize("with_data", [True, False])
def test_archives_of_each_version(model, adata, tmp_path, version, with_data):
    attributes = attributes_of(model, version)
    write_scvi_archive(tmp_path / "old", model.module.state_dict(), model.get_var_names(), attributes)
    loaded = SCVI.load(tmp_path / "old", adata if with_data else False)
    np.testing.assert_array_equal(loaded.get_latent_representation(adata), model.get_latent_representation())
    assert loaded.is_trained
    assert loaded.run_name == ""
    assert list(loaded.history) == list(model.history)


@pytest.mark.parametrize(("version", "probabilities"), [("1.0.4", True), ("1.1.0", False), ("unknown", False)])
def test_classifiers_before_1_1_give_probabilities(adata, tmp_path, version, probabilities):
    SCANVI.setup_anndata(adata, labels_key="labels", unlabeled_category="label_0")
    model = SCANVI(adata, n_hidden=8, n_latent=3)
    model.is_trained_ = True
    attributes = attributes_of(model, "1.3.3")
    attributes["registry_"]["scvi_version"] = version
    write_scvi_archive(tmp_path / "old", model.module.state_dict(), model.get_var_names(), attributes)
    loaded = SCANVI.load(tmp_path / "old", adata)
    loaded.save(tmp_path / "again")
    for one in (loaded, SCANVI.load(tmp_path / "again", adata)):
        assert isinstance(one.module.classifier.classifier[-1], torch.nn.Softmax) is probabilities
        np.testing.assert_allclose(one.predict(soft=True), model.predict(soft=True), rtol=1e-5)


def write_three_files(folder, model, setup, non_kwargs) -> None:
    """As scvi-tools before 0.15 wrote a model."""
    folder.mkdir()
    torch.save(model.module.state_dict(), folder / "model_params.pt")
    (folder / "var_names.csv").write_text("\n".join(model.get_var_names()) + "\n")
    attributes = {
        "is_trained_": True,
        "history_": None,
        "train_indices_": np.arange(3),
        "init_params_": {"kwargs": {"model_kwargs": {}}, "non_kwargs": non_kwargs},
        "scvi_setup_dict_": setup,
    }
    (folder / "attr.pkl").write_bytes(pickle.dumps(attributes))


def setup_dictionary(adata, batches, labels, labels_key) -> dict:
    return {
        "scvi_version": "0.12.2",
        "data_registry": {
            "X": {"attr_name": "X", "attr_key": None},
            "batch_indices": {"attr_name": "obs", "attr_key": "_scvi_batch"},
            "labels": {"attr_name": "obs", "attr_key": "_scvi_labels"},
        },
        "categorical_mappings": {
            "_scvi_batch": {"original_key": "batch", "mapping": np.array(batches, dtype=object)},
            "_scvi_labels": {"original_key": labels_key, "mapping": np.array(labels, dtype=object)},
        },
        "summary_stats": {
            "n_batch": len(batches),
            "n_labels": len(labels),
            "n_cells": adata.n_obs,
            "n_vars": adata.n_vars,
            "n_continuous_covs": 0,
        },
    }


@pytest.mark.parametrize("with_data", [True, False])
def test_three_files(make, quick, adata, tmp_path, with_data):
    model = quick(make())
    setup = setup_dictionary(adata, ["batch_0", "batch_1"], [0], "_scvi_labels")
    write_three_files(tmp_path / "old", model, setup, {"n_hidden": 8, "n_latent": 3, "use_cuda": True})
    loaded = SCVI.load(tmp_path / "old", adata if with_data else False)
    np.testing.assert_array_equal(loaded.get_latent_representation(adata), model.get_latent_representation())
    assert loaded.get_var_names().tolist() == adata.var_names.tolist()
    permuted = adata[:, ::-1].copy()
    np.testing.assert_allclose(
        loaded.get_latent_representation(permuted), model.get_latent_representation(), rtol=1e-4, atol=1e-5
    )


def test_three_files_with_an_unlabelled_category(adata, tmp_path):
    """It was an argument of SCANVI's constructor; the labels were saved with it in the last place."""
    adata.obs["kind"] = ["b", "unknown", "z", "c"] * (adata.n_obs // 4)
    SCANVI.setup_anndata(adata, labels_key="kind", unlabeled_category="unknown", batch_key="batch")
    model = SCANVI(adata, n_hidden=8, n_latent=3)
    model.is_trained_ = True
    setup = setup_dictionary(adata, ["batch_0", "batch_1"], ["b", "c", "z", "unknown"], "kind")
    non_kwargs = {"n_hidden": 8, "n_latent": 3, "unlabeled_category": "unknown", "use_gpu": None}
    write_three_files(tmp_path / "old", model, setup, non_kwargs)
    loaded = SCANVI.load(tmp_path / "old", adata)
    np.testing.assert_allclose(loaded.predict(soft=True), model.predict(soft=True), rtol=1e-5)
    assert loaded.unlabeled_category_ == "unknown"


def test_a_later_model_in_files_of_old_is_converted_first(model, adata, tmp_path):
    """What tests of others make: the three files of before 0.15 with a registry of after."""
    write_three_files(tmp_path / "mixed", model, {}, {})
    attributes = attributes_of(model, "1.4.2")
    (tmp_path / "mixed" / "attr.pkl").write_bytes(pickle.dumps(attributes))
    with pytest.raises(ValueError, match="convert_legacy_save"):
        SCVI.load(tmp_path / "mixed", adata)
    SCVI.convert_legacy_save(str(tmp_path / "mixed"), str(tmp_path / "new"))
    loaded = SCVI.load(tmp_path / "new", adata)
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
