"""The verdict follows from stated rules: each question at each of its bounds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from celbo.data import Finding, check_counts
from celbo.report import judge, verdict
from celbo.report.fit import GeneFit
from celbo.report.summary import BY_GUESSING, KEPT, MIXED, MIXED_WITHIN, Judgement, ModelSummary
from celbo.report.verdict import overall, worst


def summary(history=None, active=(True,) * 10, metrics=None, fit=None, detail=None):
    curve = {"elbo_validation": history if history is not None else np.geomspace(500, 100, 30) * 0 + 100}
    is_active = np.array(active, dtype=bool)
    return ModelSummary(
        history=pd.DataFrame(curve),
        kl_k=np.ones(len(is_active)),
        is_active_k=is_active,
        place_n2=np.zeros((0, 2)),
        group_n={},
        fit=fit,
        metrics=metrics or {},
        detail=detail,
    )


def grade(question, *args, **kwargs):
    (found,) = [one for one in judge(summary(*args, **kwargs)) if one.question == question]
    assert (found.grade == "green") == (found.action == "")
    return found.grade


def falling(last_tenth, n=30):
    """A curve that falls by 100, of it a share within its last tenth."""
    early = np.linspace(200, 100 + 100 * last_tenth, n - n // 10)
    return np.concatenate([early, np.linspace(early[-1], 100, n // 10 + 1)[1:]])


class TestConvergence:
    @pytest.mark.parametrize(("share", "expected"), [(0.0, "green"), (0.01, "green"), (0.05, "amber"), (0.3, "red")])
    def test_still_falling(self, share, expected):
        assert grade("Did training converge?", falling(share)) == expected

    def test_rises_again(self):
        curve = np.concatenate([np.linspace(200, 100, 30), np.linspace(101, 130, 20)])
        (first, *_) = judge(summary(curve))
        assert first.grade == "amber"
        assert "rose again after epoch 30 of 50, by 30% of its total fall" in first.finding
        assert "about 30 epochs" in first.action

    def test_too_few_epochs(self):
        assert grade("Did training converge?", np.array([3.0, 2.0, 1.0])) == "amber"

    def test_warm_up_of_the_weight(self):
        made = summary(falling(0.0))
        made.history["kl_weight"] = np.linspace(0, 0.075, 30)
        (first, *_) = judge(made)
        assert first.grade == "red"
        assert "only reached 0.07" in first.finding

    def test_other_curves(self):
        made = summary(falling(0.0))
        made.history["train_loss_epoch"] = made.history.pop("elbo_validation")
        assert judge(made)[0].grade == "green"


class TestLatent:
    @pytest.mark.parametrize(
        ("active", "expected"), [(10, "green"), (4, "green"), (3, "amber"), (1, "red"), (0, "red")]
    )
    def test_active_dimensions(self, active, expected):
        assert grade("Is the latent space used?", active=np.arange(10) < active) == expected

    def test_models_without(self):
        assert "Is the latent space used?" not in [one.question for one in judge(summary(active=()))]

    @pytest.mark.parametrize(("value", "expected"), [(1.02, "green"), (0.8, "green"), (0.7, "amber"), (0.4, "red")])
    def test_mixing(self, value, expected):
        assert grade("Are the batches mixed?", metrics={MIXED: value}) == expected

    def test_mixing_within_labels_wins(self):
        assert grade("Are the batches mixed?", metrics={MIXED: 0.1, MIXED_WITHIN: 0.9}) == "green"

    @pytest.mark.parametrize(("value", "expected"), [(0.95, "green"), (0.8, "amber"), (0.6, "red")])
    def test_labels_against_guessing(self, value, expected):
        assert grade("Are the labels kept apart?", metrics={KEPT: value, BY_GUESSING: 0.5}) == expected


def fit_of(factor, zeros):
    observed = np.array([0.5, 1.0, 5.0])
    return GeneFit(observed, observed * factor, np.full(3, 0.5), np.full(3, 0.5) + zeros, 100, observed, observed)


@pytest.mark.parametrize(
    ("factor", "zeros", "expected"), [(1.02, 0.0, "green"), (1.2, 0.0, "amber"), (2.0, 0.0, "red"), (1, -0.1, "red")]
)
def test_simulated_data(factor, zeros, expected):
    assert grade("Do simulated data look like the real ones?", fit=fit_of(factor, zeros)) == expected


def test_figures_of_the_fit():
    fit = GeneFit(
        np.array([1.0, 4.0, 0.001]),
        np.array([2.0, 4.0, 9.0]),
        np.zeros(3),
        np.array([0.3, 0, 0]),
        1000,
        np.ones(3),
        np.ones(3),
    )
    assert fit.median_change == 0.5  # of 1 and 0: the third gene is too rare
    assert fit.mean_gap_of_zeros == pytest.approx(0.1)


class TestInput:
    def test_gravest_first(self):
        findings = [Finding("warning", "Odd.", "Look."), Finding("error", "Logged.", "Take counts.")]
        (found,) = [one for one in judge(summary(), findings) if one.question == "Are the data raw counts?"]
        assert (found.grade, found.finding, found.action) == ("red", "Logged.", "Take counts.")

    @pytest.mark.parametrize(("share", "grade"), [(1.0, "red"), (0.5, "amber")])
    def test_most_values_are_no_counts(self, share, grade):
        x = np.array([[2.0, 1.0, 0.0], [3.0, 4.0, 0.0]])
        x[: 2 if share == 1 else 1, :2] += 0.25
        (found,) = [one for one in judge(summary(), check_counts(x).findings()) if "raw counts" in one.question]
        assert found.grade == grade

    def test_information_is_fine(self):
        (found,) = [one for one in judge(summary(), [Finding("info", "a", "b")]) if "counts" in one.question]
        assert found.grade == "green"


class Detail:
    def __init__(self, figures):
        self.figures = figures


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("label accuracy, cells held out", 0.95, "green"),
        ("label accuracy, training cells", 0.95, "amber"),
        ("label accuracy, cells held out", 0.8, "amber"),
        ("label accuracy, cells held out", 0.5, "red"),
    ],
)
def test_predicted_labels(name, value, expected):
    assert grade("Are predicted labels right?", detail=Detail({name: value})) == expected


@pytest.mark.parametrize(("value", "expected"), [(0.01, "green"), (0.1, "amber"), (0.3, "red")])
def test_probabilities(value, expected):
    detail = Detail({"calibration error, cells held out": value})
    assert grade("Do probabilities mean what they say?", detail=detail) == expected


def test_the_whole_is_as_bad_as_its_worst_part():
    answers = [Judgement("a", one, "b") for one in ("green", "amber", "red")]
    assert [worst(answers[:k]) for k in (1, 2, 3)] == ["green", "amber", "red"]
    assert overall(answers).startswith("Do not build on this model yet")


def test_the_page_of_the_rules_has_the_bounds_of_the_code():
    text = (Path(__file__).resolve().parents[2] / "docs" / "report.md").read_text()

    def row(figure):
        (line,) = [line for line in text.splitlines() if line.startswith("|") and figure in line]
        return line

    for figure, (green, amber) in {
        "share of the whole fall": verdict._STILL_FALLING,
        "shares of zeros of genes": verdict._FIT_ZEROS,
        "expected calibration error": verdict._CALIBRATED,
    }.items():
        assert f"| up to {green:.0%} | up to {amber:.0%} | more |" in row(figure)
    for figure, (green, amber) in {
        "neighbours from other batches": verdict._MIXED,
        "accuracy on labelled cells": verdict._ACCURATE,
    }.items():
        assert f"| {green:.0%} or more | {amber:.0%} or more | less |" in row(figure)
    green, amber = (2**bound for bound in verdict._FIT_MEANS)
    assert f"| up to {green:.2f} | up to {amber:.2f} | more |" in row("means of genes of 500 counts")
    assert f"| {verdict._KEPT[0]} or more | {verdict._KEPT[1]} or more | less |" in row("labels named by 15")
