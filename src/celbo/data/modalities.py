"""Data of several modalities, told apart without importing mudata, and which cells have which modality.

Dims: n cells of the MuData, m cells of a modality.
"""

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ..core import number_of
from .access import is_mudata
from .constants import PREFIX

if TYPE_CHECKING:
    from mudata import MuData

__all__ = [
    "CellsOf",
    "gathered_obs",
    "listed_modalities",
    "no_link",
    "obs_of",
    "obs_with",
    "of_modalities",
    "require_agreement",
    "require_fit",
    "rows_in_modality",
    "with_modalities",
    "without_notes",
]

_SHOWN = 5


def with_modalities(mdata: Any, modalities: Mapping[str, Any], other_features: bool = False, into: Any = None) -> Any:
    """A MuData with the tables and the map of cells of another one, and other modalities of the same cells.

    Parameters
    ----------
    mdata
        The other one.
    modalities
        By name.
    other_features
        Whether these have features of their own: tables of features are left out then.
    into
        A MuData to become this one (``mdata`` itself may be); None: a new one.
    """
    axes = ("obs",) if other_features else ("obs", "var")
    tables = {name: getattr(mdata, name).copy() for name in axes}
    parts = {f"{axis}{kind}": dict(getattr(mdata, f"{axis}{kind}")) for axis in axes for kind in ("p", "map")}
    # given to the constructor, whole numbers would be filled up with NaN
    later = {f"{axis}m": dict(getattr(mdata, f"{axis}m")) for axis in axes}
    mudata, own = sys.modules["mudata"], set(mdata.mod)
    make = mudata.MuData if into is None else into.__init__
    with mudata.set_options(pull_on_update=False):
        made = make(dict(modalities), **tables, **parts, uns=dict(mdata.uns), axis=mdata.axis) or into
    for name, entries in later.items():
        getattr(made, name).update({key: x for key, x in entries.items() if key not in own})
    return made


def of_modalities(mdata: "MuData", modalities: Mapping[str, AnnData]) -> "MuData":
    """A MuData of some modalities by their new names, with the columns of cells of the MuData that they are from."""
    mudata = sys.modules["mudata"]
    with mudata.set_options(pull_on_update=False), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a gene and a protein share a name, which setup says
        chosen = mudata.MuData(dict(modalities))
    same = chosen.obs_names.equals(mdata.obs_names)
    for name in mdata.obs.columns:
        chosen.obs[name] = mdata.obs[name] if same else mdata.obs[name].reindex(chosen.obs_names)
    return chosen


def gathered_obs(data: "AnnData | MuData") -> pd.DataFrame:
    """The user's table of cells, of a MuData with the columns of its modalities.

    A column has its name there, or is called ``"rna:name"`` where modalities have other values of the same name. What
    setup notes for itself is left out.
    """
    if not is_mudata(data):
        return without_notes(data.obs)
    own = [name for name in map(str, data.obs.columns) if not (_is_copy(data, name) or name.startswith(PREFIX))]
    obs = data.obs[own].copy()
    names = dict.fromkeys(name for modality in data.mod.values() for name in modality.obs.columns)
    for name in names:
        if name not in obs and not str(name).startswith(PREFIX):
            obs = obs.assign(**_of_modalities(data, name))
    return obs


def without_notes(table: pd.DataFrame) -> pd.DataFrame:
    """A table without the columns that setup notes for itself; its other columns are not copied."""
    notes = [name for name in table.columns if str(name).startswith(PREFIX)]
    if notes:
        table = table.copy(deep=False)
        for name in notes:
            del table[name]
    return table


def obs_of(mdata: Any, key: str) -> pd.DataFrame:
    """A modality's own table of cells for all cells of the MuData: missing where the modality has no such cell."""
    table, rows_n = without_notes(mdata.mod[key].obs), rows_in_modality(mdata, key)
    return table if rows_n is None else table.reset_index(drop=True).reindex(rows_n).set_axis(mdata.obs_names)


def _of_modalities(mdata: "MuData", name: str) -> dict[str, pd.Series]:
    """A column of modalities for the cells of the MuData, or several where their values differ."""
    try:
        return {name: CellsOf(mdata, None, [name]).obs[name]}
    except ValueError:
        keys = [f"{key}:{name}" for key, modality in mdata.mod.items() if name in modality.obs.columns]
        return {key: obs_with(mdata, key)[key] for key in keys}


def _is_copy(mdata: "MuData", name: str) -> bool:
    """Whether a column of a MuData repeats one of a modality, as ``"rna:batch"`` does."""
    key, _, column = name.partition(":")
    return key in mdata.mod and column in mdata.mod[key].obs.columns


