"""What a pass over a count matrix found, and what to do about it."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..core import Explained, Summary, settings
from ..core.process import stacklevel_of_user
from ..core.rules import rules
from ..store.mapped import stretches
from ..store.tables.columns import true_places

__all__ = ["HUGE", "KINDS", "NO_COUNTS", "CountReport", "Finding", "TotalsSummary"]

logger = logging.getLogger("celbo")

KINDS = ("nan", "inf", "negative", "noninteger", "huge")
"""Kinds of entries that are no counts."""

HUGE = 2**31
"""Counts above it are none: no experiment counts so far, and sums and squares of them overflow."""

_SHOWN = 5


NO_COUNTS = "does not contain unnormalized count data"
"""Part of every warning about values that are trained on as counts and are none; the words are scvi-tools'."""

Severity = Literal["error", "warning", "info"]


_CELLS_BY_GENES = ("cells", "genes")


@dataclass(frozen=True)
class Finding:
    """One thing to know about a matrix.

    Parameters
    ----------
    severity
        ``"error"``: no model can be trained on this; ``"warning"``: probably the wrong matrix; ``"info"``.
    message
        What, how many, and the first few by name.
    fix
        What to type or do.
    share
        Share of the nonzero values that are wrong in this way; 0 where nobody counted.
    """

    severity: Severity
    message: str
    fix: str
    share: float = 0.0

    def __str__(self) -> str:
        return f"{self.message} {self.fix}"


@dataclass(frozen=True)
class TotalsSummary:
    """Total counts per cell: smallest, median, mean, largest."""

    min: float
    median: float
    mean: float
    max: float


