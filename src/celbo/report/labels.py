"""Report of a model that predicts labels of which some are known: SCANVI.

Dims: n cells with a known label, c classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..model import SCANVI
from . import figures
from .classification import Calibration, calibration, confusion_matrix
from .page import Section, heat_table, picture

__all__ = ["LabelDetail"]


@dataclass(frozen=True, eq=False)
class LabelDetail:
    """Predictions of cells whose label is known.

    Attributes
    ----------
    names
        The classes, ``(c,)``.
    confusion_cc
        Cells by true label (rows) and predicted label; see :func:`~celbo.report.classification.confusion_matrix`.
    calibration
        Confidence beside accuracy; None where no cell has a label.
    held_out
        Whether these cells were not trained on.
    """

    names: tuple[str, ...]
    confusion_cc: np.ndarray
    calibration: Calibration | None
    held_out: bool

    @classmethod
    def of(cls, model: SCANVI, seed: int) -> "LabelDetail":
        """Ask a model about its labelled cells: those held out where there are any, else all.

        Parameters
        ----------
        model
            Has ``classes``, the column of labels of its setup, and ``predict(soft=True)``.
        seed
            Not needed: nothing is drawn.
        """
        assert model.adata is not None
        key, obs = model.get_setup_arg("labels_key"), model.adata.obs
        code_n = np.full(len(obs), -1)  # a query need not have the column: its cells are all unlabelled
        if key in obs:
            known = pd.Index(np.asarray(model.classes, dtype=object))
            code_n = known.get_indexer(np.asarray(obs[key], dtype=object))
        names = tuple(str(name) for name in model.classes)
        rows, held_out = _labelled_rows(code_n, model.validation_indices)
        if not len(rows):
            return cls(names, np.zeros((len(names), len(names)), dtype=int), None, held_out)
        probability_nc = model.predict(indices=rows.tolist(), soft=True).to_numpy()
        confusion_cc = confusion_matrix(code_n[rows], probability_nc.argmax(1), len(names))
        return cls(names, confusion_cc, calibration(probability_nc, code_n[rows]), held_out)

    @property
    def accuracy(self) -> float:
        """Share of these cells whose predicted label is the known one."""
        return float(np.trace(self.confusion_cc) / self.confusion_cc.sum())

    @property
    def figures(self) -> Mapping[str, float]:
        """Accuracy and calibration error, where they are known."""
        if self.calibration is None:
            return {}
        which = "cells held out" if self.held_out else "training cells"
        return {f"label accuracy, {which}": self.accuracy, f"calibration error, {which}": self.calibration.error}

    def sections(self) -> list[Section]:
        """Confusion matrix and calibration curve."""
        if self.calibration is None:
            return []
        n = int(self.confusion_cc.sum())
        which = "that training did not see" if self.held_out else "that were trained on, as none were held out"
        text = (
            f"{n:,} cells with a known label {which}: known label (rows) and predicted one (columns), in cells. The "
            "shade is the share of the row; what is right lies on the diagonal."
        )
        drawn = figures.as_data_uri(figures.calibration_curve(self.calibration))
        curve = picture(drawn, "Share of right predictions by confidence")
        how = (
            "The same cells, binned by the probability of their predicted label. On the line probabilities mean what "
            f"they say; below it the model is too sure. Expected calibration error: {self.calibration.error:.3f}."
        )
        return [
            Section("Predicted labels", text, self._matrix()),
            Section("Calibration", how, f'<div class="pair">{curve}</div>'),
        ]

    def _matrix(self) -> str:
        """The confusion matrix, labels by name: the classifier's order is of no interest."""
        order = sorted(range(len(self.names)), key=lambda c: self.names[c])
        names, count_cc = [self.names[c] for c in order], self.confusion_cc[np.ix_(order, order)]
        share_cc = count_cc / np.maximum(count_cc.sum(1, keepdims=True), 1)
        texts = [[f"{count:,}" if count else "" for count in count_c] for count_c in count_cc]
        return heat_table(["", *names], zip(names, share_cc, texts, strict=True))


def _labelled_rows(code_n: np.ndarray, validation: object) -> tuple[np.ndarray, bool]:
    """Rows with a label, and whether they are held out."""
    labelled = np.flatnonzero(code_n >= 0)
    held_out = np.intersect1d(labelled, np.asarray([] if validation is None else validation, dtype=int))
    return (held_out, True) if len(held_out) else (labelled, False)
