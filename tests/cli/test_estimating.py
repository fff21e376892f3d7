"""Memory and time to expect: finite, by stated rules, growing with the cells; epochs as a training has them."""

import math
import re
from dataclasses import replace

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from celbo.cli import estimating
from celbo.cli.estimating import COST, Size, cells_a_second, default_epochs, estimates, seconds_of, size_of
from celbo.cli.models import MODELS
from celbo.data import open as open_data
from celbo.data import simulate_counts
from celbo.model import PEAKVI, SCANVI, SCVI

SIZE = Size(20_000, 2_000, 4_000_000)


def test_every_model_has_its_cost():
    """But scbasset, whose time goes by the length of its sequences, and models of two data sets."""
    of_two_sets = {kind.name for kind in MODELS.values() if kind.is_of_two_sets}
    assert set(COST) == set(MODELS) - {"scbasset"} - of_two_sets


@pytest.mark.parametrize("model", COST)
def test_more_cells_take_longer(model):
    """Ten times as many at least as long, beyond what ``one_cycle`` makes of them: steps are no fewer."""
    kind = MODELS[model]
    times = [seconds_of(kind, replace(SIZE, n_cells=n), 10_000.0) for n in (500, 20_000, 200_000, 2_000_000)]
    assert all(map(math.isfinite, times))
    assert times[0] > 0
    assert times == sorted(times)
    assert seconds_of(kind, SIZE, 5_000.0) == pytest.approx(2 * seconds_of(kind, SIZE, 10_000.0))


@pytest.mark.parametrize(("cls", "labels"), [(SCVI, None), (SCANVI, "cell_type"), (PEAKVI, None)])
@pytest.mark.parametrize("batch_key", [None, "batch"])
@pytest.mark.parametrize("n_cells", [100, 400])
def test_epochs_are_those_of_a_training(cls, labels, batch_key, n_cells):
    adata = simulate_counts(n_cells, 10, n_cell_types=2, seed=0)
    if cls is PEAKVI:
        adata.X = adata.X.minimum(1)
    cls.setup_anndata(adata, batch_key=batch_key, **({} if labels is None else {"labels_key": labels}))
    model = cls(adata)
    model.train(seed=0, verbose=0, accelerator="cpu", max_steps=1)  # the epochs that it would have
    size = size_of([adata], 1 if batch_key is None else 2)
    kind = next(one for one in MODELS.values() if one.cls is cls)
    assert default_epochs(kind, size)[0] == model.trainer.max_epochs


def test_peakvi_may_end_early_and_scvi_does_not():
    """PEAKVI gives up where part of its run brought no better weights."""
    assert default_epochs(MODELS["peakvi"], SIZE)[1]
    assert not default_epochs(MODELS["scvi"], SIZE)[1]


def test_size_is_that_of_the_data(tmp_path, rng):
    x = (rng.random((300, 40)) < 0.2).astype(np.float32)
    adata = anndata.AnnData(sp.csr_matrix(x))
    wanted = Size(300, 40, int(x.sum()))
    assert size_of([adata], 1) == wanted
    assert size_of([anndata.AnnData(x)], 1) == wanted
    adata.write_h5ad(tmp_path / "x.h5ad")
    assert size_of([open_data(tmp_path / "x.h5ad", stream=True)], 1) == wanted
    assert size_of([adata, adata[:, :10].copy()], 3).n_features == 50
    assert wanted.share_nonzero == pytest.approx(x.mean())


def test_the_rate_is_of_an_scvi_of_this_width(monkeypatch):
    monkeypatch.setattr(estimating, "_SECOND", 0.05)
    rate, n_weights = cells_a_second(Size(1_000, 30, 6_000))
    assert math.isfinite(rate)
    assert rate > 0
    adata = simulate_counts(50, 30, seed=0)
    SCVI.setup_anndata(adata)
    assert n_weights == sum(weights.numel() for weights in SCVI(adata).module.parameters())


