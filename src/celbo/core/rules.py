"""The points in which celbo can answer in its own way or in scvi-tools': one table, one switch.

``celbo.compat.install_as_scvi`` turns the switch. Only what code written for scvi-tools would stumble over is here;
docs/migration.md lists the other differences, which hold always.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["CELBO", "SCVI_TOOLS", "Rules", "follow", "followed", "rules"]


@dataclass(frozen=True)
class Rules:
    """How to answer where the two libraries differ; the defaults are celbo's.

    Attributes
    ----------
    bad_counts
        What NaN, infinite and negative entries are at setup.
    misspelt_unlabeled
        What an ``unlabeled_category`` is that no cell has, and that is a label with a slip of the keys.
    row_major
        Whether setup puts a dense matrix of another memory layout into the user's AnnData as a copy, row by row.
    unused_cells
        What cells are that ``external_indexing`` puts into no set.
    takes_more_genes
        Whether data may have genes that the model does not know: they are matched by name and left out.
    doublets_with_covariates
        Whether SOLO simulates doublets for a model with covariates.
    zero_gradients
        Whether the first layers of a query model, where they are frozen, get gradients (of zeros) or none.
    stand_ins
        Whether a public name of scvi-tools that is missing can be had, and fails where it is used.
    refusals
        Argument -> what to say where it cannot be meant, for code that compares messages; celbo's own follows as a
        note.
    """

    bad_counts: Literal["error", "warning"] = "error"
    misspelt_unlabeled: Literal["error", "warning"] = "error"
    row_major: bool = False
    unused_cells: Literal["error", "warning"] = "warning"
    takes_more_genes: bool = True
    doublets_with_covariates: bool = True
    zero_gradients: bool = False
    stand_ins: bool = False
    refusals: Mapping[str, str] = field(default_factory=dict)


CELBO = Rules()
SCVI_TOOLS = Rules(
    bad_counts="warning",
    misspelt_unlabeled="warning",
    row_major=True,
    unused_cells="error",
    takes_more_genes=False,
    doublets_with_covariates=False,
    zero_gradients=True,
    stand_ins=True,
    refusals={
        "train_size": "Invalid train_size. Must be: 0 < train_size <= 1",
        "validation_size": "Invalid validation_size. Must be 0 <= validation_size < 1",
    },
)

_followed = CELBO


def rules() -> Rules:
    """Those that hold in this process."""
    return _followed


def follow(chosen: Rules) -> None:
    """Take these from now on."""
    global _followed
    _followed = chosen


@contextmanager
def followed(chosen: Rules) -> Iterator[None]:
    """Take these for the length of a ``with`` block."""
    before = rules()
    follow(chosen)
    try:
        yield
    finally:
        follow(before)
