"""The loop: epochs, steps, hooks, limits, plans of others."""

import lightning_fabric
import numpy as np
import pytest
import torch
from torch import nn

from celbo.train import Callback, Plan, TrainingPlan
from celbo.train.callbacks import HOOKS
from celbo.train.engines.engine import FabricEngine

HISTORY = [
    *(f"{name}_validation" for name in ("elbo", "reconstruction_loss", "kl_local", "kl_global", "top")),
    *(f"{name}_train" for name in ("elbo", "reconstruction_loss", "kl_local", "kl_global", "top")),
    "train_loss",
    "validation_loss",
    "kl_weight",
]


def test_history_has_one_row_an_epoch(fit):
    frames = fit(max_epochs=4).history.frames()
    assert sorted(frames) == sorted(HISTORY)
    for name, frame in frames.items():
        assert frame.index.name == "epoch"
        assert frame.index.tolist() == [0, 1, 2, 3]
        assert frame.columns.tolist() == [name]


def test_training_again_appends(fit, series, module_cls):
    plan = TrainingPlan(module_cls())
    trainer = fit(plan, max_epochs=2)
    before = trainer.history
    again = fit(plan, max_epochs=3)
    joined = type(before)(before.frames())
    for epoch, value in enumerate(series(again, "elbo_train")):
        joined.add(epoch, {"elbo_train": value})
    assert joined.frames()["elbo_train"].index.tolist() == [0, 1, 2, 3, 4]


def test_without_validation(fit):
    frames = fit(validation=None).history.frames()
    assert not any("validation" in name for name in frames)


def test_validation_every_second_epoch(fit):
    frames = fit(max_epochs=5, check_val_every_n_epoch=2).history.frames()
    assert frames["elbo_validation"].index.tolist() == [1, 3]
    assert frames["elbo_train"].index.tolist() == [0, 1, 2, 3, 4]


def test_validation_turned_off(fit, batches, x_n3):
    rows = batches(x_n3[60:])
    assert "elbo_validation" not in fit(validation=rows, check_val_every_n_epoch=0).history.frames()
    assert "elbo_validation" not in fit(validation=rows, limit_val_batches=0).history.frames()
    assert rows.n_read == 0


class Noting(Callback):
    def __init__(self):
        self.called = []

    def __getattribute__(self, name):
        if name not in HOOKS:
            return super().__getattribute__(name)
        return lambda trainer, plan, *args, **kwargs: self.called.append(name)

    def __dir__(self):
        return [*super().__dir__(), *HOOKS]


def test_hooks_come_in_lightnings_order(fit):
    noting = Noting()
    fit(callbacks=noting, max_epochs=2, limit_train_batches=2, limit_val_batches=1)
    batch = [
        "on_train_batch_start",
        "on_before_backward",
        "on_after_backward",
        "on_before_optimizer_step",
        "on_train_batch_end",
    ]
    epoch = [
        "on_train_epoch_start",
        *batch,
        *batch,
        "on_validation_start",
        "on_validation_epoch_start",
        "on_validation_batch_start",
        "on_validation_batch_end",
        "on_validation_epoch_end",
        "on_validation_end",
        "on_train_epoch_end",
    ]
    start, end = ["setup", "on_fit_start", "on_train_start"], ["on_train_end", "on_fit_end", "teardown"]
    assert noting.called == [*start, *epoch, *epoch, *end]
    assert {*noting.called, "on_exception"} == set(HOOKS)


class Arguments(Callback):
    def __init__(self):
        self.seen = {}

    def setup(self, trainer, plan, stage):
        self.seen["setup"] = stage

    def on_train_batch_start(self, trainer, plan, batch, batch_idx):
        self.seen["start"] = (sorted(batch), batch_idx)

    def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
        self.seen["end"] = (outputs["loss"].item(), sorted(batch), batch_idx)

    def on_train_end(self, trainer, plan):
        self.seen["plan"] = trainer.lightning_module is plan

    def teardown(self, trainer, plan, stage):
        self.seen["teardown"] = stage


def test_arguments_of_hooks(fit):
    callback = Arguments()
    fit(callbacks=[callback], max_epochs=1)
    loss, keys, last = callback.seen.pop("end")
    assert np.isfinite(loss)
    assert (keys, last) == (["X"], 3)
    assert callback.seen == {"setup": "fit", "start": (["X"], 3), "plan": True, "teardown": "fit"}


