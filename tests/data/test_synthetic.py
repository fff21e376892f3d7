import importlib.util

import numpy as np
import pytest
import scipy.sparse as sp

from celbo.core import settings
from celbo.data import synthetic_iid


def test_layout_is_scvi_tools(global_rng_untouched):
    adata = synthetic_iid(generate_coordinates=True, seed=0)
    assert adata.shape == (400, 100)
    assert adata.obs["batch"].cat.categories.tolist() == ["batch_0", "batch_1"]
    assert adata.obs["batch"].tolist() == ["batch_0"] * 200 + ["batch_1"] * 200
    assert adata.obs["labels"].cat.categories.tolist() == ["label_0", "label_1", "label_2"]
    assert set(adata.obsm) == {"accessibility", "protein_expression", "coordinates"}
    assert adata.obsm["protein_expression"].shape == (400, 100)
    assert adata.uns["protein_names"][1] == "protein_1"
    assert adata.var_names[3] == "gene_3"
    assert adata.obs_names[7] == "7"
    assert isinstance(adata.X, np.ndarray)


@pytest.mark.parametrize("name", ["csr_matrix", "csc_matrix", "csr_array", "csc_array"])
def test_sparse_formats(name):
    adata = synthetic_iid(sparse_format=name, batch_size=5)
    for x in (adata.X, adata.obsm["accessibility"], adata.obsm["protein_expression"]):
        assert isinstance(x, getattr(sp, name))
    with pytest.raises(ValueError, match=r"sparse_format must be .*, got 'csr'"):
        synthetic_iid(sparse_format="csr")


def test_statistics():
    adata = synthetic_iid(batch_size=1000, dropout_ratio=0.7, seed=1)
    kept = adata.X[adata.X > 0]
    assert (adata.X == 0).mean() == pytest.approx(0.7 + 0.3 * 0.3**5, abs=0.005)
    assert kept.mean() == pytest.approx(5 * 0.7 / 0.3, rel=0.02)
    protein = adata.obsm["protein_expression"]
    assert protein.mean() == pytest.approx(5 * 0.7 / 0.3, rel=0.01)
    assert protein.var() == pytest.approx(5 * 0.7 / 0.09, rel=0.02)


def test_seed_of_the_call_then_of_the_settings():
    def x(seed=None):
        return synthetic_iid(batch_size=5, seed=seed).X

    np.testing.assert_array_equal(x(3), x(3))
    assert not np.array_equal(x(), x())
    before, settings.seed = settings.seed, 3
    try:
        np.testing.assert_array_equal(x(), x(3))
    finally:
        settings.seed = before


def test_tables_without_columns_are_left_out():
    adata = synthetic_iid(batch_size=5, n_proteins=0, n_regions=0)
    assert not len(adata.obsm)
    assert "protein_names" not in adata.uns


def test_mudata_or_how_to_get_it():
    if importlib.util.find_spec("mudata") is None:
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'celbo\[mudata\]'"):
            synthetic_iid(return_mudata=True)
    else:
        mdata = synthetic_iid(return_mudata=True, rna_key="r", batch_size=5)
        assert list(mdata.mod) == ["r", "accessibility", "protein_expression"]
        assert mdata.obs["batch"].nunique() == 2


def test_numbers_in_place_of_counts():
    x = synthetic_iid(seed=0, rna_dist="normal").X
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02
    assert (x != 0).all()
