"""What code written for scvi-tools asks of managers, data sets, models and differential expression, in passing.

Classes, shapes and kinds of errors are those that scvi-tools 1.4.2 gives for the same calls.
"""

import importlib

import numpy as np
import pytest
import torch

from celbo.compat import as_scvi


@pytest.fixture(scope="module")
def scvi():
    with as_scvi():
        yield importlib.import_module("scvi")


@pytest.fixture
def adata(scvi):
    adata = scvi.data.synthetic_iid(batch_size=30, n_genes=12, n_proteins=3, sparse_format="csr_matrix", seed=0)
    adata.obs["depth"] = np.linspace(0, 1, adata.n_obs)
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch", labels_key="labels", continuous_covariate_keys=["depth"])
    return adata


@pytest.fixture
def manager(scvi, adata):
    return scvi.model.SCVI._get_most_recent_anndata_manager(adata, required=True)


@pytest.fixture
def model(scvi, adata):
    return scvi.model.SCVI(adata, n_latent=3, n_hidden=8)


class TestDataset:
    def test_indexing(self, scvi, manager, adata):
        dataset = manager.create_torch_dataset()
        assert isinstance(dataset, scvi.data.AnnTorchDataset)
        x = adata.X.toarray().astype(np.float32)
        for rows in (3, -1, [4, 1], slice(2, 7), np.array([5, 5]), x[:, 0] > 10):
            np.testing.assert_array_equal(dataset[rows]["X"], np.atleast_2d(x[rows]))
        assert dataset[0]["batch"].dtype == np.int64
        assert {key: dtype.__name__ for key, dtype in dataset.keys_and_dtypes.items()} == {
            "X": "float32",
            "batch": "int64",
            "labels": "int64",
            "extra_continuous_covs": "float32",
        }
        assert dataset.registered_keys == list(dataset.keys_and_dtypes)
        assert dataset.data["X"] is adata.X

    def test_other_keys(self, scvi, manager):
        dataset = scvi.dataloaders.AnnTorchDataset(manager, getitem_tensors={"X": np.int64})
        assert dataset[[0, 1]]["X"].dtype == np.int64
        dataset.keys_and_dtypes = ["batch"]
        assert list(dataset[0]) == ["batch"]
        with pytest.raises(KeyError, match="'nothing'"):
            dataset.keys_and_dtypes = ["nothing"]
        with pytest.raises(ValueError, match="`getitem_tensors` must be"):
            dataset.keys_and_dtypes = "X"

    def test_some_cells(self, manager, adata):
        for chosen in ([7, 3], np.isin(np.arange(60), [3, 7])):
            subset = manager.create_torch_dataset(indices=chosen, data_and_attributes=["X"])
            assert isinstance(subset, torch.utils.data.Subset)
            rows = np.asarray(subset.indices)
            np.testing.assert_array_equal(subset[0]["X"], adata.X[rows[:1]].toarray())

    def test_sparse_tensors_come_without_a_warning(self, manager, adata):
        batch = manager.create_torch_dataset(load_sparse_tensor=True)[[2, 0]]["X"]
        assert batch.layout == torch.sparse_csr
        np.testing.assert_array_equal(batch.to_dense().numpy(), adata.X[[2, 0]].toarray())

    def test_before_registration(self, scvi):
        with pytest.raises(AssertionError, match="call register_fields"):
            scvi.data.AnnDataManager([]).create_torch_dataset()


class TestModel:
    def test_managers(self, scvi, adata, manager, model):
        assert model.adata_manager is manager
        other = scvi.data.synthetic_iid(batch_size=5)
        assert scvi.model.SCVI._get_most_recent_anndata_manager(other) is None
        with pytest.raises(ValueError, match=r"Please set up your AnnData with SCVI\.setup_anndata first"):
            scvi.model.SCVI._get_most_recent_anndata_manager(other, required=True)
        assert model.data_registry("X") is adata.X

    def test_a_missing_layer_is_an_error_of_both_kinds(self, scvi, adata):
        for kind in (ValueError, KeyError):
            with pytest.raises(kind, match=r"layer of adata\.layers"):
                scvi.model.SCVI.setup_anndata(adata, layer="nothing")

    def test_runs_have_names_that_are_kept(self, scvi, adata, model, tmp_path):
        assert (model.run_name, model.run_id) == ("", "")
        model.run_name, model.run_id = "first", "17"
        model.save(str(tmp_path / "model"))
        again = scvi.model.SCVI.load(str(tmp_path / "model"), adata)
        assert (again.run_name, again.run_id) == ("first", "17")
        assert again.id != model.id

    def test_attributes_of_an_archive(self, model):
        kept = {name for name, _ in model._get_user_attributes() if name.endswith("_")}
        assert {"history_", "init_params_", "is_trained_", "registry_", "run_name_", "train_indices_"} <= kept


