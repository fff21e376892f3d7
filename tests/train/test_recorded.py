"""Steps that a device has recorded: the numbers of steps that it has not.

No GPU is here. A tape stands in for one: it keeps the operations of torch that a minibatch asks for, below autograd and
with the tensors and numbers they were given, undoes what they changed, and does them again on these tensors.
"""

import logging
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from celbo.data import simulate_counts
from celbo.external import CYTOVI, MRVI, POISSONVI, TOTALANVI, SysVI
from celbo.model import AUTOZI, MULTIVI, PEAKVI, SCANVI, SCVI, TOTALVI, AmortizedLDA, CondSCVI, LinearSCVI
from celbo.module import VAE
from celbo.ops import use_backend
from celbo.ops.random import generator_for
from celbo.train import AdversarialTrainingPlan, Callback, NonFiniteLossError, TrainingPlan, loop, trainer
from celbo.train.engines import engine
from celbo.train.engines.engine import Engine
from celbo.train.engines.graphs import CannotBeRecorded, Recorded, Watch
from celbo.train.engines.recorded import RecordedStage
from celbo.train.nonfinite import copied

CPU = torch.device("cpu")


def tensors(value):
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


class Tape(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls):
        return False

    def __init__(self):
        super().__init__()
        self.done, self.before, self.made = [], {}, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for tensor in tensors((args, kwargs)):  # schemas do not always say what is changed
            if tensor.data_ptr() not in self.made and tensor.data_ptr() not in self.before:
                self.before[tensor.data_ptr()] = tensor, tensor.clone()
        result = func(*args, **kwargs)
        self.made |= {tensor.data_ptr() for tensor in tensors(result)} - self.before.keys()
        self.done.append((func, args, kwargs, result))
        return result

    @torch.no_grad()
    def undo(self):
        for tensor, value in self.before.values():
            tensor.copy_(value)

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, result in self.done:
            for old, new in zip(tensors(result), tensors(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():  # neither a view nor in place
                    old.copy_(new)


class Tapes:
    """:class:`celbo.train.engines.graphs.Graphs` on the CPU."""

    device, moves = CPU, True

    def __init__(self, fails=False, waits=()):
        self.n_recorded, self.fails, self.waits = 0, fails, waits

    def place(self, batch):
        return copied(batch)

    def record(self, compute, given, parameters=()):
        generator = generator_for(CPU)
        state, tape = generator.get_state(), Tape()
        with tape:
            result = compute()
        tape.undo()
        generator.set_state(state)
        if self.fails:
            raise CannotBeRecorded("operation not permitted when stream is capturing")
        self.n_recorded += 1

        def replay(other):
            with torch.no_grad():
                torch._foreach_copy_(given, other)
            tape.replay()

        return Recorded(result, replay, is_done=False)

    @contextmanager
    def watching(self):
        found = []
        with Watch(found):
            yield found
        found[:] = [name for name in found if name not in self.waits]


class Device(Engine):
    def to_device(self, batch):
        return tree_map(lambda leaf: None if leaf is None else leaf.clone(), batch)  # aligned as a device's memory is

    def graphs(self):
        return None


class Recording(Device):
    def __init__(self, tapes):
        self.tapes = tapes

    def graphs(self):
        return self.tapes


@pytest.fixture
def tapes(monkeypatch):
    """Train on an engine that records."""

    def use(**options):
        made = Tapes(**options)
        monkeypatch.setattr(trainer, "make_engine", lambda **kwargs: Recording(made))
        return made

    return use


@pytest.fixture(scope="module")
def counts():
    adata = simulate_counts(100, 12, n_cell_types=3, n_batches=2, seed=0)
    labels = adata.obs["cell_type"].astype(str).to_numpy(copy=True)
    labels[::3] = "unknown"
    adata.obs["labels"] = labels
    adata.obs["sample"] = [f"s{i % 4}" for i in range(100)]
    adata.obsm["protein"] = np.random.default_rng(0).poisson(20.0, (100, 5)).astype(np.float32)
    return adata


SETUPS = {
    SCVI: {"batch_key": "batch"},
    LinearSCVI: {"batch_key": "batch"},
    SCANVI: {"batch_key": "batch", "labels_key": "labels", "unlabeled_category": "unknown"},
    PEAKVI: {"batch_key": "batch"},
    POISSONVI: {"batch_key": "batch"},
    AUTOZI: {"batch_key": "batch"},
    AmortizedLDA: {},
    CondSCVI: {"labels_key": "labels"},
    SysVI: {"batch_key": "batch"},
    CYTOVI: {"batch_key": "batch"},
    TOTALVI: {"batch_key": "batch", "protein_expression_obsm_key": "protein"},
    TOTALANVI: {
        "batch_key": "batch",
        "protein_expression_obsm_key": "protein",
        "labels_key": "labels",
        "unlabeled_category": "unknown",
    },
    MULTIVI: {"batch_key": "batch"},
    MRVI: {"batch_key": "batch", "sample_key": "sample"},
}
OPTIONS_OF = {MULTIVI: {"n_genes": 8, "n_regions": 4}}


def fresh(cls, counts, **options):
    adata = counts.copy()
    cls.setup_anndata(adata, **SETUPS[cls])
    return cls(adata, **OPTIONS_OF.get(cls, {}), **options)


def trained(model, max_epochs=5, **options):
    options = {"batch_size": 24, "check_val_every_n_epoch": 1, "seed": 0, "verbose": 0, "accelerator": "cpu"} | options
    with use_backend("reference"):
        model.train(max_epochs=max_epochs, **options)
    return model


def assert_alike(model, other, relative=1e-5):
    """Weights and history."""
    for (name, value), right in zip(model.module.state_dict().items(), other.module.state_dict().values(), strict=True):
        torch.testing.assert_close(value, right, rtol=relative, atol=relative, msg=lambda text, n=name: f"{n}: {text}")
    assert model.history_.keys() == other.history_.keys()
    for name, frame in other.history_.items():
        np.testing.assert_allclose(model.history_[name][name], frame[name], rtol=max(relative, 1e-12), err_msg=name)


EXACT_RATE = {"lr": 2.0**-7}
"""The same number in float32, in which the device has it."""

IN_CHECKS_ON_THE_CPU = ("aten::_local_scalar_dense", "aten::equal")
"""What torch's ``one_hot`` and distributions look at here, and on CUDA not."""


@pytest.mark.parametrize("cls", SETUPS, ids=lambda cls: cls.__name__)
def test_the_same_bits(cls, counts, tapes, monkeypatch):
    options = {"recipe": "classic", "plan_kwargs": EXACT_RATE, "max_epochs": 6}
    monkeypatch.setattr(trainer, "make_engine", lambda **kwargs: Device())
    if cls is MULTIVI:  # torch on the CPU rounds a step otherwise while it is watched: the one compared with is too
        tapes(fails=True, waits=IN_CHECKS_ON_THE_CPU)
    expected = trained(fresh(cls, counts), **options)
    made = tapes(waits=IN_CHECKS_ON_THE_CPU)
    assert_alike(trained(fresh(cls, counts), **options), expected, relative=0)
    assert made.n_recorded >= 2  # full minibatches, the last one, and mostly validation


def test_running_means_that_settle(counts, tapes):
    expected = trained(fresh(SCVI, counts), max_epochs=8)
    made = tapes()
    assert_alike(trained(fresh(SCVI, counts), max_epochs=8), expected)
    assert made.n_recorded == 3


OPTIONS = {
    "kl_warmup": {"recipe": "classic", "plan_kwargs": {"n_steps_kl_warmup": 15, "n_epochs_kl_warmup": None}},
    "steps": {"recipe": "classic", "max_steps": 13, "plan_kwargs": {"on_step": True, "on_epoch": True}},
    "clipped": {"recipe": "classic", "gradient_clip_val": 0.5},
    "adamw": {"recipe": "classic", "plan_kwargs": {"optimizer": "AdamW", "weight_decay": 0.1}},
    "plateau": {
        "recipe": "classic",
        "plan_kwargs": {"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_factor": 0.5, "lr": 0.0625},
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_numbers_that_change(options, counts, tapes):
    options = options | {"plan_kwargs": EXACT_RATE | options.get("plan_kwargs", {})}
    expected = trained(fresh(SCVI, counts), **options)
    made = tapes()
    assert_alike(trained(fresh(SCVI, counts), **options), expected, relative=1e-6)
    assert made.n_recorded


@pytest.mark.parametrize("weight", ["auto", 0.5])
def test_an_adversary_that_leaves(weight, counts, tapes, monkeypatch):
    monkeypatch.setattr(SCVI, "_training_plan_cls", AdversarialTrainingPlan)
    plan = {"adversarial_classifier": True, "scale_adversarial_loss": weight, "n_epochs_kl_warmup": 3, "lr": 2.0**-7}
    options = {"recipe": "classic", "plan_kwargs": plan, "max_epochs": 7}
    expected = trained(fresh(SCVI, counts), **options)
    made = tapes(waits=IN_CHECKS_ON_THE_CPU)
    assert_alike(trained(fresh(SCVI, counts), **options), expected, relative=1e-6)
    assert made.n_recorded == {"auto": 6, 0.5: 3}[weight]  # with and without the adversary


class StopAfter(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            raise KilledError


class KilledError(BaseException):
    """Nothing in celbo catches it."""


@pytest.mark.parametrize("recipe", ["classic", "one_cycle"])
@pytest.mark.parametrize("step", [2, 9, 27])
def test_a_resumed_run_has_the_same_bits(recipe, step, counts, tapes, tmp_path):
    tapes()
    options = {"recipe": recipe, "max_epochs": 9}
    whole = trained(fresh(SCVI, counts), callbacks=[StopAfter(-1)], **options)
    with pytest.raises(KilledError):
        trained(
            fresh(SCVI, counts),
            callbacks=[StopAfter(step)],
            checkpoint_dir=tmp_path,
            checkpoint_every="1 steps",
            **options,
        )
    resumed = fresh(SCVI, counts)
    trained(resumed, callbacks=[StopAfter(-1)], resume=tmp_path, **options)
    assert_alike(resumed, whole, relative=0)


@pytest.fixture
def in_detail():
    """All that celbo logs; the level is put back."""
    logger = logging.getLogger("celbo")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield
    logger.setLevel(level)


@pytest.mark.usefixtures("in_detail")
def test_what_waits_for_a_value_is_not_recorded(counts, tapes, monkeypatch, said):
    own = VAE.loss

    def waiting(self, *args, **kwargs):
        record = own(self, *args, **kwargs)
        return record.replace(loss=record.loss * (1.0 if record.loss.item() > 0 else 2.0))

    monkeypatch.setattr(VAE, "loss", waiting)
    expected = trained(fresh(SCVI, counts), recipe="classic")
    made = tapes()
    assert_alike(trained(fresh(SCVI, counts), recipe="classic", verbose=1), expected)
    assert not made.n_recorded
    lines = [line for line in said(logging.DEBUG) if "not recorded" in line]
    assert len(lines) == 2  # of training, of validation
    assert "_local_scalar_dense" in lines[0]


@pytest.mark.usefixtures("in_detail")
def test_a_device_that_refuses(counts, tapes, said):
    expected = trained(fresh(SCVI, counts), recipe="classic")
    tapes(fails=True)
    assert_alike(trained(fresh(SCVI, counts), recipe="classic", verbose=1), expected)
    assert [line for line in said(logging.DEBUG) if "when stream is capturing." in line]


class Losses(Callback):
    def __init__(self):
        self.tensors, self.rows = [], 0

    def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
        self.tensors.append(outputs["loss"])
        self.rows += len(batch["X"])


def test_callbacks_of_minibatches_are_called(counts, tapes):
    expected, seen = Losses(), Losses()
    trained(fresh(SCVI, counts), recipe="classic", callbacks=[expected])
    tapes()
    trained(fresh(SCVI, counts), recipe="classic", callbacks=[seen])
    assert seen.rows == expected.rows
    torch.testing.assert_close(torch.stack(seen.tensors), torch.stack(expected.tensors))
    assert len(set(map(float, seen.tensors))) > 15


class Within(Callback):
    def on_after_backward(self, trainer, plan):
        pass


class OtherPlan(TrainingPlan):
    pass


def test_python_within_a_step_is_left_to_python(counts, tapes, monkeypatch):
    made = tapes()
    trained(fresh(SCVI, counts), callbacks=[Within()])
    assert not made.n_recorded
    monkeypatch.setattr(SCVI, "_training_plan_cls", OtherPlan)
    trained(fresh(SCVI, counts))
    assert not made.n_recorded


class Freeze(Callback):
    def on_train_epoch_start(self, trainer, plan):
        if trainer.current_epoch == 4:
            plan.module.decoder.requires_grad_(False)


def test_a_frozen_layer_stays_as_it_is(counts, tapes):
    expected = trained(fresh(SCVI, counts), recipe="classic", max_epochs=7, callbacks=[Freeze()])
    tapes()
    assert_alike(trained(fresh(SCVI, counts), recipe="classic", max_epochs=7, callbacks=[Freeze()]), expected)


class Exchange(Callback):
    def on_train_epoch_start(self, trainer, plan):
        if trainer.current_epoch == 4:
            plan.module.px_r = torch.nn.Parameter(plan.module.px_r.detach() + 1)


def test_a_parameter_that_is_another_one_is_the_one_taken(counts, tapes):
    expected = trained(fresh(SCVI, counts), recipe="classic", max_epochs=7, callbacks=[Exchange()])
    tapes()
    assert_alike(trained(fresh(SCVI, counts), recipe="classic", max_epochs=7, callbacks=[Exchange()]), expected)


def test_another_attempt_is_recorded_again(counts, tapes, monkeypatch):
    made, stages, failed = tapes(), [], []

    class Diverging(RecordedStage):
        def __init__(self, *args):
            super().__init__(*args)
            stages.append(self)

        def __call__(self, batch, batch_idx):
            if self.n_recordings and not failed:
                failed.append(1)
                raise NonFiniteLossError("the loss is nan.")
            return super().__call__(batch, batch_idx)

    monkeypatch.setattr(loop, "RecordedStage", Diverging)
    trained(fresh(SCVI, counts), recipe="classic", retries=1)
    assert failed
    assert [stage.n_recordings for stage in stages[2:]] == [1, 2]
    assert made.n_recorded == 4


def test_nobody_outside_sees_tensors_for_numbers(counts, tapes):
    class Rates(Callback):
        def on_train_batch_end(self, trainer, plan, *args):
            group = trainer.optimizers[0].param_groups[0]
            kinds.add((type(group["lr"]), group["capturable"], type(plan.loss_kwargs["kl_weight"])))

    kinds = set()
    tapes()
    trained(fresh(SCVI, counts), callbacks=[Rates()])
    assert kinds == {(float, False, float)}


@pytest.mark.parametrize(
    ("deed", "is_seen"),
    [
        (lambda x: x.sum().item(), True),
        (lambda x: x[x > 0], True),
        (lambda x: x.nonzero(), True),
        (lambda x: x[torch.tensor([0, 1])], False),
        (lambda x: x.exp().sum(0), False),
    ],
)
def test_what_is_watched_for(deed, is_seen):
    found = []
    x = torch.arange(4.0)
    with Watch(found):
        deed(x)
    assert bool(found) is is_seen


def test_one_process_on_cuda_needs_no_fabric(monkeypatch):
    class Moved:
        def to(self, device, non_blocking):
            return device

    class Named:
        def __init__(self, device):
            self.device = device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(engine, "CudaGraphs", Named)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    made = engine.make_engine("gpu")
    assert type(made) is engine.CudaEngine
    assert made.graphs().device == made.device == torch.device("cuda", 0)
    assert made.to_device([{"X": Moved(), "name": "a"}, None]) == [{"X": made.device, "name": "a"}, None]
    monkeypatch.setattr(torch.version, "cuda", None)  # as for AMD's devices
    assert made.graphs() is None
