"""Neighbours in space and what they are, against plain loops; what cannot be is named."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from celbo.core import ArgumentError
from celbo.data.spatial import check_neighbours, coordinates_of, nearest_cells, niche_composition, niche_state

N = 60


@pytest.fixture
def places(rng):
    return rng.uniform(size=(N, 2))


@pytest.fixture
def names():
    return pd.Index([f"cell{i}" for i in range(N)])


def test_neighbours_are_those_of_all_distances(places, names, rng):
    section = pd.Series(rng.choice(["s1", "s2"], N), name="section")
    found = nearest_cells(places, 7, section, names)
    distance_nn = cdist(places, places)
    distance_nn[section.to_numpy()[:, None] != section.to_numpy()] = np.inf
    np.fill_diagonal(distance_nn, np.inf)
    np.testing.assert_array_equal(found.index_nm, np.argsort(distance_nn, axis=1)[:, :7])
    np.testing.assert_allclose(found.distance_nm, np.sort(distance_nn, axis=1)[:, :7])


def test_cells_in_one_place_are_neighbours_and_said(names):
    places = np.repeat(np.arange(6.0)[:, None], 10, axis=0) * [1, 0]
    with pytest.warns(
        UserWarning, match=r"60 cells share their place with another: 'cell0', .*sample_key or batch_key"
    ):
        found = nearest_cells(places, 4, None, names)
    assert (found.index_nm != np.arange(N)[:, None]).all()
    np.testing.assert_array_equal(found.distance_nm, 0)
    assert all(len(set(row)) == 4 for row in found.index_nm)


def test_niches_are_those_of_a_loop(places, names, rng):
    index_nm = nearest_cells(places, 5, None, names).index_nm
    kind, embedding = rng.integers(0, 3, N), rng.normal(size=(N, 4))
    shares_nc, states_nce = niche_composition(index_nm, kind, 4), niche_state(index_nm, kind, 4, embedding)
    for n in range(N):
        for c in range(4):
            mine = index_nm[n][kind[index_nm[n]] == c]
            assert shares_nc[n, c] == len(mine) / 5
            expected = embedding[mine].mean(0) if len(mine) else np.zeros(4)
            np.testing.assert_allclose(states_nce[n, c], expected, atol=1e-12)


def test_small_sections_and_cells_without_one(places, names):
    section = pd.Series(["big"] * 55 + ["small"] * 5, name="slice")
    with pytest.raises(
        ArgumentError, match=r"at least 6 cells\. Too small: 'small' \(5 cells\)\. Leave these cells out"
    ):
        nearest_cells(places, 5, section, names)
    section[3] = None
    with pytest.raises(ArgumentError, match=r"1 cells have no section in adata\.obs\['slice'\]: 'cell3'"):
        nearest_cells(places, 4, section, names)


def test_stored_neighbours_must_be_of_these_cells(places, names):
    found = nearest_cells(places, 5, None, names)
    check_neighbours(*found, places, names, "Find them again.")
    check_neighbours(found.index_nm, found.distance_nm**2, places, names, "Find them again.", squared=True)
    with pytest.raises(ArgumentError, match=r"lie elsewhere than their distances say: .*Find them again\."):
        check_neighbours(*found, places[::-1], names, "Find them again.")
    with pytest.raises(ArgumentError, match=r"row numbers up to \d+, and there are 30 cells"):
        check_neighbours(found.index_nm[:30], found.distance_nm[:30], places[:30], names[:30], "Find them again.")


def test_coordinates_that_cannot_be(places, names):
    adata = ad.AnnData(np.ones((N, 2)), obs=pd.DataFrame(index=names))
    with pytest.raises(ArgumentError, match=r"no coordinates under 'spatial'; there are: none"):
        coordinates_of(adata, "spatial", "where")
    adata.obsm["places"] = places
    with pytest.raises(ArgumentError, match=r"there are: 'places'\. Put x and y .* name where they lie: where="):
        coordinates_of(adata, "spatial", "where")
    places[[4, 9], 1] = np.nan
    with pytest.raises(ArgumentError, match=r"NaN or infinite for 2 of 60 cells: 'cell4', 'cell9'"):
        coordinates_of(adata, "places", "where")
    adata.obsm["text"] = pd.DataFrame({"x": ["a"] * N}, index=names)
    with pytest.raises(ArgumentError, match="no table of numbers"):
        coordinates_of(adata, "text", "where")
    adata.obsm["deep"] = np.ones((N, 2, 2))
    with pytest.raises(ArgumentError, match=r"row of coordinates for each cell, got shape \(60, 2, 2\)"):
        coordinates_of(adata, "deep", "where")
