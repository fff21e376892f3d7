"""Predicted beside true labels: by hand, by the metrics of training, by scikit-learn."""

import numpy as np
import pytest
import torch

from celbo.report.classification import area_under_roc, calibration, confusion_matrix
from celbo.train.plans.classification import calibration_error


def test_confusion_matrix():
    found = confusion_matrix(np.array([0, 0, 2, 2, 2]), np.array([0, 1, 2, 2, 0]), 3)
    np.testing.assert_array_equal(found, [[1, 1, 0], [0, 0, 0], [1, 0, 2]])


def test_calibration_by_hand():
    probability_nc = np.array([[0.95, 0.05], [0.97, 0.03], [0.3, 0.7], [0.4, 0.6]])
    found = calibration(probability_nc, np.array([0, 1, 1, 1]), n_bins=10)
    np.testing.assert_allclose(found.confidence_b, [0.6, 0.7, 0.96])
    np.testing.assert_allclose(found.accuracy_b, [1, 1, 0.5])
    np.testing.assert_array_equal(found.count_b, [1, 1, 2])
    assert found.error == pytest.approx((0.4 + 0.3 + 2 * 0.46) / 4)


def test_calibration_error_is_that_of_training(rng):
    logits_nc = rng.normal(size=(300, 4)) * 2
    true_n = rng.integers(4, size=300)
    expected = calibration_error(torch.from_numpy(logits_nc), torch.from_numpy(true_n))
    probability_nc = torch.from_numpy(logits_nc).softmax(-1).numpy()
    assert calibration(probability_nc, true_n).error == pytest.approx(float(expected), rel=1e-9)


def test_area_under_roc(rng):
    positive_n, negative_m = rng.integers(6, size=40) + 1.0, rng.integers(6, size=60) * 1.0
    gap_nm = positive_n[:, None] - negative_m
    assert area_under_roc(positive_n, negative_m) == pytest.approx(((gap_nm > 0) + 0.5 * (gap_nm == 0)).mean())
    assert area_under_roc(np.array([2.0]), np.array([1.0])) == 1
