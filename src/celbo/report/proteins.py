"""Report of surface proteins: which counts are foreground, protein by protein: TOTALVI, TOTALANVI.

Dims: n cells, p proteins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..core import REGISTRY_KEYS
from ..model import TOTALVI
from ..module.base.minified import LATENT_POSTERIOR
from . import figures
from .page import Section, heat_table, picture

__all__ = ["ProteinDetail"]

_MOST_CELLS = 2000
_DRAWS = 10
_MOST_ROWS = 60

_FOREGROUND = 0.5
"""Probability from which on a count is called foreground."""

_WORTH_SAYING = 0.01
"""Share of foreground from which on a protein is counted among those that have some."""


@dataclass(frozen=True, eq=False)
class ProteinDetail:
    """Foreground and background of each protein, in cells that it was measured in.

    Attributes
    ----------
    proteins
        A row for each protein: ``share`` of cells whose count is foreground; mean counts of these cells
        (``foreground``), of the others (``background``), and what the model expects of background
        (``expected_background``); mean counts of all, ``observed`` and ``expected``; ``n_cells`` that it was measured
        in. NaN where there are no such cells.
    """

    proteins: pd.DataFrame

    @classmethod
    def of(cls, model: TOTALVI, seed: int) -> "ProteinDetail":
        """Ask a model about some of its training cells; ``seed`` is of these and of what is drawn."""
        if model.minified_data_type == LATENT_POSTERIOR or model.adata is None:
            return cls(pd.DataFrame())  # counts were not kept
        n_cells = model.adata.n_obs
        rows = np.random.default_rng(seed).permutation(n_cells)[:_MOST_CELLS]
        count_np, is_measured_np = _counts(model, np.sort(rows))
        asked: dict[str, Any] = {"indices": np.sort(rows), "seed": seed}
        foreground_np = model.get_protein_foreground_probability(**asked, n_samples=_DRAWS, return_numpy=True)
        expected_np = model.get_normalized_expression(
            **asked, n_samples=_DRAWS, include_protein_background=True, return_numpy=True
        )[1]
        background_np = model.get_protein_background_mean(**asked)
        is_foreground_np = (np.asarray(foreground_np) > _FOREGROUND) & is_measured_np
        n_p = is_measured_np.sum(0)
        columns = {
            "share": _mean(is_foreground_np, is_measured_np),
            "foreground": _mean(count_np, is_foreground_np),
            "background": _mean(count_np, is_measured_np & ~is_foreground_np),
            "expected_background": _mean(background_np, is_measured_np),
            "observed": _mean(count_np, is_measured_np),
            "expected": _mean(np.asarray(expected_np), is_measured_np),
        }
        names = model.get_state_registry(REGISTRY_KEYS.PROTEIN_EXP_KEY)["column_names"]
        return cls(pd.DataFrame({**columns, "n_cells": n_p}, index=pd.Index(map(str, names))))

    @property
    def figures(self) -> Mapping[str, float]:
        """How many proteins have foreground, and how well their means are met."""
        if self.proteins.empty:
            return {}
        logs = self.proteins[["observed", "expected"]].dropna().apply(np.log1p)
        found: dict[str, float] = {"proteins with foreground": int((self.proteins["share"] >= _WORTH_SAYING).sum())}
        if len(logs) > 2 and (logs.std() > 0).all():
            found["protein means, observed and expected (r of logs)"] = float(np.corrcoef(logs.to_numpy().T)[0, 1])
        return found

    def sections(self) -> list[Section]:
        """A picture of all proteins, and a table of them."""
        if self.proteins.empty:
            return []
        shown = self.proteins.sort_values("share", ascending=False, kind="stable", na_position="last")
        text = (
            "Mean count of each protein in cells where the model calls it foreground, and in the others. Dots far "
            "above the line are proteins with a clear signal; those near it, as isotype controls, have none. A protein "
            "that is foreground in every cell, or in none, deserves a look."
        )
        drawn = figures.protein_levels(shown["background"].to_numpy(), shown["foreground"].to_numpy())
        image = picture(figures.as_data_uri(drawn), "Mean counts of proteins in cells with foreground and without")
        more = len(shown) - _MOST_ROWS
        left = f" The {more} with the least foreground are left out." if more > 0 else ""
        about = (
            "Share of cells whose count is foreground (probability above 0.5), mean counts with and without it, what "
            "the model expects of background, and the mean over all cells beside what is expected of it: the last two "
            f"should be close. Cells in which a protein was not measured do not count.{left}"
        )
        head = ["protein", "foreground", "count with", "count without", "background expected", "mean", "expected"]
        rows = [_row(str(name), values) for name, values in shown.iloc[:_MOST_ROWS].iterrows()]
        return [
            Section("Proteins, foreground and background", text, f'<div class="pair">{image}</div>'),
            Section("Fit of each protein", about, heat_table(head, rows)),
        ]


def _counts(model: TOTALVI, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts of cells, ``(n, p)``, 0 for NaN, and whether the protein was measured there."""
    counts, measured = [], []
    for tensors in model._make_data_loader(model.adata, indices=rows):
        x_np = tensors[REGISTRY_KEYS.PROTEIN_EXP_KEY].cpu().to_dense().numpy()
        has_np = np.isfinite(x_np)
        if model.module.measured is not None:
            codes_n = tensors[model.module.panel_key].cpu().numpy().ravel().astype(int)
            has_np &= model.module.measured.cpu().numpy()[codes_n] > 0
        counts.append(np.where(has_np, x_np, 0.0))
        measured.append(has_np)
    return np.concatenate(counts), np.concatenate(measured)


def _mean(value_np: np.ndarray, counts_np: np.ndarray) -> np.ndarray:
    """Mean of each column over the entries that count, ``(p,)``; NaN where none does."""
    n_p = counts_np.sum(0)
    sum_p = np.where(counts_np, value_np, 0).sum(0, dtype=np.float64)
    return np.divide(sum_p, n_p, out=np.full(len(n_p), np.nan), where=n_p > 0)


def _row(name: str, values: pd.Series) -> tuple[str, list[float], list[str]]:
    numbers = values[["foreground", "background", "expected_background", "observed", "expected"]]
    texts = [_text(values["share"], ".1%"), *(_text(number, ".1f") for number in numbers)]
    return name, [float(np.nan_to_num(values["share"])), *[0.0] * len(numbers)], texts


def _text(value: float, form: str) -> str:
    return "" if np.isnan(value) else f"{value:{form}}"