def listed_modalities(mdata: Any) -> str:
    """The names of its modalities, as a user would type them."""
    return ", ".join(map(repr, mdata.mod)) or "none"


def rows_in_modality(mdata: Any, key: str) -> np.ndarray | None:
    """Where the cells of a MuData lie in one of its modalities, by the MuData's own map.

    Parameters
    ----------
    mdata
        The MuData.
    key
        Name of the modality.

    Returns
    -------
    ``(n,)`` row numbers, -1 for a cell that the modality does not have; None where it has all cells in the same order.

    Raises
    ------
    ValueError
        The map is not that of the cells that are there now.
    """
    names = mdata.mod[key].obs_names
    if len(names) == mdata.n_obs and names.equals(mdata.obs_names):
        return None
    rows_n = np.asarray(mdata.obsmap[key]).astype(np.int64).ravel() - 1
    has_n = rows_n >= 0
    known = len(rows_n) == mdata.n_obs and int(rows_n.max(initial=-1)) < len(names)
    if not known or int(has_n.sum()) != len(names) or not names[rows_n[has_n]].equals(mdata.obs_names[has_n]):
        raise ValueError(
            f"The cells of modality {key!r} ({len(names)}) changed since the MuData was made: run mdata.update(), "
            "which matches cells by name again."
        )
    return rows_n


def require_fit(mdata: Any, paired: bool, no_views: bool) -> None:
    """Make sure that setup can work with the modalities.

    Parameters
    ----------
    mdata
        The MuData.
    paired
        Whether every modality must have every cell, in the same order.
    no_views
        Whether none may be a view.

    Raises
    ------
    ValueError
        Names the first modality that does not fit.
    """
    _require_shared_cells(mdata)
    if paired:
        _require_a_shared_cell(mdata)
    for key, modality in mdata.mod.items():
        if paired:
            _require_paired(key, modality, mdata)
        else:
            rows_in_modality(mdata, key)
        if no_views and modality.is_view:
            raise ValueError(
                f"Modality {key} is a view of another AnnData, and setup writes to it: put mdata.mod[{key!r}].copy() "
                "into the MuData."
            )


def _require_shared_cells(mdata: Any) -> None:
    if mdata.axis != 0:
        raise ValueError(
            f"The modalities of this MuData share features (axis={mdata.axis}), and models want modalities that share "
            "cells: make it with mudata.MuData({...}, axis=0)."
        )
    if not mdata.obs_names.is_unique:
        twice = mdata.obs_names[mdata.obs_names.duplicated()].unique()
        raise ValueError(
            f"{len(twice)} names of cells come twice in the MuData ({_some(twice)}), so that cells cannot be told "
            "apart across modalities: make them unique in each modality (obs_names_make_unique), then mdata.update()."
        )


def no_link(first: Mapping[str, object]) -> str:
    """Why modalities that share no cell cannot be learned from, and what to do.

    Parameters
    ----------
    first
        A cell of each, by the modality's name (or those of several that are linked).
    """
    return (
        "nothing links them. Names of cells must be the same in all: "
        + ", ".join(f"{name!r} has {str(cell)!r}" for name, cell in first.items())
        + ". Rename obs_names of the modalities, and make the MuData of them again."
    )


def _require_a_shared_cell(mdata: Any) -> None:
    shared_n = np.logical_and.reduce([mdata.obs_names.isin(one.obs_names) for one in mdata.mod.values()])
    if mdata.n_obs and not shared_n.any():
        first = {key: one.obs_names[0] for key, one in mdata.mod.items() if one.n_obs}
        raise ValueError(f"No cell is in all modalities, so that {no_link(first)}")


def _require_paired(key: str, modality: Any, mdata: Any) -> None:
    if not modality.obs_names.isin(mdata.obs_names).all() or modality.n_obs != mdata.n_obs:
        lacking = mdata.obs_names[~mdata.obs_names.isin(modality.obs_names)]
        raise ValueError(
            f"Detected unpaired observations in modality {key}: it has {modality.n_obs} cells, the MuData "
            f"{mdata.n_obs} (it lacks {_some(lacking)}). Take the cells that all have (muon.pp.intersect_obs), or pad "
            "the modality with zeros; MULTIVI takes them as they are."
        )
    if not np.array_equal(modality.obs_names, mdata.obs_names):
        raise ValueError(
            f"The cells of modality {key} are in another order than those of the MuData: "
            f"sort it, for example mdata.mod[{key!r}] = mdata.mod[{key!r}][mdata.obs_names].copy()."
        )


