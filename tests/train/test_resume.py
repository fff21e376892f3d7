"""A run that is ended at any moment and goes on ends with the weights and the history of one that was not, bit for bit.

Here the end comes as an exception that nothing catches, at the n-th hook or minibatch; tests/train/test_kill.py kills
processes.
"""

import logging
import os
import signal
from dataclasses import replace

import anndata
import numpy as np
import pytest
import torch
from torch import nn

from celbo.core import ArgumentError
from celbo.data import simulate_counts
from celbo.dataloaders import AnnDataLoader, DataSplitter
from celbo.io import ArchiveError, ArchiveNotFoundError
from celbo.model import SCANVI, SCVI
from celbo.train import Callback, Plan, TrainingPlan
from celbo.train.callbacks import HOOKS
from celbo.train.checkpoints.fingerprint import DifferentRunError, as_begun
from celbo.train.checkpoints.folder import find_checkpoints, open_run
from celbo.train.checkpoints.schedule import Interval, TerminatedError
from celbo.train.recipes import RECIPES


class KilledError(BaseException):
    """Nothing in celbo catches it."""


class KillAt(Callback):
    """End the run at the n-th call of any hook that is called in training, or send it a signal there."""

    def __init__(self, n, deed=None):
        self.n, self.deed, self.calls = n, deed, 0

    def __dir__(self):
        return [*super().__dir__(), *HOOKS]

    def __getattr__(self, name):
        if name not in HOOKS:
            raise AttributeError(name)
        return self._count

    def _count(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.n:
            if self.deed is None:
                raise KilledError
            self.deed()


class KillAfter(Callback):
    """End the run after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise KilledError


@pytest.fixture(scope="module")
def counts():
    adata = simulate_counts(90, 12, n_cell_types=3, n_batches=2, seed=0)
    labels = adata.obs["cell_type"].astype(str).to_numpy(copy=True)
    labels[::3] = "unknown"
    adata.obs["labels"] = labels
    return adata


@pytest.fixture
def scvi(counts):
    def make(adata=counts, **kwargs):
        adata = adata.copy()
        SCVI.setup_anndata(adata, batch_key="batch")
        return SCVI(adata, **({"n_hidden": 8, "n_latent": 2} | kwargs))

    return make


@pytest.fixture
def scanvi(counts):
    def make():
        adata = counts.copy()
        SCANVI.setup_anndata(adata, labels_key="labels", unlabeled_category="unknown", batch_key="batch")
        return SCANVI(adata, n_hidden=8, n_latent=2)

    return make


def assert_same_run(one, other):
    weights, others = one.module.state_dict(), other.module.state_dict()
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert torch.equal(value, others[name]), name
    assert one.history_.keys() == other.history_.keys()
    for name, frame in one.history_.items():
        assert frame.equals(other.history_[name]), name


BASE = {"max_epochs": 3, "batch_size": 20, "seed": 4, "verbose": 0, "accelerator": "cpu"}
CASES = {
    "one cycle, best weights": {},
    "classic": {
        "recipe": "classic",
        "plan_kwargs": {
            "reduce_lr_on_plateau": True,
            "lr_patience": 0,
            "n_steps_kl_warmup": 9,
            "n_epochs_kl_warmup": 0,
        },
        "early_stopping": True,
        "early_stopping_patience": 2,
    },
    "AdamW": {"plan_kwargs": {"optimizer": "AdamW"}, "check_val_every_n_epoch": 2, "gradient_clip_val": 1.0},
    "accumulated gradients": {"accumulate_grad_batches": 3},
    "cut epochs": {"limit_train_batches": 2, "limit_val_batches": 1, "log_every_n_steps": 2},
    "a last step": {"max_steps": 7},
    "one epoch, loss of steps": {"max_epochs": 1, "log_every_n_steps": 1, "learning_rate_monitor": True},
    "no validation": {"train_size": 1.0},
}
RNG_OF_MOMENTS = np.random.default_rng(3)


def moments(n_calls, n):
    """Some of the calls of hooks: the last but one, and others by chance."""
    return sorted({n_calls - 1, *RNG_OF_MOMENTS.integers(2, n_calls - 1, n).tolist()})


@pytest.mark.parametrize(("case", "every"), [*((case, "1 step") for case in CASES), ("classic", "2 epochs")])
def test_goes_on_exactly(scvi, tmp_path, case, every):
    options = BASE | CASES[case]
    counting = KillAt(-1)
    whole = scvi()
    whole.train(**options, callbacks=[counting])
    for i, moment in enumerate(moments(counting.calls, 1)):
        folder = tmp_path / str(i)
        with pytest.raises(KilledError):
            scvi().train(**options, callbacks=[KillAt(moment)], checkpoint_every=every, checkpoint_dir=folder)
        if not find_checkpoints(folder):
            assert moment <= 4  # the hooks before the first step: nothing was done yet
            continue
        resumed = scvi()
        resumed.train(**options, callbacks=[KillAt(-1)], resume=folder)
        assert_same_run(whole, resumed)
        assert len(find_checkpoints(folder)) <= 2


def test_goes_on_with_copies_of_weights_on_disk(scvi, tmp_path, monkeypatch):
    whole = scvi()
    whole.train(**BASE, callbacks=[KillAt(-1)])
    monkeypatch.setattr("celbo.train.nonfinite._LARGE_FROM", 1)
    monkeypatch.setattr("celbo.train.nonfinite._ON_DISK_FROM", 1)
    with pytest.raises(KilledError):
        scvi().train(**BASE, callbacks=[KillAt(30)], checkpoint_every="2 steps", checkpoint_dir=tmp_path)
    resumed = scvi()
    resumed.train(**BASE, callbacks=[KillAt(-1)], resume=tmp_path)
    assert_same_run(whole, resumed)


def test_goes_on_twice(scvi, tmp_path):
    whole = scvi()
    whole.train(**BASE, callbacks=[KillAt(-1)])
    with pytest.raises(KilledError):
        scvi().train(**BASE, callbacks=[KillAt(30)], checkpoint_every="2 steps", checkpoint_dir=tmp_path)
    with pytest.raises(KilledError):
        scvi().train(**BASE, callbacks=[KillAt(30)], resume=tmp_path, checkpoint_every="1 step")
    resumed = scvi()
    resumed.train(**BASE, callbacks=[KillAt(-1)], resume=tmp_path)
    assert_same_run(whole, resumed)


def test_a_finished_run_ends_as_it_did(scvi, tmp_path):
    whole, again = scvi(), scvi()
    whole.train(**BASE, checkpoint_every="1 h", checkpoint_dir=tmp_path)
    again.train(**BASE, resume=tmp_path)
    assert_same_run(whole, again)
    assert again.trainer.current_epoch == 3


def test_seed_and_first_weights_are_those_of_the_run(scvi, tmp_path):
    """The run had a seed that nobody knows, the new model begins with other weights."""
    options = BASE | {"seed": None, "checkpoint_dir": tmp_path}
    with pytest.raises(KilledError):
        scvi().train(**options, callbacks=[KillAt(9)])
    first, second = scvi(), scvi()
    for weights in second.module.parameters():
        weights.data += 1.0
    for model in (first, second):
        model.train(**(BASE | {"seed": None}), callbacks=[KillAt(-1)], resume=tmp_path)
    assert_same_run(first, second)


@pytest.mark.parametrize("n_samples_per_label", [None, 3])
def test_semi_supervised(scanvi, tmp_path, n_samples_per_label):
    options = BASE | {"n_samples_per_label": n_samples_per_label}
    whole = scanvi()
    whole.train(**options, callbacks=[KillAt(-1)])
    with pytest.raises(KilledError):
        scanvi().train(**options, callbacks=[KillAt(24)], checkpoint_every="1 step", checkpoint_dir=tmp_path)
    assert open_run(tmp_path).state["progress"]["batches_done"] in (1, 2, 3, 4)
    resumed = scanvi()
    resumed.train(**options, callbacks=[KillAt(-1)], resume=tmp_path)
    assert_same_run(whole, resumed)


class Diverging(TrainingPlan):
    """The loss of one step of the first attempt is not finite."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if self.lr > 0.005 and self.global_step == 6 else loss


@pytest.mark.parametrize("moment", [12, 60])
def test_attempts(scvi, tmp_path, monkeypatch, said, moment):
    """Killed before the run diverges, and in the second attempt."""
    monkeypatch.setattr(SCVI, "_training_plan_cls", Diverging)
    whole, resumed = scvi(), scvi()
    whole.train(**BASE, callbacks=[KillAt(-1)])
    with pytest.raises(KilledError):
        scvi().train(**BASE, callbacks=[KillAt(moment)], checkpoint_every="1 step", checkpoint_dir=tmp_path)
    assert open_run(tmp_path).state["start"]["attempt"] == (0 if moment == 12 else 1)
    resumed.train(**BASE, callbacks=[KillAt(-1)], resume=tmp_path)
    assert_same_run(whole, resumed)
    assert (
        sum("Starting again" in line for line in said(logging.WARNING)) == 2
    )  # the whole run, and one of the two parts


class ByHand(Plan):
    """Two optimizers in turn, a module beside the plan's, a generator and a counter of the plan's own."""

    automatic_optimization = False

    def __init__(self, module):
        super().__init__()
        self.module = module
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.critic = nn.Linear(1, 1)
        self.generator = torch.Generator().manual_seed(1)

    def resume_state(self):
        return super().resume_state() | {"generator": self.generator.get_state()}

    def load_resume_state(self, state):
        super().load_resume_state(state)
        self.generator.set_state(state["generator"])

    def configure_optimizers(self):
        critic = torch.optim.SGD(self.critic.parameters(), lr=0.01, momentum=0.9)
        return [torch.optim.Adam(self.module.parameters(), lr=0.1), critic]

    def training_step(self, batch, batch_idx):
        of_module, of_critic = self.optimizers()
        noise = torch.rand((), generator=self.generator) + torch.rand(())
        loss = ((self.critic(self.module.w.reshape(1, 1)) - batch["X"].mean() - noise) ** 2).mean()
        of_module.zero_grad()
        self.manual_backward(loss)
        of_module.step()
        if batch_idx % 2:  # every second time: gradients wait in between
            of_critic.step()
            of_critic.zero_grad()
        self.log("critic", loss.detach(), batch_size=len(batch["X"]))


class Positioned:
    """Rows in order, and where they stand."""

    def __init__(self, x, batch_size=16):
        self.x, self.batch_size, self.epoch, self.batch, self.resume_at = x, batch_size, 0, 0, 0

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __iter__(self):
        first, self.resume_at = self.resume_at, 0
        for batch in range(first, len(self)):
            self.batch = batch + 1
            yield {"X": self.x[batch * self.batch_size : (batch + 1) * self.batch_size]}
        self.epoch, self.batch = self.epoch + 1, 0

    def state_dict(self):
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state):
        self.epoch, self.resume_at = state["epoch"], state["batch"]


