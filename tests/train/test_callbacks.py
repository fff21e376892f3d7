"""Early stopping, best weights, checkpoints, plateau: against runs worked out by hand."""

import logging
import math

import pandas as pd
import pytest
import torch

from celbo.core import elbo_of_weights
from celbo.train import Callback, LoudEarlyStopping, SaveCheckpoint, ScibCallback, TrainingPlan
from celbo.train.callbacks import KeepBest


class Script(TrainingPlan):
    """Validation ELBO as written in a script; the weight counts the epochs."""

    def __init__(self, module, script, **kwargs):
        super().__init__(module, **({"n_epochs_kl_warmup": None} | kwargs))
        self.script = script

    def on_train_epoch_end(self):
        pass

    def on_train_epoch_start(self):
        with torch.no_grad():
            self.module.w.fill_(float(self.current_epoch))

    def validation_step(self, batch, batch_idx):
        self.log("elbo_validation", self.script[min(self.current_epoch, len(self.script) - 1)])

    def configure_optimizers(self):
        if self.reduce_lr_on_plateau:
            return super().configure_optimizers()
        return torch.optim.SGD(self.module.parameters(), lr=0.0)


@pytest.fixture
def run(fit, module_cls):
    def run(script, plan_kwargs=None, **kwargs):
        return fit(Script(module_cls(), script, **(plan_kwargs or {})), **({"max_epochs": 20} | kwargs))

    return run


WORSE = [float(i) for i in range(30)]


@pytest.mark.parametrize(
    ("patience", "warmup", "n_epochs"),
    [(1, 0, 2), (1, 5, 7), (3, 0, 4), (45, 0, 20)],  # the first two as observed in scvi-tools 1.4.2
)
def test_epochs_until_it_stops(run, patience, warmup, n_epochs):
    trainer = run(WORSE, early_stopping=True, early_stopping_patience=patience, early_stopping_warmup_epochs=warmup)
    assert trainer.current_epoch == n_epochs
    stopped = n_epochs < 20
    assert trainer.should_stop == stopped
    if stopped:
        assert "elbo_validation did not improve" in trainer.stop_reason


def test_improvement_must_exceed_min_delta(run):
    shrinking = [10.0 - 0.1 * i for i in range(20)]
    options = {"early_stopping": True, "early_stopping_patience": 2}
    assert run(shrinking, **options).current_epoch == 20
    assert run(shrinking, **options, early_stopping_min_delta=0.5).current_epoch == 3


def test_mode_max(run):
    assert run(WORSE, early_stopping=True, early_stopping_patience=1, early_stopping_mode="max").current_epoch == 20


def test_nan_is_no_improvement(run):
    assert run([1.0, math.nan, math.nan], early_stopping=True, early_stopping_patience=2).current_epoch == 3


def test_min_epochs(run):
    assert run(WORSE, early_stopping=True, early_stopping_patience=1, min_epochs=6).current_epoch == 6


def test_waits_for_the_kl_warmup_when_told_nothing(fit, module_cls):
    """``early_stopping_warmup_epochs=None``: as many validations as the KL weight rises."""
    plan = TrainingPlan(module_cls(), n_epochs_kl_warmup=6)
    options = {"early_stopping": True, "early_stopping_patience": 1, "max_epochs": 20}
    assert fit(plan, early_stopping_warmup_epochs=None, **options).current_epoch == 8
    plan = TrainingPlan(module_cls(), n_epochs_kl_warmup=None, n_steps_kl_warmup=22)  # 5.5 epochs of 4 steps
    assert fit(plan, early_stopping_warmup_epochs=None, **options).current_epoch == 8


def test_unknown_metric_lists_those_there_are(run):
    with pytest.raises(KeyError, match="elbo_validation"):
        run(WORSE, early_stopping=True, early_stopping_monitor="elbo_validatoin")


def test_early_stopping_without_validation_set(run):
    with pytest.raises(ValueError, match="Can't run Early Stopping with validation monitor with no validation set"):
        run(WORSE, early_stopping=True, validation=None)
    trainer = run(
        WORSE, early_stopping=True, validation=None, early_stopping_monitor="elbo_train", early_stopping_patience=3
    )
    assert trainer.current_epoch == 4


def test_callback_of_the_users_own_is_the_same(run):
    callback = LoudEarlyStopping(patience=3)
    assert run(WORSE, callbacks=[callback]).current_epoch == 4
    assert callback.stopped_epoch == 3
    assert callback.best_score == 0.0
    other = LoudEarlyStopping(patience=3)
    other.load_state_dict(callback.state_dict())
    assert other.state_dict() == callback.state_dict()


def test_keep_best_puts_the_best_weights_back(run):
    assert run([5, 3, 1, 2, 4], max_epochs=5, keep_best=True).raw_module.w.item() == 2.0
    assert run([5, 3, 1, 2, 4], max_epochs=5).raw_module.w.item() == 4.0
    assert run([5, 3, 2, 1, 0], max_epochs=5, keep_best=True).raw_module.w.item() == 4.0


def test_keep_best_looks_at_the_last_part_only(run):
    assert run([1, 5, 3, 4], max_epochs=4, keep_best=True, keep_best_from=0.5).raw_module.w.item() == 2.0
    assert run([5, 4, 3, 1], max_epochs=4, keep_best=True, keep_best_from=1.0).raw_module.w.item() == 3.0
    stopping = {"early_stopping": True, "early_stopping_patience": 2}
    assert run([5, 1, 3, 4], max_epochs=9, keep_best=True, keep_best_from=0.9, **stopping).raw_module.w.item() == 1.0


