"""Answers kept in the data by key: one declaration lets a verb take ``key_added=``.

What has a row for each cell goes to ``obs``, ``obsm`` or ``layers``, and how it was made to ``uns["celbo"]``.
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from torch import Tensor

from ..core import ArgumentError, ElboOfWeights, __version__, elbo_of_weights, settings
from ..data.access import is_mudata
from .base import Model
from .outputs import names_of, output_of

__all__ = ["NOTES", "keep", "note", "offers_key", "ready", "trained_for"]

NOTES = "celbo"
"""The key in ``adata.uns`` of what results were made with."""

Kind = Literal["rows", "column", "features", "samples", "named"]
F = TypeVar("F", bound=Callable[..., Any])

_SOME_CELLS = ("indices", "dataloader", "n_samples_overall")
_SOME_FEATURES = ("gene_list", "protein_list")
_NOT_NOTED = {
    "self",
    "adata",
    "mdata",
    "adatas",
    "query_adata",
    "target_adata",
    "into",
    "silent",
    "batch_size",
    "return_numpy",
    *_SOME_CELLS,
}


def _training_data_or(model: Model, given: Mapping[str, Any]) -> Any:
    asked = (given[name] for name in ("adata", "mdata") if given.get(name) is not None)
    return next(asked, model.adata)


def offers_key(
    kind: Kind = "rows",
    parts: Sequence[str] = ("",),
    *,
    of: Literal["obs", "var"] = "obs",
    about: Callable[[Any, Mapping[str, Any]], Any] = _training_data_or,
) -> Callable[[F], F]:
    """Let a verb take ``key_added=``, under which its answer is written into the data that it is about.

    The verb names the argument in its signature, by keyword only, and does nothing with it.

    Parameters
    ----------
    kind
        ``"rows"``: tables go to ``obsm``, one value a cell to ``obs``. ``"column"``: a table of one column goes there
        too. ``"features"``: values of all features of the data go to ``layers``; draws of them, ``(s, n, g)``, to
        ``obsm`` as ``(n, g, s)``. ``"samples"``: as features, and draws come like that. ``"named"``: as rows, those of
        the cells that the index of a frame names; what lies there about other cells stays.
    parts
        Names of the answers, where a verb gives several in a tuple: each goes to ``f"{key_added}_{name}"``; that of no
        name to ``key_added`` itself, others nowhere. A mapping brings its names; where parts are named, only those go.
    of
        Where cells are: ``"var"`` in data of regions by cells, whose answers go to ``var`` and ``varm``.
    about
        Takes the model and its arguments by name and gives the data to write to; a list, where the answer has a part
        for each of several.

    Returns
    -------
    The decorator of the verb.
    """

    def declared(verb: F) -> F:
        signature = inspect.signature(verb)

        @functools.wraps(verb)
        def answering(self: Model, *args: Any, key_added: str | None = None, **kwargs: Any) -> Any:
            if key_added is None:
                return verb(self, *args, **kwargs)
            call = signature.bind(self, *args, **kwargs)
            given = dict(call.arguments)
            _require_all_cells(given, verb.__name__)
            found = about(self, given)
            data_sets = [_writable(self, one, key_added) for one in (found if isinstance(found, list) else [found])]
            as_arrays = kind == "features" and bool(given.get("return_numpy"))
            if as_arrays:
                call.arguments["return_numpy"] = False  # the names of the features say where values belong
            answer = verb(*call.args, **call.kwargs)
            of_all = kind in ("features", "samples") and all(given.get(name) is None for name in _SOME_FEATURES)
            names = names_of(self, output_of(self, given.get("output"))) if of_all else None
            how = {name: given[name] for name in given if name not in _NOT_NOTED}
            for data, one in zip(data_sets, _of_each(answer) if isinstance(found, list) else [answer], strict=True):
                for name, table in _tables(one, parts):
                    key = f"{key_added}_{name}" if name else key_added
                    keep(data, key, table, kind, of=of, names=names)
                    note(data, key, verb.__name__, self, how | _axes(table))
            return _arrays(answer) if as_arrays else answer

        return answering  # type: ignore[return-value]

    return declared


def keep(
    data: AnnData,
    key: str,
    answer: object,
    kind: Kind = "rows",
    *,
    of: Literal["obs", "var"] = "obs",
    names: np.ndarray | None = None,
) -> None:
    """Write an answer with a row for each cell into the data.

    Parameters
    ----------
    data
        An AnnData, or a MuData: its own tables are written to, or with values of all features of a modality that has
        all cells the layers of this modality.
    key
        Where.
    answer
        ``(n, ...)``, cells in their order: an array, also of sparse or xarray, a frame, a tensor; draws ``(s, n, g)``.
    kind, of
        See :func:`offers_key`.
    names
        Features that are the columns of an array, if it has as many.

    Raises
    ------
    ValueError
        Not a row for each cell.
    """
    columns, tables, cells = (
        (data.obs, data.obsm, data.obs_names) if of == "obs" else (data.var, data.varm, data.var_names)
    )
    if kind == "named" and isinstance(answer, pd.DataFrame | pd.Series):
        home = tables if isinstance(answer, pd.DataFrame) else columns
        answer = _filled(cells, answer, home.get(key))
    table = _table(answer)
    if kind == "features" and len(table.shape) > 2:
        table = np.moveaxis(np.asarray(table), 0, -1)
    shape = table.shape
    if not shape or shape[0] != len(cells):
        found = f"of shape {shape}" if shape else "one number"
        raise ValueError(
            f"key_added={key!r} writes a row for each of {len(cells)} cells, and this answer is {found}: pass "
            "return_mean=False where it would average over cells."
        )
    if len(shape) == 1 or (kind == "column" and shape[1] == 1):
        columns[key] = _column(table)
    elif not (kind in ("features", "samples") and len(shape) == 2 and _kept_in_layer(data, key, _frame(table, names))):
        tables[key] = _beside(table, cells)


def ready(adata: AnnData, copy: bool) -> AnnData:
    """The AnnData to write to: a copy in memory, or the one given, which is no view afterwards.

    Warns
    -----
    UserWarning
        The one given is a view: it becomes an AnnData of its own, as in scanpy.

    Raises
    ------
    ValueError
        A view of a MuData.
    """
    if copy:
        return _in_memory(adata)
    if adata.is_view and is_mudata(adata):
        raise ValueError("This is a view of a MuData, which cannot be written to: take mdata[...].copy() of it.")
    if adata.is_view:
        warnings.warn(
            "Received a view of an AnnData. Making a copy.", UserWarning, stacklevel=settings.warnings_stacklevel + 1
        )
        adata._init_as_actual(_in_memory(adata))  # anndata's own way to turn a view into an object of its own
    return adata


def note(data: AnnData, key: str, by: str, model: Model, settings_of_call: Mapping[str, Any]) -> None:
    """Write into ``data.uns["celbo"][key]`` which function made what lies under a key, with which model and how.

    Parameters
    ----------
    data
        The data.
    key
        Where the result lies.
    by
        Name of the function.
    model
        The trained model.
    settings_of_call
        Arguments; those that are None are left out, what no file can hold is written as text.
    """
    made_with: dict[str, Any] = {"by": by, "model": model.__class__.__name__, "version": __version__}
    made_with |= {name: _kept(value) for name, value in settings_of_call.items() if value is not None}
    made_with |= {f"setup_{name}": _kept(value) for name, value in model.registry_["setup_args"].items() if value}
    made_with["epochs"], elbo = trained_for(model.history, model.kept_epoch_)
    if elbo is not None:
        made_with["elbo_validation"] = elbo.value
    notes = dict(data.uns[NOTES]) if NOTES in data.uns else {}
    data.uns[NOTES] = notes | {key: made_with}


def trained_for(history: Mapping[str, pd.DataFrame] | None, kept_epoch: int | None) -> tuple[int, ElboOfWeights | None]:
    """Epochs in a history, and the validation ELBO of the model's weights if there is one."""
    by_epoch = {name: frame for name, frame in (history or {}).items() if frame.index.name == "epoch"}
    return max(map(len, by_epoch.values()), default=0), elbo_of_weights(by_epoch, kept_epoch)