@pytest.mark.parametrize("moment", [10, 21, 36])
@pytest.mark.parametrize("loader", ["positioned", "plain"])
def test_by_hand(fit, module_cls, batches, x_n3, tmp_path, moment, loader):
    """Also with a loader of someone else's, that says where it stands or does not."""
    rows = (lambda: Positioned(x_n3[:60])) if loader == "positioned" else (lambda: batches(x_n3[:60]))
    plans = [ByHand(module_cls()) for _ in range(3)]
    whole = fit(plans[0], train=rows(), callbacks=[KillAt(-1)])
    options = {"checkpoint_every": "1 step", "checkpoint_dir": tmp_path}
    with pytest.raises(KilledError):
        fit(plans[1], train=rows(), callbacks=[KillAt(moment)], **options)
    resumed = fit(plans[2], train=rows(), callbacks=[KillAt(-1)], resume=tmp_path)
    for name, value in plans[0].state_dict().items():
        assert torch.equal(value, plans[2].state_dict()[name]), name
    for name, frame in whole.history.frames().items():
        assert frame.equals(resumed.history.frames()[name]), name


@pytest.mark.parametrize("moment", [16])
def test_data_that_stay_on_disk(counts, tmp_path, moment):
    """Shuffled by blocks and read ahead."""
    counts.write_h5ad(tmp_path / "counts.h5ad")

    def model():
        adata = anndata.read_h5ad(tmp_path / "counts.h5ad", backed="r")
        SCVI.setup_anndata(adata, batch_key="batch")
        return SCVI(adata, n_hidden=8, n_latent=2)

    options = BASE | {"datasplitter_kwargs": {"pool_bytes": 40 * 12 * 4}}
    whole, ended, resumed = model(), model(), model()
    whole.train(**options, callbacks=[KillAt(-1)])
    with pytest.raises(KilledError):
        ended.train(**options, callbacks=[KillAt(moment)], checkpoint_every="1 step", checkpoint_dir=tmp_path / "run")
    resumed.train(**options, callbacks=[KillAt(-1)], resume=tmp_path / "run")
    assert "pool_rows" in open_run(tmp_path / "run").state["loaders"]["train"]
    assert_same_run(whole, resumed)
    for opened in (whole, ended, resumed):
        opened.adata.file.close()


