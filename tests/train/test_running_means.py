"""Running means that keep up with a short training, against weighted means worked out by hand."""

import pytest
import torch
from torch import nn

from celbo.train import TrainingPlan
from celbo.train.plans.schedules import RunningMeans, momentum_after

from .test_nonfinite import Net


def layer(momentum: float | None = 0.01) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(2, momentum=momentum)


def see(means: RunningMeans, batch_norm: nn.BatchNorm1d, values: list[float]) -> None:
    for value in values:
        with means.keeping_up():
            batch_norm(torch.full((4, 2), value))


def test_recent_minibatches_weigh_more_until_the_usual_weight():
    assert [momentum_after(t, 0.05) for t in (0, 1, 2, 8, 38, 500)] == pytest.approx(
        [1, 2 / 3, 1 / 2, 1 / 5, 0.05, 0.05]
    )


def test_the_mean_is_that_of_what_was_seen():
    batch_norm = layer()
    see(RunningMeans(batch_norm, 0.05), batch_norm, [1.0, 4.0, 4.0, 10.0])
    weights = [1 / 10, 2 / 10, 3 / 10, 4 / 10]  # 2 / (t + 2) makes them 1, 2, 3, ...
    expected = sum(w * value for w, value in zip(weights, [1.0, 4.0, 4.0, 10.0], strict=True))
    assert batch_norm.running_mean.tolist() == pytest.approx([expected] * 2)
    assert batch_norm.momentum == 0.01


def test_layers_that_have_seen_many_go_on_at_the_usual_weight():
    batch_norm = layer()
    with torch.no_grad():
        batch_norm.running_mean.fill_(1.0)
        batch_norm.num_batches_tracked.fill_(100)
    see(RunningMeans(batch_norm, 0.25), batch_norm, [5.0])
    assert batch_norm.running_mean.tolist() == [2.0, 2.0]


def test_the_pace_goes_on_where_a_resumed_run_was():
    whole, parts = layer(), layer()
    values = [float(i * i % 7) for i in range(12)]
    see(RunningMeans(whole, 0.2), whole, values)
    see(RunningMeans(parts, 0.2), parts, values[:5])
    see(RunningMeans(parts, 0.2), parts, values[5:])
    assert torch.equal(whole.running_mean, parts.running_mean)


def test_fixed_statistics_stay_so():
    fixed, averaged = layer(momentum=0.0), layer(momentum=None)
    means = RunningMeans(nn.ModuleList([fixed, averaged]), 0.5)
    see(means, fixed, [3.0])
    assert fixed.running_mean.tolist() == [0.0, 0.0]
    with means.keeping_up():
        assert averaged.momentum is None  # a mean of all minibatches already


def test_the_layers_have_their_own_pace_again_after_an_error():
    batch_norm = layer()
    with pytest.raises(RuntimeError, match="mine"), RunningMeans(batch_norm, 0.5).keeping_up():
        raise RuntimeError("mine")
    assert batch_norm.momentum == 0.01


def test_a_plan_sets_the_pace_of_training_alone(fit, x_n3):
    """Four minibatches: running means that are theirs, or a third of them with the pace of torch."""
    paced, plain = (TrainingPlan(Net(), **kwargs) for kwargs in ({"batch_norm_momentum": 0.05}, {}))
    for plan in (paced, plain):
        fit(plan, max_epochs=1)
        assert plan.module.norm.momentum == 0.1
        assert int(plan.module.norm.num_batches_tracked) == 4
    means = [x_n3[start : min(start + 16, 60)].mean(0) for start in range(0, 60, 16)]
    expected = sum((i + 1) / 10 * mean for i, mean in enumerate(means))
    torch.testing.assert_close(paced.module.norm.running_mean, expected)
    torch.testing.assert_close(
        plain.module.norm.running_mean, sum(0.1 * 0.9 ** (3 - i) * mean for i, mean in enumerate(means))
    )
