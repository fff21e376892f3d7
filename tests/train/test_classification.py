"""Classification metrics against sklearn-free closed forms and brute force."""

import numpy as np
import pytest
import torch

from celbo.train.plans.classification import accuracy, calibration_error, classification_metrics, f1_score


@pytest.fixture
def predicted(torch_rng):
    logits = 3 * torch.randn(200, 4, generator=torch_rng)
    return logits, torch.randint(0, 4, (200, 1), generator=torch_rng)


def test_accuracy_and_micro_f1_by_counting(predicted):
    logits, labels = predicted
    right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, labels))
    assert accuracy(logits, labels).item() == pytest.approx(right / 200)
    assert f1_score(logits, labels).item() == pytest.approx(2 * right / (2 * right + 2 * (200 - right)))
    assert 0 < right < 200


def test_calibration_error_bin_by_bin(predicted):
    logits, labels = predicted
    p = logits.softmax(-1).numpy()
    confidence, hit = p.max(1), p.argmax(1) == labels.numpy()[:, 0]
    expected = 0.0
    for lower in np.arange(15) / 15:
        inside = (confidence > lower) & (confidence <= lower + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    assert calibration_error(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_a_certain_and_right_classifier_is_calibrated_a_certain_and_wrong_one_is_not():
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]])
    assert calibration_error(logits, torch.tensor([0, 1])).item() == 0
    assert calibration_error(logits, torch.tensor([1, 0])).item() == 1


def test_logits_that_look_like_probabilities_are_still_logits():
    """The mean confidence of these is 0.6, not 0.9 (user_needs: probabilities taken for logits)."""
    logits = torch.tensor([[0.9, 0.1]] * 10)
    labels = torch.zeros(10)
    confidence = torch.sigmoid(torch.tensor(0.8)).item()
    assert calibration_error(logits, labels).item() == pytest.approx(1 - confidence, rel=1e-5)


def test_metrics_carry_no_graph(predicted):
    logits, labels = predicted
    values = classification_metrics(logits.requires_grad_(), labels)
    assert set(values) == {"accuracy", "f1_score", "calibration_error"}
    assert not any(value.requires_grad for value in values.values())
