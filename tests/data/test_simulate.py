import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from celbo.data import check_counts, simulate_counts


def truth(adata):
    """Mean of every count, from the stored truth alone."""
    profile_cg, batch_bg = adata.varm["cell_type_profile"].T, adata.varm["batch_effect"].T
    share_ng = profile_cg[adata.obs["cell_type"].cat.codes] * batch_bg[adata.obs["batch"].cat.codes]
    return adata.obs["library_size"].to_numpy()[:, None] * share_ng / share_ng.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def adata():
    return simulate_counts(4000, 300, 4, 3, seed=1, keep_rates=True)


def test_layout(adata):
    assert isinstance(adata.X, sp.csr_matrix)
    assert adata.X.dtype == np.float32
    assert adata.obs["cell_type"].cat.categories.tolist() == [f"type_{i}" for i in range(4)]
    assert adata.obs["batch"].value_counts().gt(1100).all()
    assert adata.X.has_canonical_format
    assert check_counts(adata.X).is_counts
    np.testing.assert_allclose(adata.layers["rate"], truth(adata), rtol=1e-4)


def test_gene_totals_and_dispersion_agree_with_the_truth(adata):
    x_ng, mean_ng = adata.X.toarray().astype(np.float64), truth(adata)
    theta_g = adata.var["dispersion"].to_numpy()
    # total of each gene: sum of independent negative binomials, variance sum(mu + mu^2/theta)
    variance_ng = mean_ng + mean_ng**2 / theta_g
    z_g = (x_ng - mean_ng).sum(0) / np.sqrt(variance_ng.sum(0))
    assert abs(z_g.mean()) < 4 / np.sqrt(len(z_g))
    assert 0.8 < z_g.std() < 1.2
    # squared residuals have the negative binomial's variance
    assert ((x_ng - mean_ng) ** 2).sum() / variance_ng.sum() == pytest.approx(1, abs=0.05)


def test_zeros_are_as_likely_as_the_negative_binomial_says(adata):
    mean_ng, theta_g = truth(adata), adata.var["dispersion"].to_numpy()
    p_ng = stats.nbinom.pmf(0, theta_g, theta_g / (theta_g + mean_ng))
    zeros_g, sd_g = (adata.X.toarray() == 0).sum(0), np.sqrt((p_ng * (1 - p_ng)).sum(0))
    z_g = (zeros_g - p_ng.sum(0)) / sd_g
    assert np.abs(z_g).max() < 4.5
    assert 0.8 < z_g.std() < 1.2


def test_zero_inflation_adds_the_zeros_it_states():
    adata = simulate_counts(4000, 200, 3, 2, likelihood="zinb", seed=2)
    mean_ng, theta_g = truth(adata), adata.var["dispersion"].to_numpy()
    pi_g = adata.var["zero_inflation"].to_numpy()
    p_ng = pi_g + (1 - pi_g) * stats.nbinom.pmf(0, theta_g, theta_g / (theta_g + mean_ng))
    z_g = ((adata.X.toarray() == 0).sum(0) - p_ng.sum(0)) / np.sqrt((p_ng * (1 - p_ng)).sum(0))
    assert np.abs(z_g).max() < 4.5
    assert (pi_g > 0).all()
    assert np.corrcoef(pi_g, mean_ng.mean(0))[0, 1] < 0
    assert (simulate_counts(50, 20).var["zero_inflation"] == 0).all()


def test_types_are_unequal_and_follow_their_frequencies(adata):
    frequency = adata.uns["simulation"]["cell_type_frequency"]
    observed = np.bincount(adata.obs["cell_type"].cat.codes, minlength=4)
    assert frequency.sum() == pytest.approx(1)
    assert frequency.max() > 2 * frequency.min()
    assert stats.chisquare(observed, frequency * 4000).pvalue > 1e-4
    library = np.log(adata.obs["library_size"])
    assert np.exp(library.median()) == pytest.approx(75, rel=0.1)


@pytest.mark.parametrize("n_genes", [1000, 2000])
def test_density_is_realistic(n_genes):
    report = check_counts(simulate_counts(600, n_genes).X)
    assert 0.05 < report.density < 0.16


def test_seeds_sorting_and_small_sizes(global_rng_untouched):
    one, same, other = (simulate_counts(700, 30, seed=seed) for seed in (5, 5, 6))
    assert (one.X != same.X).nnz == 0
    assert (one.X != other.X).nnz > 0
    ordered = simulate_counts(700, 30, seed=5, sort_by_type=True)
    assert ordered.obs["cell_type"].cat.codes.is_monotonic_increasing
    assert not one.obs["cell_type"].cat.codes.is_monotonic_increasing
    assert simulate_counts(6, 4, 6, 2).obs["cell_type"].nunique() == 6
    assert simulate_counts(1, 1, 1, 1).shape == (1, 1)


def test_no_batch_effect_when_its_strength_is_zero():
    assert (simulate_counts(20, 10, batch_strength=0.0).varm["batch_effect"] == 1).all()


def test_it_can_be_written_and_read(tmp_path):
    from celbo.data import read

    adata = simulate_counts(30, 10)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = read(tmp_path / "a.h5ad")
    assert (back.X != adata.X).nnz == 0
    assert back.uns["simulation"]["likelihood"] == "nb"


def test_what_cannot_be_simulated():
    with pytest.raises(ValueError, match=r"likelihood must be .*, got 'znb'. Did you mean 'zinb'"):
        simulate_counts(likelihood="znb")
    with pytest.raises(ValueError, match="n_cells must be a whole number of at least 1, got 0"):
        simulate_counts(0)
