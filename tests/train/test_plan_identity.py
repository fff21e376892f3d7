"""What a plan declares itself to be: a checkpoint goes on with the same, whatever the plan calls its attributes."""

import pytest

from celbo.module import VAE
from celbo.train import ClassifierTrainingPlan, TrainingPlan
from celbo.train.checkpoints.fingerprint import differences


class Weighted(TrainingPlan):
    """A plan of someone else's, with an argument more and another rate."""

    def __init__(self, module, *, weight=2.0, **plan_kwargs):
        super().__init__(module, lr=5e-3, **plan_kwargs)
        self.renamed = weight


@pytest.fixture
def module():
    return VAE(20, n_hidden=4)


def found(saved, plan):
    rest = {"data": {}, "model": {}, "trainer": {}}
    present = {"class": type(plan).__name__, "declared": True, **plan.identity()}
    return differences(rest | {"plan": saved}, rest | {"plan": present})


def test_arguments_with_their_defaults(module):
    identity = TrainingPlan(module, lr=2e-3, n_epochs_kl_warmup=None).identity()
    assert identity["lr"] == 2e-3
    assert identity["n_epochs_kl_warmup"] is None
    assert identity["eps"] == 0.01
    assert "module" not in identity


def test_what_a_base_class_was_handed_counts(module):
    identity = Weighted(module, eps=0.1).identity()
    assert (identity["weight"], identity["lr"], identity["eps"], identity["optimizer"]) == (2.0, 5e-3, 0.1, "Adam")


def test_a_plan_that_changed_is_told(module):
    saved = {"class": "Weighted", "declared": True, **Weighted(module).identity()}
    assert found(saved, Weighted(module)) == []
    assert found(saved, Weighted(module, weight=3.0)) == ["weight of the plan was 2.0 and is 3.0"]
    assert found(saved | {"gone": 1}, Weighted(module)) == ["gone of the plan was 1 and is None"]
    assert found(saved | {"gone": False}, Weighted(module)) == []  # a switch that is left out is off
    assert found(saved | {"gone": 0}, Weighted(module)) == ["gone of the plan was 0 and is None"]
    assert found(saved, TrainingPlan(module))[0] == "class of the plan was 'Weighted' and is 'TrainingPlan'"


class TestEarlierVersions:
    """They wrote a plan's attributes: some are arguments of the same name, the others say nothing."""

    SAVED = {
        "class": "TrainingPlan",
        "optimizer_name": "Adam",
        "lr_schedule": "constant",
        "lr": 1e-3,
        "n_epochs_kl_warmup": 400,
        "by_step_and_epoch": False,
        "n_obs_validation": 40,
        "on_step": True,
    }

    def test_the_same(self, module):
        assert found(self.SAVED, TrainingPlan(module)) == []

    @pytest.mark.parametrize(
        "change",
        [{"lr": 2e-3}, {"optimizer": "AdamW"}, {"n_epochs_kl_warmup": None}, {"dispersion_lr_factor": 3.0}],
        ids=str,
    )
    def test_another(self, module, change):
        assert len(found(self.SAVED, TrainingPlan(module, **change))) == 1


def test_every_plan_declares(module):
    assert ClassifierTrainingPlan(module, lr=0.1).identity()["lr"] == 0.1