def test_an_order_of_the_users_own_is_kept_by_epochs(scvi, tmp_path):
    """A sampler that was passed cannot say where it stands: checkpoints at the ends of epochs."""

    class Backwards(DataSplitter):
        def train_dataloader(self):
            batches = np.array_split(np.arange(self.n_train)[::-1], 4)
            return AnnDataLoader(self.adata_manager, self.train_idx, sampler=batches)

    whole, ended, resumed = scvi(), scvi(), scvi()
    for model in (whole, ended, resumed):
        model._data_splitter_cls = Backwards
    whole.train(**BASE, callbacks=[KillAt(-1)])
    with pytest.raises(KilledError):
        ended.train(**BASE, callbacks=[KillAt(45)], checkpoint_every="1 step", checkpoint_dir=tmp_path)
    state = open_run(tmp_path).state
    assert state["progress"]["batches_done"] == 0
    assert state["progress"]["current_epoch"] > 0
    resumed.train(**BASE, callbacks=[KillAt(-1)], resume=tmp_path)
    assert_same_run(whole, resumed)


def test_a_run_of_an_earlier_recipe_goes_on_by_that_one(scvi, tmp_path, monkeypatch):
    """Checkpoints of earlier versions: another rate, and settings that they do not have."""
    options = {name: value for name, value in BASE.items() if name not in ("batch_size", "recipe")}
    with monkeypatch.context() as earlier:
        earlier.setitem(RECIPES, "one_cycle", replace(RECIPES["one_cycle"], from_counts=None, from_profile=None))
        whole, killed = scvi(), scvi()
        whole.train(**options)
        with pytest.raises(KilledError):
            killed.train(**options, callbacks=[KillAt(20)], checkpoint_every="1 step", checkpoint_dir=tmp_path)
    resumed = scvi()
    resumed.train(**options, callbacks=[KillAt(-1)], resume=tmp_path)
    assert_same_run(whole, resumed)


