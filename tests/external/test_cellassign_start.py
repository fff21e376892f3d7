"""CellAssign begins where the markers say: no seed ends in a poor optimum.

The data: types of 100 cells each, four marker genes a type (Poisson, mean 4 in the type and 0.3 elsewhere), log-normal
size factors. The right answer of a cell is nearly certain: assigning by the true rates is right for 99 to 100%.
"""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from celbo.external import CellAssign
from celbo.external.cellassign.start import marker_start

RUN = {"verbose": 0, "accelerator": "cpu", "max_epochs": 30}


def cells(seed, n_types=3, others=0, sizes=100, low=0.3):
    rng = np.random.default_rng(seed)
    rho_gc = np.kron(np.eye(n_types), np.ones((4, 1)))
    type_n = np.r_[np.repeat(np.arange(n_types), sizes), np.full(others, n_types)]
    all_gc = np.c_[rho_gc, np.zeros(len(rho_gc))]
    size_n = rng.lognormal(0, 0.3, len(type_n))
    rate_gc = np.where(all_gc > 0, 4.0, low)
    x_ng = rng.poisson(rate_gc[:, type_n].T * size_n[:, None])
    oracle_nc = np.stack([stats.poisson.logpmf(x_ng, rate_g * size_n[:, None]).sum(1) for rate_g in rate_gc.T], axis=1)
    return x_ng.astype(np.float32), size_n, type_n, all_gc, oracle_nc


def accuracy(seed, other, **kwargs):
    x_ng, size_n, type_n, rho_gc, oracle_nc = cells(seed, **kwargs)
    rho_gc = rho_gc if other else rho_gc[:, :-1]
    genes = [f"g{i}" for i in range(len(rho_gc))]
    obs = pd.DataFrame({"size": size_n}, index=[f"c{i}" for i in range(len(x_ng))])
    adata = anndata.AnnData(x_ng, obs=obs, var=pd.DataFrame(index=genes))
    CellAssign.setup_anndata(adata, size_factor_key="size")
    markers = pd.DataFrame(rho_gc, index=genes, columns=[f"t{c}" for c in range(rho_gc.shape[1])])
    model = CellAssign(adata, markers)
    model.train(seed=seed, **RUN)
    best = (oracle_nc[:, : rho_gc.shape[1]].argmax(1) == type_n).mean()
    return (model.predict().to_numpy().argmax(1) == type_n).mean(), best


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("other", [False, True])
def test_every_seed_finds_the_types(seed, other):
    found, best = accuracy(seed, other)
    assert found >= min(0.99, best)


@pytest.mark.parametrize("kwargs", [{"others": 100}, {"sizes": [20, 100, 400]}, {"n_types": 6, "others": 30}])
def test_a_type_without_markers_and_unequal_types(kwargs):
    for seed in range(2):
        found, best = accuracy(seed, True, **kwargs)
        assert found >= best - 0.01


def test_the_start_has_the_rates():
    x_ng, size_n, _, rho_gc, _ = cells(0, sizes=2000)
    start = marker_start(x_ng.astype(float), size_n, rho_gc, 2.0)
    np.testing.assert_allclose(np.exp(start.log_base_g), 0.3, rtol=0.1)
    marks = rho_gc > 0
    np.testing.assert_allclose(start.log_fold_gc[marks], np.log(4 / 0.3), rtol=0.05)
    np.testing.assert_allclose(np.exp(start.log_share_c[:3]), 1 / 3, rtol=0.03)


class TestArguments:
    def model(self, change):
        genes = [f"g{i}" for i in range(8)]
        obs = pd.DataFrame({"size": np.ones(20)}, index=[f"c{i}" for i in range(20)])
        x_ng = np.random.default_rng(0).poisson(3, (20, 8)).astype(np.float32)
        adata = anndata.AnnData(x_ng, obs=obs, var=pd.DataFrame(index=genes))
        markers = pd.DataFrame(np.kron(np.eye(2), np.ones((4, 1))), index=genes, columns=["A", "B"])
        CellAssign.setup_anndata(adata, size_factor_key="size")
        return CellAssign(adata, change(markers))

    @pytest.mark.parametrize("value", [np.nan, 2, -1, 0.5, "yes"])
    def test_entries(self, value):
        def change(markers):
            markers = markers.astype(object)
            markers.loc["g2", "B"] = value
            return markers

        with pytest.raises(ValueError, match=f"has {value} for gene 'g2' and type 'B'"):
            self.model(change)

    def test_booleans_are_taken(self):
        self.model(lambda markers: markers.astype(bool))

    def test_a_type_twice(self):
        with pytest.raises(ValueError, match="the type 'A' in more than one column"):
            self.model(lambda markers: markers.set_axis(["A", "A"], axis=1))


def test_size_factors_that_are_totals_of_the_markers_are_named(caplog):
    x_ng, _, _, rho_gc, _ = cells(0)
    obs = pd.DataFrame({"size": x_ng.sum(1) / x_ng.sum(1).mean()}, index=[f"c{i}" for i in range(len(x_ng))])
    genes = [f"g{i}" for i in range(len(rho_gc))]
    adata = anndata.AnnData(x_ng, obs=obs, var=pd.DataFrame(index=genes))
    CellAssign.setup_anndata(adata, size_factor_key="size")
    CellAssign(adata, pd.DataFrame(rho_gc, index=genes, columns=["a", "b", "c", "other"]))
    assert "totals of the marker genes alone" in caplog.text