def test_keep_best_gives_up(run):
    trainer = run([5, 1, 2, 3, 4, 0], max_epochs=6, keep_best=True, gives_up_after=0.5)
    assert (trainer.current_epoch, trainer.raw_module.w.item()) == (5, 1.0)
    later = run([5, 1, 2, 3, 0, 4], max_epochs=6, keep_best=True, gives_up_after=0.5)
    assert (later.current_epoch, later.raw_module.w.item()) == (6, 4.0)
    never = run([1, 2, 3, 4, 5, 6], max_epochs=6, keep_best=True)
    assert (never.current_epoch, never.raw_module.w.item()) == (6, 0.0)


def test_keep_best_after_an_interrupt(run):
    class Interrupts(Callback):
        def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
            if trainer.current_epoch == 3:
                raise KeyboardInterrupt

    assert run([5, 1, 2, 4], max_epochs=5, keep_best=True, callbacks=Interrupts()).raw_module.w.item() == 1.0


def test_keep_best_without_validation_keeps_the_last(run):
    assert run(WORSE, max_epochs=3, keep_best=True, validation=None).raw_module.w.item() == 2.0


def test_the_elbo_that_is_said_is_that_of_the_weights_kept(run, said):
    """The smallest of all is in the share of the run before which none are kept: it is no figure of this model."""
    trainer = run([1, 9, 5, 3, 6], max_epochs=5, keep_best=True, keep_best_from=0.4, verbose=1)
    kept, summary = said(logging.INFO)
    assert kept == "Weights of epoch 3 kept: best elbo_validation 3.0000 after the first 40% of the run."
    assert summary.endswith("validation ELBO 3.00 (epoch 3, whose weights were kept).")
    assert trainer.kept_epoch == trainer.raw_module.w.item() == 3


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (3, (3.0, "epoch 3, whose weights were kept")),
        (4, (6.0, "epoch 4, the last")),
        (1, (1.0, "epoch 0, whose weights were kept")),  # epoch 1 was not validated
        (None, (1.0, "epoch 0, the smallest")),
    ],
)
def test_elbo_of_the_weights(kept, expected):
    curve = pd.DataFrame({"elbo_validation": [1.0, math.nan, 5.0, 3.0, 6.0]})
    assert elbo_of_weights({"elbo_validation": curve}, kept) == elbo_of_weights(curve, kept) == expected
    assert elbo_of_weights({}, kept) is None


def test_keep_best_of_another_metric(run):
    best = KeepBest("elbo_validation", mode="max")
    assert run([5, 7, 1], max_epochs=3, callbacks=best).raw_module.w.item() == 1.0
    assert best.best_epoch == 1
    with pytest.raises(ValueError, match="mode must be 'min' or 'max', got 'lowest'"):
        KeepBest(mode="lowest")


@pytest.mark.parametrize(
    ("warmup", "best_epoch"),
    [(None, 0), (1, 0), (2, 3), (4, 3), (5, 5), (6, 0), (9, 0)],  # nothing follows one of the whole run
)
def test_nothing_is_kept_while_the_kl_weight_rises(run, warmup, best_epoch):
    best = KeepBest()
    trainer = run([1, 5, 4, 3, 9, 8], {"n_epochs_kl_warmup": warmup}, max_epochs=6, callbacks=best)
    assert best.best_epoch == best_epoch
    assert trainer.raw_module.w.item() == float(best.best_epoch)


def test_checkpoints_need_a_model(run, tmp_path):
    with pytest.raises(ValueError, match=r"model\.train"):
        run(WORSE, callbacks=SaveCheckpoint(tmp_path, monitor="elbo_validation"))


def rates(trainer):
    return trainer.history.frames()["lr-Adam"]["lr-Adam"].tolist()


def test_plateau(run):
    """scvi-tools' settings: factor 0.6 after more than ``patience`` epochs without improvement, absolute threshold."""
    plateau = {"reduce_lr_on_plateau": True, "lr_patience": 1, "lr": 1.0}
    trainer = run([1.0], plateau, max_epochs=6, learning_rate_monitor=True)
    assert rates(trainer) == pytest.approx([1.0, 1.0, 1.0, 0.6, 0.6, 0.36])
    trainer = run([1.0], plateau | {"lr_min": 0.5}, max_epochs=6, learning_rate_monitor=True)
    assert rates(trainer) == pytest.approx([1.0, 1.0, 1.0, 0.6, 0.6, 0.5])


def test_plateau_looks_only_at_new_validations(run):
    plateau = {"reduce_lr_on_plateau": True, "lr_patience": 1, "lr": 1.0}
    trainer = run([1.0], plateau, max_epochs=8, check_val_every_n_epoch=2, learning_rate_monitor=True)
    assert rates(trainer) == pytest.approx([1.0] * 6 + [0.6] * 2)


def test_plateau_without_its_metric(run):
    with pytest.raises(KeyError, match="lr_scheduler_metric"):
        run([1.0], {"reduce_lr_on_plateau": True}, validation=None)


def test_the_plan_is_kept_for_whoever_scores_its_latents(run):
    kept = ScibCallback()
    assert kept.pl_module is None
    trained = run([1.0], callbacks=kept, max_epochs=1)
    assert kept.pl_module is trained.plan


def test_what_setup_adds_to_a_module_is_trained(fit, module_cls):
    """Hooks named `setup` come before the optimizers are made, as in Lightning."""

    class Add(Callback):
        def setup(self, trainer, plan, stage):
            plan.module.added = torch.nn.Parameter(torch.zeros(2))

    module = module_cls()
    trainer = fit(module=module, callbacks=Add(), max_epochs=1)
    known = [parameter for group in trainer.optimizers[0].param_groups for parameter in group["params"]]
    assert any(parameter is module.added for parameter in known)