def test_settings_as_a_run_began():
    saved = {"plan": {"lr_schedule": "one_cycle", "lr": 0.02}, "trainer": {"max_epochs": 350}}
    plan = {"lr_schedule": "one_cycle", "lr": 0.01, "dispersion_lr_factor": 3.0}
    trainer = {"max_epochs": 80, "keep_best_from": 0.5}
    begun = {"lr_schedule": "one_cycle", "lr": 0.02, "dispersion_lr_factor": 1.0}
    assert as_begun(saved, plan, trainer) == (begun, {"max_epochs": 350, "keep_best_from": 0.0})
    saved["plan"]["lr_schedule"] = "constant"
    assert as_begun(saved, plan, trainer) == (plan, trainer)


class TestOtherRuns:
    @pytest.fixture
    def killed(self, scvi, tmp_path):
        with pytest.raises(KilledError):
            scvi().train(**BASE, callbacks=[KillAt(20)], checkpoint_every="1 step", checkpoint_dir=tmp_path)
        return tmp_path

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"max_epochs": 4}, "max_epochs of the trainer was 3 and is 4"),
            (
                {"max_epochs": 4},
                r"resume with max_epochs=3, or without it; then train\(max_epochs=1\) trains the model",
            ),
            ({"max_epochs": 2}, r"resume with max_epochs=3, or without it\.$"),
            ({"seed": 5}, "seed of the trainer was 4 and is 5"),
            ({"plan_kwargs": {"lr": 0.03}}, r"lr of the plan was 0.01 and is 0.03"),
            ({"recipe": "classic"}, "lr_schedule of the plan was 'one_cycle' and is 'constant'"),
            ({"batch_size": 21}, "batch_size of the data was 20 and is 21"),
            ({"train_size": 0.8}, "n_train of the data was 81 and is 72"),
            ({"early_stopping": True}, "callbacks of the trainer was"),
            ({"datasplitter_kwargs": {"seed": 1}}, "the cells to train on are others; the cells to validate on are"),
        ],
    )
    def test_other_settings_are_refused(self, scvi, killed, change, reason):
        before = open_run(killed).path
        with pytest.raises(DifferentRunError, match=reason):
            scvi().train(**(BASE | change), callbacks=[KillAt(-1)], resume=killed)
        assert open_run(killed).path == before

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda adata: adata[:-1].copy(), "n_cells of the data was 90 and is 89"),
            (lambda adata: adata[::-1].copy(), "the names of the cells are others"),
            (lambda adata: adata[:, ::-1].copy(), "the names of the genes are others"),
        ],
    )
    def test_other_data_are_refused(self, scvi, counts, killed, change, reason):
        with pytest.raises(DifferentRunError, match=reason):
            scvi(change(counts)).train(**BASE, callbacks=[KillAt(-1)], resume=killed)

    def test_other_counts_are_refused(self, scvi, counts, killed):
        other = counts.copy()
        other.X = other.X * 2
        with pytest.raises(DifferentRunError, match="the counts"):
            scvi(other).train(**BASE, callbacks=[KillAt(-1)], resume=killed)

    def test_another_model_is_refused(self, scvi, killed):
        with pytest.raises(DifferentRunError, match=r"dropout_rate of the model was 0.1 and is 0.2"):
            scvi(dropout_rate=0.2).train(**BASE, callbacks=[KillAt(-1)], resume=killed)

    def test_a_folder_in_use_is_refused(self, scvi, killed):
        with pytest.raises(ValueError, match="has checkpoints of another run: pass resume="):
            scvi().train(**BASE, checkpoint_dir=killed)

    def test_nothing_there(self, scvi, tmp_path):
        with pytest.raises(ArchiveNotFoundError, match="no checkpoints"):
            scvi().train(**BASE, resume=tmp_path / "none")

    def test_other_threads_are_said(self, scvi, killed, said):
        folder = open_run(killed)
        folder.state["threads"] += 1
        scvi().train(**BASE, callbacks=[KillAt(-1)], resume=folder)
        assert any("threads" in line for line in said(logging.WARNING))


