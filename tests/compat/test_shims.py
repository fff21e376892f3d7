"""The stand-ins for private functions compute what their names promise."""

import importlib

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import celbo
from celbo.compat import as_scvi


@pytest.fixture(autouse=True)
def scvi():
    with as_scvi():
        yield


@pytest.fixture(scope="module")
def adata():
    return celbo.data.synthetic_iid(batch_size=30, n_genes=40, seed=0)


@pytest.fixture
def manager(adata):
    celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    return celbo.model.SCVI(adata).adata_manager


def private(path):
    return importlib.import_module(f"scvi.{path}")


class TestModelUtils:
    def test_epochs(self):
        epochs = private("model._utils").get_max_epochs_heuristic
        assert [epochs(n) for n in (20_000, 40_000, 10**6)] == [400, 200, 8]

    def test_devices(self):
        parse = private("model._utils").parse_device_args
        cpu = torch.device("cpu")
        assert parse("cpu", "auto", return_device="torch") == ("cpu", 1, cpu)
        assert parse("cpu", "auto") == ("cpu", 1)
        assert parse("cpu", 2) == ("cpu", 2)
        with pytest.raises(ValueError, match="One device is wanted"):
            parse("cpu", [0, 1], validate_single_device=True)
        with pytest.raises(NotImplementedError, match="return_device='torch'"):
            parse("cpu", return_device="jax")

    def test_batches_by_name(self, manager):
        code = private("model._utils")._get_batch_code_from_category
        assert code(manager, None) == [None]
        assert code(manager, ["batch_1", "batch_0"]) == [1, 0]
        with pytest.raises(ValueError, match="zz"):
            code(manager, "zz")

    def test_library_moments(self, manager, adata):
        means, variances = private("model._utils")._init_library_size(manager, 2)
        log_n = np.log(np.asarray(adata.X.sum(1)).ravel())
        of = [log_n[adata.obs["batch"] == name] for name in ("batch_0", "batch_1")]
        np.testing.assert_allclose(means, [[group.mean() for group in of]], rtol=1e-6)
        np.testing.assert_allclose(variances, [[group.var() for group in of]], rtol=1e-5)

    def test_raw_counts(self, manager, adata):
        x = np.asarray(adata.X, dtype=np.float64)
        cells1, cells2 = np.arange(5), np.arange(len(x)) >= 40
        found = private("model._utils").scrna_raw_counts_properties(manager, cells1, cells2, var_idx=[3, 1])
        np.testing.assert_allclose(found["raw_mean1"], x[cells1].mean(0)[[3, 1]])
        np.testing.assert_allclose(found["non_zeros_proportion2"], (x[cells2] != 0).mean(0)[[3, 1]])
        scaled = 1e4 * x / x.sum(1, keepdims=True)
        np.testing.assert_allclose(found["raw_normalized_mean2"], scaled[cells2].mean(0)[[3, 1]])

    def test_strategies(self):
        distributed = private("model._utils").use_distributed_sampler
        assert distributed("ddp_find_unused_parameters_true")
        assert not distributed("auto")


class TestDataUtils:
    def test_attributes(self, adata):
        get = private("data._utils").get_anndata_attribute
        assert get(adata, "obs", "batch").shape == (60, 1)
        assert get(adata, "X", None) is adata.X

    def test_categories(self):
        frame = pd.DataFrame({"a": list("yxyxyx")})
        make = private("data._utils")._make_column_categorical
        assert list(make(frame, "a", "_scvi_a")) == ["x", "y"]
        assert list(frame["_scvi_a"]) == [1, 0] * 3
        assert list(make(frame, "a", "again", categorical_dtype=pd.CategoricalDtype(["y", "x", "z"]))) == [
            "y",
            "x",
            "z",
        ]
        assert list(frame["again"]) == [0, 1] * 3

    def test_counts(self):
        check = private("data._utils")._check_nonnegative_integers
        assert check(np.array([[0.0, 3.0]]))
        assert not check(pd.DataFrame([[0.5, 3.0]]))
        assert not check(sp.csr_matrix(np.array([[-1.0, 3.0]])))

    def test_views(self, adata):
        check = private("data._utils")._check_if_view
        view = adata[:5]
        with pytest.raises(ValueError, match=r"adata = adata\.copy"):
            check(view)
        check(view, copy_if_view=True)
        assert not view.is_view

    @pytest.mark.parametrize("layout", ["csr", "csc"])
    def test_sparse_tensors(self, layout):
        x = sp.random(4, 5, 0.5, format=layout, random_state=0)
        np.testing.assert_array_equal(private("data._utils").scipy_to_torch_sparse(x).to_dense().numpy(), x.toarray())
        with pytest.raises(TypeError, match="CSR or CSC"):
            private("data._utils").scipy_to_torch_sparse(x.tocoo())

    def test_dtypes_and_minified(self, adata):
        utils = private("data._utils")
        assert utils.registry_key_to_default_dtype("batch") is np.int64
        assert utils.registry_key_to_default_dtype("X") is np.float32
        assert not utils._is_minified(adata)


