"""From an AnnData to a model: setup, registries, copies, views, several setups."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pandas as pd
import pytest

from celbo.data import synthetic_iid
from celbo.model import SCVI, LinearSCVI

SETUP_KEYS = {"_scvi_batch", "_scvi_labels"}


def test_setup_is_required(adata):
    with pytest.raises(ValueError, match=r"set up your AnnData with SCVI\.setup_anndata first\.$"):
        SCVI(adata)


def test_setup_of_another_class_does_not_count(adata):
    LinearSCVI.setup_anndata(adata)
    with pytest.raises(ValueError, match=r"SCVI\.setup_anndata"):
        SCVI(adata)


def test_a_copy_is_told_from_the_original(adata):
    SCVI.setup_anndata(adata)
    with pytest.raises(ValueError, match="did you make a copy"):
        SCVI(adata.copy())


def test_views_are_refused_with_the_cure(adata):
    with pytest.raises(ValueError, match=r"copy\(\)"):
        SCVI.setup_anndata(adata[:10])


@pytest.mark.parametrize(
    ("setup", "error", "message"),
    [
        ({"batch_key": "batchh"}, KeyError, "'batch'"),
        ({"layer": "count"}, KeyError, "'counts'"),
        ({"continuous_covariate_keys": ["dept"]}, KeyError, "'depth'"),
        ({"categorical_covariate_keys": ["sites"]}, KeyError, "'site'"),
        ({"size_factor_key": "dept"}, KeyError, "'depth'"),
        ({"batch": "batch"}, TypeError, "'batch_key'"),
    ],
)
def test_wrong_names_get_the_nearest(adata, setup, error, message):
    with pytest.raises(error, match=message):
        SCVI.setup_anndata(adata, **setup)


def test_registry(make):
    model = make(setup={"batch_key": "batch", "labels_key": "labels", "layer": "counts"})
    assert model.summary_stats.n_batch == 2
    assert model.summary_stats.n_labels == 3
    assert model.get_setup_arg("layer") == "counts"
    assert model.registry["model_name"] == "SCVI"
    assert model.get_state_registry("batch").categorical_mapping.tolist() == ["batch_0", "batch_1"]
    assert model.get_var_names()[:2].tolist() == ["gene_0", "gene_1"]
    assert model.data_registry("X") is model.adata.layers["counts"]


def test_init_params(make):
    params = make(n_latent=4, use_layer_norm="both").init_params_
    assert params["kwargs"] == {"kwargs": {"use_layer_norm": "both"}}
    assert params["non_kwargs"]["n_latent"] == 4
    assert "adata" not in params["non_kwargs"]
    assert params["non_kwargs"]["gene_likelihood"] == "zinb"
    assert make(cls=LinearSCVI).init_params_["non_kwargs"]["gene_likelihood"] == "nb"


def test_repr_and_views(make, capsys):
    model = make(n_latent=4)
    assert repr(model).startswith("SCVI model with the following parameters")
    assert "n_latent: 4" in repr(model)
    assert repr(model).endswith("Training status: Not Trained")
    model.view_anndata_setup()
    model.view_registry(hide_state_registries=True)
    model.view_setup_method_args()
    assert "n_batch: 2" in capsys.readouterr().out


def test_untrained_models_answer_with_an_error(make):
    with pytest.raises(RuntimeError, match="train"):
        make().get_latent_representation()


def test_two_setups_of_one_anndata(adata, quick):
    """The first model goes on with its own batches after a second setup with another key."""
    SCVI.setup_anndata(adata, batch_key="batch")
    first = SCVI(adata, n_hidden=8, n_latent=3, encode_covariates=True)
    quick(first)
    before = first.get_latent_representation()
    SCVI.setup_anndata(adata, batch_key="site")
    second = SCVI(adata, n_hidden=8, n_latent=3, encode_covariates=True)
    assert (first.summary_stats.n_batch, second.summary_stats.n_batch) == (2, 3)
    np.testing.assert_array_equal(first.get_latent_representation(), before)
    quick(first)
    quick(second)
    assert second.module.z_encoder.encoder.n_cat_list == [3]


def test_two_models_of_one_setup(make, adata, quick):
    first = make()
    second = SCVI(adata, n_hidden=8, n_latent=2)
    quick(first)
    quick(second)
    assert first.get_latent_representation().shape == (80, 3)
    assert second.get_latent_representation().shape == (80, 2)


def test_nothing_but_its_own_keys_is_written(adata, make, quick):
    before = {name: set(getattr(adata, name)) for name in ("obs", "var", "obsm", "layers", "uns", "varm")}
    x = adata.X.copy()
    quick(make(setup={"batch_key": "batch", "labels_key": "labels"})).get_latent_representation()
    after = {name: set(getattr(adata, name)) for name in before}
    written = {name: keys - before[name] for name, keys in after.items() if keys - before[name]}
    assert written == {"obs": SETUP_KEYS, "uns": {"_scvi_uuid", "_scvi_manager_uuid"}}
    np.testing.assert_array_equal(adata.X, x)


def test_model_and_data_are_freed(quick):
    data = synthetic_iid(batch_size=20, seed=0)
    SCVI.setup_anndata(data, batch_key="batch")
    model = quick(SCVI(data, n_hidden=4))
    model.get_latent_representation()
    gone = [weakref.ref(model), weakref.ref(model.module), weakref.ref(data)]
    del model, data
    gc.collect()
    assert [ref() for ref in gone] == [None, None, None]


def test_model_outlives_nothing_it_was_asked_about(make, quick):
    model = quick(make())
    other = synthetic_iid(batch_size=20, seed=1)
    model.get_latent_representation(other)
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda adata: pickle.loads(pickle.dumps(adata))])
def test_a_set_up_anndata_can_be_copied_and_pickled(make, adata, quick, copied):
    model = quick(make())
    other = copied(adata)
    np.testing.assert_array_equal(other.X, adata.X)
    np.testing.assert_array_equal(model.get_latent_representation(other), model.get_latent_representation())


def test_initial_weights_do_not_depend_on_what_ran_before(make):
    a, b = make().module.state_dict(), make().module.state_dict()
    assert all(a[name].equal(b[name]) for name in a)


class TestOtherData:
    def test_new_data_are_set_up_like_the_old(self, make, quick):
        model = quick(make())
        other = synthetic_iid(batch_size=10, seed=5)
        assert model.get_latent_representation(other).shape == (20, 3)

    def test_a_subset_and_a_view(self, make, quick, adata):
        model = quick(make())
        everything = model.get_latent_representation()
        rows = [7, 3, 50, 3]
        # Not equal bits: a product of four rows may sum in another order than one of eighty.
        np.testing.assert_allclose(
            model.get_latent_representation(indices=rows), everything[rows], rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            model.get_latent_representation(adata[[7, 3, 50]]), everything[[7, 3, 50]], atol=1e-6
        )

    def test_an_unknown_batch_is_named(self, make, quick):
        model = quick(make())
        other = synthetic_iid(batch_size=10, seed=5)
        other.obs["batch"] = "elsewhere"
        with pytest.raises(ValueError, match="elsewhere"):
            model.get_latent_representation(other)

    def test_other_data_become_the_models(self, make, quick):
        model = quick(make())
        other = synthetic_iid(batch_size=10, seed=5)
        model.adata = other
        assert model.adata is other
        assert model.get_latent_representation().shape == (20, 3)

    def test_categories_of_a_subset_keep_their_codes(self, make, quick, adata):
        model = quick(make(encode_covariates=True))
        subset = adata[adata.obs["batch"] == "batch_1"].copy()
        subset.obs["batch"] = pd.Categorical(subset.obs["batch"].astype(str))
        expected = model.get_latent_representation()[(adata.obs["batch"] == "batch_1").to_numpy()]
        np.testing.assert_allclose(model.get_latent_representation(subset), expected, atol=1e-6)


def test_managers_are_forgotten_one_by_one_or_all_but_the_own():
    first, second = (synthetic_iid(batch_size=10, n_genes=5, seed=s) for s in (0, 1))
    for adata in (first, second):
        SCVI.setup_anndata(adata)
    model = SCVI(first)
    model.deregister_manager()
    assert model.get_anndata_manager(first) is model.adata_manager
    assert SCVI._get_most_recent_anndata_manager(first) is model.adata_manager
    assert SCVI._get_most_recent_anndata_manager(second) is None
    with pytest.raises(ValueError, match="nothing to forget"):
        model.deregister_manager(second)
    model.transfer_fields(second)
    model.deregister_manager(second)
    assert model.get_anndata_manager(second) is None
    model.deregister_manager(first)
    assert model.get_anndata_manager(first) is None
    with pytest.raises(ValueError, match=r"set up your AnnData with SCVI\.setup_anndata"):
        SCVI(first)
