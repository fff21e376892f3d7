"""Minibatches done again as a list of operations: the bits of those that Python goes through."""

import inspect
import logging

import numpy as np
import pytest
import torch

from celbo.data import simulate_counts
from celbo.external import CYTOVI, DRVI, MRVI, POISSONVI, VELOVI, ContrastiveVI, Decipher, JointEmbeddingSCVI, SysVI
from celbo.model import AUTOZI, SCANVI, SCVI, TOTALVI, AmortizedLDA, CondSCVI, LinearSCVI
from celbo.ops.calls import as_one, listening
from celbo.train import Callback, NonFiniteLossError, Trainer, TrainingPlan
from celbo.train.engines.engine import Engine
from celbo.train.engines.tape import Tapes

ROWS = {
    "SCVI": (SCVI, {"batch_key": "batch"}, {}),
    "SCVI_nb": (SCVI, {}, {"gene_likelihood": "nb", "dispersion": "gene-cell"}),
    "SCVI_poisson": (SCVI, {"batch_key": "batch"}, {"gene_likelihood": "poisson", "use_observed_lib_size": False}),
    "SCVI_embedding": (
        SCVI,
        {"batch_key": "batch"},
        {"batch_representation": "embedding", "latent_distribution": "ln"},
    ),
    "SCANVI": (SCANVI, {"batch_key": "batch", "labels_key": "labels", "unlabeled_category": "unknown"}, {}),
    "LinearSCVI": (LinearSCVI, {"batch_key": "batch"}, {}),
    "AUTOZI": (AUTOZI, {"batch_key": "batch"}, {}),
    "AUTOZI_by_batch": (AUTOZI, {"batch_key": "batch"}, {"dispersion": "gene-batch"}),
    "AmortizedLDA": (AmortizedLDA, {}, {}),
    "CondSCVI": (CondSCVI, {"labels_key": "cell_type"}, {}),
    "POISSONVI": (POISSONVI, {"batch_key": "batch"}, {}),
    "TOTALVI": (TOTALVI, {"protein_expression_obsm_key": "protein"}, {}),
    "CYTOVI": (CYTOVI, {"batch_key": "batch"}, {}),
    "DRVI": (DRVI, {"batch_key": "batch"}, {}),
    "Decipher": (Decipher, {}, {}),
    "JointEmbeddingSCVI": (JointEmbeddingSCVI, {"batch_key": "batch"}, {}),
    "MRVI": (MRVI, {"sample_key": "sample", "batch_key": "batch"}, {}),
    "SysVI": (SysVI, {"batch_key": "batch"}, {}),
    "VELOVI": (VELOVI, {"spliced_layer": "Ms", "unspliced_layer": "Mu"}, {}),
}


@pytest.fixture(scope="module")
def counts():
    adata = simulate_counts(110, 14, n_cell_types=3, n_batches=2, seed=0)
    labels = adata.obs["cell_type"].astype(str).to_numpy(copy=True)
    labels[::3] = "unknown"
    adata.obs["labels"] = labels
    adata.obs["sample"] = [f"s{i % 4}" for i in range(110)]
    adata.obsm["protein"] = np.random.default_rng(0).poisson(20.0, (110, 5)).astype(np.float32)
    x = adata.X.toarray()
    adata.layers["Ms"], adata.layers["Mu"] = x / 10 + 0.05, np.sqrt(x) / 5 + 0.05
    return adata


@pytest.fixture
def written(monkeypatch):
    """What was recorded: the tapes' functions, each with how often it was called."""
    calls, own = [], Tapes.record

    def record(self, *args, **kwargs):
        recorded = own(self, *args, **kwargs)
        n = len(calls)
        calls.append(0)

        def replay(given):
            calls[n] += 1
            recorded.replay(given)

        return type(recorded)(recorded.result, recorded.replay and replay, recorded.is_done, recorded.why_not)

    monkeypatch.setattr(Tapes, "record", record)
    return calls


@pytest.fixture
def in_python(monkeypatch):
    """A block in which nothing is recorded."""

    def use(block):
        with monkeypatch.context() as within:
            within.setattr(Engine, "graphs", lambda self: None)
            return block()

    return use


def trained(cls, adata, setup, init, **options):
    adata = adata.copy()
    cls.setup_anndata(adata, **setup)
    model = cls(adata, **init)
    options = {"max_epochs": 6, "batch_size": 24, "seed": 0, "verbose": 0, "check_val_every_n_epoch": 1} | options
    cells = [np.arange(50), np.arange(50, 110)] if cls is ContrastiveVI else []
    model.train(*cells, **options)
    return model


