import numpy as np
import pytest
import scipy.sparse as sp

from celbo.data import align_genes, simulate_counts, top_variable_genes


def test_alignment_puts_columns_in_the_reference_order(rng):
    reference = [f"g{i}" for i in range(20)]
    names = rng.permutation([*reference, "x", "y"])
    match = align_genes(names, reference)
    np.testing.assert_array_equal(names[match.indexer], reference)
    assert match.found.tolist() == reference
    assert not len(match.missing)
    assert set(match.extra) == {"x", "y"}
    assert not match.is_identity
    match.raise_if_missing()


def test_equal_names_are_the_identity_also_with_repeats():
    match = align_genes(["a", "b", "a"], ["a", "b", "a"])
    assert match.is_identity
    assert match.indexer.tolist() == [0, 1, 2]


def test_missing_genes_are_marked_and_named():
    match = align_genes(["c", "a", "z"], ["a", "b", "c", "d"])
    assert match.indexer.tolist() == [1, -1, 0, -1]
    assert match.missing.tolist() == ["b", "d"]
    assert match.found.tolist() == ["a", "c"]
    with pytest.raises(ValueError, match=r"var_names lacks 2 of the 4 reference names: 'b', 'd'.*1 others \('z'\)"):
        match.raise_if_missing()
    with pytest.raises(ValueError, match=r"query lacks 9 of the 9 reference names: 'g0', 'g1', 'g2', 'g3', 'g4', ..."):
        align_genes(["a"], [f"g{i}" for i in range(9)], where="query").raise_if_missing()


def test_repeated_names_that_matter_are_an_error():
    with pytest.raises(ValueError, match=r"var_names holds 1 names more than once \('a'\)"):
        align_genes(["b", "a", "a"], ["a", "b"])
    with pytest.raises(ValueError, match="the reference's names holds 1"):
        align_genes(["a", "b"], ["b", "b", "a"])
    assert align_genes(["z", "b", "z", "a"], ["a", "b"]).indexer.tolist() == [3, 1]


def test_an_order_preserving_subset_says_only_what_is_left_out():
    assert align_genes(["a", "z", "b"], ["a", "b"]).summary() == (
        "var_names: 2 columns are matched by name, 1 others are not used"
    )


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_array])
def test_variable_genes_are_those_of_the_largest_variance_to_mean(rng, form):
    x = rng.poisson(rng.gamma(1.0, 2.0, 30), (200, 30)) * rng.integers(1, 4, 30)
    x[:, 4] = 0
    with np.errstate(invalid="ignore"):
        ratio = np.nan_to_num(x.var(0) / x.mean(0), nan=-1)
    chosen = top_variable_genes(form(x.astype(np.float32)), 10)
    assert chosen.sum() == 10
    assert set(np.flatnonzero(chosen)) == set(np.argsort(-ratio)[:10])
    assert top_variable_genes(form(x), 30).all()
    assert not top_variable_genes(form(x), 29)[4]


def test_equal_genes_are_taken_from_the_left():
    assert top_variable_genes(np.ones((5, 4)), 2).tolist() == [True, True, False, False]
    for n_top in (0, 5):
        with pytest.raises(ValueError, match=r"n_top must be .*at least 1|between 1 and the number of genes \(4\)"):
            top_variable_genes(np.ones((5, 4)), n_top)


def test_markers_are_variable():
    adata = simulate_counts(1500, 400, batch_strength=0.0, seed=3)
    is_marker = adata.varm["is_marker"].any(1)
    assert is_marker[top_variable_genes(adata.X, 60)].mean() > is_marker.mean() + 0.15
