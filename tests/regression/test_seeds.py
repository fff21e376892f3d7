"""A seed gives the same bits beside other trainings, in threads and processes, as alone: others' draws are not ours."""

import functools
import multiprocessing
import threading

import numpy as np
import pytest
import torch
from torch import nn

from celbo.data import synthetic_iid
from celbo.model import SCVI
from celbo.module import VAE

SMALL = {"n_hidden": 8, "n_latent": 3}
TRAIN = {"max_epochs": 2, "verbose": 0, "accelerator": "cpu"}


class NoisyVAE(VAE):
    """Of someone else: it draws from torch's global generator, and has a layer that does."""

    def __init__(self, n_input, n_batch=0, **kwargs):
        super().__init__(n_input, n_batch=n_batch, **kwargs)
        self.blur = nn.Dropout(0.2)

    def _regular_inference(self, x, batch_index, n_samples=1):
        outputs = super()._regular_inference(x, batch_index, n_samples=n_samples)
        z = outputs["z"]
        return outputs | {"z": self.blur(z) + 0.1 * torch.randn(z.shape)}


class Noisy(SCVI):
    _module_cls = NoisyVAE


class Shuffled:
    """Loaders of someone else's: torch's, whose order is drawn from the global generator."""

    n_train, n_val, n_obs = 80, 20, 100

    def __init__(self, adata):
        cells = [
            {
                "X": torch.from_numpy(adata.X[i].astype(np.float32)),
                "batch": torch.tensor([i % 2]),
                "labels": torch.zeros(1),
            }
            for i in range(100)
        ]
        self.train_cells, self.val_cells = cells[:80], cells[80:]

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.train_cells, batch_size=20, shuffle=True)

    def val_dataloader(self):
        return torch.utils.data.DataLoader(self.val_cells, batch_size=20)


class Jitter:
    """A callback of someone else's that draws."""

    def on_train_epoch_end(self, trainer, plan):
        with torch.no_grad():
            plan.module.px_r.add_(0.1 * torch.randn(plan.module.px_r.shape))


class Langevin(torch.optim.SGD):
    """An optimizer of someone else's that draws."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(1e-3 * torch.randn_like(parameter))


def fit(seed, cls=SCVI, loaders=None, **train):
    """Weights after a short training, and counts drawn from the model."""
    adata = synthetic_iid(batch_size=50, n_genes=20, seed=seed)
    cls.setup_anndata(adata, batch_key="batch")
    model = cls(adata, **SMALL)
    model.train(**TRAIN | {"seed": seed} | train, datamodule=None if loaders is None else loaders(adata))
    drawn = model.posterior_predictive_sample(n_samples=2, seed=seed)
    drawn = drawn.todense() if hasattr(drawn, "todense") else drawn
    weights = [value.flatten().double() for value in model.module.state_dict().values()]
    return np.concatenate([torch.cat(weights).numpy(), np.asarray(drawn, dtype=float).ravel()])


LANGEVIN = {"optimizer": "Custom", "optimizer_creator": lambda parameters: Langevin(parameters, lr=1e-3)}
RUNS = {
    "own": fit,
    "module_of_others": functools.partial(fit, cls=Noisy),
    "loaders_of_others": functools.partial(fit, loaders=Shuffled),
    "callback_of_others": lambda seed: fit(seed, callbacks=[Jitter()]),
    "optimizer_of_others": functools.partial(fit, plan_kwargs=LANGEVIN, recipe="classic"),
}


def in_threads(tasks):
    """Results of functions without arguments, each in a thread of its own."""
    results, errors = {}, []

    def run(key):
        try:
            results[key] = tasks[key]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(key,)) for key in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return results


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize("name", RUNS)
def test_a_seed_holds_beside_another_training(name):
    seeds = (1, 2)
    alone = {seed: RUNS[name](seed) for seed in seeds}
    assert not np.array_equal(alone[1], alone[2])
    together = in_threads({seed: functools.partial(RUNS[name], seed) for seed in seeds})
    for seed in seeds:
        np.testing.assert_array_equal(together[seed], alone[seed])


@pytest.mark.usefixtures("global_rng_untouched")
def test_a_seed_holds_beside_a_training_of_others():
    tasks = {name: functools.partial(run, 1) for name, run in RUNS.items()}
    alone = {name: task() for name, task in tasks.items()}
    together = in_threads(tasks)
    for name in tasks:
        np.testing.assert_array_equal(together[name], alone[name], err_msg=name)


@pytest.mark.usefixtures("global_rng_untouched")
@pytest.mark.parametrize("name", ["loaders_of_others", "callback_of_others", "optimizer_of_others"])
def test_what_others_add_to_a_training_draws_privately(name):
    """The fixture sees any change of the global state, and a draw there would be another one each time."""
    np.testing.assert_array_equal(RUNS[name](1), RUNS[name](1))


@pytest.mark.usefixtures("global_rng_untouched")
def test_without_a_seed_numbers_differ():
    assert not np.array_equal(fit(None), fit(None))


def test_a_spawned_process_gets_the_same_bits():
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        child = pool.apply_async(fit, (1,))
        here = fit(1)
        np.testing.assert_array_equal(child.get(200), here)
