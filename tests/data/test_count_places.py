"""The counts are found where they are, and what to type for them is said."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from celbo.data import open as open_data
from celbo.data.count_places import count_places
from celbo.data.fields import LayerField

N, G = 700, 20


@pytest.fixture(scope="module")
def parts():
    """Molecules of three kinds; together they are all."""
    rng = np.random.default_rng(0)
    return {
        name: rng.poisson(mean, (N, G)) for name, mean in (("spliced", 1.0), ("unspliced", 0.3), ("ambiguous", 0.1))
    }


@pytest.fixture
def adata(parts):
    """Logarithms in ``X``; all else is put in by the tests."""
    counts_ng = sum(parts.values())
    return ad.AnnData(np.log1p(1e4 * counts_ng / counts_ng.sum(1, keepdims=True)).astype(np.float32))


def all_counts(parts) -> np.ndarray:
    return sum(parts.values()).astype(np.float32)


class TestRanking:
    def test_all_counts_come_before_their_parts(self, adata, parts):
        adata.layers.update({name: sp.csr_matrix(x) for name, x in parts.items()})
        adata.layers["matrix"] = all_counts(parts)
        assert count_places(adata, "X", None) == ['layer="matrix"']

    def test_of_parts_alone_the_sum_is_named(self, adata, parts):
        adata.layers.update(parts)
        (typed,) = count_places(adata, "X", None)
        assert typed.endswith(" + ".join(f'adata.layers["{name}"]' for name in parts))
        exec(typed.rpartition(": ")[2], {"adata": adata})
        np.testing.assert_array_equal(adata.X, all_counts(parts))

    @pytest.mark.parametrize("names", [["ambiguous"], ["unspliced"], ["unspliced", "ambiguous"]])
    def test_lesser_parts_alone_are_not_named(self, adata, parts, names):
        adata.layers.update({name: parts[name] for name in names})
        assert count_places(adata, "X", None) == []

    @pytest.mark.parametrize(
        "change",
        [
            lambda x: (x > 0).astype(np.float32),  # presence
            lambda x: np.rint(1e4 * x / x.sum(1, keepdims=True)),  # normalised and rounded
            lambda x: 3 * x,
            lambda x: np.rint(x + 4),  # imputed: no zeros
            lambda x: x // 2,  # fewer
            lambda x: np.where(np.arange(G) < 10, x, 0),  # some genes only
        ],
    )
    def test_whole_numbers_that_are_not_the_counts(self, adata, parts, change):
        adata.layers["a"] = change(all_counts(parts))
        adata.layers["b"] = all_counts(parts)
        assert count_places(adata, "X", None)[0] == 'layer="b"'

    def test_equal_ones_by_name_and_genes(self, adata, parts):
        adata.raw = ad.AnnData(all_counts(parts))
        adata.layers["x"] = adata.layers["my umi"] = all_counts(parts)
        assert count_places(adata, "X", None) == [
            'layer="my umi"',
            'layer="x"',
            f"use_raw=True (adata.raw, {G} genes)",
        ]

    def test_raw_with_more_genes(self, adata, parts):
        wide = np.hstack([all_counts(parts), all_counts(parts)])
        adata.raw = ad.AnnData(wide, var=pd.DataFrame(index=[str(i) for i in range(2 * G)]))
        adata.layers["scaled"] = adata.X - 1
        assert count_places(adata, "X", None) == [f"use_raw=True (adata.raw, {2 * G} genes)"]

    def test_the_chosen_matrix_is_not_named(self, adata, parts):
        adata.layers["counts"] = adata.X.copy()
        assert count_places(adata, "layers", "counts") == []
        adata.X = all_counts(parts)
        assert count_places(adata, "layers", "counts") == ["layer=None"]
        assert count_places(adata, "raw", None) == ["use_raw=False"]

    @pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
    @pytest.mark.filterwarnings("ignore:Writing zarr")
    def test_on_disk(self, adata, parts, tmp_path, suffix):
        adata.raw = ad.AnnData(sp.csr_matrix(all_counts(parts)))
        adata.layers["few"] = sp.csr_matrix(all_counts(parts) // 2)
        adata.layers["dense"] = all_counts(parts)
        adata.layers["logs"] = adata.X.copy()
        path = tmp_path / f"a.{suffix}"
        (adata.write_zarr if suffix == "zarr" else adata.write_h5ad)(path)
        wanted = count_places(adata, "X", None)
        assert wanted == ['layer="dense"', f"use_raw=True (adata.raw, {G} genes)", 'layer="few"']
        assert count_places(open_data(path, stream=True), "X", None) == wanted


class TestMessages:
    def test_of_negative_values(self, adata, parts):
        adata.X = adata.X - 1
        with pytest.raises(ValueError, match=r"Counts cannot be negative.* No other matrix here .* holds counts"):
            LayerField("X", None).register_field(adata)
        adata.layers["umi"] = all_counts(parts)
        with pytest.raises(ValueError, match=r'use layer="umi"\.$'):
            LayerField("X", None).register_field(adata)

    def test_no_layer_is_named_that_is_not_there(self, adata):
        with pytest.warns(UserWarning, match="does not contain unnormalized count data") as seen:
            LayerField("X", None).register_field(adata)
        assert "layer=" not in str(seen[0].message)

    def test_of_nothing_but_zeros(self, adata, parts):
        adata.X = np.zeros_like(adata.X)
        adata.layers["umi"] = all_counts(parts)
        with pytest.warns(UserWarning, match=r'all 700 cells are empty.* use layer="umi"'):
            LayerField("X", None).register_field(adata)

    @pytest.mark.parametrize("value", [3e38, 2.0**40])
    @pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
    def test_impossibly_large(self, adata, parts, value, form):
        x_ng = all_counts(parts)
        x_ng[5, 3] = value
        adata.X = form(x_ng)
        with pytest.raises(ValueError, match=r"holds 1 impossibly large value in 1 of 700 cells \('5'\)"):
            LayerField("X", None).register_field(adata)
        x_ng[5, 3] = 2.0**31
        adata.X = form(x_ng)
        LayerField("X", None).register_field(adata)

    def test_masked_entries(self, adata, parts):
        mask = np.zeros((N, G), bool)
        adata.X = np.ma.masked_array(all_counts(parts), mask=mask)
        LayerField("X", None).register_field(adata)
        mask[3, 2] = True
        adata.X = np.ma.masked_array(all_counts(parts), mask=mask)
        with pytest.raises(ValueError, match=r"adata\.X is a masked array, and 1 of its 14000 entries"):
            LayerField("X", None).register_field(adata)
