"""What only Lightning's Trainer understands is run under it, with the numbers of celbo's own loop."""

import importlib.util
import logging

import numpy as np
import pytest
import torch

from celbo.data import synthetic_iid
from celbo.model import SCVI
from celbo.train import Callback, Trainer, TrainingPlan
from celbo.train.config import LIGHTNING_ONLY, needs_lightning
from celbo.train.lightning.trainer import LightningTrainer

HAS_LIGHTNING = importlib.util.find_spec("lightning") is not None
needs = pytest.mark.skipif(not HAS_LIGHTNING, reason="lightning is not installed: pip install 'celbo[lightning]'")


def train(**kwargs):
    adata = synthetic_iid(batch_size=60, n_genes=40, seed=0)
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata, n_latent=3)
    options = {"max_epochs": 3, "recipe": "classic", "seed": 1, "batch_size": 32, "verbose": 0, "accelerator": "cpu"}
    model.train(**(options | kwargs))
    return model


def forged(name: str, module: str, *bases: type, **members) -> type:
    """A class that says it comes from Lightning."""
    return type(name, bases, {"__module__": module, **members})


TheirCallback = forged("Callback", "lightning.pytorch.callbacks.callback", on_fit_start=None, on_before_zero_grad=None)


class TestWhatNeedsIt:
    def test_nothing(self):
        assert needs_lightning({"max_epochs": 3, "callbacks": [Callback()], "profiler": None, "logger": "csv"}) == []

    def test_arguments(self):
        assert needs_lightning({"profiler": "simple", "max_time": None}) == ["profiler"]
        assert not set(LIGHTNING_ONLY) & set(Trainer.__init__.__annotations__)

    def test_callbacks_of_their_own(self):
        swa = forged("StochasticWeightAveraging", "lightning.pytorch.callbacks.weight_avg", TheirCallback)
        assert needs_lightning({"callbacks": swa()}) == ["StochasticWeightAveraging"]

    def test_callbacks_of_users_stay_on_the_own_loop(self):
        plain = forged("Plain", "somebody", TheirCallback, on_fit_start=lambda *_: None)
        special = forged("Special", "somebody", TheirCallback, on_before_zero_grad=lambda *_: None)
        assert needs_lightning({"callbacks": [plain()]}) == []
        assert needs_lightning({"callbacks": [plain(), special()]}) == ["Special"]

    def test_strategies(self):
        strategy = forged("DDPStrategy", "lightning.pytorch.strategies.ddp")
        assert needs_lightning({"strategy": strategy()}) == ["strategy=DDPStrategy"]
        assert needs_lightning({"strategy": "ddp"}) == []


@pytest.mark.skipif(HAS_LIGHTNING, reason="lightning is installed")
def test_without_lightning_the_extra_is_named():
    with pytest.raises(ModuleNotFoundError, match=r"profiler needs the package 'lightning'.*celbo\[lightning\]"):
        train(profiler="simple")
    with pytest.raises(ModuleNotFoundError, match=r"ckpt_path needs .* go on with a killed run: train\(resume=DIR\)"):
        train(ckpt_path="last.ckpt")