class TestOldSetups:
    SETUP = {
        "scvi_version": "0.9.0",
        "categorical_mappings": {
            "_scvi_batch": {"original_key": "site", "mapping": np.array(["a", "b"], dtype=object)},
            "_scvi_labels": {"original_key": "_scvi_labels", "mapping": np.array([0])},
        },
        "extra_categoricals": {"mappings": {"day": np.array([1, 2])}, "keys": ["day"], "n_cats_per_key": [2]},
        "data_registry": {
            "X": {"attr_name": "layers", "attr_key": "counts"},
            "batch_indices": {"attr_name": "obs", "attr_key": "_scvi_batch"},
            "labels": {"attr_name": "obs", "attr_key": "_scvi_labels"},
            "cat_covs": {"attr_name": "obsm", "attr_key": "_scvi_extra_categoricals"},
        },
        "summary_stats": {"n_vars": 40, "n_cells": 60, "n_batch": 2, "n_labels": 1},
    }

    def test_a_registry_like_that_of_today(self):
        compat = private("data._compat")
        registry = compat.registry_from_setup_dict(celbo.model.SCANVI, self.SETUP, unlabeled_category="?")
        assert registry["model_name"] == "SCANVI"
        assert registry["setup_args"] == {
            "layer": "counts",
            "batch_key": "site",
            "labels_key": None,
            "categorical_covariate_keys": ["day"],
            "unlabeled_category": "?",
        }
        fields = registry["field_registries"]
        assert set(fields) <= set(compat.LEGACY_REGISTRY_KEY_MAP.values())
        assert fields["batch"]["state_registry"]["original_key"] == "site"
        assert fields["labels"]["state_registry"]["unlabeled_category"] == "?"
        assert fields["extra_categorical_covs"]["data_registry"]["attr_key"] == "_scvi_extra_categorical_covs"

    def test_download(self, tmp_path):
        source, target = tmp_path / "there", tmp_path / "here" / "file"
        source.write_text("first")
        download = private("data._download")._download
        download(source.as_uri(), str(target.parent), "file")
        source.write_text("second")
        download(source.as_uri(), str(target.parent), "file")  # is there already
        download(None, str(target.parent), "other")
        assert [path.name for path in target.parent.iterdir()] == ["file"]
        assert target.read_text() == "first"


class TestPrivateAttributes:
    def test_of_packages_without_an_import(self):
        import scvi.model

        assert callable(scvi.model.base._archesmixin._get_loaded_data)
        assert scvi.model._scvi.SCVI is celbo.model.SCVI

    def test_of_models_with_labels(self, adata):
        import scvi.model  # noqa: F401  (brings them along)

        data = adata.copy()
        data.obs["kind"] = np.where(np.arange(60) % 3 == 0, "?", data.obs["labels"].astype(str))
        celbo.model.SCANVI.setup_anndata(data, labels_key="kind", unlabeled_category="?")
        model = celbo.model.SCANVI(data, n_hidden=4)
        np.testing.assert_array_equal(model._unlabeled_indices, np.arange(0, 60, 3))
        np.testing.assert_array_equal(model._labeled_indices, np.flatnonzero(np.arange(60) % 3))
        assert model._code_to_label == dict(enumerate([*model.classes, "?"]))
        celbo.compat.uninstall()
        assert not hasattr(model, "_labeled_indices")
        celbo.compat.install_as_scvi()

    def test_managers_by_class_and_by_model(self):
        import scvi.model  # noqa: F401  (brings them along)

        SCVI = celbo.model.SCVI
        data, other = (celbo.data.synthetic_iid(batch_size=10, n_genes=8, seed=seed) for seed in (0, 1))
        for one in (data, other):
            SCVI.setup_anndata(one)
        model = SCVI(data, n_hidden=4)
        uuid, others = (SCVI._get_most_recent_anndata_manager(one).adata_uuid for one in (data, other))
        of_class = model._setup_adata_manager_store
        assert {uuid, others} <= set(SCVI._setup_adata_manager_store) == set(of_class)
        assert of_class[others].adata is other
        assert set(SCVI._per_instance_manager_store[model.id]) == {uuid}
        model.deregister_manager(other)
        assert others not in of_class
        assert len(of_class) == len(SCVI._setup_adata_manager_store)
        assert others not in celbo.model.SCANVI._setup_adata_manager_store


