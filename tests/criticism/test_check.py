"""Posterior predictive checks: scvi-tools' figures on given draws, and models of celbo's."""

import gzip
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy import stats

from celbo.criticism import PosteriorPredictiveCheck
from celbo.criticism.differential import compare_groups, log_normalized
from celbo.criticism.scores import average_precision, roc_auc
from celbo.data import synthetic_iid
from celbo.model import SCVI

sparse = pytest.importorskip("sparse", reason="extra 'sparse' is not installed")
GOLDEN = json.loads(gzip.decompress(Path(__file__).with_name("golden.json.gz").read_bytes()))


class Drawn:
    def __init__(self, draws):
        self.draws = np.asarray(draws)

    def posterior_predictive_sample(self, adata, n_samples, indices):
        drawn = self.draws[indices][:, :, :n_samples]
        return sparse.GCXS.from_numpy(drawn[:, :, 0] if n_samples == 1 else drawn)


def checked(part, form=np.asarray, **options):
    x = form(np.asarray(part["x"]))
    kind = np.array(list("abc"))[part.get("kind", [0] * x.shape[0])]
    obs = pd.DataFrame({"kind": kind}, index=[str(i) for i in range(x.shape[0])])
    draws = np.asarray(part["draws"])
    return PosteriorPredictiveCheck(anndata.AnnData(x, obs=obs), {"model1": Drawn(draws)}, n_samples=draws.shape[-1])


def frame(found):
    return pd.DataFrame(found["data"], index=found["index"], columns=found["columns"])


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
class TestStatistics:
    part = GOLDEN["statistics"]

    def test_coefficient_of_variation(self, form):
        check = checked(self.part, form)
        for dim, key in (("cells", "cv_gene"), ("features", "cv_cell")):
            assert check.coefficient_of_variation(dim) is None
            pd.testing.assert_frame_equal(check.metrics[key], frame(self.part["found"][key]))
        assert "cv_gene, cv_cell" in repr(check)

    def test_zero_fraction_is_the_share_of_zeros(self, form):
        """scvi-tools 1.4.2 gives the share of the others under this name."""
        check = checked(self.part, form)
        check.zero_fraction()
        pd.testing.assert_frame_equal(check.metrics["zero_fraction"], 1 - frame(self.part["found"]["zero_fraction"]))

    def test_calibration(self, form):
        check = checked(self.part, form)
        for levels, error in self.part["found"]["errors"]:
            check.calibration_error(levels)
            assert check.metrics["calibration"].loc["features", "model1"] == pytest.approx(error, rel=1e-9)


def test_calibration_of_one_central_interval():
    check = checked(GOLDEN["statistics"])
    check.calibration_error(0.9)
    one = check.metrics["calibration"]
    check.calibration_error([0.95, 0.05])
    pd.testing.assert_frame_equal(check.metrics["calibration"], one)
    for wrong in ([0.1], [], [0.1, 1.5]):
        with pytest.raises(ValueError, match="even number of levels"):
            check.calibration_error(wrong)


@pytest.mark.parametrize(("options", "found"), GOLDEN["differential"]["found"])
def test_differential_expression(options, found):
    check = checked(GOLDEN["differential"])
    check.differential_expression("kind", **options)
    summary, expected = check.metrics["diff_exp"]["summary"], frame(found["summary"])
    assert list(summary.columns) == list(expected.columns)
    for name in ("lfc_mae", "lfc_pearson", "lfc_spearman", "n_cells"):
        np.testing.assert_allclose(summary[name], expected[name], rtol=1e-5, err_msg=name)
    for name in ("group", "model"):
        assert summary[name].tolist() == expected[name].tolist()
    for group, changes in found["lfc_per_model_per_group"]["model1"].items():
        ours = check.metrics["diff_exp"]["lfc_per_model_per_group"]["model1"][group]
        np.testing.assert_allclose(ours.loc[changes["index"]], changes["data"], rtol=1e-4, atol=1e-5)


