"""Faults of count checks seen in scvi-tools 1.4.2: samples instead of all, the global generator, csr_array, NaN."""

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from celbo.data import AnnDataManager
from celbo.data.fields import LayerField


def register(x):
    AnnDataManager([LayerField("X", None)]).register_fields(anndata.AnnData(x))


def clean(n=1000, g=20):
    return np.random.default_rng(0).poisson(1.0, (n, g)).astype(np.float32)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array])
def test_one_bad_value_among_many_is_always_found(form):
    for bad in (-1.0, np.nan, np.inf):
        x = clean()
        x[777, 3] = bad
        with pytest.raises(ValueError, match="'777'"):
            register(form(x))
    x = clean()
    x[777, 3] = 0.5
    with pytest.warns(UserWarning, match=r"1 of .* not whole numbers, in 1 of 1000 cells \('777'\)"):
        register(form(x))
    register(form(clean()))


def test_backed_data_are_checked_past_their_first_rows(tmp_path):
    x = clean()
    x[-1, -1] = -3
    anndata.AnnData(sp.csr_matrix(x)).write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match="'999'"):
        AnnDataManager([LayerField("X", None)]).register_fields(backed)
    backed.file.close()


def test_the_check_draws_no_random_numbers(global_rng_untouched):
    register(clean())
