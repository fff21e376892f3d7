"""Genes by their zeros: oracles are the formulas on whole matrices, and a simulation of what scvi-tools draws."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from celbo.data import poisson_gene_selection

N_DROPPED = 5


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(1.0, size=(1, 30)) * rng.gamma(2.0, size=(200, 1))).astype(np.float32)
    x[:100, :N_DROPPED] = 0
    return ad.AnnData(x, obs=pd.DataFrame({"batch": ["a"] * 90 + ["b"] * 110}, index=[str(i) for i in range(200)]))


def fractions(x):
    expected = np.exp(-np.outer(x.sum(1), x.sum(0) / x.sum())).mean(0)
    return (x == 0).mean(0), expected


@pytest.mark.parametrize("stored", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array])
def test_figures(adata, stored):
    observed, expected = fractions(adata.X.astype(np.float64))
    adata.layers["counts"] = stored(adata.X)
    adata.X = adata.X + 0.5
    assert poisson_gene_selection(adata, layer="counts", n_top_genes=N_DROPPED) is None
    np.testing.assert_allclose(adata.var["observed_fraction_zeros"], observed, rtol=1e-6)
    np.testing.assert_allclose(adata.var["expected_fraction_zeros"], expected, rtol=1e-6)
    np.testing.assert_allclose(adata.var["prob_zero_enrichment"], observed * (1 - expected), rtol=1e-5, atol=1e-7)
    order = (observed * (1 - expected)).argsort(kind="stable").argsort(kind="stable")
    assert adata.var["prob_zero_enrichment_rank"].tolist() == order.tolist()
    assert adata.var["highly_variable"].tolist() == (order >= 30 - N_DROPPED).tolist()
    assert adata.uns["hvg"] == {"flavor": "poisson_zeros"}


def test_the_probability_is_that_of_draws(adata):
    observed, expected = fractions(adata.X.astype(np.float64))
    rng = np.random.default_rng(1)
    shape = (4000, 30)
    drawn = ((rng.random(shape) < observed) & (rng.random(shape) >= expected)).mean(0)
    table = poisson_gene_selection(adata, inplace=False)
    np.testing.assert_allclose(table["prob_zero_enrichment"], drawn, atol=0.03)


def test_batches(adata):
    parts = [adata.X[:90].astype(np.float64), adata.X[90:].astype(np.float64)]
    proba = np.stack([o * (1 - e) for o, e in map(fractions, parts)])
    rank = proba.argsort(1, kind="stable").argsort(1, kind="stable")
    table = poisson_gene_selection(adata, batch_key="batch", n_top_genes=6, inplace=False)
    assert table["prob_zero_enriched_nbatches"].tolist() == (rank >= 24).sum(0).tolist()
    assert table["prob_zero_enrichment_rank"].tolist() == np.median(rank, 0).tolist()
    taken = table[table["highly_variable"]]
    assert len(taken) == 6
    others = table[~table["highly_variable"]]
    assert taken["prob_zero_enriched_nbatches"].min() >= others["prob_zero_enriched_nbatches"].max()


def test_subset_and_too_many(adata):
    few = adata.copy()
    poisson_gene_selection(few, n_top_genes=4, subset=True)
    assert few.shape == (200, 4)
    poisson_gene_selection(adata, n_top_genes=300)
    assert adata.var["highly_variable"].all()
    assert "prob_zero_enriched_nbatches" not in poisson_gene_selection(adata, inplace=False)


def test_refuses(adata):
    with pytest.raises(KeyError, match="'batch'"):
        poisson_gene_selection(adata, batch_key="batches")
    adata.X = np.log1p(adata.X)
    with pytest.raises(ValueError, match="raw count data"):
        poisson_gene_selection(adata)