def _some(names: Iterable[object]) -> str:
    names = list(names)
    return ", ".join(repr(str(name)) for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


class CellsOf:
    """The cells of a MuData with columns of ``obs`` that may lie in its modalities: what a field of an AnnData reads.

    A column is taken from one place, and for cells without a value there from the others: the MuData's own ``obs``,
    then the modalities in their order. What a field writes goes to the MuData (:meth:`keep`).

    Parameters
    ----------
    mdata
        The MuData.
    first
        Modality whose columns come first; None: those of the MuData.
    columns
        Columns that will be read.

    Raises
    ------
    ValueError
        Two places give a cell different values.
    """

    def __init__(self, mdata: Any, first: str | None, columns: Sequence[str]) -> None:
        self._mdata, self._first = mdata, first
        self.n_obs, self.obs_names, self.obsm = mdata.n_obs, mdata.obs_names, mdata.obsm
        own = [name for name in mdata.obs.columns if str(name).startswith(PREFIX)]
        self.obs = mdata.obs[own].copy()
        for name in columns:
            column = self._gathered(name)
            if column is not None:
                self.obs[name] = column

    def keep(self) -> None:
        """Put the columns that a field wrote into the MuData."""
        for name in self.obs.columns:
            if str(name).startswith(PREFIX):
                self._mdata.obs[name] = self.obs[name].to_numpy()

    def _places(self, name: str) -> Iterator[tuple[str, pd.Series]]:
        """Where a column lies, in the order of precedence, with its values for the cells of the MuData."""
        keys: list[str | None] = [self._first, *(key for key in (None, *self._mdata.mod) if key != self._first)]
        for key in keys:
            holder = self._mdata if key is None else self._mdata.mod[key]
            if name not in holder.obs.columns:
                continue
            values = holder.obs[name]
            where = f"mdata.obs[{name!r}]" if key is None else f"mdata.mod[{key!r}].obs[{name!r}]"
            rows_n = None if key is None else rows_in_modality(self._mdata, key)
            yield where, values if rows_n is None else _spread(values, rows_n, self.obs_names)

    def _gathered(self, name: str) -> pd.Series | None:
        found: pd.Series | None = None
        source = ""
        for where, values in self._places(name):
            if found is None:
                found, source = values, where
                continue
            _require_equal(name, (source, found), (where, values))
            if found.isna().any():
                found = found.astype(object).where(found.notna(), values.astype(object)).infer_objects()
        return found


def obs_with(data: Any, name: str | None) -> pd.DataFrame:
    """The table of cells, of a MuData with a column that may lie in modalities: ``"label"``, or ``"rna:label"``."""
    if name is None or not is_mudata(data) or name in data.obs.columns:
        return data.obs
    key, _, column = name.partition(":")
    if column and key in data.mod and column in data.mod[key].obs.columns:
        rows_n, values = rows_in_modality(data, key), data.mod[key].obs[column]
        return data.obs.assign(**{name: values if rows_n is None else _spread(values, rows_n, data.obs_names)})
    found = CellsOf(data, None, [name]).obs
    return data.obs.assign(**{name: found[name]}) if name in found.columns else data.obs


def require_agreement(mdata: Any, key: str, name: str) -> None:
    """Raise a ``ValueError`` when a column of a modality that has all cells is also the MuData's, with other values."""
    if name in mdata.obs.columns and name in mdata.mod[key].obs.columns:
        own = (f"mdata.mod[{key!r}].obs[{name!r}]", mdata.mod[key].obs[name])
        _require_equal(name, own, (f"mdata.obs[{name!r}]", mdata.obs[name]))


def _spread(values: pd.Series, rows_n: np.ndarray, names: pd.Index) -> pd.Series:
    """Values of a modality's cells as those of the MuData's, missing where it has no such cell."""
    return values.reset_index(drop=True).reindex(rows_n).set_axis(names)


def _require_equal(name: str, one: tuple[str, pd.Series], other: tuple[str, pd.Series]) -> None:
    (where, a), (there, b) = one, other
    if a.equals(b):
        return
    both_n = (a.notna() & b.notna()).to_numpy()
    differ_n = np.flatnonzero(both_n)[a[both_n].astype(str).to_numpy() != b[both_n].astype(str).to_numpy()]
    if len(differ_n):
        cell = int(differ_n[0])
        raise ValueError(
            f"{name!r} is in two places with different values for {number_of(len(differ_n), 'cell')}: {where} says "
            f"{str(a.iloc[cell])!r} of the cell {str(a.index[cell])!r}, {there} says {str(b.iloc[cell])!r}. Keep one "
            f"of them: rename or delete the other column, then set up again."
        )
