"""A model, plan, loader and `train` that somebody wrote for scvi-tools 1.x run on celbo as they are.

The script asserts for itself and passes on scvi-tools 1.4.2 too.
"""

import sys

import numpy as np
import pytest

from celbo.compat import as_scvi

from .conftest import OUTSIDE


def test_an_outside_model_runs_unchanged(run_on_celbo):
    done = run_on_celbo("outsider.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done 1.4.2"
    assert "Warning" not in done.stderr


@pytest.fixture
def outsider(monkeypatch):
    """The script as a module of this process."""
    with as_scvi():
        monkeypatch.syspath_prepend(str(OUTSIDE))
        monkeypatch.delitem(sys.modules, "outsider", raising=False)
        import outsider

        yield outsider
    sys.modules.pop("outsider", None)


@pytest.fixture
def model(outsider):
    import celbo

    adata = celbo.data.synthetic_iid(batch_size=60, n_genes=40, seed=0)
    outsider.TinyModel.setup_anndata(adata, batch_key="batch")
    return outsider.TinyModel(adata, n_latent=3)


class TestThePiecesThatOthersOverride:
    def test_setup_call_in_the_registry(self, model):
        assert model.registry["model_name"] == "TinyModel"
        assert model.registry["setup_method_name"] == "setup_anndata"
        assert model.registry["setup_args"] == {
            "batch_key": "batch",
            "layer": None,
            "categorical_covariate_keys": None,
            "continuous_covariate_keys": None,
        }

    def test_constructor_arguments_from_locals(self, model):
        assert model.init_params_ == {"kwargs": {"model_kwargs": {}}, "non_kwargs": {"n_hidden": 16, "n_latent": 3}}

    def test_loss_arguments_are_there_before_the_first_step(self, outsider, model):
        plan = outsider.NoisyPlan(model.module, n_epochs_kl_warmup=10)
        plan.n_obs_training = 77
        assert plan.loss_kwargs == {"kl_weight": 0.0, "n_obs": 77}

    def test_own_loaders_are_made_by_the_splitter(self, outsider, model):
        splitter = outsider.CountingSplitter(model.adata_manager, batch_size=16)
        assert type(splitter.train_dataloader()) is outsider.CountingLoader
        assert type(splitter.val_dataloader()) is outsider.CountingLoader

    def test_a_loader_class_that_knows_nothing_of_celbo(self, outsider, model):
        class Plain:
            def __init__(self, adata_manager, indices, shuffle=False, batch_size=128, **kwargs):
                self.n, self.kwargs = len(indices), kwargs

        class Splitter(outsider.DataSplitter):
            data_loader_cls = Plain

        loader = Splitter(model.adata_manager, batch_size=16).train_dataloader()
        assert loader.n == 108
        assert loader.kwargs.keys() == {"drop_last", "pin_memory"}

    def test_scheduler_of_an_overridden_configure_optimizers(self, model):
        plan_kwargs = {"lr": 1e-2}
        model.train(max_epochs=6, check_val_every_n_epoch=1, plan_kwargs=plan_kwargs, train_size=0.8, verbose=0,
                    batch_size=32)  # fmt: skip
        scheduler = model.trainer.lr_links[0].scheduler
        assert scheduler.best == pytest.approx(min(model.history["reconstruction_loss_validation"].iloc[:, 0]))
        assert scheduler.last_epoch == 6


@pytest.mark.parametrize("names", [("qz_m", "qz_v"), ("qzm", "qzv")])
def test_a_posterior_in_parts(outsider, model, names):
    """Modules of scvi-tools' early 1.x give mean and variance of the latents in place of a distribution."""

    class InParts(type(model.module)):
        def inference(self, x, n_samples=1):
            outputs = super().inference(x, n_samples)
            qz = outputs.pop("qz")
            del outputs["qz_m"], outputs["qz_v"]
            return {**outputs, names[0]: qz.loc, names[1]: qz.scale**2}

    model.is_trained_ = True
    before = model.get_latent_representation()
    model.module.__class__ = InParts
    np.testing.assert_array_equal(model.get_latent_representation(), before)
    mean, variance = model.get_latent_representation(return_dist=True)
    assert mean.shape == variance.shape == (120, 3)