class TestDifferentialExpression:
    def test_in_parts(self, scvi, adata, manager, model):
        from scvi.model._utils import scrna_raw_counts_properties
        from scvi.model.base._de_core import _de_core

        def draw(adata, indices, transform_batch, n_samples_overall):
            return model.get_normalized_expression(
                adata, indices, transform_batch, n_samples_overall=n_samples_overall, return_numpy=True, seed=0
            )

        def compare(mode, **options):
            arguments = {"groupby": "labels", "group1": None, "group2": None, "idx1": None, "idx2": None} | options
            return _de_core(
                manager,
                draw,
                None,
                *arguments.values(),
                all_stats=True,
                all_stats_fn=scrna_raw_counts_properties,
                col_names=adata.var_names,
                mode=mode,
                batchid1=None,
                batchid2=None,
                delta=0.25,
                batch_correction=True,
                fdr=[0.05, 0.1],
                silent=True,
                n_samples_overall=20,
            )

        every = compare("change")
        assert len(every) == 3 * 12
        assert every["comparison"].iloc[0] == "label_0 vs Rest"
        assert {"lfc_mean", "raw_mean1", "is_de_fdr_0.05", "is_de_fdr_0.1", "pseudocounts"} <= {*every.columns}
        one = compare("vanilla", groupby=None, idx1=np.arange(10), idx2="labels == 'label_1'")
        assert one["bayes_factor"].is_monotonic_decreasing
        assert "comparison" not in one

    def test_raw_counts_of_regions_and_proteins(self, scvi, adata):
        from scvi.data.fields import LayerField, ObsmField
        from scvi.model._utils import cite_seq_raw_counts_properties, scatac_raw_counts_properties

        manager = scvi.data.AnnDataManager([LayerField("X", None), ObsmField("proteins", "protein_expression")])
        adata.obsm["protein_expression"] = adata.obsm["protein_expression"].toarray()
        manager.register_fields(adata)
        first, second = np.arange(10), np.arange(60) >= 40
        x, proteins = adata.X.toarray(), adata.obsm["protein_expression"]
        regions = scatac_raw_counts_properties(manager, first, second, var_idx=[2, 0])
        np.testing.assert_allclose(regions["emp_mean2"], (x[40:] > 0).mean(0)[[2, 0]])
        np.testing.assert_allclose(regions["emp_effect"], ((x[:10] > 0).mean(0) - (x[40:] > 0).mean(0))[[2, 0]])
        both = cite_seq_raw_counts_properties(manager, first, second)
        np.testing.assert_allclose(both["raw_mean1"], np.r_[x[:10].mean(0), proteins[:10].mean(0)])
        assert np.isnan(both["raw_normalized_mean2"]).tolist() == [False] * 12 + [True] * 3
        assert len(cite_seq_raw_counts_properties(manager, first, second, ["protein"])["raw_mean1"]) == 3

    def test_pieces(self, scvi):
        from scvi.model.base._differential import credible_intervals, estimate_pseudocounts_offset, pairs_sampler

        draws = np.arange(100.0)[:, None] * [1, 2]
        limits = credible_intervals(draws, 0.5)
        assert (limits[:, 1] - limits[:, 0]).tolist() == [50, 100]
        assert credible_intervals(draws[:, 0], 0.5).shape == (2,)
        first, second = pairs_sampler(draws, draws[:10], m_permutation=30)
        assert (len(first), second.max() <= 18) == (30, True)
        low = np.array([True, False])
        assert estimate_pseudocounts_offset(draws, draws * 2, low, low) == pytest.approx(99.0)
        assert estimate_pseudocounts_offset(draws, draws, ~low & low, ~low & low) == 1e-10


class TestNegativeCounts:
    def test_they_are_a_warning_here(self, scvi, adata):
        adata.X = adata.X.toarray()
        adata.X[3, 4] = -1.0
        with pytest.warns(UserWarning, match="does not contain unnormalized count data"):
            scvi.model.SCVI.setup_anndata(adata)
        assert scvi.model.SCVI(adata, n_hidden=8).summary_stats.n_cells == adata.n_obs
