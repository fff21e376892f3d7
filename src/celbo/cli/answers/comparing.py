"""``celbo de``: differences between groups of cells, as a table of genes, proteins and regions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import typer

from ...core import unknown_name
from ...data.modalities import gathered_obs
from ..columns import value_of
from ..errors import UserError
from ..kind import Kind
from ..options import Asked
from ..written import MODALITY_OF
from .asking import writing
from .tables import read_cells, require_output, write_as

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

__all__ = ["Groups", "compare"]

MODES = ("change", "vanilla")


_MOST_GROUPS = 50
"""Of a column of fractions, which are rarely groups."""


@dataclass(frozen=True)
class Groups:
    """Who is compared and how, as on the command line.

    Attributes
    ----------
    groupby
        Column of ``obs``.
    group1, group2
        Values of it; none: each group is compared with the rest.
    mode, delta, fdr_target, batch_correction, seed
        As of ``differential_expression``; ``delta`` None: the model's.
    groups_from
        File with the column, by the names of the cells; None: it is the data's own.
    """

    groupby: str
    group1: tuple[str, ...] = ()
    group2: tuple[str, ...] = ()
    mode: str = "change"
    delta: float | None = None
    fdr_target: float = 0.05
    batch_correction: bool = False
    seed: int | None = None
    groups_from: Path | None = None

    def put_into(self, data: "AnnData | MuData") -> None:
        """Take the column from the file that is named, if one is, for the cells that it has.

        Raises
        ------
        UserError
            No such file or column, or none of the cells.
        """
        if self.groups_from is None:
            return
        table = read_cells(self.groups_from)
        if self.groupby not in table:
            unknown = unknown_name(f"column of {self.groups_from}", self.groupby, table.columns)
            raise UserError(f"--groupby: {unknown}")
        if not table.index.is_unique or not table.index.isin(data.obs_names).any():
            raise UserError(
                f"--groups-from {self.groups_from} does not name these cells, each once: are they of other data?"
            )
        data.obs[self.groupby] = table[self.groupby].reindex(data.obs_names)

    def arguments(self, obs: pd.DataFrame) -> dict[str, Any]:
        """Arguments of ``differential_expression``, groups in the type that the column has.

        Raises
        ------
        UserError
            No such column or group, with the nearest one that there is.
        """
        if self.groupby not in obs:
            raise UserError(f"--groupby: {unknown_name('column of obs', self.groupby, obs.columns)}")
        named = {"group1": self.group1, "group2": self.group2}
        groups = {
            name: [value_of(obs, self.groupby, one, f"--{name}") for one in given] for name, given in named.items()
        }
        for name in set(self.group1) & set(self.group2):
            raise UserError(f"{name!r} is named by --group1 and by --group2: compare it with others.")
        n_groups = obs[self.groupby].nunique()
        if not self.group1 and pd.api.types.is_float_dtype(obs[self.groupby]) and n_groups > _MOST_GROUPS:
            many = f"{n_groups:,} different numbers"
            raise UserError(f"--groupby {self.groupby} has {many}: name a column of groups, or some by --group1.")
        given = {name: values or None for name, values in groups.items()} | {"delta": self.delta}
        return {
            **{name: value for name, value in given.items() if value is not None},
            "groupby": self.groupby,
            "mode": self.mode,
            "fdr_target": self.fdr_target,
            "batch_correction": self.batch_correction,
            "seed": self.seed,
        }


def compare(asked: Asked, groups: Groups) -> None:
    """Write how features differ between groups of the cells of files.

    Parameters
    ----------
    asked
        Output ``.csv``, ``.tsv`` or ``.parquet``: a row for each feature and comparison, ``group1`` and ``group2`` in
        columns; of a model of several modalities ``modality`` too.
    groups
        Who is compared and how.

    Raises
    ------
    UserError
        The output has another suffix, or there is no such ``--mode``; the nearest is named.
    """
    output = asked.output
    require_output(output, "a table is")
    if groups.mode not in MODES:
        raise UserError(unknown_name("value of --mode", groups.mode, MODES))
    with writing(asked, "comparison of groups", lambda row: bool(row.compares)) as question:
        groups.put_into(question.data)
        arguments = groups.arguments(gathered_obs(question.data))
        table = _compared(question.kind, question.fitted.model, question.data, arguments)
        write_as(output.suffix, question.path, table.rename_axis("feature"))
    if not asked.quiet:
        typer.echo(_said(table, groups.fdr_target, output))


def _compared(kind: Kind, model: Any, data: "AnnData | MuData", arguments: Mapping[str, Any]) -> pd.DataFrame:
    """The table of all that a model compares, one modality after the other."""
    if len(kind.compares) == 1:
        (verb,) = kind.compares.values()
        return getattr(model, verb)(data, **arguments)
    tables = []
    for output in (one.name for one in model._outputs):
        more = {"output": output} if kind.compares[output] == "differential_expression" else {}
        table = getattr(model, kind.compares[output])(data, **arguments, **more)
        tables.append(table.assign(modality=MODALITY_OF.get(output, output)))
    return pd.concat(tables)


def _said(table: pd.DataFrame, fdr_target: float, output: Path) -> str:
    pairs = table["group1"].astype(str) + " against " + table["group2"].astype(str)
    called = table.filter(regex="^is_d[ea]_fdr").eq(True).any(axis=1)  # of regions by another name than of genes
    is_de = called.groupby(pairs, sort=False)
    lines = [f"{pair}: {some.sum():,} of {len(some):,} features differ" for pair, some in is_de]
    more = [f"... {len(lines) - 8} more comparisons"] if len(lines) > 8 else []
    return "\n".join([*lines[:8], *more, f"{output} (expected false discovery rate {fdr_target})"])
