"""A loss that is not finite: what is said, what is kept, when training starts again."""

import errno
import logging

import pytest
import torch
from torch import nn

from celbo.module.base import BaseModuleClass, LossOutput
from celbo.store.mapped import put
from celbo.train import Callback, NonFiniteLossError, TrainingPlan
from celbo.train.nonfinite import Copy, FiniteGuard


@pytest.fixture(params=["in memory", "on disk"], autouse=True)
def place_of_copies(request, monkeypatch):
    """Copies of large weights lie in temporary files; here all do, or none."""
    if request.param == "on disk":
        monkeypatch.setattr("celbo.train.nonfinite._LARGE_FROM", 1)
        monkeypatch.setattr("celbo.train.nonfinite._ON_DISK_FROM", 1)
    return request.param


class Net(BaseModuleClass):
    """With batch normalisation, whose running means a single NaN spoils for good."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(3), nn.Linear(3, 1)

    def inference(self, x):
        return {"h": self.linear(self.norm(x))}

    def generative(self, h):
        return {}

    def loss(self, tensors, inference_outputs, generative_outputs):
        rec_n = inference_outputs["h"].squeeze(-1) ** 2
        return LossOutput(loss=rec_n.mean(), reconstruction_loss={"mine": rec_n}, kl_local=tensors["X"][:, 1])


def all_finite(module):
    return all(torch.isfinite(value).all() for value in module.state_dict().values())


def test_names_term_cells_and_input(fit, x_n3, batches):
    x_n3[[21, 40], 1] = torch.nan
    module = Net()
    rows = batches(x_n3[:60])
    rows.last_indices = list(range(100, 164))
    with pytest.raises(NonFiniteLossError, match=r"epoch 0, step 1") as caught:
        fit(TrainingPlan(module), train=rows)
    for said in ("reconstruction_loss['mine'] of 16 of 16 cells", "kl_local of 1 of 16 cells", "input 'X' of 1 cell"):
        assert said in str(caught.value)
    assert caught.value.rows == [105]  # the sixth cell of the second minibatch
    assert caught.value.from_data


def test_running_means_stay_finite(fit, x_n3, batches):
    x_n3[21, 1] = torch.nan
    module = Net()
    with pytest.raises(NonFiniteLossError):
        fit(TrainingPlan(module), train=batches(x_n3[:60]), retries=2)
    assert all_finite(module)


def test_bad_data_after_weights_that_diverged(fit, x_n3, batches):
    """No copy of the weights is kept in a run that may start again: it ends with those that it began with."""

    class Spoils(Callback):
        def on_train_batch_end(self, trainer, plan, *args):
            with torch.no_grad():
                plan.module.linear.weight.fill_(torch.nan)

    x_n3[21, 1] = torch.nan
    module = Net()
    start = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(NonFiniteLossError, match="input 'X'"):
        fit(TrainingPlan(module), train=batches(x_n3[:60]), retries=2, callbacks=Spoils())
    assert all(torch.equal(value, start[name]) for name, value in module.state_dict().items())


def test_a_run_that_may_start_again_keeps_no_weights():
    keeping, restarting = (FiniteGuard(Net(), may_retry=may) for may in (False, True))
    for guard in (keeping, restarting):
        guard.start_epoch()
    assert len(keeping._copy.tensors) == 7
    assert {name.split(".")[1] for name in restarting._copy.tensors} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


class Diverging(TrainingPlan):
    """Weights blow up while the learning rate is above a bound."""

    bound = 0.02

    def on_train_epoch_end(self):
        if self.lr > self.bound and self.current_epoch == 1:
            with torch.no_grad():
                self.module.linear.weight.fill_(torch.inf)


def test_diverged_weights_start_anew_with_a_quarter_of_the_rate(fit, said):
    plan = Diverging(Net(), lr=0.16)
    start = {name: value.clone() for name, value in plan.module.state_dict().items()}
    trainer = fit(plan, retries=2, max_epochs=4, keep_best=True)
    assert plan.lr == pytest.approx(0.01)
    assert trainer.history.frames()["elbo_train"].index.tolist() == [0, 1, 2, 3]
    warnings = said(logging.WARNING)
    assert len(warnings) == 2
    assert all("parameter linear.weight" in message and "quarter" in message for message in warnings)
    assert all_finite(plan.module)
    fresh = Net()
    fresh.load_state_dict(start)
    again = fit(Diverging(fresh, lr=0.01), max_epochs=4, keep_best=True)
    assert again.history.frames()["elbo_train"].shape == (4, 1)


def test_a_retry_forgets_what_callbacks_noted(fit):
    """Patience is not used up, nor the best value set, by the run that diverged."""

    class Better(Diverging):
        def validation_step(self, batch, batch_idx):
            diverging = self.lr > self.bound
            self.log("elbo_validation", 0.0 if diverging else 10.0 - self.current_epoch)

    plan = Better(Net(), lr=0.04)
    trainer = fit(plan, retries=1, max_epochs=6, keep_best=True, early_stopping=True, early_stopping_patience=2)
    assert trainer.current_epoch == 6
    assert trainer.last_validated_epoch == 5


class Exploding(Diverging):
    """The weights grow beyond sense, and stay finite."""

    def on_train_epoch_end(self):
        if self.lr > self.bound and self.current_epoch == 1:
            with torch.no_grad():
                self.module.linear.weight.fill_(1e6)


def test_a_loss_a_thousand_times_the_first_starts_anew(fit, said):
    plan = Exploding(Net(), lr=0.04)
    trainer = fit(plan, retries=1, max_epochs=4)
    (warning,) = said(logging.WARNING)
    assert "epoch 2, step 8: the loss is" in warning
    assert "Starting again with a quarter of the learning rate" in warning
    assert plan.lr == 0.01
    curve = trainer.history.frames()["elbo_train"].to_numpy()
    assert len(curve) == 4
    assert curve.max() < 1000 * curve[0]


def test_without_retries_a_loss_beyond_sense_is_said_once_and_training_goes_on(fit, said):
    trainer = fit(Exploding(Net(), lr=0.04), max_epochs=5)
    (warning,) = said(logging.WARNING)
    assert "the weights diverge. Try a smaller plan_kwargs={'lr': ...}" in warning
    assert trainer.current_epoch == 5


def test_a_validation_elbo_beyond_sense_starts_anew(fit, said):
    class Lost(TrainingPlan):
        def validation_step(self, batch, batch_idx):
            self.log("elbo_validation", 1e9 if self.lr > 0.02 else 1.0)

    fit(Lost(Net(), lr=0.04), retries=1, max_epochs=2)
    (warning,) = said(logging.WARNING)
    assert "epoch 0: the validation ELBO is 1e+09" in warning


def test_no_more_retries(fit):
    plan = Diverging(Net(), lr=100.0)
    with pytest.raises(NonFiniteLossError, match=r"parameter linear\.weight") as caught:
        fit(plan, retries=1, max_epochs=4)
    assert not caught.value.from_data
    assert all_finite(plan.module)
    assert plan.lr == 25.0


def test_hooks_hear_of_the_error(fit, x_n3, batches):
    class Hears:
        def on_exception(self, trainer, plan, exception):
            heard.append(exception)

    heard = []
    x_n3[0] = torch.nan
    with pytest.raises(NonFiniteLossError):
        fit(TrainingPlan(Net()), train=batches(x_n3[:60]), callbacks=Hears())
    assert isinstance(heard[0], NonFiniteLossError)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5)])
def test_a_kept_tensor_is_equal_and_apart(place_of_copies, dtype, shape):
    value = torch.arange(15)[: torch.Size(shape).numel()].reshape(shape).to(dtype)
    copy = Copy({"one": value}).tensors["one"]
    assert (copy.dtype, copy.shape) == (value.dtype, value.shape)
    assert torch.equal(copy, value)
    before = copy.clone()
    value.zero_()
    assert torch.equal(copy, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_copy_follows_the_weights(place_of_copies, dtype):
    state = {f"{n}": torch.zeros(n, 5, dtype=dtype) for n in (1, 3, 16)} | {"number": torch.tensor(0)}
    copy = Copy(state)
    before = copy.tensors
    for value in state.values():
        value.fill_(1)
    assert not any(value.any() for value in copy.tensors.values())
    copy.take(state)
    assert copy.tensors is before  # no further file
    assert all(torch.equal(copy.tensors[name], value) for name, value in state.items())
    copy.take(other := {"1": torch.ones(2, 2, dtype=dtype)})
    assert copy.tensors.keys() == {"1"}
    assert torch.equal(copy.tensors["1"], other["1"])


def test_large_copies_lie_in_a_file(monkeypatch):
    monkeypatch.setattr("celbo.train.nonfinite._LARGE_FROM", 400)
    monkeypatch.setattr("celbo.train.nonfinite._ON_DISK_FROM", 900)
    written = []
    monkeypatch.setattr(
        "celbo.train.nonfinite.put",
        lambda pieces, dtype: written.append([len(p) for p in pieces()]) or put(pieces, dtype),
    )
    Copy(nn.Linear(10, 12).state_dict())
    assert not written  # a file is not worth while for 480 bytes
    layers = nn.Sequential(nn.Linear(10, 12), nn.Linear(10, 13))
    copy = Copy(layers.state_dict())
    assert written == [[480, 32, 520, 56]]  # not the biases; each begins at a multiple of 64 bytes
    assert all(torch.equal(copy.tensors[name], value) for name, value in layers.state_dict().items())


@pytest.mark.parametrize("n_rooms", [0, 1])
def test_copies_where_files_have_no_room(place_of_copies, monkeypatch, caplog, n_rooms):
    """None can be made, or the one that was cannot be written again: the copy is in memory then, and right."""
    state = {"weight": torch.zeros(7, 5)}
    full = OSError(errno.ENOSPC, "No space left on device")
    copies = Copy(state) if n_rooms else None

    def fails(*args):
        raise full

    monkeypatch.setattr("celbo.store.mapped._written", fails)
    monkeypatch.setattr("celbo.store.mapped._write", fails)
    copies = copies or Copy(state)
    state["weight"].fill_(2)
    copies.take(state)
    assert torch.equal(copies.tensors["weight"], state["weight"])
    state["weight"].fill_(3)
    copies.take(state)
    assert torch.equal(copies.tensors["weight"], state["weight"])
    assert ("kept in memory" in caplog.text) == (place_of_copies == "on disk")
