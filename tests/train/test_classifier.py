"""ClassifierTrainingPlan: its record, its history; and that probabilities are never taken for logits."""

import pytest
import torch
import torch.nn.functional as F

from celbo.module import Classifier
from celbo.train import ClassifierTrainingPlan, ClassifierTrainingPlanConfig, Trainer


@pytest.fixture
def batches(torch_rng):
    def part(n):
        x = torch.randn(n, 4, generator=torch_rng)
        return {"X": x, "labels": (x[:, :1] > 0).long()}

    return [part(30), part(30), part(12)]


def classifier(logits=True):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Classifier(4, n_hidden=8, n_labels=2, logits=logits).eval()
    with torch.no_grad():
        module.classifier[1].weight *= 5  # probabilities that are far from even
    return module


def fit(plan, batches, **kwargs):
    trainer = Trainer(**({"max_epochs": 2, "accelerator": "cpu", "verbose": 0, "seed": 0} | kwargs))
    trainer.fit(plan, batches, batches[:2])
    return trainer.history.frames()


def test_the_record_has_a_classification_loss_alone(batches):
    module = classifier()
    record = ClassifierTrainingPlan(module).loss_of(batches[2])
    expected = F.cross_entropy(module(batches[2]["X"]), batches[2]["labels"].squeeze(1))
    assert record.loss.item() == record.classification_loss.item() == pytest.approx(expected.item())
    assert record.n_obs_minibatch == 12
    assert record.logits.shape == (12, 2)
    assert torch.equal(record.true_labels, batches[2]["labels"])
    assert record.reconstruction_loss_sum == record.kl_local_sum == record.kl_global_sum == 0


def test_probabilities_are_not_taken_for_logits(batches):
    with_logits, without = (ClassifierTrainingPlan(classifier(logits)).loss_of(batches[0]) for logits in (True, False))
    torch.testing.assert_close(without.loss, with_logits.loss)
    torch.testing.assert_close(without.logits.softmax(1), with_logits.logits.softmax(1))
    mistaken = F.cross_entropy(classifier(False)(batches[0]["X"]), batches[0]["labels"].squeeze(1))
    assert abs(mistaken - with_logits.loss) > 1e-2


def test_history(batches):
    history = fit(ClassifierTrainingPlan(classifier(), lr=0.05, eps=1e-8), batches, max_epochs=4, log_every_n_steps=2)
    assert {"train_loss_epoch", "train_loss_step", "validation_loss"} <= set(history)
    assert {f"{mode}_{name}" for mode in ("train", "validation") for name in ("accuracy", "calibration_error")} <= set(
        history
    )
    assert not [name for name in history if "elbo" in name or "kl" in name]
    assert list(history["train_loss_step"].index) == [2, 4, 6, 8, 10, 12]
    losses = history["validation_loss"].iloc[:, 0]
    assert losses.iloc[-1] < losses.iloc[0] * 0.8
    assert history["validation_accuracy"].iloc[-1, 0] > 0.75


def test_means_are_over_cells(batches):
    module = classifier()
    history = fit(ClassifierTrainingPlan(module, lr=0.0), batches, max_epochs=1)
    module.eval()
    values = [F.cross_entropy(module(b["X"]), b["labels"].squeeze(1), reduction="none") for b in batches[:2]]
    assert history["validation_loss"].iloc[0, 0] == pytest.approx(torch.cat(values).mean().item(), rel=1e-5)


def test_keys_loss_and_optimizer_of_ones_own(batches):
    renamed = [{"z": batch["X"], "kind": batch["labels"]} for batch in batches]
    plan = ClassifierTrainingPlan(
        classifier(), data_key="z", labels_key="kind", loss=torch.nn.MultiMarginLoss, optimizer="AdamW"
    )
    fit(plan, renamed)
    assert isinstance(plan.configure_optimizers(), torch.optim.AdamW)
    assert isinstance(plan.loss_fn, torch.nn.MultiMarginLoss)
    with pytest.raises(ValueError, match="'Adam' or 'AdamW', got 'SGD'"):
        ClassifierTrainingPlan(classifier(), optimizer="SGD")


def test_config_has_the_plans_arguments():
    plan = ClassifierTrainingPlan(classifier(), **ClassifierTrainingPlanConfig(lr=0.5).to_kwargs())
    assert (plan.lr, plan.weight_decay, plan.eps) == (0.5, 1e-6, 0.01)
