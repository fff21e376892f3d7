"""Spots are sums of cells whose mixture is known."""

import numpy as np
import pytest

from celbo.data import simulate_counts, simulate_spots


@pytest.fixture(scope="module")
def cells():
    return simulate_counts(120, 40, 4, 1, seed=1)


def test_counts_are_sums_of_the_cells_of_the_types(cells):
    one_profile = cells.copy()
    codes = cells.obs["cell_type"].cat.codes.to_numpy()
    one_profile.X = np.eye(4, 40, dtype=np.float32)[codes] * (1 + codes[:, None])  # type c: c + 1 counts of gene c
    spots = simulate_spots(one_profile, "cell_type", 50, seed=0)
    abundance_sc = spots.obsm["proportions"].to_numpy() * spots.obs["n_cells"].to_numpy()[:, None]
    np.testing.assert_allclose(spots.X.toarray()[:, :4], abundance_sc * np.arange(1, 5), rtol=1e-6)
    counts_sc = abundance_sc * np.arange(1, 5)
    np.testing.assert_allclose(spots.obsm["count_shares"], counts_sc / counts_sc.sum(1, keepdims=True), atol=1e-12)


def test_mixture(cells):
    spots = simulate_spots(cells, "cell_type", 400, cells_per_spot=8, types_per_spot=2, seed=3)
    proportions = spots.obsm["proportions"]
    assert list(proportions.columns) == list(cells.obs["cell_type"].cat.categories)
    np.testing.assert_allclose(proportions.sum(1), 1)
    assert (proportions > 0).sum(1).max() == 2
    assert abs(spots.obs["n_cells"].mean() - 8) < 0.5
    assert spots.X.dtype == np.float32
    assert spots.var_names.equals(cells.var_names)


def test_capture_rate_thins(cells):
    seen, all_of_them = (simulate_spots(cells, "cell_type", 50, capture_rate=rate, seed=0) for rate in (0.3, 1.0))
    assert (seen.X.toarray() == seen.X.toarray().round()).all()
    assert abs(seen.X.sum() / all_of_them.X.sum() - 0.3) < 0.05


def test_seed_decides_and_global_state_is_left_alone(cells):
    before = np.random.get_state()[1].copy()
    a, b, c = (simulate_spots(cells, "cell_type", 20, seed=seed) for seed in (5, 5, 6))
    assert (a.X != b.X).nnz == 0
    assert (a.X != c.X).nnz > 0
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"labels_key": "cell_typ"}, KeyError, "cell_type"),
        ({"layer": "counts"}, KeyError, "counts"),
        ({"n_spots": 0}, ValueError, "n_spots"),
        ({"capture_rate": 0.0}, ValueError, "capture_rate"),
    ],
)
def test_errors(cells, arguments, error, words):
    with pytest.raises(error, match=words):
        simulate_spots(cells, **({"labels_key": "cell_type", "n_spots": 5} | arguments))
