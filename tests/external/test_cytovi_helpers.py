"""What prepares, reads, writes and shows cytometry, against plain numpy."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from celbo.core import ArgumentError
from celbo.external import cytovi


def raw(seed: int = 0, n: int = 60, markers=("CD3", "CD4", "CD8", "FSC-A")) -> AnnData:
    rng = np.random.default_rng(seed)
    adata = AnnData(rng.gamma(2, 50, (n, len(markers))).astype(np.float32))
    adata.var_names, adata.obs_names = list(markers), [f"c{seed}_{i}" for i in range(n)]
    adata.layers["raw"] = adata.X.copy()
    adata.obs["group"] = np.resize(["a", "b", "b"], n)
    return adata


def prepared(**kwargs) -> AnnData:
    adata = raw(**kwargs)
    cytovi.transform_arcsinh(adata)
    cytovi.scale(adata)
    return adata


def test_arcsinh():
    adata = raw()
    assert cytovi.transform_arcsinh(adata, scaling_dict={"CD4": 2.0}) is None
    x = adata.layers["raw"]
    wanted = np.arcsinh(x / [5, 2, 5, 5])
    wanted[:, 3] = x[:, 3]  # scatter stays
    np.testing.assert_allclose(adata.layers["transformed"], wanted, rtol=1e-6)
    copy = cytovi.transform_arcsinh(raw(), transform_scatter=True, inplace=False)
    np.testing.assert_allclose(copy.layers["transformed"], np.arcsinh(x / 5), rtol=1e-6)
    with pytest.raises(ArgumentError, match="Did you mean 'CD4'"):
        cytovi.transform_arcsinh(adata, scaling_dict={"CD44": 2.0})
    with pytest.raises(ArgumentError, match="greater than 0"):
        cytovi.transform_arcsinh(adata, scaling_dict={"CD4": 0.0})
    del adata.layers["raw"]
    with pytest.raises(ArgumentError, match=r"raw_layer_key=None reads adata\.X"):
        cytovi.transform_arcsinh(adata)


@pytest.mark.parametrize("batch_key", [None, "group"])
def test_scaling(batch_key):
    adata = prepared()
    adata.layers["transformed"][:, 2] = 3.0
    adata.layers["transformed"][4, 0] = np.nan
    cytovi.scale(adata, batch_key=batch_key, feature_range=(0.2, 0.7))
    scaled, groups = adata.layers["scaled"], adata.obs["group"].to_numpy() if batch_key else np.zeros(60)
    for group in np.unique(groups):
        part = scaled[groups == group]
        np.testing.assert_allclose(np.nanmin(part, 0), 0.2 + 1e-6, atol=1e-6)
        np.testing.assert_allclose(np.nanmax(part, 0)[[0, 1, 3]], 0.7 - 1e-6, atol=1e-6)
        x = adata.layers["transformed"][groups == group, 1]
        share = (x - x.min()) / np.ptp(x)
        np.testing.assert_allclose(part[:, 1], 0.2 + 0.5 * share, atol=3e-6)
    assert np.isnan(scaled).sum() == 1
    cytovi.scale(adata, method="standard", batch_key=batch_key)
    np.testing.assert_allclose(np.nanstd(adata.layers["scaled"][groups == groups[0]], 0)[[0, 1, 3]], 1, atol=1e-5)
    np.testing.assert_allclose(np.nanmean(adata.layers["scaled"][groups == groups[0]], 0), 0, atol=1e-5)


def test_scaling_of_wrong_ranges():
    with pytest.raises(ArgumentError, match="from a number to a larger one"):
        cytovi.scale(prepared(), feature_range=(1.0, 0.0))
    with pytest.raises(ArgumentError, match="'minmax'"):
        cytovi.scale(prepared(), method="minmx")
    adata = prepared()
    adata.obs["group"] = adata.obs["group"].where(adata.obs["group"] == "a")
    with pytest.raises(ArgumentError, match="no value for 40 cells"):
        cytovi.scale(adata, batch_key="group")


def test_panels_become_one():
    one = prepared()[:, ["CD3", "CD4", "CD8"]].copy()
    two = prepared(seed=1, n=30, markers=("CD8", "CD19", "CD3"))
    merged = cytovi.merge_batches([one, two])
    assert set(merged.var_names) == {"CD3", "CD4", "CD8", "CD19"}
    assert merged.obs["batch"].tolist() == ["0"] * 60 + ["1"] * 30
    mask = merged.to_df("_nan_mask")
    assert (mask.loc["c0_0", "CD19"], mask.loc["c1_0", "CD4"], mask.to_numpy().sum()) == (0, 0, 3 * 60 + 3 * 30)
    scaled = merged.to_df("scaled")
    np.testing.assert_array_equal(scaled.loc[two.obs_names, "CD19"], two.to_df("scaled")["CD19"])
    assert (scaled.loc[two.obs_names, "CD4"] == 0).all()
    assert merged.var.loc["CD4", ["_batch_0", "_batch_1"]].tolist() == [True, False]
    later = cytovi.merge_batches([one, two], nan_layer_registration=False)
    assert np.isnan(later.layers["scaled"]).sum() == 90
    copy = cytovi.register_nan_layer(later, inplace=False)
    np.testing.assert_array_equal(copy.layers["_nan_mask"], merged.layers["_nan_mask"])
    assert "_nan_mask" not in later.layers


def test_panels_that_cannot_become_one():
    one, other = prepared(), prepared(markers=("A", "B", "C", "D"))
    with pytest.raises(ArgumentError, match="share no marker"):
        cytovi.merge_batches([one, other])
    with pytest.raises(ArgumentError, match="is empty"):
        cytovi.merge_batches([])
    with pytest.raises(ArgumentError, match=r"adata_list\[1\].*scale\(adata\) writes it"):
        cytovi.merge_batches([one, raw()])
    twice = prepared(markers=("CD3", "CD3", "CD4", "CD8"))
    with pytest.raises(ArgumentError, match="'CD3' twice"):
        cytovi.merge_batches([one, twice])
    again = cytovi.merge_batches([one, one])
    assert again.obs_names.is_unique


def test_markers_taken_out():
    adata = prepared()
    adata.obs["batch"] = np.resize(["0", "1"], 60)
    masked = cytovi.mask_markers(adata, "CD4")
    lacks = (adata.obs["batch"] == "1").to_numpy()
    assert (masked.layers["_nan_mask"][lacks, 1] == 0).all()
    assert masked.layers["_nan_mask"].sum() == 60 * 4 - 30
    assert np.isnan(masked.layers["raw"][lacks, 1]).all()
    assert not np.isnan(adata.X).any()
    assert masked.obs_names.equals(adata.obs_names)
    with pytest.raises(ArgumentError, match="No marker is called 'CD5'"):
        cytovi.mask_markers(adata, ["CD5"])
    with pytest.raises(ArgumentError, match="No batch"):
        cytovi.mask_markers(adata, "CD4", masked_batch="7")


def test_some_cells():
    adata = prepared()
    assert cytovi.subsample(adata, 10).n_obs == 10
    assert cytovi.subsample(adata, 10).obs_names.equals(cytovi.subsample(adata, 10).obs_names)
    assert cytovi.subsample(adata, 100, replace=True).n_obs == 100
    assert cytovi.subsample(adata, 30, groupby="group").obs["group"].value_counts().to_dict() == {"a": 15, "b": 15}
    few = cytovi.subsample(adata, groupby="group", n_obs_group=30)
    assert few.obs["group"].value_counts().to_dict() == {"a": 20, "b": 30}
    with pytest.raises(ArgumentError, match="replace=True"):
        cytovi.subsample(adata, 100)


def test_files_of_cytometry(tmp_path):
    pytest.importorskip("flowio")
    adata = raw()
    cytovi.write_fcs(adata, tmp_path, split_by="group", layer="raw", prefix="x")
    back = cytovi.read_fcs(tmp_path / "x_a.fcs")
    wanted = adata[adata.obs["group"] == "a"]
    assert list(back.var_names) == list(adata.var_names)
    np.testing.assert_allclose(back.layers["raw"], wanted.X, rtol=1e-6)
    both = cytovi.read_fcs(
        tmp_path, remove_markers=["FSC-A"], sample_name_extractor={"split": "_", "index": 1}, verbose=False
    )
    assert both.shape == (60, 3)
    assert both.obs["sample_id"].value_counts().to_dict() == {"a": 20, "b": 40}
    with pytest.raises(ArgumentError, match="has 2 parts"):
        cytovi.read_fcs(tmp_path, sample_name_extractor={"split": "_", "index": 4})
    adata.X[0, 0] = np.nan
    cytovi.write_fcs(adata, tmp_path / "new")
    assert cytovi.read_fcs(tmp_path / "new").n_obs == 59


def test_files_that_are_not_there(tmp_path):
    pytest.importorskip("flowio")
    with pytest.raises(ArgumentError, match="neither a file nor a folder"):
        cytovi.read_fcs(tmp_path / "x.fcs")
    with pytest.raises(ArgumentError, match=r"no \.fcs file"):
        cytovi.read_fcs(tmp_path)
    with pytest.raises(ArgumentError, match="No layer"):
        cytovi.write_fcs(raw(), tmp_path, layer="rawer")
    with pytest.raises(ArgumentError, match="split_by"):
        cytovi.write_fcs(raw(), tmp_path, split_by="groups")


def test_histograms(tmp_path):
    adata = prepared()
    figure = cytovi.plot_histogram(adata, groupby="group", col_wrap=3, return_plot=True, save=str(tmp_path / "a.png"))
    assert [axis.get_xlabel() for axis in figure.axes] == list(adata.var_names)
    x, y = figure.axes[0].lines[1].get_data()
    group_b = adata[adata.obs["group"] == "b"].layers["raw"][:, 0]
    assert abs((x * y).sum() / y.sum() - group_b.mean()) < 0.05 * group_b.mean()
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert cytovi.plot_histogram(adata, "CD3") is None
    with pytest.raises(ArgumentError, match="No marker is called 'CD5'"):
        cytovi.plot_histogram(adata, "CD5")
    with pytest.raises(ArgumentError, match=r"layer_key=None draws adata\.X"):
        cytovi.plot_histogram(adata, layer_key="rwa")


def test_pairs_of_markers(tmp_path):
    adata = prepared()
    options = {"color": "group", "n_obs": 20, "sample_color_groups": True, "return_plot": True}
    figure = cytovi.plot_biaxial(adata, ["CD3", "CD4"], "CD8", save=str(tmp_path / "b.png"), **options)
    assert [(axis.get_xlabel(), axis.get_ylabel()) for axis in figure.axes] == [("CD3", "CD8"), ("CD4", "CD8")]
    points = [part.get_offsets() for part in figure.axes[0].collections[:2]]
    assert [len(part) for part in points] == [10, 10]
    plain = cytovi.plot_biaxial(adata, "CD3", "CD4", kde=False, layer_key=None, return_plot=True)
    np.testing.assert_allclose(plain.axes[0].collections[0].get_offsets(), pd.DataFrame(adata.X[:, :2]))
    with pytest.raises(ArgumentError, match=r"column of adata\.obs"):
        cytovi.plot_biaxial(adata, "CD3", "CD4", color="grup")