class Raises(Callback):
    def __init__(self, error):
        self.error, self.got, self.torn_down = error, None, False

    def on_train_epoch_end(self, trainer, plan):
        if trainer.current_epoch == 1:
            raise self.error

    def on_exception(self, trainer, plan, exception):
        self.got = exception

    def teardown(self, trainer, plan, stage):
        self.torn_down = True


def test_an_error_reaches_the_user_as_it_was_raised(fit, capfd):
    callback = Raises(RuntimeError("mine"))
    with pytest.raises(RuntimeError, match=r"^mine$"):
        fit(callbacks=callback)
    assert callback.got is callback.error
    assert callback.torn_down
    assert capfd.readouterr() == ("", "")


def test_interrupt_by_hand_ends_training_well(fit):
    callback = Raises(KeyboardInterrupt())
    trainer = fit(callbacks=callback, max_epochs=9)
    assert trainer.interrupted
    assert "interrupted" in trainer.stop_reason
    assert callback.torn_down
    assert len(trainer.history.frames()["elbo_train"]) >= 1


def test_max_steps(fit):
    trainer = fit(max_epochs=100, max_steps=6)
    assert trainer.global_step == 6
    assert trainer.current_epoch == 2


@pytest.mark.parametrize(("limit", "n"), [(3, 3), (0.5, 2), (1.0, 4), (99, 4), (None, 4)])
def test_limit_train_batches(fit, batches, x_n3, limit, n):
    assert fit(max_epochs=2, limit_train_batches=limit).global_step == 2 * n


def test_limit_val_batches(fit, batches, x_n3, series):
    trainer = fit(max_epochs=1, limit_val_batches=1)
    assert series(trainer, "reconstruction_loss_validation") == pytest.approx([x_n3[60:68, 0].mean().item()])


@pytest.mark.parametrize("max_epochs", [-1, None])
def test_max_epochs_is_a_number_of_epochs(fit, max_epochs):
    with pytest.raises(ValueError, match="max_epochs must be a whole number of at least 0"):
        fit(max_epochs=max_epochs)


def test_unknown_argument_names_the_nearest(fit):
    with pytest.raises(TypeError, match="gradient_clip_val"):
        fit(gradient_clip_value=1.0)


def test_empty_training_split(fit, batches, x_n3):
    with pytest.raises(ValueError, match="training split is empty"):
        fit(train=batches(x_n3[:0]))


class NoLength:
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_loader_without_length(fit, batches, x_n3, series):
    """Same figures as with a length."""
    with_length = fit(max_epochs=2)
    trainer = fit(max_epochs=2, train=NoLength(batches(x_n3[:60])), validation=NoLength(batches(x_n3[60:], 8)))
    assert trainer.num_training_batches is None
    for name in ("elbo_train", "elbo_validation"):
        assert series(trainer, name) == series(with_length, name)
    assert fit(max_epochs=2, train=NoLength(batches(x_n3[:60])), limit_train_batches=2).global_step == 4


def test_share_of_a_loader_without_length_is_refused(fit, batches, x_n3):
    with pytest.raises(TypeError, match=r"limit_train_batches=0\.5"):
        fit(train=NoLength(batches(x_n3[:60])), limit_train_batches=0.5)


def test_one_cycle_needs_a_length(fit, batches, x_n3):
    with pytest.raises(TypeError, match="classic"):
        fit(train=NoLength(batches(x_n3[:60])), plan_kwargs={"lr_schedule": "one_cycle"})


def sgd(lr=0.1):
    return {"optimizer": "Custom", "optimizer_creator": lambda params: torch.optim.SGD(params, lr=lr)}


def weight(trainer):
    return trainer.raw_module.w.item()


def test_custom_optimizer_takes_the_steps_worked_out_by_hand(fit, module_cls):
    """Loss (w - 3)^2: every step of 0.1 leaves 0.8 of the distance."""
    trainer = fit(module=module_cls(pull=1.0), plan_kwargs=sgd(), max_epochs=2)
    assert weight(trainer) == pytest.approx(3 - 3 * 0.8**8, rel=1e-6)
    with pytest.raises(ValueError, match="needs optimizer_creator"):
        TrainingPlan(module_cls(), optimizer="Custom")
    with pytest.raises(ValueError, match="AdamW"):
        TrainingPlan(module_cls(), optimizer="Adamw")