def assert_the_same_bits(model, other, relative=0.0):
    """Of weights and history; where torch may take another kernel while it is watched, all but the last digits."""
    for (name, value), right in zip(model.module.state_dict().items(), other.module.state_dict().values(), strict=True):
        torch.testing.assert_close(value, right, rtol=relative, atol=relative, msg=lambda text, n=name: f"{n}: {text}")
    assert model.history_.keys() == other.history_.keys()
    for name, frame in other.history_.items():
        np.testing.assert_allclose(model.history_[name][name], frame[name], rtol=relative, err_msg=name)


ON_ONE_PROCESSOR = {"Decipher", "DRVI", "JointEmbeddingSCVI", "VELOVI", "SCVI_embedding", "AUTOZI_by_batch"}
"""The same bits on the processor that this was written on; others have not been seen."""


@pytest.mark.parametrize("recipe", ["classic", None])
@pytest.mark.parametrize("row", ROWS)
def test_the_bits_of_python(row, recipe, counts, written, in_python):
    options = {} if recipe is None else {"recipe": recipe}
    if row == "VELOVI":  # 1 less the weight of a warm-up is not the same number in float32
        options["plan_kwargs"] = {"n_epochs_kl_warmup": None}
    expected = in_python(lambda: trained(*ROWS[row][:1], counts, *ROWS[row][1:], **options))
    assert not written
    relative = 1e-4 if row in ON_ONE_PROCESSOR else 0.0
    assert_the_same_bits(trained(*ROWS[row][:1], counts, *ROWS[row][1:], **options), expected, relative)
    assert sum(written) > 5
    assert len(written) <= 6  # two sizes of minibatches, two parts of a training, validation: nothing is recorded again


def test_pairs_of_cells(counts, written, in_python):
    row = ContrastiveVI, counts, {"batch_key": "batch"}, {}
    expected = in_python(lambda: trained(*row))
    assert_the_same_bits(trained(*row), expected, relative=1e-4)
    assert sum(written) > 10


