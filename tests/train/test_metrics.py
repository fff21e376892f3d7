"""Epoch metrics by hand, and against what scvi-tools 1.4.2 writes for the same module and data."""

import math

import numpy as np
import pytest
import torch

from celbo.module.base import LossOutput
from celbo.train import ElboMetric
from celbo.train.metrics import EpochMetrics, scalar_extra_metrics

# scvi-tools 1.4.2: TrainingPlan(module, n_epochs_kl_warmup=4), 60 + 14 rows in minibatches of 16 and 8, three epochs.
PEER = {
    "validation_loss": [39.75, 43.32143020629883, 46.89285659790039],
    "elbo_validation": [54.39285659790039] * 3,
    "reconstruction_loss_validation": [39.75] * 3,
    "kl_local_validation": [14.285714149475098] * 3,
    "kl_global_validation": [5.0] * 3,
    "top_validation": [69.25] * 3,
    "train_loss": [38.849998474121094, 42.67916488647461, 46.50833511352539],
    "elbo_train": [54.208333333] * 3,
    "reconstruction_loss_train": [38.849998474121094] * 3,
    "kl_local_train": [15.316666603088379] * 3,
    "kl_global_train": [2.5] * 3,
    "top_train": [78.78333282470703] * 3,
}


def test_same_figures_as_scvi_tools(fit, series):
    trainer = fit(plan_kwargs={"n_epochs_kl_warmup": 4})
    assert list(trainer.history.frames()) == [*PEER, "kl_weight"]
    for name, figures in PEER.items():
        assert series(trainer, name) == pytest.approx(figures, rel=1e-6), name
    assert series(trainer, "kl_weight") == [0.0, 0.25, 0.5]


def test_same_figures_as_by_hand(fit, series, x_n3):
    trainer = fit(max_epochs=1)
    x = x_n3.double().numpy()[:60]
    rec, kl, kl_global = (
        x[:, 0].sum() / 60,
        x[:, 1].sum() / 60,
        np.mean([x[i : i + 16, 2].max() for i in range(0, 60, 16)]),
    )
    assert kl_global == 2.5
    assert series(trainer, "elbo_train") == pytest.approx([rec + kl + 2.5 / 60], rel=1e-12)
    assert series(trainer, "reconstruction_loss_train") == pytest.approx([rec], rel=1e-12)
    assert series(trainer, "kl_local_train") == pytest.approx([kl], rel=1e-12)


def record(n=4, scale=1.0, **extra):
    rec_n = torch.arange(n, dtype=torch.float32) * scale
    return LossOutput(loss=rec_n.mean(), reconstruction_loss=rec_n, kl_local=torch.ones(n), extra_metrics=extra)


def test_sums_are_kept_in_double_precision():
    """16,777,216 + 1 is 16,777,216 in float32: later minibatches would count for nothing."""
    metrics = EpochMetrics("train")
    big, one = torch.full((1,), 2.0**24), torch.ones(1)
    for _ in range(3):
        metrics.update(LossOutput(loss=big.sum(), reconstruction_loss=big))
        metrics.update(LossOutput(loss=one.sum(), reconstruction_loss=one))
    assert metrics.compute(6)["reconstruction_loss_train"] == (2.0**24 + 1) / 2


def test_processes_are_added_before_the_division():
    """Unequal shares: the mean over all observations, not the mean of the processes' means."""
    whole, first, second = EpochMetrics("train"), EpochMetrics("train"), EpochMetrics("train")
    for n, part in [(4, first), (9, second), (3, second)]:
        whole.update(record(n, 2.0, a=torch.tensor(float(n))))
        part.update(record(n, 2.0, a=torch.tensor(float(n))))
    together = first.compute(16, lambda mine: [mine, second.totals()])
    assert together == pytest.approx(whole.compute(16), rel=1e-14)


def test_a_process_may_lack_what_others_have():
    """No minibatch at all, or none with a certain metric: it still takes part."""
    without, with_it = EpochMetrics("validation"), EpochMetrics("validation")
    with_it.update(record(4, 2.0, a=torch.tensor(3.0)))
    with_it.keep("accuracy", 0.5, 4)
    with_it.update(record(4, 2.0))
    for parts in ([without.totals(), with_it.totals()], [with_it.totals(), without.totals()]):
        assert without.compute(8, lambda mine, parts=parts: parts) == with_it.compute(8)


def test_sums_go_on_from_a_checkpoint():
    whole, first, second = EpochMetrics("train"), EpochMetrics("train"), EpochMetrics("train")
    for n, part in [(4, first), (9, second), (3, second)]:
        for metrics in (whole, part):
            metrics.update(record(n, 0.1, **({"a": torch.tensor(float(n))} if n != 9 else {})))
            metrics.keep("b", torch.tensor(0.3), n)
        if part is first:
            second.load_state_dict(first.state_dict())
            first.update(record(100, 1.0))  # what was saved is not the same memory
    assert second.compute(16) == whole.compute(16)


def test_extra_metrics_that_can_be_logged():
    extra = {
        "number": 2,
        "scalar": torch.tensor(1.5),
        "one_element": torch.tensor([2.5]),
        "vector": torch.ones(3),
        "nested": {"a": torch.tensor(1.0), "b": 2.0, "v": torch.ones(2)},
    }
    assert list(scalar_extra_metrics(record(**extra))) == ["number", "scalar", "one_element", "nested_a", "nested_b"]
    metrics = EpochMetrics("validation")
    metrics.update(record(2, **extra))
    assert metrics.compute(2)["nested_b_validation"] == 2.0
    assert metrics.compute(2)["one_element_validation"] == 2.5


def test_numpy_extra_metrics():
    extra = {"scalar": np.float32(1.5), "vector": np.ones(3)}
    assert list(scalar_extra_metrics(record(**extra))) == ["scalar"]


def test_extra_metrics_may_differ_between_minibatches():
    """A metric is the mean over the observations of the minibatches that have it."""
    metrics = EpochMetrics("train")
    metrics.update(record(2, a=1.0))
    metrics.update(record(6, b=5.0, a=3.0))
    row = metrics.compute(8)
    assert row["a_train"] == pytest.approx((2 * 1 + 6 * 3) / 8)
    assert row["b_train"] == pytest.approx(5.0)


@pytest.mark.parametrize("n_obs_total", [None, 0])
def test_unknown_number_of_observations_counts_as_one(n_obs_total):
    metrics = EpochMetrics("train")
    metrics.update(LossOutput(loss=torch.tensor(0.0), kl_global=torch.tensor(7.0), n_obs_minibatch=3))
    assert metrics.compute(n_obs_total)["elbo_train"] == 7.0


class TestElboMetric:
    def test_mean_over_observations_or_minibatches(self):
        for interval, expected in [("obs", 3.0 / 8), ("batch", 1.5)]:
            metric = ElboMetric("kl_local", "train", interval)
            metric.update(kl_local=torch.tensor(1.0), n_obs_minibatch=3, other=9)
            metric.update(kl_local=2.0, n_obs_minibatch=5)
            assert metric.compute() == expected
            assert metric.name == "kl_local_train"

    def test_nan_before_the_first_update(self):
        assert math.isnan(ElboMetric("kl_local", "train", "obs").compute())

    def test_missing_value(self):
        with pytest.raises(ValueError, match="Missing 'n_obs_minibatch' value"):
            ElboMetric("kl_local", "train", "obs").update(kl_local=1.0)
        with pytest.raises(ValueError, match="interval must be 'obs' or 'batch', got 'cells'"):
            ElboMetric("kl_local", "train", "cells")
