"""Schedules against closed forms and against facts observed in scvi-tools 1.4.2."""

import math

import pytest

from celbo.train.plans.schedules import kl_weight, max_epochs_classic, one_cycle


@pytest.mark.parametrize(
    ("epoch", "step", "epochs", "steps", "expected"),
    [
        (0, 0, 400, None, 0.0),
        (1, 9, 400, None, 0.0025),
        (399, 9, 400, None, 0.9975),
        (400, 9, 400, None, 1.0),
        (7, 30, None, 40, 0.75),
        (7, 30, 0, 40, 0.75),  # 0 counts as unset
        (2, 30, 8, 40, 0.25),  # epochs win when both are set
        (0, 0, None, None, 1.0),
        (0, 0, 0, 0, 1.0),
    ],
)
def test_kl_weight(epoch, step, epochs, steps, expected):
    assert kl_weight(epoch, step, epochs, steps) == pytest.approx(expected, abs=1e-15)


def test_kl_weight_between_bounds():
    weights = [kl_weight(e, 0, 4, None, max_kl_weight=0.5, min_kl_weight=0.1) for e in range(6)]
    assert weights == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    late = [kl_weight(e, 0, 4, None, 1.0, 0.1, begins_at=0.5) for e in range(6)]
    assert late == pytest.approx([0.1, 0.1, 0.1, 0.55, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"min_kl_weight=0\.9 is above max_kl_weight=0\.5"):
        kl_weight(0, 0, 4, None, 0.5, 0.9)


@pytest.mark.parametrize(
    ("n_obs", "epochs"),
    [
        (1, 400),
        (20_000, 400),
        (20_050, 399),
        (26_000, 308),
        (40_000, 200),
        (100_000, 80),
        (1_000_000, 8),
        (5_333_333, 2),
        (3_200_000, 2),  # exactly 2.5: Python rounds half to even
        (16_000_000, 1),
        (10**9, 1),
    ],
)
def test_classic_epochs(n_obs, epochs):
    assert max_epochs_classic(n_obs) == epochs


def test_one_cycle_rises_linearly_then_falls_as_a_cosine():
    n = 200
    factors = [one_cycle(step, n) for step in range(n)]
    assert factors[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert factors[20:] == pytest.approx([0.5 * (1 + math.cos(math.pi * (i + 1) / 180)) for i in range(180)])
    assert factors[-1] == pytest.approx(0, abs=1e-12)
    assert one_cycle(n + 5, n) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_one_cycle_of_few_steps_moves(n_steps):
    assert one_cycle(0, n_steps) == 1.0