# Before the verb is asked.


def _require_all_cells(given: Mapping[str, Any], verb: str) -> None:
    for name in _SOME_CELLS:
        if given.get(name) is not None:
            raise ArgumentError.of(
                "key_added",
                f"key_added writes a row for every cell, and {name}= asks about some: leave {name} out, or ask about "
                f"cells that are an AnnData of their own, {verb}(adata[cells].copy(), key_added=...).",
            )


def _writable(model: Model, data: AnnData | None, key: str) -> AnnData:
    if data is None:
        raise ValueError("This model was loaded without data: pass adata=, which key_added= writes to.")
    if key in _names_in(model.registry_["setup_args"]):
        raise ArgumentError.of("key_added", f"key_added={key!r} is what the model reads of the data: take another key.")
    return ready(data, copy=False)


def _names_in(setup: object) -> Iterator[str]:
    """The names of columns, layers and tables among the arguments of a setup."""
    if isinstance(setup, str):
        yield setup
    elif isinstance(setup, Mapping):
        yield from _names_in(list(setup.values()))
    elif isinstance(setup, list | tuple):
        for one in setup:
            yield from _names_in(one)


# From an answer to what data hold.


@runtime_checkable
class _Labelled(Protocol):  # an array of the package xarray
    dims: tuple[str, ...]
    coords: Mapping[str, Any]


@runtime_checkable
class _Packed(Protocol):  # an array of the package sparse
    ndim: int
    to_scipy_sparse: Callable[[], sp.spmatrix]
    todense: Callable[[], np.ndarray]


def _axes(answer: object) -> dict[str, list[str]]:
    """The names along each axis behind that of the cells, as far as an answer has them."""
    named = [name for name in answer.dims[1:] if name in answer.coords] if isinstance(answer, _Labelled) else []
    return {name: list(map(str, np.asarray(answer.coords[name]))) for name in named}  # type: ignore[attr-defined]