@needs
class TestUnderLightning:
    @pytest.mark.parametrize("recipe", ["classic", "one_cycle"])
    def test_same_numbers(self, recipe, caplog):
        with caplog.at_level(logging.INFO, logger="celbo"):
            ours, theirs = train(recipe=recipe), train(recipe=recipe, min_steps=1)
        assert isinstance(theirs.trainer, LightningTrainer)
        assert type(ours.trainer) is Trainer
        assert list(ours.history) == list(theirs.history)
        for name, frame in ours.history.items():
            np.testing.assert_allclose(theirs.history[name].to_numpy(), frame.to_numpy(), rtol=1e-6, err_msg=name)
            assert theirs.history[name].index.equals(frame.index)
        for name, tensor in ours.module.state_dict().items():
            torch.testing.assert_close(theirs.module.state_dict()[name], tensor, msg=name)

    def test_it_is_said_in_one_line(self, caplog):
        logging.getLogger("celbo").addHandler(caplog.handler)
        try:
            train(max_epochs=1, min_steps=1, max_time="00:01:00:00")
        finally:
            logging.getLogger("celbo").removeHandler(caplog.handler)
        said = [record.message for record in caplog.records if "Lightning" in record.message]
        assert said == ["Training under Lightning's Trainer: celbo's own loop does not have max_time, min_steps."]

    def test_their_callbacks(self, tmp_path):
        from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

        model = train(
            max_epochs=40,
            check_val_every_n_epoch=1,
            plan_kwargs={"lr": 0.0},
            callbacks=[
                EarlyStopping("train_loss", patience=2, min_delta=1e9),
                ModelCheckpoint(dirpath=str(tmp_path), monitor="elbo_validation"),
            ],
        )
        assert len(model.history["elbo_train"]) == 3
        assert len(list(tmp_path.glob("*.ckpt"))) == 1

    def test_going_on_from_their_checkpoint(self, tmp_path):
        from lightning.pytorch.callbacks import ModelCheckpoint

        first, second = (ModelCheckpoint(dirpath=str(tmp_path / name), save_last=True) for name in "ab")
        before = train(max_epochs=2, check_val_every_n_epoch=1, callbacks=[first])
        after = train(
            max_epochs=3, check_val_every_n_epoch=1, callbacks=[second], ckpt_path=str(tmp_path / "a" / "last.ckpt")
        )
        assert after.history["elbo_train"].index.tolist() == [2]
        assert after.trainer.global_step == 3 * before.trainer.global_step // 2

    def test_celbo_callbacks_work_there_too(self, tmp_path):
        seen = []

        class Note(Callback):
            def on_train_epoch_end(self, trainer, plan):
                assert trainer.callback_metrics["elbo_train"].item() > 0
                assert (trainer.global_rank, trainer.world_size, trainer.num_val_batches) == (0, 1, [1])
                assert trainer.datamodule is not None
                seen.append((trainer.current_epoch, trainer.global_step))

        model = train(
            max_epochs=30,
            min_steps=1,
            early_stopping=True,
            early_stopping_patience=2,
            early_stopping_min_delta=1e9,
            enable_checkpointing=True,
            log_save_dir=str(tmp_path),
            callbacks=[Note()],
        )
        assert len(model.history["elbo_validation"]) == 3
        assert "did not improve" in model.trainer.stop_reason
        assert [epoch for epoch, _ in seen] == [0, 1, 2]
        assert [step for _, step in seen] == [4, 8, 12]
        assert list(tmp_path.rglob("model.safetensors"))

    def test_their_logger_gets_the_metrics(self, tmp_path):
        from lightning.pytorch.loggers import CSVLogger

        model = train(min_steps=1, logger=CSVLogger(str(tmp_path)), check_val_every_n_epoch=1)
        import pandas as pd

        table = pd.read_csv(next(tmp_path.rglob("metrics.csv")))
        np.testing.assert_allclose(
            table["elbo_validation"].dropna(), model.history["elbo_validation"].iloc[:, 0], rtol=1e-5
        )

    def test_manual_optimization(self):
        class Manual(TrainingPlan):
            def __init__(self, module, **kwargs):
                super().__init__(module, **kwargs)
                self.automatic_optimization = False

            def training_step(self, batch, batch_idx):
                loss = super().training_step(batch, batch_idx)
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
                return loss

        class Model(SCVI):
            _training_plan_cls = Manual

        adata = synthetic_iid(batch_size=40, n_genes=30, seed=0)
        histories = []
        for extra in ({}, {"min_steps": 1}):
            Model.setup_anndata(adata)
            model = Model(adata)
            model.train(max_epochs=2, recipe="classic", seed=0, verbose=0, accelerator="cpu", **extra)
            histories.append(model.history["elbo_train"].to_numpy())
        np.testing.assert_allclose(*histories, rtol=1e-6)

    def test_a_loss_that_is_not_finite_is_explained(self):
        from celbo.train import NonFiniteLossError

        with pytest.raises(NonFiniteLossError, match="Training stopped at epoch"):
            train(min_steps=1, plan_kwargs={"lr": 1e30}, max_epochs=5)

    def test_fast_dev_run(self):
        model = train(fast_dev_run=True)
        assert len(model.history["elbo_train"]) == 1

    def test_their_learning_rates_reach_the_history(self):
        from lightning.pytorch.callbacks import LearningRateMonitor

        model = train(recipe="one_cycle", callbacks=[LearningRateMonitor()], log_every_n_steps=1)
        (name,) = (name for name in model.history if name.startswith("lr-"))
        rates = model.history[name].iloc[:, 0]
        assert rates.index.name == "step"
        assert len(rates) == 12
        assert rates.idxmax() == 0  # the peak: a tenth of 12 steps is one step of warming up
        assert len(model.history["elbo_train"]) == 3
