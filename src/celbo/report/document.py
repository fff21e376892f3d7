"""The report as JSON: the verdict and all figures, without pictures."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..core import __version__, elbo_of_weights
from ..data import Finding
from .summary import ModelSummary
from .verdict import overall, worst

__all__ = ["as_json"]


def as_json(
    title: str,
    model: Any,
    summary: "ModelSummary | Mapping[str, ModelSummary]",
    findings: Sequence[Finding] | None = None,
    more: Mapping[str, Any] | None = None,
) -> str:
    """The report of one model, or of several by name, as a JSON document.

    Parameters
    ----------
    title
        Of the report.
    model, summary
        The model and what it was asked; mappings by name for several.
    findings
        What the check of the counts found.
    more
        Further entries.
    """
    document: dict[str, Any] = {"title": title, "celbo": __version__}
    if isinstance(summary, Mapping):
        document["models"] = {name: _of_model(model[name], one) for name, one in summary.items()}
    else:
        document |= _of_model(model, summary)
        document["input"] = None if findings is None else [vars(one) for one in findings]
    text = json.dumps(_plain(document | dict(more or {})), indent=2, ensure_ascii=False)
    return text + "\n"


def _of_model(model: Any, summary: ModelSummary) -> dict[str, Any]:
    fit, elbo = summary.fit, elbo_of_weights(summary.history, summary.kept_epoch)
    return {
        "model": type(model).__name__,
        "verdict": {
            "grade": worst(summary.judgements),
            "sentence": overall(summary.judgements),
            "answers": [vars(one) for one in summary.judgements],
        },
        "data": None if summary.data is None else vars(summary.data),
        "metrics": dict(summary.metrics),
        "detail": {} if summary.detail is None else dict(summary.detail.figures),
        "elbo_validation": None if elbo is None else elbo._asdict(),
        "history": {str(name): summary.history[name].tolist() for name in summary.history},
        "latent": {"kl": summary.kl_k.tolist(), "is_active": summary.is_active_k.tolist()},
        "fit": None
        if fit is None
        else {"n_cells": fit.n_cells, "median_change": fit.median_change, "gap_of_zeros": fit.mean_gap_of_zeros},
        "problems": dict(summary.problems),
    }


def _plain(value: Any) -> Any:
    """Numbers that JSON has: none that is not finite; all else that it lacks as text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)