class TestWhen:
    @pytest.fixture
    def written(self, scvi, monkeypatch, tmp_path):
        """Steps at which checkpoints were written."""
        from celbo.train.checkpoints.folder import CheckpointFolder

        def run(**options):
            steps = []
            write = CheckpointFolder.write

            def noting(folder, state):
                steps.append(state["progress"]["global_step"])
                return write(folder, state)

            monkeypatch.setattr(CheckpointFolder, "write", noting)
            scvi().train(**(BASE | options), checkpoint_dir=tmp_path)
            return steps

        return run

    @pytest.mark.parametrize(
        ("every", "steps"),
        [("1 epoch", [0, 4, 8, 12]), ("2 epochs", [0, 8, 12]), ("5 steps", [0, 5, 10, 12]), ("1 h", [0, 12])],
    )
    def test_epochs_and_steps(self, written, every, steps):
        assert written(checkpoint_every=every) == steps

    def test_seconds(self, written, monkeypatch):
        from celbo.train.checkpoints import schedule as checkpointing

        times = iter(range(0, 1000))  # a second passes between two looks at the clock
        make = checkpointing.make_checkpointing
        monkeypatch.setattr(
            "celbo.train.checkpoints.make_checkpointing", lambda *args: make(*args, clock=lambda: next(times))
        )
        steps = written(checkpoint_every="4 s")
        assert steps[0] == 0
        assert steps[-1] == 12
        assert 3 <= len(steps) <= 6

    @pytest.mark.parametrize("text", ["", "soon", "0 epochs", "-1 min", "1.5 steps", "5 parsecs", "min"])
    def test_what_is_no_interval_is_refused(self, scvi, text):
        with pytest.raises(ValueError, match="is no interval"):
            scvi().train(**BASE, checkpoint_every=text)

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            ({"resume": True}, "resume must be the folder of a run's checkpoints, got True"),
            (
                {"checkpoint_every": 5},
                "checkpoint_every must be text, such as '5 min', '1 epoch' or '200 steps', or None",
            ),
            ({"resume_from_checkpoint": "x"}, r"No argument .* To go on with a killed run: train\(resume=DIR\)"),
        ],
    )
    def test_what_cannot_be_meant_says_what_can(self, scvi, given, wanted):
        with pytest.raises(ArgumentError, match=wanted):
            scvi().train(**BASE, **given)

    @pytest.mark.parametrize(
        ("text", "n", "unit"),
        [("1 epoch", 1, "epoch"), ("200 steps", 200, "step"), ("5 min", 300, "second"), ("0.5h", 1800, "second")],
    )
    def test_intervals(self, text, n, unit):
        assert Interval.parse(text) == Interval.parse(str(Interval.parse(text))) == Interval(n, unit)

    def test_lightnings_trainer_is_refused(self, scvi):
        with pytest.raises(ValueError, match="needs celbo's own loop"):
            scvi().train(**BASE, checkpoint_every="1 epoch", fast_dev_run=True)

    def test_without_a_folder_there_is_one_of_the_runs_own(self, scvi, tmp_path, monkeypatch):
        from celbo import settings

        monkeypatch.setattr(settings, "logging_dir", tmp_path)
        for _ in range(2):
            scvi().train(**BASE, checkpoint_every="1 epoch")
        assert len(list((tmp_path / "checkpoints").iterdir())) == 2