OPTIONS = {
    "kl_warmup": {"plan_kwargs": {"n_steps_kl_warmup": 15, "n_epochs_kl_warmup": None}},
    "steps": {"max_steps": 13, "plan_kwargs": {"on_step": True, "on_epoch": True}},
    "clipped": {"gradient_clip_val": 0.5},
    "adamw": {"plan_kwargs": {"optimizer": "AdamW", "weight_decay": 0.1}},
    "plateau": {"plan_kwargs": {"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_factor": 0.5}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_of_training(options, counts, written, in_python):
    row, options = (SCVI, counts, {"batch_key": "batch"}, {}), {"recipe": "classic"} | options
    expected = in_python(lambda: trained(*row, **options))
    assert_the_same_bits(trained(*row, **options), expected)
    assert sum(written) > 5


def test_several_losses_are_left_to_python(counts, written, said):
    """Each begins where the last one led."""
    logger = logging.getLogger("celbo")
    level = logger.level
    setup = {"protein_expression_obsm_key": "protein", "batch_key": "batch"}
    options = {"plan_kwargs": {"adversarial_classifier": True}, "recipe": "classic", "check_val_every_n_epoch": 100}
    options["verbose"] = 1
    try:
        logger.setLevel(logging.DEBUG)
        trained(TOTALVI, counts, setup, {}, **options)
    finally:
        logger.setLevel(level)
    assert not written
    assert any("of several losses" in line for line in said(logging.DEBUG))


def test_weights_do_not_move_by_a_loss_that_is_not_finite(counts, written):
    adata = counts.copy()
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata)
    model.train(max_epochs=1, seed=0, verbose=0)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    loader = model._make_data_loader(adata, np.arange(96), batch_size=24)

    class Spoilt:
        n_given = 0

        def __iter__(self):
            for batch in loader:
                Spoilt.n_given += 1
                if Spoilt.n_given > 15:
                    batch["X"][3, 2] = float("nan")
                yield batch

        def __len__(self):
            return len(loader)

    plan = TrainingPlan(model.module, n_epochs_kl_warmup=None)
    with pytest.raises(NonFiniteLossError, match="input 'X' of 1 cell"):
        Trainer(max_epochs=20, verbose=0, retries=0).fit(plan, Spoilt())
    assert sum(written) > 5
    after = model.module.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


def test_a_unit_is_made_again_with_what_it_is_given():
    """What it returns may be what it was given, or not."""
    x = torch.arange(4.0)

    def positive(tensor):
        return tensor if bool((tensor > 0).all()) else tensor.abs() + 1

    def compute():
        kept.append((as_one(positive, given * 2) + weight).exp())

    for first, second in [(x + 1, -x), (-x, x + 1)]:
        weight, given, kept = torch.ones(4), first.clone(), []
        recorded = Tapes().record(compute, [given])
        torch.testing.assert_close(kept[0], (positive(first * 2) + 1).exp(), rtol=0, atol=0)
        weight.fill_(3.0)
        recorded.replay([second])
        torch.testing.assert_close(kept[0], (positive(second * 2) + 3).exp(), rtol=0, atol=0)


def test_what_a_minibatch_leaves():
    """Gradients are new tensors each time; running means, draws and what somebody keeps are where they were."""
    weight, mean = torch.ones(3, requires_grad=True), torch.zeros(3)
    generator, kept = torch.Generator().manual_seed(0), {}

    def compute(x):
        noise = torch.empty(3).normal_(generator=generator)
        with torch.no_grad():
            mean.mul_(0.5).add_(x)
        kept["sum"] = (weight * x * noise).sum()
        kept["sum"].backward()
        return noise

    def done(n_in_python):
        generator.manual_seed(0)
        mean.zero_()
        found, tapes = [], Tapes()
        xs = [torch.full((3,), float(i)) for i in range(1, 5)]
        for i, x in enumerate(xs):
            weight.grad = None
            if i < n_in_python:
                noise = compute(x)
            elif i == n_in_python:
                recorded = tapes.record(lambda x=x: compute(x), [x], [weight])
                noise = recorded.result
            else:
                recorded.replay([x])
            found.append([part.clone() for part in (noise, mean, kept["sum"].detach(), weight.grad)])
        return found

    for found in (done(0), done(1), done(2)):
        for parts, expected in zip(found, done(4), strict=True):
            for part, right in zip(parts, expected, strict=True):
                assert torch.equal(part, right)


def test_what_nobody_looks_at_is_not_done_again():
    n_done = []

    def noted(tensor):
        n_done.append(1)
        return tensor + 1

    def compute(x):
        x.exp().sin()  # nobody's
        kept.append(as_one(noted, x))

    kept, x = [], torch.ones(2)
    recorded = Tapes().record(lambda: compute(x), [x])
    recorded.replay([x + 1])
    assert len(n_done) == 2
    assert kept[0].tolist() == [3.0, 3.0]
    again = inspect.getclosurevars(recorded.replay).nonlocals["again"]
    assert again.__code__.co_nlocals == len(again.__defaults__) + 2  # the minibatch, and what is left of it


def test_a_table_in_one_place_is_not_recorded():
    kept, x = [], torch.ones(3)
    recorded = Tapes().record(lambda: kept.append(x.exp().sum().expand(4)), [x])
    assert recorded.is_done
    assert recorded.replay is None
    assert "one place" in recorded.why_not


@pytest.mark.parametrize("first", [0, 1])
def test_other_strides_are_another_recording(first, counts, monkeypatch):
    """A kernel reads a table where it lies."""
    own = Engine.to_device

    def turned(self, batch):
        turned.n += 1
        if turned.n % 2:
            batch = batch | {"X": batch["X"].t().contiguous().t()}
        return own(self, batch)

    turned.n = first
    row, options = (SCVI, counts, {"batch_key": "batch"}, {}), {"recipe": "classic"}
    expected = trained(*row, **options)
    monkeypatch.setattr(Engine, "to_device", turned)
    found = trained(*row, **options)
    for name, value in found.module.state_dict().items():
        torch.testing.assert_close(value, expected.module.state_dict()[name], rtol=1e-4, atol=1e-4)


class Switching(Callback):
    """Changes a setting of the module, between epochs or between minibatches."""

    def __init__(self, module):
        self.module = module

    def change_at(self, is_due):
        if is_due:
            self.module.log_variational = not self.module.log_variational


class AfterEpochs(Switching):
    def on_train_epoch_end(self, trainer, plan):
        self.change_at(trainer.current_epoch == 3)


class AfterMinibatches(Switching):
    def on_train_batch_end(self, trainer, plan, *args):
        self.change_at(trainer.global_step == 14)


@pytest.mark.parametrize("callback", [AfterEpochs, AfterMinibatches])
def test_what_a_callback_changes(callback, counts, written, in_python):
    def done():
        adata = counts.copy()
        SCVI.setup_anndata(adata, batch_key="batch")
        model = SCVI(adata)
        options = {"max_epochs": 7, "batch_size": 24, "seed": 0, "verbose": 0, "recipe": "classic"}
        model.train(callbacks=[callback(model.module)], **options)
        return model

    expected, found = in_python(done), done()
    assert sum(written) > 5
    assert_the_same_bits(found, expected)
    assert not found.module.log_variational


def test_anomalies_are_looked_for_in_python(counts, written):
    with torch.autograd.set_detect_anomaly(True):
        trained(SCVI, counts, {}, {}, max_epochs=2)
    assert not written


def test_who_listens():
    assert as_one(max, 1, 2) == 2
    heard = []
    with listening(lambda function, args: heard.append((function, args))):
        with listening(lambda function, args: function(*args) + 1):
            assert as_one(max, 1, 2) == 3
        as_one(max, 3, 4)
    assert heard == [(max, (3, 4))]
    assert as_one(max, 1, 2) == 2