def test_data_of_many_features_are_tried_on_fewer(monkeypatch):
    """The training for a second would not fit in memory itself: weights of 300,000 peaks take gigabytes."""
    widths = []

    def noted(adata):
        widths.append(adata.n_vars)
        return SCVI(adata)

    noted.setup_anndata = SCVI.setup_anndata
    monkeypatch.setattr(estimating, "_SECOND", 0.05)
    monkeypatch.setattr(estimating, "_MOST_COLUMNS", 500)
    monkeypatch.setattr(estimating, "SCVI", noted)
    _, n_weights = cells_a_second(Size(1_000, 2_000, 200_000))
    assert widths == [500]
    adata = anndata.AnnData(sp.csr_matrix(np.ones((5, 2_000), np.float32)))
    SCVI.setup_anndata(adata)
    assert n_weights == pytest.approx(sum(weights.numel() for weights in SCVI(adata).module.parameters()), rel=0.1)


def test_the_rate_of_many_features_is_in_proportion(monkeypatch):
    """The clock stands for the machine: an epoch takes a second."""
    monkeypatch.setattr(estimating.time, "perf_counter", iter(range(10**6)).__next__)
    monkeypatch.setattr(estimating, "_MOST_COLUMNS", 50)
    narrow, _ = cells_a_second(Size(1_000, 50, 5_000))
    assert cells_a_second(Size(1_000, 200, 20_000))[0] == pytest.approx(narrow / 4)


def test_memory_of_the_program_is_read_before_the_training(monkeypatch):
    """Its weights would count twice."""
    read = []
    monkeypatch.setattr(estimating, "resident_memory", lambda: read.append("memory"))
    monkeypatch.setattr(estimating, "cells_a_second", lambda size: read.append("training") or (1_000.0, 0))
    lines = dict(estimates(Size(10, 1, 0), [MODELS["scvi"]]))
    assert read == ["memory", "training"]
    assert "537 MB for the program" in lines["memory"]


def test_the_lines_say_that_a_rate_was_scaled(monkeypatch):
    monkeypatch.setattr(estimating, "cells_a_second", lambda size: (10.0, 10**6))
    *_, (_, basis) = estimates(Size(10_000, 300_000, 10**7), [MODELS["scvi"]])
    assert "scvi of 5,000 features at 600 cells/s for 1 s, scaled to 300,000 features" in basis


def test_the_lines_say_their_basis(monkeypatch):
    monkeypatch.setattr(estimating, "cells_a_second", lambda size: (1_000.0, 10**6))
    kinds = [MODELS["scvi"], MODELS["drvi"], MODELS["velovi"]]
    lines = list(estimates(Size(10_000, 500, 10**9), kinds))
    assert [name for name, _ in lines] == ["memory", "time", ""]
    memory, times, basis = (text for _, text in lines)
    assert "8.0 GB of data (1,000,000,000 nonzero values of 8 bytes)" in memory
    assert "--data stream" in memory
    epochs, _ = default_epochs(MODELS["scvi"], SIZE)
    assert epochs > 0
    assert re.fullmatch(r"about scvi \d+ (s|min), drvi up to \d+ (min|h), velovi \d+ (min|h)", times)
    assert re.search(r"\(scvi: \d+ epochs of 9,000 cells; .* scvi of 500 features at 1,000 cells/s", basis)


def test_celbo_check_says_it(small, celbo, monkeypatch):
    monkeypatch.setattr(estimating, "_SECOND", 0.05)
    monkeypatch.setattr(estimating, "resident_memory", lambda: 3 * 10**8)  # not that of all tests before this one
    done = celbo("check", small.path)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"^memory +about \d+ MB: .* of data", done.stdout, re.MULTILINE)
    assert re.search(r"^time +about scvi ", done.stdout, re.MULTILINE)
    assert done.stderr == ""