@pytest.mark.parametrize(("accumulate", "n_steps"), [(2, 2), (3, 2), (4, 1), (9, 1)])
def test_accumulated_gradients(fit, module_cls, accumulate, n_steps):
    """Each step takes the sum of its minibatches' gradients over ``accumulate``, as Lightning does."""
    trainer = fit(module=module_cls(pull=1.0), plan_kwargs=sgd(), max_epochs=1, accumulate_grad_batches=accumulate)
    distance = 3.0
    for first in range(0, 4, accumulate):
        distance *= 1 - 0.2 * min(accumulate, 4 - first) / accumulate
    assert trainer.global_step == n_steps
    assert weight(trainer) == pytest.approx(3 - distance, rel=1e-6)


def test_accumulation_leaves_nothing_for_the_next_epoch(fit, module_cls, batches, x_n3):
    """Also where the loader has no length, so that its end is not known beforehand."""
    results = [
        weight(
            fit(module=module_cls(pull=1.0), plan_kwargs=sgd(), max_epochs=2, accumulate_grad_batches=3, train=train)
        )
        for train in (batches(x_n3[:60]), NoLength(batches(x_n3[:60])))
    ]
    assert results[0] == pytest.approx(results[1], rel=1e-6)


@pytest.mark.parametrize(("algorithm", "clip"), [("norm", 0.5), ("value", 0.5)])
def test_clipped_gradients(fit, module_cls, algorithm, clip):
    trainer = fit(
        module=module_cls(pull=1.0),
        plan_kwargs=sgd(),
        max_epochs=1,
        gradient_clip_val=clip,
        gradient_clip_algorithm=algorithm,
    )
    assert weight(trainer) == pytest.approx(4 * 0.1 * clip, rel=1e-5)  # the gradient is larger than the clip throughout


def test_step_values_are_kept_in_a_run_of_one_epoch(fit, series):
    trainer = fit(max_epochs=1, log_every_n_steps=2)
    frame = trainer.history.frames()["train_loss_step"]
    assert frame.index.name == "step"
    assert frame.index.tolist() == [2, 4]
    assert "train_loss_step" not in fit(max_epochs=2, log_every_n_steps=2).history.frames()
    assert "train_loss_step" in fit(max_epochs=2, log_every_n_steps=2, plan_kwargs={"on_step": True}).history.frames()


def test_step_values_come_once_a_step_under_accumulation(fit):
    trainer = fit(max_epochs=1, log_every_n_steps=1, accumulate_grad_batches=2)
    assert trainer.history.frames()["train_loss_step"].index.tolist() == [1, 2]


class OwnSteps(TrainingPlan):
    """An outsider's plan: its own steps, its own names."""

    def training_step(self, batch, batch_idx):
        _, _, record = self.forward(batch, loss_kwargs=self.loss_kwargs)
        self.log("mine", record.loss * 0 + batch_idx, batch_size=len(batch["X"]), on_epoch=True, prog_bar=True)
        self.log_dict({"pair_a": 1.0, "pair_b": torch.tensor(2.0)})
        self.compute_and_log_metrics(record, self.train_metrics, "train")
        return {"loss": record.loss}

    def validation_step(self, batch, batch_idx):
        self.log("mine_validation", float(batch_idx))

    def on_train_epoch_end(self):
        self.log("epoch_twice", 2.0 * self.current_epoch)


def test_plan_of_an_outsider(fit, module_cls, series):
    trainer = fit(OwnSteps(module_cls()), max_epochs=2)
    assert series(trainer, "mine") == pytest.approx([(16 * (0 + 1 + 2) + 12 * 3) / 60] * 2)
    assert series(trainer, "mine_validation") == [0.5, 0.5]
    assert series(trainer, "pair_b") == [2.0, 2.0]
    assert series(trainer, "epoch_twice") == [0.0, 2.0]
    assert len(series(trainer, "elbo_train")) == 2


