"""From raw intensities to what the model reads: arcsinh, scaling, a mask of what was measured, one AnnData of panels.

Dims: n cells, g markers.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from ...core import ArgumentError, checked, unknown_name
from ...core.kinds import Number, Whole
from .panel import MASK_LAYER

__all__ = ["mask_markers", "merge_batches", "register_nan_layer", "scale", "subsample", "transform_arcsinh"]

_SCATTER = ("FSC", "SSC")
_TINY = 1e-12


def _layer(adata: AnnData, key: str | None, made_by: str) -> np.ndarray:
    """A layer, or ``X`` (None), dense."""
    if key is not None and key not in adata.layers:
        raise ArgumentError(f"{unknown_name('layer of adata.layers', key, adata.layers)} {made_by}")
    values = adata.X if key is None else adata.layers[key]
    return values.toarray() if sp.issparse(values) else np.asarray(values)


def _target(adata: AnnData, inplace: bool) -> AnnData:
    return adata if inplace else adata.copy()


@checked
def transform_arcsinh(
    adata: AnnData,
    raw_layer_key: str | None = "raw",
    transformed_layer_key: str = "transformed",
    global_scaling_factor: Annotated[float, Number(0, above=True)] = 5,
    scaling_dict: dict[str, float] | None = None,
    transform_scatter: bool = False,
    inplace: bool = True,
) -> AnnData | None:
    r"""Inverse hyperbolic sine of intensities: :math:`\mathrm{arcsinh}(x_{ng} / c_g)`, linear near 0, then logarithmic.

    Parameters
    ----------
    adata
        Cells by markers.
    raw_layer_key, transformed_layer_key
        Layers to read (None: ``X``) and to write, float32.
    global_scaling_factor
        c of all markers: about 5 for mass cytometry, 100 to 2,000 for fluorescence.
    scaling_dict
        c of some markers, by name.
    transform_scatter
        Whether forward and side scatter (FSC, SSC) are transformed too; else they are copied.
    inplace
        Write to ``adata``, or give a copy.

    Returns
    -------
    None, or the copy.

    Raises
    ------
    ArgumentError
        There is no such layer or no such marker, or a factor is not positive.
    """
    raw_ng = _layer(adata, raw_layer_key, "raw_layer_key=None reads adata.X.")
    factors_g = np.full(adata.n_vars, float(global_scaling_factor))
    for marker, factor in (scaling_dict or {}).items():
        if marker not in adata.var_names:
            raise ArgumentError(unknown_name("marker (scaling_dict)", marker, adata.var_names))
        if not factor > 0:
            raise ArgumentError(f"scaling_dict: the factor of {marker!r} must be greater than 0, got {factor}.")
        factors_g[adata.var_names == marker] = factor
    values_ng = np.arcsinh(raw_ng / factors_g).astype(np.float32)
    if not transform_scatter:
        scatter_g = np.array([str(name).upper().startswith(_SCATTER) for name in adata.var_names], bool)
        values_ng[:, scatter_g] = raw_ng[:, scatter_g]
    changed = _target(adata, inplace)
    changed.layers[transformed_layer_key] = values_ng
    return None if inplace else changed


@checked
def scale(
    adata: AnnData,
    method: Literal["minmax", "standard"] = "minmax",
    feature_range: tuple[float, float] = (0.0, 1.0),
    transformed_layer_key: str = "transformed",
    scaled_layer_key: str = "scaled",
    batch_key: str | None = None,
    feat_eps: Annotated[float, Number(0)] = 1e-6,
    inplace: bool = True,
) -> AnnData | None:
    """Scale each marker to a range, or to mean 0 and standard deviation 1. Missing values stay missing.

    Parameters
    ----------
    adata
        Cells by markers.
    method
        ``"minmax"``: smallest and largest value go to the ends of ``feature_range``; ``"standard"``.
    feature_range
        The range.
    transformed_layer_key, scaled_layer_key
        Layers to read and to write, float32.
    batch_key
        Column of ``adata.obs``: each batch is scaled by itself. None: all cells together.
    feat_eps
        Smallest distance of values from the ends, which a beta distribution does not reach.
    inplace
        Write to ``adata``, or give a copy.

    Returns
    -------
    None, or the copy.

    Raises
    ------
    ArgumentError
        There is no such layer or column, or ``feature_range`` does not rise by more than twice ``feat_eps``.
    """
    values_ng = _layer(adata, transformed_layer_key, "transform_arcsinh(adata) writes it.")
    low, high = feature_range
    if not low + 2 * feat_eps < high:
        raise ArgumentError(f"feature_range must go from a number to a larger one, got {feature_range}.")
    scaled_ng = np.empty(values_ng.shape, np.float32)
    for cells in _groups(adata, batch_key):
        part_ng = values_ng[cells].astype(float)
        measured_g = np.isfinite(part_ng).any(0)
        scaled_ng[cells] = part_ng
        columns = np.ix_(cells, measured_g)
        if method == "standard":
            spread_g = np.nanstd(part_ng[:, measured_g], 0)
            scaled_ng[columns] = (part_ng[:, measured_g] - np.nanmean(part_ng[:, measured_g], 0)) / _not_zero(spread_g)
        else:
            least_g, most_g = np.nanmin(part_ng[:, measured_g], 0), np.nanmax(part_ng[:, measured_g], 0)
            share_ng = (part_ng[:, measured_g] - least_g) / _not_zero(most_g - least_g)
            scaled_ng[columns] = low + feat_eps + share_ng * (high - low - 2 * feat_eps)
    changed = _target(adata, inplace)
    changed.layers[scaled_layer_key] = scaled_ng
    return None if inplace else changed


def _not_zero(spread_g: np.ndarray) -> np.ndarray:
    """Spreads, and 1 for markers that do not vary."""
    return np.where(spread_g > _TINY, spread_g, 1.0)


def _groups(adata: AnnData, column: str | None) -> Iterable[np.ndarray]:
    """Rows of the cells of each group."""
    if column is None:
        return [np.arange(adata.n_obs)]
    return [rows for _, rows in _rows_by_group(adata, column)]


def _rows_by_group(adata: AnnData, column: str) -> list[tuple[object, np.ndarray]]:
    if column not in adata.obs:
        raise ArgumentError(unknown_name("column of adata.obs", column, map(str, adata.obs)))
    values = adata.obs[column]
    if values.isna().any():
        raise ArgumentError(
            f"adata.obs[{column!r}] has no value for {int(values.isna().sum()):,} cells: name one for each."
        )
    return [(group, np.flatnonzero(values == group)) for group in values.unique()]


@checked
def register_nan_layer(
    adata: AnnData, mask_layer_key: str = MASK_LAYER, scaled_layer_key: str = "scaled", inplace: bool = True
) -> AnnData | None:
    """Note which markers were measured: a layer of 1 where the scaled layer has a number, and of 0 where it has NaN.

    Parameters
    ----------
    adata
        Cells by markers.
    mask_layer_key
        Layer to write. Setup finds ``"_nan_mask"`` by itself.
    scaled_layer_key
        Layer with the markers, in which 0 takes the place of NaN.
    inplace
        Write to ``adata``, or give a copy.

    Returns
    -------
    None, or the copy.
    """
    values_ng = _layer(adata, scaled_layer_key, "scale(adata) writes it.")
    missing_ng = np.isnan(values_ng)
    changed = _target(adata, inplace)
    changed.layers[mask_layer_key] = (~missing_ng).astype(np.float32)
    changed.layers[scaled_layer_key] = np.where(missing_ng, 0, values_ng).astype(values_ng.dtype)
    return None if inplace else changed


@checked
def merge_batches(
    adata_list: Sequence[AnnData],
    mask_layer_key: str = MASK_LAYER,
    batch_key: str = "batch",
    scaled_layer_key: str = "scaled",
    nan_layer_registration: bool = True,
) -> AnnData:
    """One AnnData of several batches whose panels may differ.

    Parameters
    ----------
    adata_list
        The batches, each of which has the layer ``scaled_layer_key``.
    mask_layer_key, scaled_layer_key
        As in :func:`register_nan_layer`.
    batch_key
        Column of ``obs`` to write: ``"0"``, ``"1"``, ... in the order of the list.
    nan_layer_registration
        Whether missing markers are registered; else they are NaN.

    Returns
    -------
    All markers of all batches; ``var["_batch_0"]``, ... say which batch has which. Where two batches share a cell's
    name, all names get ``-0``, ``-1``, ...

    Raises
    ------
    ArgumentError
        The list is empty, a batch lacks the layer or has a marker twice, or the batches share no marker.
    """
    adatas = list(adata_list)
    if not adatas:
        raise ArgumentError("adata_list is empty: give the AnnData of each batch.")
    for number, adata in enumerate(adatas):
        if scaled_layer_key not in adata.layers:
            raise ArgumentError(
                f"adata_list[{number}]: {unknown_name('layer', scaled_layer_key, adata.layers)} scale(adata) writes it."
            )
        twice = adata.var_names[adata.var_names.duplicated()]
        if len(twice):
            raise ArgumentError(f"adata_list[{number}] has the marker {twice[0]!r} twice: name each once.")
    shared = set(adatas[0].var_names).intersection(*(adata.var_names for adata in adatas[1:]))
    if not shared:
        raise ArgumentError("These batches share no marker: rename their var_names to the same names where they do.")
    keys = [str(number) for number in range(len(adatas))]
    bare = [_bare(adata, batch_key) for adata in adatas]
    twice = not pd.Index(np.concatenate([adata.obs_names for adata in bare])).is_unique
    to_names = "-" if twice else None
    merged = ad.concat(bare, join="outer", label=batch_key, keys=keys, fill_value=np.nan, index_unique=to_names)
    for key, adata in zip(keys, adatas, strict=True):
        merged.var[f"_batch_{key}"] = merged.var_names.isin(adata.var_names)
    if nan_layer_registration:
        register_nan_layer(merged, mask_layer_key, scaled_layer_key)
    return merged


def _bare(adata: AnnData, batch_key: str) -> AnnData:
    """Without the batch that it will get."""
    return AnnData(
        adata.X,
        adata.obs.drop(columns=batch_key, errors="ignore"),
        pd.DataFrame(index=adata.var_names),
        layers=adata.layers,
    )


@checked
def mask_markers(
    adata: AnnData,
    markers: str | list[str],
    batch_key: str = "batch",
    masked_batch: str = "1",
    nan_layer_registration: bool = True,
) -> AnnData:
    """Remove markers from a batch, as if its panel lacked them, to see how well they are imputed.

    Parameters
    ----------
    adata
        Cells by markers; not changed.
    markers
        Names.
    batch_key, masked_batch
        Column of ``adata.obs``, and the batch.
    nan_layer_registration
        Whether what is missing is registered (:func:`register_nan_layer`); else it is NaN.

    Returns
    -------
    A copy with NaN there, in ``X`` and in all layers.

    Raises
    ------
    ArgumentError
        There is no such marker, column or batch; the nearest is named.
    """
    names = [markers] if isinstance(markers, str) else list(markers)
    for name in names:
        if name not in adata.var_names:
            raise ArgumentError(unknown_name("marker", name, adata.var_names))
    groups = {str(group): rows for group, rows in _rows_by_group(adata, batch_key)}
    if masked_batch not in groups:
        raise ArgumentError(unknown_name(f"batch in adata.obs[{batch_key!r}]", masked_batch, groups))
    masked = adata.copy()
    where = np.ix_(groups[masked_batch], adata.var_names.isin(names))
    for key in masked.layers:
        masked.layers[key] = _with_nan(masked.layers[key], where)
    if masked.X is not None:
        masked.X = _with_nan(masked.X, where)
    for group, rows in groups.items():
        there = masked.var_names.isin(names) & (group == masked_batch)
        masked.var[f"_batch_{group}"] = ~there & (len(rows) > 0)
    if nan_layer_registration:
        register_nan_layer(masked)
    return masked


def _with_nan(values: object, where: tuple[np.ndarray, ...]) -> np.ndarray:
    dense = np.array(values.toarray() if sp.issparse(values) else values)  # type: ignore[attr-defined]
    dense = dense if dense.dtype.kind == "f" else dense.astype(np.float32)
    dense[where] = np.nan
    return dense


@checked
def subsample(
    adata: AnnData,
    n_obs: Annotated[int, Whole(1)] = 10000,
    random_state: Annotated[int, Whole(0)] = 0,
    replace: bool = False,
    groupby: str | None = None,
    n_obs_group: Annotated[int, Whole(1)] | None = None,
) -> AnnData:
    """Cells drawn at random.

    Parameters
    ----------
    adata
        Cells by markers; not changed.
    n_obs
        How many.
    random_state
        Seed of the draw.
    replace
        Whether a cell may be drawn more than once.
    groupby
        Column of ``adata.obs``: draw as many cells of each group, or all of a smaller group.
    n_obs_group
        How many of each group; None: ``n_obs`` divided by the number of groups.

    Returns
    -------
    A copy, in the order of ``adata``.

    Raises
    ------
    ArgumentError
        There are fewer than ``n_obs`` cells to draw without replacement, or no such column.
    """
    rng = np.random.default_rng(random_state)
    if groupby is None:
        if n_obs > adata.n_obs and not replace:
            raise ArgumentError(
                f"n_obs is {n_obs:,}, and there are {adata.n_obs:,} cells: ask for fewer, or replace=True."
            )
        rows = rng.choice(adata.n_obs, n_obs, replace=replace)
    else:
        groups = _rows_by_group(adata, groupby)
        wanted = n_obs_group or max(1, n_obs // len(groups))
        rows = np.concatenate(
            [rng.choice(cells, wanted if replace else min(wanted, len(cells)), replace=replace) for _, cells in groups]
        )
    rows = np.sort(rows)
    first = np.r_[True, rows[1:] != rows[:-1]]
    drawn = adata[rows[first]].copy()
    return drawn if first.all() else _repeated(drawn, np.cumsum(first) - 1)


def _repeated(adata: AnnData, rows: np.ndarray) -> AnnData:
    """Cells, some more than once, each with its own name."""
    names = ad.utils.make_index_unique(adata.obs_names[rows])
    return AnnData(
        None if adata.X is None else adata.X[rows],
        adata.obs.iloc[rows].set_axis(names),
        adata.var,
        layers={key: values[rows] for key, values in adata.layers.items()},
        obsm={key: np.asarray(values)[rows] for key, values in adata.obsm.items()},
    )