class TestLayersOfMRVI:
    @pytest.fixture
    def layers(self):
        return private("external.mrvi_torch._components")

    def test_a_block_is_its_formula(self, layers, torch_rng):
        block, x = layers.ResnetBlock(n_in=6, n_out=3, n_hidden=5), torch.randn(4, 6, generator=torch_rng)
        hidden = torch.relu(block.layer_norm1(block.fc1(x))) + block.fc_match(x)
        torch.testing.assert_close(block(x), torch.relu(block.layer_norm2(block.fc2(hidden))))

    def test_sizes(self, layers):
        x = torch.ones(4, 6)
        assert layers.Dense(6, 3)(x).shape == (4, 3)
        mlp = layers.MLP(n_in=6, n_out=3, n_hidden=5, n_layers=2, activation=torch.nn.ReLU())
        assert mlp(x).shape == (4, 3)
        assert [block.fc2.out_features for block in mlp.resnet_blocks] == [5, 5]
        q = layers.NormalDistOutputNN(n_in=6, n_out=3, n_hidden=5, n_layers=2)(x)
        assert q.loc.shape == q.scale.shape == (4, 3)
        attention = layers.AttentionBlock(query_dim=6, kv_dim=2, out_dim=7)
        assert attention(x, torch.ones(4, 2)).shape == (4, 7)
        assert attention(torch.ones(3, 4, 6), torch.ones(3, 4, 2)).shape == (3, 4, 7)

    @pytest.mark.parametrize("kind", ["batch", "layer"])
    def test_normalization_by_condition(self, layers, kind, torch_rng):
        norm = layers.ConditionalNormalization(3, 2, normalization_type=kind)
        x, condition = torch.randn(40, 3, generator=torch_rng), torch.arange(40)[:, None] % 2
        axis = 0 if kind == "batch" else 1
        wanted = (x - x.mean(axis, keepdim=True)) / (x.var(axis, keepdim=True, correction=0) + 1e-5).sqrt()
        gamma, beta = norm.gamma_embedding(condition[:, 0]), norm.beta_embedding(condition[:, 0])
        torch.testing.assert_close(norm(x, condition), gamma * wanted + beta)


class TestOthers:
    def test_words_of_what_is_refused(self, manager):
        from scvi.dataloaders import DataSplitter

        with pytest.raises(ValueError, match=r"^Invalid train_size. Must be: 0 < train_size <= 1\n.*got 1.5") as caught:
            DataSplitter(manager, train_size=1.5)
        assert str(caught.value) == "Invalid train_size. Must be: 0 < train_size <= 1"
        assert caught.value.argument == "train_size"
        with pytest.raises(ValueError, match=r"Invalid validation_size. Must be 0 <= validation_size < 1"):
            celbo.model.SCVI(manager.adata).train(validation_size=-0.1)

    def test_split_sizes(self):
        splitting = private("dataloaders._data_splitting")
        assert splitting.validate_data_split(100, 0.9) == (90, 10)
        assert splitting.validate_data_split(100, 0.55, 0.2) in [(55, 20), (56, 20)]
        sets = [np.arange(50), np.arange(50, 80), np.arange(80, 100)]
        assert splitting.validate_data_split_with_external_indexing(100, sets) == (50, 30)
        with pytest.raises(ValueError, match="overlapping"):
            splitting.validate_data_split_with_external_indexing(100, [np.arange(5), np.arange(4, 8), np.arange(0)])

    def test_log_probabilities(self):
        functions = private("distributions._negative_binomial")
        x, mu, theta = torch.tensor([0.0, 3.0]), torch.tensor([2.0, 5.0]), torch.tensor([3.0, 0.5])
        nb = celbo.distributions.NegativeBinomial(mu=mu, theta=theta)
        torch.testing.assert_close(functions.log_nb_positive(x, mu, theta), nb.log_prob(x))
        zinb = celbo.distributions.ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=theta)
        torch.testing.assert_close(functions.log_zinb_positive(x, mu, theta, theta), zinb.log_prob(x))
        count, logits = functions._convert_mean_disp_to_counts_logits(mu, theta)
        torch.testing.assert_close(
            functions._convert_counts_logits_to_mean_disp(count, logits)[0], mu, rtol=1e-5, atol=0
        )

    def test_distributions_in_parts(self):
        parts = private("distributions._utils")
        rate = torch.arange(1.0, 13.0).reshape(4, 3)
        whole = celbo.distributions.Poisson(rate)
        joined = parts.DistributionConcatenator()
        for rows in (torch.tensor([0, 2]), torch.tensor([1])):
            joined.store_distribution(parts.subset_distribution(whole, rows))
        torch.testing.assert_close(joined.get_concatenated_distributions().rate, rate[[0, 2, 1]])
        with pytest.raises(TypeError, match="one family"):
            joined.store_distribution(celbo.distributions.Normal(rate, rate))

    def test_labels_in_turn(self):
        z = torch.arange(6.0).reshape(3, 2)
        labels, repeated = private("module._utils").broadcast_labels(z, n_broadcast=2)
        torch.testing.assert_close(labels, torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3))
        torch.testing.assert_close(repeated, torch.cat([z, z]))

    def test_masked_softmax(self):
        given = torch.tensor([[1.0, 50.0, 2.0]])
        found = private("module._utils").masked_softmax(given, torch.tensor([[1.0, 0.0, 1.0]]))
        torch.testing.assert_close(found, torch.tensor([[1.0, 0.0, np.e]]) / (1 + np.e))

    def test_kl_weight(self):
        assert private("train._trainingplans")._compute_kl_weight(100, 0, 400, None) == 0.25

    def test_module_keys(self):
        assert private("module._constants").MODULE_KEYS.KL_Z_KEY == "kl_divergence_z"

    def test_discoveries(self):
        probabilities = pd.Series([0.9, 0.99, 0.2], index=["a", "b", "c"])
        called = private("model.base._de_core")._fdr_de_prediction(probabilities, fdr=0.06)
        assert called.to_dict() == {"a": True, "b": True, "c": False}  # mean error of a and b: 0.055


