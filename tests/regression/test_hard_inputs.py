"""Data as they really come: hardly any cells or genes, very many genes or donors, names and columns of every kind."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData, read_h5ad

import celbo


def counts(n, g, **obs):
    """Counts of which every cell has one at least."""
    rng = np.random.default_rng(0)
    x = rng.poisson(0.3, (n, g))
    x[np.arange(n), rng.integers(g, size=n)] += 1
    adata = AnnData(sp.csr_matrix(x.astype(np.float32)), obs=pd.DataFrame(obs, index=[f"cell_{i}" for i in range(n)]))
    adata.var_names = [f"gene_{i}" for i in range(g)]
    return adata


def lives(adata, folder, model_kwargs=None, **setup):
    """Set up, train, answer, save and load: everything finite, and the same from the archive."""
    celbo.model.SCVI.setup_anndata(adata, **setup)
    model = celbo.model.SCVI(adata, n_hidden=8, n_latent=2, **(model_kwargs or {}))
    model.train(max_epochs=2, verbose=0, accelerator="cpu", seed=0)
    latent = model.get_latent_representation()
    assert latent.shape == (adata.n_obs, 2)
    assert np.isfinite(latent).all()
    expression = model.get_normalized_expression(seed=0)
    np.testing.assert_allclose(expression.sum(1), 1, rtol=1e-4)
    assert list(expression.index) == list(adata.obs_names)
    assert np.isfinite(model.history["elbo_validation"].to_numpy(float)).all()
    model.save(folder / "model")
    loaded = celbo.model.SCVI.load(folder / "model", adata=adata)
    np.testing.assert_array_equal(loaded.get_latent_representation(), latent)
    return loaded


@pytest.mark.filterwarnings("ignore:Category .* has fewer than 3 cells")
@pytest.mark.parametrize(
    "model_kwargs",
    [{}, {"encode_covariates": True}, {"dispersion": "gene-batch"}, {"use_observed_lib_size": False}],
    ids=str,
)
def test_fifty_batches_of_one_cell(tmp_path, model_kwargs):
    lives(counts(50, 20, donor=[f"d{i}" for i in range(50)]), tmp_path, model_kwargs, batch_key="donor")


@pytest.mark.parametrize("n_genes", [1, 2, 60_000])
def test_few_and_many_genes(tmp_path, n_genes):
    lives(counts(60, n_genes), tmp_path)


def test_one_cell_type(tmp_path):
    lives(counts(60, 20, cell_type=["T"] * 60), tmp_path, labels_key="cell_type")


@pytest.mark.filterwarnings("ignore:Category .* has fewer than 3 cells")
@pytest.mark.parametrize("how", ["batch_key", "categorical_covariate_keys"])
def test_twenty_thousand_donors(tmp_path, how):
    adata = counts(20_050, 10, donor=[f"d{i % 20_000}" for i in range(20_050)])
    model = lives(adata, tmp_path, **{how: "donor" if how == "batch_key" else ["donor"]})
    assert model.summary_stats["n_batch"] == (20_000 if how == "batch_key" else 1)


def test_names_given_twice(tmp_path):
    adata = counts(60, 20)
    adata.obs_names, adata.var_names = ["cell"] * 60, ["gene"] * 20
    lives(adata, tmp_path)


def test_names_in_any_script_and_empty_ones(tmp_path):
    adata = counts(60, 20, donor=["", "naïve 😀", "細胞"] * 20)
    adata.obs_names = [f"Zelle-ä{i}" for i in range(60)]
    adata.var_names = ["", *(f"基因{i}" for i in range(19))]
    model = lives(adata, tmp_path, batch_key="donor")
    mapping = model.adata_manager.get_state_registry("batch").categorical_mapping
    assert list(mapping) == ["", "naïve 😀", "細胞"]


THREE = {
    "int8": np.array([1, 2, 0], np.int8),
    "uint64": np.array([1, 2, 0], np.uint64),
    "bool": np.array([True, False, True]),
    "float16": np.array([1.5, 0.5, 2.5], np.float16),
    "float64": np.array([1.5, 0.5, 2.5]),
    "object": np.array(["b", "c", "a"], object),
    "string": pd.array(["b", "c", "a"], dtype="string"),
    "Int64": pd.array([1, 2, 0], dtype="Int64"),
    "boolean": pd.array([True, False, True], dtype="boolean"),
    "datetime": pd.to_datetime(["2021-01-01", "2022-01-01", "2020-01-01"]),
    "timedelta": pd.to_timedelta([1, 2, 0], unit="D"),
    "period": pd.period_range("2020-01", periods=3, freq="M"),
    "interval": pd.interval_range(0, 3),
    "categories": pd.Categorical(["b", "c", "a"], categories=["c", "b", "a", "unused"], ordered=True),
    "categories of intervals": pd.Categorical(pd.interval_range(0.0, 3.0, closed="left")),
}


@pytest.mark.parametrize("dtype", list(THREE))
def test_columns_of_every_dtype_are_categories(tmp_path, dtype):
    adata = counts(60, 10)
    values = pd.Series(THREE[dtype])
    adata.obs["column"] = pd.concat([values] * 20).set_axis(adata.obs_names)
    model = lives(adata, tmp_path, batch_key="column", labels_key="column")
    distinct = adata.obs["column"].drop_duplicates()
    order = distinct.cat.categories[:-1] if dtype == "categories" else sorted(distinct)
    mapping = model.adata_manager.get_state_registry("batch").categorical_mapping
    assert list(mapping) == list(order)
    assert list(mapping[adata.obs["_scvi_batch"]]) == list(adata.obs["column"])


@pytest.mark.parametrize("dtype", ["int8", "uint64", "bool", "float16", "float64", "Int64", "boolean"])
def test_columns_of_numbers_are_continuous_covariates(tmp_path, dtype):
    adata = counts(60, 10)
    adata.obs["column"] = pd.concat([pd.Series(THREE[dtype])] * 20).set_axis(adata.obs_names)
    lives(adata, tmp_path, continuous_covariate_keys=["column"])


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Category .* has fewer than 3 cells")
@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_hard_inputs_stream_from_files(tmp_path, suffix):
    adata = counts(50, 2, donor=pd.Categorical([f"細胞 {i}" for i in range(50)]))
    adata.var_names = ["", "基因"]
    path = tmp_path / f"cells.{suffix}"
    (adata.write_h5ad if suffix == "h5ad" else adata.write_zarr)(path)
    lives(celbo.data.open(path, stream=True), tmp_path, batch_key="donor")


@pytest.mark.parametrize(("shape", "what"), [((0, 20), "no cells"), ((60, 0), "no genes")])
def test_an_empty_matrix_is_refused(shape, what):
    adata = AnnData(sp.csr_matrix(shape, dtype=np.float32))
    with pytest.raises(ValueError, match=rf"adata\.X is {shape[0]} x {shape[1]}: there are {what}"):
        celbo.model.SCVI.setup_anndata(adata)


@pytest.mark.parametrize(("n", "batch_size", "says"), [(1, 128, "1 cell to train on"), (60, 1, "batch_size=1 is one")])
def test_single_cells_cannot_be_normalised(n, batch_size, says):
    adata = counts(n, 10)
    celbo.model.SCVI.setup_anndata(adata)
    with pytest.raises(ValueError, match=says):
        celbo.model.SCVI(adata).train(max_epochs=1, batch_size=batch_size, verbose=0)
    celbo.model.SCVI(adata, use_batch_norm="none").train(max_epochs=1, batch_size=batch_size, verbose=0)


def test_a_size_factor_that_became_zero_after_setup_is_named():
    adata = counts(60, 12)
    adata.obs["sf"] = 1.0
    celbo.model.SCVI.setup_anndata(adata, size_factor_key="sf")
    model = celbo.model.SCVI(adata, n_hidden=8)
    adata.obs["sf"] = np.where(np.arange(adata.n_obs) < 2, 0.0, 1.0)
    with pytest.raises(celbo.train.NonFiniteLossError, match=r"'size_factor'.*from adata\.obs\['sf'\]") as raised:
        model.train(max_epochs=1, train_size=1.0, seed=0, verbose=0, accelerator="cpu")
    assert "lr" not in str(raised.value)


def test_a_view_of_a_backed_anndata(tmp_path):
    counts(60, 12).write_h5ad(tmp_path / "a.h5ad")
    adata = read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"adata = adata\.to_memory\(\)"):
        celbo.model.SCVI.setup_anndata(adata[:5])
    celbo.model.SCVI.setup_anndata(adata)
    model = celbo.model.SCVI(adata, n_hidden=8)
    model.is_trained_ = True
    few = model.get_latent_representation(adata[3:9])
    np.testing.assert_allclose(few, model.get_latent_representation()[3:9], atol=1e-6)
