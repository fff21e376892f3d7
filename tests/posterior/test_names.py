"""Names to codes and columns."""

import numpy as np
import pytest

from celbo.posterior import batch_codes, gene_columns


class TestBatches:
    @pytest.mark.parametrize(
        ("names", "codes"),
        [
            (None, [None]),
            ("b", [1]),
            (["c", "a"], [2, 0]),
            (("a", None), [0, None]),
            (np.array(["c"], dtype=object), [2]),
        ],
    )
    def test_codes(self, names, codes):
        assert batch_codes(names, np.array(["a", "b", "c"], dtype=object)) == codes

    @pytest.mark.parametrize(("names", "codes"), [(10, [1]), (np.int64(5), [0]), ([10, 5], [1, 0])])
    def test_numbers_are_names_not_codes(self, names, codes):
        assert batch_codes(names, np.array([5, 10])) == codes

    def test_unknown(self):
        with pytest.raises(ValueError, match="Did you mean 'lane2'"):
            batch_codes(["lane1", "lane22"], ["lane1", "lane2"])

    def test_none_at_all(self):
        with pytest.raises(ValueError, match="transform_batch is empty"):
            batch_codes([], ["a"])


class TestGenes:
    names = np.array(["CD3D", "CD8A", "GNLY", "MS4A1"])

    def test_order_is_the_models(self):
        np.testing.assert_array_equal(gene_columns(["MS4A1", "CD8A"], self.names), [1, 3])
        assert gene_columns(None, self.names) is None

    def test_unknown_are_named(self):
        with pytest.warns(UserWarning, match=r"'CD8B', 'FOXP3'; the answer is about the other 1 genes"):
            np.testing.assert_array_equal(gene_columns(["FOXP3", "CD8B", "GNLY"], self.names), [2])

    def test_none_known(self):
        with pytest.raises(ValueError, match="Did you mean 'CD8A'"):
            gene_columns(["CD8a"], self.names)