class TestTermination:
    @pytest.mark.parametrize("moment", [8, 41])
    def test_a_checkpoint_and_out(self, scvi, tmp_path, moment, said):
        """Also in the middle of validation, whose minibatches are done again."""
        whole, resumed, ended = scvi(), scvi(), scvi()
        whole.train(**BASE, callbacks=[KillAt(-1)])
        before = signal.getsignal(signal.SIGTERM)
        deed = KillAt(moment, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(TerminatedError, match="SIGTERM: training stopped") as raised:
            ended.train(**BASE, callbacks=[deed], checkpoint_every="1 h", checkpoint_dir=tmp_path)
        assert raised.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is before
        assert "goes on from checkpoint-000002" in said(logging.WARNING)[-1]
        resumed.train(**BASE, callbacks=[KillAt(-1)], resume=tmp_path)
        assert_same_run(whole, resumed)

    def test_validation_is_not_waited_for(self, scvi, tmp_path):
        class Ending(Callback):
            def on_validation_batch_start(self, trainer, plan, batch, batch_idx):
                if trainer.current_epoch == 1:
                    os.kill(os.getpid(), signal.SIGTERM)

            def on_validation_end(self, trainer, plan):
                self.validated = trainer.current_epoch

        whole, resumed, ending = scvi(), scvi(), Ending()
        whole.train(**BASE)
        with pytest.raises(TerminatedError):
            scvi().train(**BASE, callbacks=[ending], checkpoint_every="1 h", checkpoint_dir=tmp_path)
        assert ending.validated == 0
        assert open_run(tmp_path).state["progress"]["epoch_is_trained"]
        Ending.on_validation_batch_start = lambda *args: None
        resumed.train(**BASE, callbacks=[Ending()], resume=tmp_path)
        assert_same_run(whole, resumed)

    def test_without_checkpoints_sigterm_is_not_touched(self, scvi):
        seen = []

        class Looking(Callback):
            def on_train_batch_end(self, *args):
                seen.append(signal.getsignal(signal.SIGTERM))

        before = signal.getsignal(signal.SIGTERM)
        scvi().train(**BASE, callbacks=[Looking()])
        assert set(seen) == {before}


def test_state_that_archives_do_not_hold_is_refused_at_once(scvi, tmp_path):
    class Odd(Callback):
        def state_dict(self):
            return {"function": print}

    with pytest.raises(ArchiveError, match=r"callbacks.*archives hold no code"):
        scvi().train(**BASE, callbacks=[Odd()], checkpoint_dir=tmp_path / "run")
