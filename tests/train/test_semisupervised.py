"""SemiSupervisedTrainingPlan: what it hands to the loss, what it logs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from celbo.module.base import BaseModuleClass, LossOutput
from celbo.train import SemiSupervisedTrainingPlan, SemiSupervisedTrainingPlanConfig, Trainer, TrainingPlan


class Sorting(BaseModuleClass):
    """Reconstruction and KL are columns; the first three columns of a labelled cell are its logits."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))
        self.ratios = []

    def inference(self, x):
        return {"x": x}

    def generative(self, x):
        return {}

    def loss(
        self,
        tensors,
        inference_outputs,
        generative_outputs,
        kl_weight=1.0,
        labelled_tensors=None,
        classification_ratio=None,
    ):
        x = tensors["X"]
        self.ratios.append(classification_ratio)
        loss = (x[:, 3] + kl_weight * x[:, 4]).mean() * self.w
        if labelled_tensors is None:
            return LossOutput(loss=loss, reconstruction_loss=x[:, 3], kl_local=x[:, 4])
        logits, labels = labelled_tensors["X"][:, :3], labelled_tensors["labels"]
        ce = F.cross_entropy(logits, labels.squeeze(1))
        return LossOutput(
            loss=loss + classification_ratio * ce,
            reconstruction_loss=x[:, 3],
            kl_local=x[:, 4],
            classification_loss=ce,
            logits=logits,
            true_labels=labels,
        )


@pytest.fixture
def pairs(torch_rng):
    def part(n):
        x = torch.rand(n, 5, generator=torch_rng)
        return {"X": x, "labels": torch.randint(0, 3, (n, 1), generator=torch_rng)}

    return [(part(20), part(6)), (part(20), part(3)), (part(10), part(6))]


def fit(module, train, validation=None, **plan_kwargs):
    plan = SemiSupervisedTrainingPlan(module, 3, **plan_kwargs)
    trainer = Trainer(max_epochs=2, accelerator="cpu", verbose=0)
    trainer.fit(plan, train, validation)
    return {name: float(frame.iloc[0, 0]) for name, frame in trainer.history.frames().items()}


def test_history_has_micro_averages_weighted_by_observations(pairs):
    history = fit(Sorting(), pairs, pairs[:1])
    weights = torch.tensor([len(full["X"]) for full, _ in pairs]).float()
    hits = [(part["X"][:, :3].argmax(1) == part["labels"].squeeze(1)).float().mean() for _, part in pairs]
    ce = [F.cross_entropy(part["X"][:, :3], part["labels"].squeeze(1)) for _, part in pairs]
    assert history["train_accuracy"] == pytest.approx(float(weights @ torch.stack(hits) / 50), rel=1e-6)
    assert history["train_f1_score"] == pytest.approx(history["train_accuracy"], rel=1e-6)
    assert history["train_classification_loss"] == pytest.approx(float(weights @ torch.stack(ce) / 50), rel=1e-6)
    assert history["validation_accuracy"] == pytest.approx(float(hits[0]), rel=1e-6)
    names = ("classification_loss", "accuracy", "f1_score", "calibration_error")
    assert {f"{mode}_{name}" for mode in ("train", "validation") for name in names} <= set(history)
    assert {"kl_weight", "elbo_train", "elbo_validation", "train_loss", "validation_loss"} <= set(history)


def test_classification_ratio_and_kl_weight_reach_the_loss(pairs):
    module = Sorting()
    plain = fit(module, pairs, n_epochs_kl_warmup=None, lr=0.0)
    assert set(module.ratios) == {50}
    x = torch.cat([full["X"] for full, _ in pairs])
    weighted = float((x[:, 3] + x[:, 4]).sum() / 50)
    assert plain["train_loss"] == pytest.approx(weighted + 50 * plain["train_classification_loss"], rel=1e-5)
    half = fit(Sorting(), pairs, n_epochs_kl_warmup=None, max_kl_weight=0.5, classification_ratio=2, lr=0.0)
    expected = float((x[:, 3] + 0.5 * x[:, 4]).sum() / 50) + 2 * half["train_classification_loss"]
    assert half["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert half["kl_weight"] == 0.5


@pytest.mark.parametrize("without", [lambda full: full, lambda full: (full, None), lambda full: [full, None]])
def test_minibatches_without_labelled_cells(pairs, without):
    history = fit(Sorting(), [without(full) for full, _ in pairs])
    assert "train_accuracy" not in history
    assert "elbo_train" in history


def test_some_minibatches_without_labelled_cells_do_not_count(pairs):
    mixed = [pairs[0], (pairs[1][0], None)]
    assert fit(Sorting(), mixed)["train_accuracy"] == pytest.approx(fit(Sorting(), pairs[:1])["train_accuracy"])


def test_arguments():
    class Plain(Sorting):
        def loss(self, tensors, inference_outputs, generative_outputs, classification_ratio=1):
            raise AssertionError

    with pytest.raises(TypeError, match="no argument 'labelled_tensors': use TrainingPlan"):
        SemiSupervisedTrainingPlan(Plain(), 3)
    with pytest.raises(TypeError, match="classification_ratio"):
        SemiSupervisedTrainingPlan(Sorting(), 3, clasification_ratio=3)
    plan = SemiSupervisedTrainingPlan(Sorting(), 3, **SemiSupervisedTrainingPlanConfig(lr=0.5).to_kwargs())
    assert isinstance(plan, TrainingPlan)
    assert (plan.lr, plan.n_epochs_kl_warmup, plan.n_classes) == (0.5, 400, 3)
    assert plan.loss_kwargs["classification_ratio"] == 50
