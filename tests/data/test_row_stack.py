"""Rows put behind one another are scipy's vstack of them."""

import numpy as np
import pytest
import scipy.sparse as sp

from celbo.store.matrices.row_stack import RowStack


@pytest.mark.parametrize("expected", [0, 7, 10_000])
@pytest.mark.parametrize("sizes", [[5], [3, 0, 4, 1], []])
def test_is_vstack_whatever_room_was_expected(expected, sizes):
    rng = np.random.default_rng(0)
    blocks = [sp.random_array((n, 9), density=0.4, format="csr", rng=rng, dtype=np.float32) for n in sizes]
    stack = RowStack(sum(sizes), 9, expected, np.dtype(np.float32))
    for block in blocks:
        stack.append(block)
    wanted = sp.vstack(blocks).toarray() if blocks else np.zeros((0, 9), np.float32)
    np.testing.assert_array_equal(stack.csr().toarray(), wanted)
    assert stack.csr().dtype == np.float32
    assert stack.csr().indices.dtype == np.int32  # not widened: that would be a copy


def test_blocks_that_are_views_of_longer_arrays():
    block = sp.csr_array(np.eye(4, dtype=np.float32))
    longer = sp.csr_array((np.arange(1.0, 9, dtype=np.float32), np.arange(8) % 4, block.indptr), shape=(4, 4))
    stack = RowStack(4, 4, 4, np.dtype(np.float32))
    stack.append(longer)
    np.testing.assert_array_equal(stack.csr().toarray(), np.diag([1, 2, 3, 4]))