def test_welch_and_fold_change_are_scipys():
    part = GOLDEN["differential"]
    x, kind = np.asarray(part["x"]), np.asarray(part["kind"])
    x[7] = 0
    logs = np.log1p(1e3 * x / np.maximum(x.sum(1, keepdims=True), 1))
    tests = compare_groups(log_normalized(sp.csr_matrix(x), 1e3), kind, 3)
    for group in range(3):
        inside, outside = logs[kind == group], logs[kind != group]
        welch = stats.ttest_ind(inside, outside, equal_var=False)
        np.testing.assert_allclose(tests.score[group], welch.statistic, rtol=1e-9)
        np.testing.assert_allclose(tests.adjusted_p[group], stats.false_discovery_control(welch.pvalue), rtol=1e-6)
        fold = np.log2(np.expm1(inside.mean(0)) / np.expm1(outside.mean(0)))
        np.testing.assert_allclose(tests.log_fold_change[group], fold, rtol=1e-6)


def test_agreement_of_counts_with_themselves():
    part = GOLDEN["differential"]
    x = np.asarray(part["x"])
    check = checked(part | {"draws": np.stack([x, x], -1)})
    check.differential_expression("kind", n_samples=2, p_val_thresh=1e-300, n_top_genes_fallback=3)
    summary = check.metrics["diff_exp"]["summary"]
    for name in ("gene_f1", "lfc_pearson", "lfc_spearman", "roc_auc", "pr_auc"):
        np.testing.assert_allclose(summary[name], 1.0)
    np.testing.assert_allclose(summary["lfc_mae"], 0.0, atol=1e-12)


def test_areas():
    truth, score = np.array([True, False, True, False, False]), np.array([5.0, 4.0, 3.0, 2.0, 2.0])
    assert roc_auc(truth, score) == pytest.approx(5 / 6)
    assert average_precision(truth, score) == pytest.approx((1 + 2 / 3) / 2)
    assert roc_auc(truth, np.zeros(5)) == 0.5
    assert average_precision(truth, np.zeros(5)) == pytest.approx(0.4)
    assert np.isnan([roc_auc(truth | True, score), average_precision(truth & False, score)]).all()


def test_a_model_and_some_of_its_cells():
    adata = synthetic_iid(batch_size=30, n_genes=12, n_proteins=0, n_regions=0, seed=0)
    adata.layers["counts"] = adata.X.copy()
    SCVI.setup_anndata(adata, layer="counts", batch_key="batch")
    model = SCVI(adata, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu", seed=0, verbose=0)
    check = PosteriorPredictiveCheck(adata, {"a": model, "b": model}, "counts", n_samples=1, indices=[7, 3, 11])
    assert check.samples["a"].shape == (3, 12, 1)
    np.testing.assert_array_equal(check.raw_counts.todense(), np.asarray(adata.X)[[7, 3, 11]])
    check.coefficient_of_variation("features")
    assert check.metrics["cv_cell"].index.tolist() == adata.obs_names[[7, 3, 11]].tolist()
    assert list(check.metrics["cv_cell"].columns) == ["a", "b", "Raw"]


def test_unknown_names():
    part = GOLDEN["differential"]
    check = checked(part)
    with pytest.raises(ValueError, match="'cells'"):
        check.coefficient_of_variation("cell")
    with pytest.raises(KeyError, match="'kind'"):
        check.differential_expression("kin")
    with pytest.raises(ValueError, match="t-test"):
        check.differential_expression("kind", de_method="ttest")
    with pytest.raises(KeyError, match="layer of adata"):
        PosteriorPredictiveCheck(check.adata, check.models, "counts")


def test_samples_dataset():
    pytest.importorskip("xarray", reason="xarray is not installed")
    data = checked(GOLDEN["statistics"]).samples_dataset
    assert dict(data.sizes) == {"cells": 9, "features": 5, "samples": 4}
    assert set(data) == {"model1", "Raw"}


def test_samples_dataset_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xarray", None)
    with pytest.raises(ModuleNotFoundError, match="samples_dataset needs the package 'xarray'"):
        _ = checked(GOLDEN["statistics"]).samples_dataset
