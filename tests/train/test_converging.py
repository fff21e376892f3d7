"""Quasi-Newton steps against scipy's, and the plan that takes them: convergence, minibatches, resuming, refusals."""

import logging

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, rosen, rosen_der

from celbo.data import simulate_counts
from celbo.external import RNAStereoscope
from celbo.model import SCVI
from celbo.ops.quasi_newton import Extent, QuasiNewton
from celbo.train import Callback

QUICK = {"verbose": 0, "seed": 0, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def cells():
    return simulate_counts(300, 30, 3, 1, median_library=200.0, seed=0)


def profiles(cells, **how):
    adata = cells.copy()
    RNAStereoscope.setup_anndata(adata, labels_key="cell_type")
    model = RNAStereoscope(adata)
    model.train(**(QUICK | how))
    return model


def searched(start, lower=-np.inf, scale=1.0, tolerance=1e-9):
    """Rosenbrock's valley from the search; and how often it was looked at."""
    x = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    search = QuasiNewton({"x": x}, {"x": Extent(scale, lower)}, {}, tolerance)
    looks = 0
    while not search.has_converged and looks < 500:
        looks += 1
        x.grad = torch.tensor(rosen_der(x.detach().numpy()))
        search.step(rosen(x.detach().numpy()) + 1.0)
    search.settle()
    return x.detach().numpy(), looks


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_the_minimum_that_scipy_finds(scale):
    start = [-1.2, 1.0, 0.5, 2.0]
    found, looks = searched(start, scale=scale)
    theirs = minimize(rosen, start, jac=rosen_der, method="L-BFGS-B")
    np.testing.assert_allclose(found, theirs.x, atol=2e-3)
    assert looks < 4 * theirs.nfev


def test_the_minimum_on_a_bound():
    found, _ = searched([2.0, 3.0], lower=1.5)
    theirs = minimize(rosen, [2.0, 3.0], jac=rosen_der, method="L-BFGS-B", bounds=[(1.5, None)] * 2)
    np.testing.assert_allclose(found, theirs.x, atol=2e-3)
    assert found[0] == 1.5


def test_a_step_that_rises_is_taken_back():
    x = torch.nn.Parameter(torch.tensor([1.0]))
    search = QuasiNewton({"x": x}, {}, {})
    x.grad = torch.tensor([1.0])
    search.step(1.0)
    tried = x.item()
    x.grad = torch.tensor([-1.0])
    search.step(50.0)
    assert tried < x.item() < 1.0
    search.settle()
    assert x.item() == 1.0


def test_minibatches_change_nothing(cells):
    whole, parts = (profiles(cells, batch_size=size) for size in (300, 64))
    for ours, theirs in zip(whole.module.get_params(), parts.module.get_params(), strict=True):
        profile, other = (np.exp(-np.logaddexp(0, -w)) for w in (ours, theirs))
        np.testing.assert_allclose(profile, other, atol=0.03)
    losses = [model.module(_all(model))[2].loss.item() for model in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)


def _all(model):
    return next(iter(model._make_data_loader(model.adata, batch_size=300)))


def test_it_ends_where_scipy_finds_nothing_better(cells):
    model = profiles(cells)
    module, tensors = model.module, _all(model)
    parameters = list(module.parameters())
    assert "flat" in model.trainer.stop_reason
    assert len(model.history["train_loss"]) < 100

    def look(place):
        torch.nn.utils.vector_to_parameters(torch.tensor(place, dtype=torch.float32), parameters)
        module.zero_grad()
        loss = module(tensors)[2].loss
        loss.backward()
        return loss.item(), torch.cat([p.grad.flatten() for p in parameters]).double().numpy()

    here = torch.nn.utils.parameters_to_vector(parameters).detach().double().numpy()
    loss = look(here)[0]
    assert minimize(look, here, jac=True, method="L-BFGS-B").fun > loss * (1 - 2e-4)


class Stop(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, plan):
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


def test_a_run_that_was_ended_goes_on_to_the_same_bits(cells, tmp_path):
    alone = profiles(cells, batch_size=64, max_epochs=12)
    part = {"batch_size": 64, "max_epochs": 12, "checkpoint_every": "3 steps", "checkpoint_dir": tmp_path / "run"}
    profiles(cells, callbacks=[Stop(4)], **part)
    resumed = profiles(cells, resume=tmp_path / "run", callbacks=[Stop(99)], **part)
    for ours, theirs in zip(resumed.module.get_params(), alone.module.get_params(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_loss_with_noise_is_refused(cells):
    adata = cells.copy()
    SCVI.setup_anndata(adata)
    with pytest.raises(ValueError, match="SCVI is not"):
        SCVI(adata, n_hidden=8).train(1, recipe="converging", **QUICK)


def test_a_learning_rate_means_gradient_steps(cells):
    assert profiles(cells, max_epochs=1).recipe_ == "converging"
    assert profiles(cells, max_epochs=1, lr=0.1).recipe_ == "classic"


def test_an_end_before_the_loss_is_flat_is_said(cells, caplog):
    with caplog.at_level(logging.INFO, "celbo"):
        profiles(cells, max_epochs=3, verbose=2)
    assert "still falls after 3 epochs" in caplog.text
