"""Models of others in Pyro: one of counts with a known posterior is trained, sampled, saved and loaded."""

import numpy as np
import pytest
import torch

import celbo
from celbo.core import REGISTRY_KEYS
from celbo.data.fields import LayerField
from celbo.model.base import (
    BaseModelClass,
    PyroJitGuideWarmup,
    PyroModelGuideWarmup,
    PyroSampleMixin,
    PyroSviTrainMixin,
    setup_method,
)
from celbo.module.base import PyroBaseModuleClass
from celbo.train import LowLevelPyroTrainingPlan, LowLevelPyroTrainingPlanConfig, PyroTrainingPlan, Trainer

pyro = pytest.importorskip("pyro", reason="Pyro is not installed: pip install 'celbo[pyro]'")
from pyro import distributions as dist  # noqa: E402
from pyro.infer.autoguide import AutoNormal  # noqa: E402


class Rates(torch.nn.Module):
    """Rate of each gene, and a size of each cell."""

    def __init__(self, n_genes: int, n_obs: int):
        super().__init__()
        self.n_genes, self.n_obs = n_genes, n_obs

    def forward(self, x):
        with pyro.plate("genes", self.n_genes, dim=-1):
            rate = pyro.sample("rate", dist.Gamma(1.0, 0.1))
        with pyro.plate("cells", self.n_obs, dim=-2, subsample_size=len(x)):
            size = pyro.sample("size", dist.Gamma(50.0, 50.0))
            pyro.sample("counts", dist.Poisson(size * rate).to_event(0), obs=x)


class RatesModule(PyroBaseModuleClass):
    def __init__(self, n_genes: int, n_obs: int):
        super().__init__()
        self._model = Rates(n_genes, n_obs)
        self._guide = AutoNormal(self._model, create_plates=None)

    model = property(lambda self: self._model)
    guide = property(lambda self: self._guide)

    @property
    def list_obs_plate_vars(self):
        return {"name": "cells", "input": [0], "sites": {"size": 1}}

    @staticmethod
    def _get_fn_args_from_batch(tensors):
        return (tensors[REGISTRY_KEYS.X_KEY],), {}


class RatesModel(PyroSviTrainMixin, PyroSampleMixin, BaseModelClass):
    def __init__(self, adata=None):
        super().__init__(adata)
        self.module = RatesModule(self.summary_stats["n_vars"], self.summary_stats["n_cells"])
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    @setup_method
    def setup_anndata(cls, adata, layer: str | None = None):
        return [LayerField(REGISTRY_KEYS.X_KEY, layer)]


@pytest.fixture
def model():
    pyro.clear_param_store()
    adata = celbo.data.synthetic_iid(batch_size=40, n_genes=6, seed=0)
    adata.X = np.random.default_rng(0).poisson([1, 2, 4, 8, 16, 32], adata.shape).astype(np.float32)
    RatesModel.setup_anndata(adata)
    return RatesModel(adata)


def test_rates_are_found_and_sampled(model):
    model.train(400, batch_size=None, train_size=1, lr=0.05, verbose=0, seed=0, accelerator="cpu")
    losses = model.history["elbo_train"].to_numpy().ravel()
    assert losses[-1] < losses[0]
    found = model.sample_posterior(num_samples=100, batch_size=80, return_samples=True)
    rate = found["post_sample_means"]["rate"].ravel()
    np.testing.assert_allclose(rate, model.adata.X.mean(0), rtol=0.1)  # the prior weighs a tenth of a cell
    assert (found["posterior_samples"]["size"].shape[1], "counts" in found["posterior_samples"]) == (80, False)
    assert (found["post_sample_q05"]["rate"] < found["post_sample_q95"]["rate"]).all()
    observed = model.sample_posterior(num_samples=3, return_sites=["counts"], batch_size=80)
    assert list(observed["post_sample_means"]) == ["counts"]


def test_archives(model, tmp_path):
    model.train(3, batch_size=None, train_size=1, verbose=0, seed=0, accelerator="cpu")
    model.save(str(tmp_path / "model"))
    pyro.clear_param_store()
    again = RatesModel.load(str(tmp_path / "model"), model.adata, accelerator="cpu")
    for name, weight in model.module.state_dict().items():
        torch.testing.assert_close(again.module.state_dict()[name], weight)
    assert any("rate" in name for name in again.module.state_dict())


def test_plan_and_warm_up(model):
    plan = PyroTrainingPlan(model.module, optim_kwargs={"lr": 0.1}, scale_elbo=0.5)
    loader = model._make_data_loader(adata=model.adata)
    plan.module.guide(next(iter(loader))[REGISTRY_KEYS.X_KEY])
    args, _ = plan._arguments(next(iter(loader)))
    half = plan.svi.evaluate_loss(*args)
    assert np.isfinite(half)
    assert not plan.use_kl_weight
    assert PyroJitGuideWarmup(loader).dataloader is loader
    with pytest.raises(NotImplementedError, match="property `guide`"):
        _ = PyroBaseModuleClass().guide


def test_an_elbo_of_pyro_under_torchs_optimizer(model):
    """The same rates are found by a differentiated ELBO; the guide's parameters are there before the optimizer is."""
    loader = model._make_data_loader(adata=model.adata, batch_size=80)
    plan = LowLevelPyroTrainingPlan(model.module, optim_kwargs={"lr": 0.05})
    trainer = Trainer(max_epochs=300, accelerator="cpu", callbacks=[PyroModelGuideWarmup(loader)], verbose=0, seed=0)
    trainer.fit(plan, loader)
    losses = trainer.history.frames()["elbo_train"].to_numpy().ravel()
    assert losses[-1] < losses[0]
    with torch.no_grad():
        rate = model.module.guide.median()["rate"]
    np.testing.assert_allclose(rate, model.adata.X.mean(0), rtol=0.1)


def test_the_model_is_told_the_number_of_training_cells(model):
    for cls in (LowLevelPyroTrainingPlan, PyroTrainingPlan):
        plan = cls(model.module)
        plan.n_obs_training = 7
        assert (plan.n_obs_training, model.module.model.n_obs) == (7, 7)
        plan.n_obs_training = model.adata.n_obs
    kwargs = LowLevelPyroTrainingPlanConfig(scale_elbo=0.5, optim_kwargs={"lr": 0.1}).to_kwargs()
    half = LowLevelPyroTrainingPlan(model.module, **kwargs)
    batch = next(iter(model._make_data_loader(adata=model.adata, batch_size=80)))
    half.module.guide(batch[REGISTRY_KEYS.X_KEY])
    pyro.set_rng_seed(0)
    loss = half._loss_of(batch)
    pyro.set_rng_seed(0)
    torch.testing.assert_close(2 * loss, LowLevelPyroTrainingPlan(model.module)._loss_of(batch))