@dataclass(frozen=True, eq=False, repr=False)
class CountReport(Explained):
    """What :func:`celbo.data.check_counts` found in a matrix of ``n_cells`` by ``n_genes``.

    Parameters
    ----------
    n_cells, n_genes
        Its shape.
    n_nan, n_inf, n_negative, n_noninteger
        Entries that are no counts. A negative fraction counts as both; infinities count as nothing else.
    n_empty_cells, n_empty_genes
        Cells without, genes without any nonzero entry.
    first
        First few names for each of ``"nan"``, ``"inf"``, ``"negative"``, ``"noninteger"``, ``"huge"``,
        ``"empty_cells"`` (cells in the order of the matrix) and ``"empty_genes"``.
    n_cells_with
        Cells that have such an entry, by the same kinds (``"huge"`` only where there are such).
    max
        Largest entry.
    nnz
        Nonzero entries; stored zeros do not count.
    total_per_cell
        ``(n,)`` float64, sums over genes (NaN where a cell holds NaN, or infinities of both signs).
    genes_per_cell
        ``(n,)`` int32, nonzero entries of each cell.
    cells_per_gene
        ``(g,)`` int64, nonzero entries of each gene.
    n_huge
        Finite entries above 2**31.
    bad_cells
        ``(n,)`` booleans, cells with an entry that is no count; empty where there are none.
    axes
        What rows and columns are called in messages.
    """

    n_cells: int
    n_genes: int
    n_nan: int
    n_inf: int
    n_negative: int
    n_noninteger: int
    n_empty_cells: int
    n_empty_genes: int
    first: Mapping[str, tuple[str, ...]]
    n_cells_with: Mapping[str, int]
    max: float
    nnz: int
    total_per_cell: np.ndarray
    genes_per_cell: np.ndarray
    cells_per_gene: np.ndarray
    n_huge: int = 0
    bad_cells: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    axes: tuple[str, str] = _CELLS_BY_GENES

    @classmethod
    def from_tally(
        cls,
        entries: Mapping[str, int],
        rows: Mapping[str, np.ndarray],
        maximum: float,
        totals_n: np.ndarray,
        genes_n: np.ndarray,
        cells_g: np.ndarray,
        obs_names: Sequence[str] | None,
        var_names: Sequence[str] | None,
    ) -> "CountReport":
        """Report of a finished pass; ``rows`` are ``(n,)`` flags by kind."""
        found = {kind: true_places((some for (some,) in stretches(flags_n)), _SHOWN) for kind, flags_n in rows.items()}
        found["empty_cells"] = true_places((some == 0 for (some,) in stretches(genes_n)), _SHOWN)
        found["empty_genes"] = true_places([cells_g == 0], _SHOWN)
        first = {
            kind: _names(places, var_names if kind == "empty_genes" else obs_names)
            for kind, (_, places) in found.items()
        }
        return cls(
            n_cells=len(totals_n),
            n_genes=len(cells_g),
            **{f"n_{kind}": entries[kind] for kind in KINDS},
            n_empty_cells=found["empty_cells"][0],
            n_empty_genes=found["empty_genes"][0],
            first=dict.fromkeys(KINDS, ()) | first,
            n_cells_with=dict.fromkeys(KINDS[:4], 0) | {kind: found[kind][0] for kind in KINDS if kind in found},
            max=maximum,
            nnz=int(cells_g.sum()),
            total_per_cell=totals_n,
            genes_per_cell=genes_n,
            cells_per_gene=cells_g,
            bad_cells=np.logical_or.reduce(list(rows.values())) if rows else np.zeros(0, bool),
            axes=_CELLS_BY_GENES,
        )

    @property
    def density(self) -> float:
        """Share of entries that are not zero."""
        return self.nnz / max(self.n_cells * self.n_genes, 1)

    @property
    def totals(self) -> TotalsSummary:
        """Total counts per cell, summarised."""
        t_n = self.total_per_cell
        if not len(t_n):
            return TotalsSummary(0.0, 0.0, 0.0, 0.0)
        return TotalsSummary(float(t_n.min()), float(np.median(t_n)), float(t_n.mean()), float(t_n.max()))

    @property
    def is_counts(self) -> bool:
        """Whether every entry is a finite, non-negative whole number of at most 2**31."""
        return not any(getattr(self, f"n_{kind}") for kind in KINDS)

    def findings(
        self, where: str = "The matrix", elsewhere: Sequence[str] | None = None, cure_of_nan: str | None = None
    ) -> list[Finding]:
        """What to know, worst first.

        Parameters
        ----------
        where
            How messages call the matrix, for example ``"adata.X"``.
        elsewhere
            What to type for other matrices that hold counts, the best first, for example ``['layer="umi"']``; empty
            where there are none, None where nobody looked.
        cure_of_nan
            What to do about NaN; None: what is right for counts of genes.
        """
        cures = _IMPOSSIBLE_FIX if cure_of_nan is None else _IMPOSSIBLE_FIX | {"nan": cure_of_nan}
        found = [self._impossible(kind, word, where, elsewhere, cures[kind]) for kind, word in _IMPOSSIBLE.items()]
        found += [self._fractions(where, elsewhere), self._empty("cells", where, elsewhere)]
        found += [self._empty("genes", where, elsewhere)]
        return [finding for finding in found if finding is not None]

    def summary(self) -> Summary:
        """Shape, sparsity, depth, and what :meth:`findings` has to say. Notebooks show a report by it."""
        totals = self.totals
        rows = {
            "matrix": f"{self.n_cells} cells by {self.n_genes} genes, {self.density:.1%} of the entries not zero",
            "largest": f"{self.max:g}",
            "totals": f"{totals.min:g} to {totals.max:g} a cell, median {totals.median:g}, mean {totals.mean:g}",
            "counts": "yes" if self.is_counts else "no",
        }
        said = "\n".join(f"{finding.severity}: {finding}" for finding in self.findings())
        return Summary("CountReport", rows | ({"to know": said} if said else {}))

    def _impossible(
        self, kind: str, word: str, where: str, elsewhere: Sequence[str] | None, cure: str
    ) -> Finding | None:
        count = getattr(self, f"n_{kind}")
        if not count:
            return None
        message = f"{where} holds {count} {word} {_plural(count, 'value')} in {self._cells(kind)}."
        severity = rules().bad_counts
        if severity == "warning":
            message = f"{where} {NO_COUNTS}. Are you sure this is what you want? {message}"
        return Finding(severity, message, f"{cure} {_instead(elsewhere)}")

    def _fractions(self, where: str, elsewhere: Sequence[str] | None) -> Finding | None:
        if not self.n_noninteger:
            return None
        message = (
            f"{where} {NO_COUNTS}: {self.n_noninteger} of {self.nnz} nonzero values are "
            f"not whole numbers, in {self._cells('noninteger')}. Are you sure this is what you want?"
        )
        share = self.n_noninteger / self.nnz
        return Finding("warning", message, f"Models of counts want raw counts. {_instead(elsewhere)}", share)

    def _empty(self, axis: Literal["cells", "genes"], where: str, elsewhere: Sequence[str] | None) -> Finding | None:
        count, total = (self.n_empty_cells, self.n_cells) if axis == "cells" else (self.n_empty_genes, self.n_genes)
        if not count:
            return None
        if axis == "cells" and count == total:
            return Finding(
                "warning",
                f"{where} {NO_COUNTS}: all {total} {self.axes[0]} are empty, so there is nothing to learn from.",
                _instead(elsewhere),
            )
        names, verb = _listed(self.first[f"empty_{axis}"], count), "has" if count == 1 else "have"
        message = f"{where}: {count} of {total} {self.axes[axis == 'genes']} {verb} no counts ({names})."
        own, side = self.axes[axis == "genes"], "columns" if axis == "genes" else "rows"
        drops = "" if own == axis else f", which drops {side}, here {own}"
        return Finding("info", message, f"They teach a model nothing: sc.pp.filter_{axis}(adata, min_counts=1){drops}.")

    def _cells(self, kind: str) -> str:
        count = self.n_cells_with[kind]
        return f"{count} of {self.n_cells} {self.axes[0]} ({_listed(self.first[kind], count)})"

    def raise_if_bad(
        self, where: str = "The matrix", elsewhere: Sequence[str] | None = None, cure_of_nan: str | None = None
    ) -> None:
        """Raise a ``ValueError`` for NaN, infinite and negative entries; says how many, in which cells, and the fix.

        Where scvi-tools' :class:`~celbo.core.rules.Rules` hold, they are left to :meth:`tell`.
        """
        found = self.findings(where, elsewhere, cure_of_nan)
        errors = [str(finding) for finding in found if finding.severity == "error"]
        if errors:
            raise ValueError(" ".join(errors))

    def tell(self, where: str = "The matrix", elsewhere: Sequence[str] | None = None) -> None:
        """Say the rest: wrong values as a ``UserWarning``, empty cells and genes to the log."""
        for finding in self.findings(where, elsewhere):
            if finding.severity == "warning":
                level = max(stacklevel_of_user(), settings.warnings_stacklevel)
                warnings.warn(str(finding), UserWarning, stacklevel=level)
            elif finding.severity == "info":
                logger.info("%s", finding)