class TestArchivesInParts:
    def test_load_initialize_and_check(self, adata, tmp_path):
        save_load = private("model.base._save_load")
        celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
        model = celbo.model.SCVI(adata, n_latent=3)
        model.train(max_epochs=1, verbose=0)
        model.save(str(tmp_path / "m"), save_anndata=True)
        attributes, names, weights, found = save_load._load_saved_files(str(tmp_path / "m"), load_adata=True)
        assert list(names) == list(adata.var_names) == list(save_load._get_var_names(found))
        celbo.model.SCVI.setup_anndata(found, source_registry=attributes["registry_"], batch_key="batch")
        again = save_load._initialize_model(celbo.model.SCVI, found, attributes["registry_"], attributes)
        again.module.load_state_dict(weights)
        assert again.is_trained_
        assert again.module.n_latent == 3
        np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())
        save_load._validate_var_names(found[:, ::-1], names)
        with pytest.raises(ValueError, match="gene"):
            save_load._validate_var_names(found[:, :5], names)

    def test_no_data(self, adata, tmp_path):
        celbo.model.SCVI.setup_anndata(adata)
        celbo.model.SCVI(adata).save(str(tmp_path / "m"))
        load = private("model.base._save_load")._load_saved_files
        assert load(str(tmp_path / "m"), load_adata=False)[3] is None
        with pytest.raises(ValueError, match="No data were saved"):
            load(str(tmp_path / "m"), load_adata=True)


class TestTraining:
    def test_logger(self, adata):
        celbo.model.SCVI.setup_anndata(adata)
        model = celbo.model.SCVI(adata, n_hidden=8)
        logger = private("train._logger").SimpleLogger("mine", version=3)
        model.train(max_epochs=2, accelerator="cpu", logger=logger, verbose=0, seed=0)
        assert model.trainer.logger is logger
        frame = logger.history["elbo_train"]
        pd.testing.assert_frame_equal(frame, model.history["elbo_train"])
        pd.testing.assert_frame_equal(logger.experiment.data["elbo_train"], frame)
        logger.log_metrics({"loss_step": 1.0}, step=7)
        assert logger.history["loss_step"].index.name == "step"
        assert (logger.name, logger.version) == ("mine", 3)

    def test_callbacks_that_have_nothing_to_do(self, adata):
        callbacks = [private("train._callbacks").SubSampleLabels(), private("train._progress").ProgressBar()]
        celbo.model.SCVI.setup_anndata(adata)
        model = celbo.model.SCVI(adata, n_hidden=8)
        model.train(max_epochs=1, accelerator="cpu", callbacks=callbacks, verbose=0, seed=0)
        assert model.is_trained
