"""Saved models that are whole and make no sense: one error that names file and part, before anything is built."""

import numpy as np
import pandas as pd
import pytest
import torch
from tests.io.hostile import bounded

from celbo.io import ArchiveError, read_archive, write_archive, write_scvi_archive
from celbo.model import SCVI


@pytest.fixture
def saved(make, quick, tmp_path):
    """A folder, and a function that writes it again with a change to its weights and document."""
    folder = tmp_path / "model"
    quick(make(), max_epochs=1).save(folder)
    arrays, document = read_archive(folder)

    def change(edit):
        edit(arrays, document)
        write_archive(folder, arrays, document, overwrite=True)
        return folder

    return change


def refused(folder, says):
    with bounded(), pytest.raises(ArchiveError, match=rf"model\.(json|safetensors).*{says}"):
        SCVI.load(folder, adata=False, accelerator="cpu")


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_layers", 10**6), ("n_hidden", 10**6), ("n_hidden", 10**7), ("n_layers", 10**30), ("n_latent", 10**6)],
)
def test_arguments_of_a_larger_model(saved, name, value):
    refused(saved(lambda arrays, d: d["init_params"]["non_kwargs"].update({name: value})), "init_params")


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_hidden": "8"},
        {"n_layers": [1]},
        {"dropout_rate": {}},
        {"nonsense": 1},
        {"dispersion": "gone"},
        {"n_latent": None},
    ],
    ids=str,
)
def test_arguments_of_no_model(saved, arguments):
    refused(saved(lambda arrays, d: d["init_params"]["non_kwargs"].update(arguments)), "")


@pytest.mark.parametrize(
    "name",
    ["get_latent_representation", "__class__", "__dict__", "module", "adata", "_adata", "is_trained", "registry_"],
)
def test_names_that_are_no_state(saved, name):
    refused(saved(lambda arrays, d: d["attributes"].update({name: "x"})), f"attributes.*{name}")


def test_state_of_someones_own_comes_back(saved):
    folder = saved(lambda arrays, d: d["attributes"].update(my_note_={"a": 1}))
    assert SCVI.load(folder, adata=False, accelerator="cpu").my_note_ == {"a": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("is_trained_", 3),
        ("history_", []),
        ("history_", {"elbo": pd.DataFrame({"elbo": ["a"]})}),
        ("train_indices_", np.array([-1])),
        ("train_indices_", "x"),
        ("seed_", "x"),
        ("surgery_", {"new": 1}),
    ],
)
def test_attributes_of_another_kind(saved, name, value):
    refused(saved(lambda arrays, d: d["attributes"].update({name: value})), "attributes")


def state(d, key):
    return d["registry"]["field_registries"][key]["state_registry"]


REGISTRIES = {
    "no fields": lambda d: d["registry"].pop("field_registries"),
    "fields": lambda d: d["registry"].update(field_registries=[]),
    "field": lambda d: d["registry"]["field_registries"].update(batch=5),
    "method": lambda d: d["registry"].update(setup_method_name="convert_legacy_save"),
    "arguments": lambda d: d["registry"].update(setup_args=[1]),
    "mapping": lambda d: state(d, "batch").update(categorical_mapping=5),
    "shorter mapping": lambda d: state(d, "batch").update(categorical_mapping=np.array(["a"], dtype=object)),
    "genes": lambda d: state(d, "X").update(column_names=None),
    "fewer genes": lambda d: state(d, "X").update(column_names=np.array(["a"], dtype=object)),
    "size": lambda d: d["registry"]["field_registries"]["X"]["summary_stats"].update(n_vars="100"),
    "large size": lambda d: d["registry"]["field_registries"]["labels"]["summary_stats"].update(n_labels=10**9),
    "registry": lambda d: d.update(registry=None),
}


@pytest.mark.parametrize("which", REGISTRIES)
def test_registries(saved, which):
    refused(saved(lambda arrays, d: REGISTRIES[which](d)), "registry")


@pytest.mark.parametrize("part", ["class", "registry", "init_params", "attributes", "versions"])
def test_missing_parts(saved, part):
    refused(saved(lambda arrays, d: d.pop(part)), part)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_weights_that_are_no_numbers(saved, value):
    refused(saved(lambda arrays, d: arrays["px_r"].__setitem__(3, value)), r"'px_r' holds.*1 of 100")


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.complex64])
def test_weights_of_another_kind(saved, dtype):
    refused(saved(lambda arrays, d: arrays.update(px_r=arrays["px_r"].to(dtype))), "'px_r' is of .*wanted float32")


def test_a_double_that_no_float_holds(saved):
    refused(
        saved(lambda arrays, d: arrays.update(px_r=torch.full((100,), 1e300, dtype=torch.float64))), "'px_r' holds inf"
    )


def test_weights_of_another_precision_are_taken(saved):
    folder = saved(lambda arrays, d: arrays.update(px_r=arrays["px_r"].double()))
    assert SCVI.load(folder, adata=False, accelerator="cpu").module.px_r.dtype == torch.float32


def test_the_same_in_an_archive_of_scvi_tools(saved, tmp_path):
    arrays, document = read_archive(saved(lambda arrays, d: None))
    attributes = {"registry_": document["registry"], "init_params_": document["init_params"], **document["attributes"]}
    attributes["init_params_"]["non_kwargs"]["n_layers"] = 10**6
    write_scvi_archive(tmp_path / "old", arrays, document["var_names"], attributes)
    with bounded(), pytest.raises(ArchiveError, match=r"model\.pt.*init_params"):
        SCVI.load(tmp_path / "old", adata=False, accelerator="cpu")


def test_data_that_do_not_fit_are_said_as_before(saved, adata):
    folder = saved(lambda arrays, d: None)
    without = adata.copy()
    del without.obs["batch"]
    with pytest.raises(KeyError, match=r"batch.*model\.json"):
        SCVI.load(folder, without, accelerator="cpu")
    with pytest.raises(ValueError, match="gene_7"):
        SCVI.load(folder, adata[:, [i for i in range(100) if i != 7]].copy(), accelerator="cpu")
