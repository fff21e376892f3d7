"""What callbacks and plans find on the trainer, by Lightning's names and kinds."""

import math

import torch

from celbo.train import Callback, LoudEarlyStopping, SaveCheckpoint, Trainer


class Look(Callback):
    """Reads metrics as code written for Lightning does, and adds one of its own."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, plan):
        metrics = trainer.callback_metrics
        self.seen.append((metrics["elbo_train"].item(), metrics.get("mine", torch.tensor(-1.0)).item()))
        metrics["mine"] = torch.tensor(float(trainer.current_epoch))


def test_metrics_are_tensors_of_no_dimension(fit, series):
    look = Look()
    trainer = fit(callbacks=look, max_epochs=3)
    assert {value.ndim for value in trainer.callback_metrics.values()} == {0}
    assert [elbo for elbo, _ in look.seen] == list(series(trainer, "elbo_train"))
    assert [mine for _, mine in look.seen] == [-1.0, 0.0, 1.0]
    assert trainer.logged_metrics is trainer.callback_metrics
    shown = trainer.progress_bar_metrics
    assert list(shown) == ["train_loss", "elbo_train", "elbo_validation"]
    assert all(isinstance(value, float) for value in shown.values())


def test_a_metric_of_a_callback_can_be_followed(fit):
    stopping = LoudEarlyStopping("mine", patience=2, warmup_epochs=1)
    trainer = fit(callbacks=[Look(), stopping], max_epochs=9)
    assert trainer.current_epoch == 4
    assert trainer.early_stopping_callback.best_score.item() == 0.0


def test_callbacks_by_kind(fit):
    trainer = fit(callbacks=[Look(), LoudEarlyStopping(patience=9)], max_epochs=1)
    assert isinstance(trainer.early_stopping_callback, LoudEarlyStopping)
    assert trainer.early_stopping_callbacks == [trainer.early_stopping_callback]
    assert trainer.checkpoint_callback is None
    assert trainer.checkpoint_callbacks == []
    assert isinstance(Trainer(enable_checkpointing=True).checkpoint_callback, SaveCheckpoint)
    assert SaveCheckpoint().best_model_score is None


def test_loaders(fit):
    trainer = fit(max_epochs=1)
    assert trainer.num_training_batches == len(trainer.train_dataloader)
    assert trainer.num_val_batches == [len(trainer.val_dataloaders)]
    assert fit(validation=None, max_epochs=1).num_val_batches == []
    trainer.val_loader = iter(())
    assert trainer.num_val_batches == [math.inf]
    assert (trainer.world_size, trainer.global_rank, trainer.sanity_checking) == (1, 0, False)
    assert Trainer().datamodule is None


def test_the_history_is_the_logger_where_there_is_none(fit):
    class Log(Callback):
        def on_train_epoch_end(self, trainer, plan):
            trainer.logger.log_metrics({"mine": 7.0 + trainer.current_epoch})
            trainer.logger.log_metrics({"at": 1.0}, step=trainer.global_step)

    trainer = fit(callbacks=Log(), max_epochs=2)
    assert trainer.logger.history["mine"]["mine"].tolist() == [7.0, 8.0]
    assert trainer.logger.history["mine"].index.tolist() == [0, 1]
    assert trainer.logger.history["at"].index.tolist() == [trainer.global_step // 2, trainer.global_step]
