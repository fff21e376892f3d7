"""Topics by expectation and maximisation, against those that counts were drawn from."""

import numpy as np
import pytest
import torch

from celbo.ops.topics import topics_of_counts


def documents(seed, n=400, n_features=120, n_topics=4):
    rng = np.random.default_rng(seed)
    topics_kg = rng.dirichlet(np.full(n_features, 0.1), n_topics)
    shares_nk = rng.dirichlet(np.full(n_topics, 0.3) * [2, 1, 0.7, 0.5][:n_topics], n)
    return topics_kg, shares_nk, torch.tensor(rng.poisson(200 * shares_nk @ topics_kg) + 0.0, dtype=torch.float32)


@pytest.mark.parametrize("seed", range(5))
def test_topics_are_found_largest_first(seed):
    topics_kg, shares_nk, x = documents(seed)
    found_kg, weight_k = topics_of_counts(x, 4)
    near_kk = np.corrcoef(topics_kg, found_kg)[:4, 4:]
    which = near_kk.argmax(0)
    assert sorted(which) == [0, 1, 2, 3]
    assert near_kk.max(0).min() > 0.99
    np.testing.assert_allclose(weight_k, shares_nk.mean(0)[which], atol=0.02)
    assert (weight_k.diff() <= 0).all()
    np.testing.assert_allclose(found_kg.sum(1), 1, rtol=1e-5)
    assert (found_kg > 0).all()


def test_the_same_counts_give_the_same_topics_whatever_was_drawn_before():
    x = documents(0)[2]
    first = topics_of_counts(x, 4)
    torch.rand(3)
    np.random.default_rng().random(2)
    for one, other in zip(first, topics_of_counts(x, 4), strict=True):
        assert torch.equal(one, other)


def test_cells_that_are_all_alike_and_as_few_as_topics():
    alike = torch.ones(3, 5)
    topics_kg, weight_k = topics_of_counts(alike, 3)
    np.testing.assert_allclose(topics_kg, 1 / 5, rtol=1e-5)
    np.testing.assert_allclose(weight_k, 1 / 3, rtol=1e-5)


def test_a_feature_that_no_cell_has_keeps_a_chance():
    x = documents(0)[2]
    x[:, 7] = 0
    topics_kg, _ = topics_of_counts(x, 4)
    assert (topics_kg[:, 7] > 0).all()
    assert (topics_kg[:, 7] < 1e-4).all()