def _table(answer: object) -> np.ndarray | sp.csr_matrix | pd.DataFrame:
    """An array, a frame, or a CSR matrix."""
    if isinstance(answer, pd.DataFrame):
        return answer
    if isinstance(answer, _Packed):
        return answer.to_scipy_sparse().tocsr() if answer.ndim == 2 else answer.todense()
    return np.asarray(answer.detach().cpu() if isinstance(answer, Tensor) else answer)


def _of_each(answer: object) -> list[object]:
    """The part of each of several data sets."""
    return list(answer.values() if isinstance(answer, Mapping) else answer)  # type: ignore[call-overload]


def _filled(cells: pd.Index, new: pd.DataFrame | pd.Series, before: object) -> pd.DataFrame | pd.Series:
    """Rows of all cells: the new ones by their names, beside those that are there, or missing values."""
    unknown = new.index.difference(cells)
    if len(unknown):
        raise ValueError(f"These data have no cell {unknown[0]!r}, which key_added= would write a row of.")
    filled, others = new.reindex(cells), ~cells.isin(new.index)
    if isinstance(filled, pd.Series):
        if isinstance(before, pd.Series):
            filled.loc[others] = before.loc[others]
    elif isinstance(before, pd.DataFrame) and before.columns.equals(filled.columns):
        filled.loc[others] = before.loc[others]
    return filled


def _tables(answer: object, parts: Sequence[str]) -> list[tuple[str, object]]:
    if isinstance(answer, Mapping):
        kept = [(str(name), table) for name, table in answer.items() if tuple(parts) == ("",) or name in parts]
        if not kept:
            raise ValueError(
                f"key_added= writes what has a row for each cell: {', '.join(parts)}, which was not asked."
            )
        return kept
    return list(zip(parts, answer)) if isinstance(answer, tuple) else [("", answer)]


def _arrays(answer: object) -> object:
    """The answer as it was asked for, without names."""
    if isinstance(answer, Mapping):
        return {name: _arrays(one) for name, one in answer.items()}
    if isinstance(answer, tuple):
        return tuple(map(_arrays, answer))
    return _values(answer) if isinstance(answer, pd.DataFrame) else answer


def _values(frame: pd.DataFrame) -> np.ndarray | sp.csr_matrix:
    return frame.sparse.to_coo().tocsr() if _is_sparse(frame) else frame.to_numpy()  # type: ignore[attr-defined]


def _is_sparse(frame: pd.DataFrame) -> bool:
    return bool(len(frame.columns)) and all(isinstance(dtype, pd.SparseDtype) for dtype in frame.dtypes)


def _column(values: np.ndarray | pd.DataFrame) -> np.ndarray | pd.Categorical:
    values_n = np.asarray(values).reshape(-1)
    return values_n if values_n.dtype.kind in "biuf" else pd.Categorical(values_n)


def _frame(table: np.ndarray | sp.csr_matrix | pd.DataFrame, names: np.ndarray | None) -> pd.DataFrame | None:
    """A table with the names of its columns; None where nobody knows them."""
    if isinstance(table, pd.DataFrame):
        return table
    if names is None or len(names) != table.shape[1]:
        return None
    if sp.issparse(table):
        return pd.DataFrame.sparse.from_spmatrix(table, columns=names)  # type: ignore[attr-defined]
    return pd.DataFrame(table, columns=names, copy=False)


def _kept_in_layer(data: AnnData, key: str, table: pd.DataFrame | None) -> bool:
    """Write values of all features into the AnnData that has them; False where there is none."""
    if table is None:
        return False
    for one in data.mod.values() if is_mudata(data) else [data]:
        rows, columns = _places(one.obs_names, data.obs_names), _places(one.var_names, table.columns)
        if rows is None or columns is None:
            continue
        in_order = np.array_equal(columns, np.arange(len(columns)))
        values = _values(table if in_order else table.iloc[:, columns])
        one.layers[key] = values if one is data else values[rows]
        return True
    return False


def _places(wanted: pd.Index, have: pd.Index) -> np.ndarray | None:
    """Where each of some names is, if both are the same names."""
    if wanted is have:
        return np.arange(len(have))
    if len(wanted) != len(have) or not have.is_unique:
        return None
    found = have.get_indexer(wanted)
    return None if (found < 0).any() else found


def _beside(table: np.ndarray | pd.DataFrame, cells: pd.Index) -> np.ndarray | pd.DataFrame:
    """A table as ``obsm`` and files of AnnData take it."""
    if not isinstance(table, pd.DataFrame):
        return table
    dense = table.sparse.to_dense() if _is_sparse(table) else table  # type: ignore[attr-defined]
    return dense.set_axis(dense.columns.astype(str), axis=1).set_axis(cells)


def _in_memory(adata: AnnData) -> AnnData:
    return adata.to_memory() if adata.isbacked else adata.copy()


def _kept(value: object) -> object:
    """A value as files of AnnData hold it."""
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _kept(one) for name, one in value.items()}
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return np.array(value, dtype=object)
    return repr(value)