class TwoPlayers(Plan):
    """Manual optimization of two players, as adversarial plans do."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.module = nn.ParameterDict({"a": nn.Parameter(torch.zeros(())), "b": nn.Parameter(torch.zeros(()))})

    def training_step(self, batch, batch_idx):
        for optimizer, name in zip(self.optimizers(), "ab", strict=True):
            optimizer.zero_grad()
            loss = (self.module[name] - 1.0) ** 2
            self.manual_backward(loss)
            self.clip_gradients(optimizer, gradient_clip_val=100.0)
            optimizer.step()
            self.log(f"loss_{name}", loss)
        self.lr_schedulers().step()

    def configure_optimizers(self):
        a, b = torch.optim.SGD([self.module["a"]], lr=0.1), torch.optim.SGD([self.module["b"]], lr=0.2)
        return [a, b], [torch.optim.lr_scheduler.StepLR(a, step_size=1000)]


def test_manual_optimization(fit, series):
    trainer = fit(TwoPlayers(), max_epochs=2, validation=None)
    assert trainer.raw_module["a"].item() == pytest.approx(1 - 0.8**8, rel=1e-5)
    assert trainer.raw_module["b"].item() == pytest.approx(1 - 0.6**8, rel=1e-5)
    assert trainer.global_step == 8
    assert len(series(trainer, "loss_a")) == 2


class Halving(Plan):
    """A Lightning-style scheduler of epochs."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.module(batch["X"][:, :1]).mean()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)}


def test_schedule_by_epochs_and_its_trace(fit, series):
    trainer = fit(Halving(), max_epochs=3, validation=None, learning_rate_monitor=True)
    assert series(trainer, "lr-SGD") == [1.0, 0.5, 0.25]
    assert trainer.history.frames()["lr-SGD"].index.name == "step"


def test_module_is_left_as_the_user_gave_it(fit, module_cls):
    module = module_cls()
    plan = TrainingPlan(module)
    fit(plan, precision="bf16-mixed")
    assert plan.module is module
    with pytest.raises(RuntimeError, match="not attached to a trainer"):
        _ = plan.trainer


@pytest.mark.usefixtures("global_rng_untouched")
def test_global_generators_are_untouched(fit):
    fit()


class Noisy(Plan):
    def __init__(self):
        super().__init__()
        self.module = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        self.log("noise", torch.randn(()))
        return self.module(nn.functional.dropout(batch["X"])).mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def test_seed_fixes_the_noise(fit, series):
    first, same, other = (series(fit(Noisy(), seed=s, validation=None), "noise") for s in (1, 1, 2))
    assert first == same
    assert first != other


def test_lightning_callback_stops_training(fit):
    class Stops(Callback):
        def on_train_epoch_end(self, trainer, plan):
            trainer.should_stop = trainer.should_stop or trainer.current_epoch == 1

    assert fit(callbacks=Stops(), max_epochs=9).current_epoch == 2
    assert fit(callbacks=Stops(), max_epochs=9, min_epochs=4).current_epoch == 4


@pytest.mark.parametrize("asked", [{"precision": "bf16-mixed"}, {"accelerator": "auto"}])
def test_fabric_is_what_devices_go_through(fit, asked):
    engine = fit(**asked).engine
    plain = asked == {"accelerator": "auto"} and (torch.cuda.is_available() or not torch.accelerator.is_available())
    assert isinstance(engine, FabricEngine) is not plain
    assert plain or isinstance(engine.fabric, lightning_fabric.Fabric)


def test_a_plan_may_leave_minibatches_out(fit, module_cls):
    class Lazy(TrainingPlan):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) if batch_idx == 0 else None

    ended = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, plan, output, batch, batch_idx):
            ended.append(output is None)

    trainer = fit(Lazy(module_cls()), max_epochs=1, callbacks=[Watch()])
    assert trainer.global_step == 1
    assert ended[:3] == [False, True, True]


def test_both_by_step_and_by_epoch(fit, series):
    trainer = fit(max_epochs=4, check_val_every_n_epoch=2, log_every_n_steps=1, plan_kwargs={"on_step": True})
    frames = trainer.history.frames()
    for name in ("train_loss", "elbo_train", "validation_loss", "elbo_validation"):
        assert series(trainer, f"{name}_epoch") == series(trainer, name)
        assert frames[f"{name}_epoch"].index.equals(frames[name].index)
    assert frames["train_loss_step"].index.tolist() == list(range(1, 17))
    assert frames["validation_loss_step"].index.name == "step"
    assert frames["validation_loss_step"].index.tolist() == [0, 1, 2, 3]  # two minibatches in each of two validations
    by_step = fit(max_epochs=2, log_every_n_steps=1, plan_kwargs={"on_step": True, "on_epoch": False}).history.frames()
    assert not [name for name in by_step if name.endswith("_epoch") or name == "validation_loss_step"]
