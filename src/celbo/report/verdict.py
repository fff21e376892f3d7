"""What to think of a training: questions that everybody asks, answered by stated rules as green, amber or red.

The rules are few and coarse on purpose: each names the figure that it goes by, and what to do. They stand in
docs/report.md with their bounds, which are those here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import numpy as np
import pandas as pd

from ..core import checked, number_of
from ..core.kinds import Instance
from ..data import Finding
from .summary import BY_GUESSING, KEPT, MIXED, MIXED_WITHIN, Grade, Judgement, ModelSummary

__all__ = ["FINDINGS", "judge", "overall", "worst"]

FINDINGS = Instance(
    "findings of celbo.data.check_counts",
    lambda value: isinstance(value, Sequence) and all(isinstance(one, Finding) for one in value),
)

_CURVES = ("elbo_validation", "validation_loss", "elbo_train", "train_loss", "train_loss_epoch")
_SMALLEST_RUN = 5
_STILL_FALLING = (0.02, 0.10)
_ROSE_AGAIN = 0.05
_FEW_ACTIVE = 1 / 3
_MIXED = (0.8, 0.5)
_KEPT = (0.8, 0.5)
_FIT_MEANS = (0.15, 0.5)
_FIT_ZEROS = (0.03, 0.08)
_ACCURATE = (0.9, 0.75)
_CALIBRATED = (0.05, 0.15)
_MOST = 0.5

_IN_WORDS: dict[str, str] = {
    "green": "Looks good: no problems found.",
    "amber": "Usable, but look at the points marked amber.",
    "red": "Do not build on this model yet: see the points marked red.",
}


@checked
def judge(
    summary: ModelSummary, findings: Annotated[Sequence[Finding], FINDINGS] | None = None
) -> tuple[Judgement, ...]:
    """Answers to the questions that can be asked of this model.

    Parameters
    ----------
    summary
        What the model was asked.
    findings
        What the check of the counts found; None: they were not checked.
    """
    return tuple(_answers(summary, findings))


def worst(judgements: Sequence[Judgement]) -> Grade:
    """The gravest grade."""
    return _gravest(*(one.grade for one in judgements))


def _gravest(*grades: Grade) -> Grade:
    return "red" if "red" in grades else "amber" if "amber" in grades else "green"


def overall(judgements: Sequence[Judgement]) -> str:
    """The verdict in one sentence."""
    return _IN_WORDS[worst(judgements)]


def _answers(summary: ModelSummary, findings: Sequence[Finding] | None) -> Iterator[Judgement]:
    yield _convergence(summary.history)
    if findings is not None:
        yield _input(findings)
    if len(summary.kl_k):
        yield _latent_use(summary.is_active_k)
    yield from _mixing(summary)
    yield from _labels(summary)
    if summary.fit is not None:
        yield _fit(summary)
    if summary.detail is not None:
        yield from _predictions(summary.detail.figures)


def _graded(value: float, bounds: tuple[float, float], high: bool = False) -> Grade:
    """Green up to the first bound, amber up to the second; with ``high`` down to them."""
    first, second = (-bound for bound in bounds) if high else bounds
    value = -value if high else value
    return "green" if value <= first else "amber" if value <= second else "red"


def _convergence(history: pd.DataFrame) -> Judgement:
    """By the share of the whole fall of the curve that came in its last tenth."""
    question = "Did training converge?"
    name = next((name for name in _CURVES if name in history and history[name].notna().any()), None)
    weight = history["kl_weight"].dropna() if "kl_weight" in history else pd.Series(dtype=float)
    if len(weight) and float(weight.iloc[-1]) < 0.999 * max(1.0, float(weight.max())):
        finding = f"The weight of the KL divergence only reached {weight.iloc[-1]:.2f}: its warm-up had not ended."
        return Judgement(
            question, "red", finding, "Train longer, or set plan_kwargs={'n_epochs_kl_warmup': ...} lower."
        )
    value_e = np.array([]) if name is None else history[name].dropna().to_numpy(float)
    if len(value_e) < _SMALLEST_RUN:
        finding = f"A curve of {number_of(len(value_e), 'epoch')} is too short to tell."
        action = (
            "Compare the ELBO with that of a longer run; of hundreds of thousands of cells a few epochs may be enough."
        )
        return Judgement(question, "amber", finding, action)
    n_last = max(1, len(value_e) // 10)
    fall = max(float(value_e[0] - value_e.min()), 1e-12)
    gained = max(0.0, float(value_e[:-n_last].min() - value_e.min())) / fall
    rose = max(0.0, float(value_e[-1] - value_e.min())) / fall
    which = "validation" if "validation" in str(name) else "training"
    if rose > _ROSE_AGAIN:
        at = int(value_e.argmin()) + 1
        finding = f"The {which} curve rose again after epoch {at} of {len(value_e)}, by {rose:.0%} of its total fall."
        return Judgement(question, "amber", finding, f"Train for about {at} epochs, or with early_stopping=True.")
    finding = (
        f"The last {n_last} of {len(value_e)} epochs account for {gained:.1%} of the total fall of the {which} curve."
    )
    grade = _graded(gained, _STILL_FALLING)
    return Judgement(question, grade, finding, "" if grade == "green" else "Train longer: raise max_epochs.")


def _input(findings: Sequence[Finding]) -> Judgement:
    question = "Are the data raw counts?"
    wrong = [one for one in findings if one.severity == "error" or one.share > _MOST]
    odd = [one for one in findings if one.severity == "warning"]
    if wrong:
        return Judgement(question, "red", wrong[0].message, wrong[0].fix)
    if odd:
        return Judgement(question, "amber", odd[0].message, odd[0].fix)
    return Judgement(question, "green", "Every entry is a count.")


def _latent_use(is_active_k: np.ndarray) -> Judgement:
    question = "Is the latent space used?"
    n, active = len(is_active_k), int(is_active_k.sum())
    finding = f"{active} of {n} latent dimensions are active."
    if active == 0 or (n > 2 and active == 1):
        action = "The model explains the data without its latents. Check the counts and the number of epochs."
        return Judgement(question, "red", finding, action)
    if active < _FEW_ACTIVE * n:
        return Judgement(question, "amber", finding, f"n_latent={active + 2} would do; or train longer.")
    return Judgement(question, "green", finding)


def _mixing(summary: ModelSummary) -> Iterator[Judgement]:
    """By neighbours of other batches, over chance; within labels where there are some: batches may differ in them."""
    name = MIXED_WITHIN if MIXED_WITHIN in summary.metrics else MIXED
    if name not in summary.metrics:
        return
    value = summary.metrics[name]
    among = "Among cells of one label, neighbours" if name == MIXED_WITHIN else "Neighbours"
    finding = f"{among} come from other batches {value:.0%} as often as by chance."
    grade = _graded(value, _MIXED, high=True)
    action = "" if grade == "green" else "Was batch_key given? Train longer; for strong differences try SysVI."
    if grade != "green" and name == MIXED:
        action += " If the batches hold different cell types, this may be as it should be: give labels_key to judge it."
    yield Judgement("Are the batches mixed?", grade, finding, action)


def _labels(summary: ModelSummary) -> Iterator[Judgement]:
    """By labels that neighbours name, over guessing."""
    if KEPT not in summary.metrics:
        return
    value, guess = summary.metrics[KEPT], summary.metrics.get(BY_GUESSING, 0.0)
    grade = _graded((value - guess) / max(1 - guess, 1e-9), _KEPT, high=True)
    finding = f"A cell's neighbours predict its label in {value:.0%} of the cells; guessing would in {guess:.0%}."
    action = "" if grade == "green" else "Are these labels of cell types? Then more genes, more epochs, or SCANVI."
    yield Judgement("Are the labels kept apart?", grade, finding, action)


def _fit(summary: ModelSummary) -> Judgement:
    """By the mean of each gene and its share of zeros, drawn beside observed."""
    assert summary.fit is not None
    change, zeros = summary.fit.median_change, summary.fit.mean_gap_of_zeros
    grade = _gravest(_graded(change, _FIT_MEANS), _graded(zeros, _FIT_ZEROS))
    finding = f"Gene means are off by a factor of {2**change:.2f} (median), shares of zeros by {zeros:.1%} (mean)."
    action = "" if grade == "green" else "Train longer, or try another gene_likelihood ('nb' for UMI counts)."
    return Judgement("Do simulated data look like the real ones?", grade, finding, action)


def _predictions(figures: Mapping[str, float]) -> Iterator[Judgement]:
    for name, value in figures.items():
        if name.startswith("label accuracy"):
            seen = "held out" in name
            which = "held out" if seen else "that were trained on"
            finding = f"{value:.0%} of the labelled cells {which} are labelled correctly."
            grade = _graded(value, _ACCURATE, high=True)
            if grade == "green" and not seen:
                grade = "amber"
            action = "" if grade == "green" else "Look at the confusion matrix; hold cells out with train_size=0.9."
            yield Judgement("Are predicted labels right?", grade, finding, action)
        elif name.startswith("calibration error"):
            grade = _graded(value, _CALIBRATED)
            finding = f"Probabilities of labels are off by {value:.1%} on average."
            action = "" if grade == "green" else "Do not read the probabilities as such; compare them with each other."
            yield Judgement("Do probabilities mean what they say?", grade, finding, action)