_IMPOSSIBLE = {"nan": "NaN", "inf": "infinite", "negative": "negative", "huge": "impossibly large"}

_IMPOSSIBLE_FIX = {
    "nan": "Find out where they come from, or set them to 0, before setup.",
    "inf": "Find out where they come from, or leave these cells out, before setup.",
    "huge": "No cell has more than 2,147,483,648 molecules of a gene: look at where they come from, before setup.",
    "negative": "Counts cannot be negative: these may be scaled or corrected values.",
}


def _instead(elsewhere: Sequence[str] | None) -> str:
    """Where counts are to be found."""
    if elsewhere is None:
        return "If a layer holds the raw counts, name it, for example layer='counts'."
    if not elsewhere:
        return (
            "No other matrix here that could take its place holds counts: take the data as they were before they were "
            "normalised or scaled."
        )
    more = f"; {' and '.join(elsewhere[1:_SHOWN])} would be counts too" if len(elsewhere) > 1 else ""
    return f"Counts are elsewhere in these data; use {elsewhere[0]}{more}."


def _names(places: np.ndarray, names: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(str(i) if names is None else str(names[i]) for i in places)


def _listed(names: Sequence[str], count: int) -> str:
    return ", ".join(map(repr, names)) + (", ..." if count > len(names) else "")


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
