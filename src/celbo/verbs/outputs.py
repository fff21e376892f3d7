"""Verbs as functions of a model and of what it explains: :class:`~celbo.posterior.Output`, one or several.

Methods of models are these with the output that their name tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from .. import posterior
from ..core import REGISTRY_KEYS, unknown_name
from ..data import AnnDataManager
from ..data.access import minify_type_of
from ..data.modalities import obs_with
from ..module.base.minified import LATENT_POSTERIOR
from ..posterior import Output, Weighting
from .base import Model
from .cells import Asked, codes_of_batches

__all__ = [
    "corrected_batches",
    "correlation",
    "counts_behind",
    "differential",
    "names_of",
    "normalized",
    "output_of",
]


def output_of(model: Model, name: str | None) -> Output:
    """An output that a model declares, by name; None: the first.

    Raises
    ------
    ValueError
        A name that no output has, with the nearest one.
    """
    known: dict[str, Output] = {output.name: output for output in model._outputs}
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        raise ValueError(unknown_name(f"output of {type(model).__name__}", name, known))
    return known[name]


def names_of(model: Model, *outputs: Output) -> np.ndarray:
    """Names of the features of outputs, beside each other, ``(g,)``."""
    names = [np.asarray(model.get_state_registry(output.data)["column_names"]) for output in outputs]
    return np.concatenate([of if one.part is None else of[one.part] for one, of in zip(outputs, names, strict=True)])


def normalized(
    model: Model,
    cells: Asked,
    outputs: Sequence[Output],
    *,
    transform_batch: object = None,
    columns: np.ndarray | None = None,
    n_samples: int = 1,
    n_samples_overall: int | None = None,
    weighting: Weighting | None = None,
    return_mean: bool = True,
    return_numpy: bool | None = None,
    use_mean: bool = False,
    seed: int | None = None,
) -> np.ndarray | pd.DataFrame:
    """Normalized values of outputs, as ``get_normalized_expression`` gives them of the first.

    Parameters
    ----------
    model
        The model.
    cells
        The cells asked about.
    outputs
        The outputs to compute; see :func:`celbo.posterior.normalized`.
    transform_batch
        Categories of the batch.
    columns
        Columns to return; None: all.
    n_samples, n_samples_overall, weighting, return_mean, return_numpy, seed
        See ``get_normalized_expression``.
    use_mean
        Decode the mean of the latents of all cells, instead of draws.

    Raises
    ------
    ValueError
        Importance weights without ``n_samples_overall``.
    """
    codes = codes_of_batches(model, transform_batch)
    n_samples = 1 if use_mean else n_samples
    options: dict[str, Any] = {"transform_batch": codes, "columns": columns, "seed": seed}
    index: pd.Index | None = None
    if n_samples_overall is not None:
        group = cells.require_cells("n_samples_overall")
        options |= {"weighting": weighting}
        values = posterior.sampled(model.module, cells.loader_of, group, n_samples_overall, outputs, **options)
    elif weighting is not None:
        raise ValueError("weights='importance' weighs the draws of all cells together: give n_samples_overall.")
    else:
        options |= {"n_samples": n_samples, "return_mean": return_mean, "use_mean": use_mean, "n_cells": cells.n_cells}
        values, index = posterior.normalized(model.module, cells.batches, outputs, **options), cells.names
    if return_numpy or values.ndim == 3:
        return values
    names = names_of(model, *outputs)
    return pd.DataFrame(values, index, names if columns is None else names[columns], copy=False)


def correlation(
    model: Model,
    cells: Asked,
    outputs: Sequence[Output],
    *,
    transform_batch: object,
    n_samples: int,
    library_size: float,
    kind: Literal["spearman", "pearson"],
    log_transform: bool = False,
    seed: int | None = None,
) -> pd.DataFrame:
    """Correlation of all features of outputs, as ``get_feature_correlation_matrix`` gives it of the first.

    A feature that is called as one of an output before it stands as ``NAME_protein``, by the name of its output.

    Parameters
    ----------
    model, cells, outputs, transform_batch
        See :func:`normalized`.
    n_samples, library_size, kind, log_transform, seed
        See :func:`celbo.posterior.feature_correlation`.
    """
    matrix = posterior.feature_correlation(
        model.module,
        cells.batches,
        outputs=outputs,
        transform_batch=codes_of_batches(model, transform_batch),
        n_samples=n_samples,
        library_size=library_size,
        kind=kind,
        log_transform=log_transform,
        n_cells=cells.n_cells,
        seed=seed,
    )
    first, *others = outputs
    names = list(names_of(model, first))
    for one in others:
        taken = set(names)
        names += [f"{name}_{one.name}" if name in taken else name for name in names_of(model, one)]
    return pd.DataFrame(matrix, index=names, columns=names)


def differential(
    model: Model,
    cells: Asked,
    outputs: Sequence[Output],
    who: Mapping[str, Any],
    batches: tuple[Sequence[Any] | None, Sequence[Any] | None],
    options: Mapping[str, Any],
    *,
    all_stats: bool = True,
    fdr_target: float | Sequence[float] = 0.05,
    seed: int | None = None,
    suffixes: Mapping[str, str] | None = None,
    alike: np.ndarray | None = None,
) -> pd.DataFrame:
    """Differences between groups of cells in all outputs, as ``differential_expression`` gives them of the first.

    Parameters
    ----------
    model, cells, outputs
        See :func:`normalized`; groups are formed among all cells of the data.
    all_stats, fdr_target, seed
        See ``differential_expression``.
    who
        Arguments of :func:`celbo.posterior.comparisons`.
    batches
        Codes that either group is decoded as, see :func:`corrected_batches`.
    options
        Fields of :class:`~celbo.posterior.Hypothesis` and :class:`~celbo.posterior.Sampling`.
    suffixes
        Output name -> suffix that its features get in the table.
    alike
        Code of each cell, ``(n,)``: every code weighs the same in a group, however many cells it has; None: every cell
        weighs the same.
    """
    of_hypothesis, of_sampling = posterior.split_options(options)
    hypothesis = posterior.Hypothesis(**of_hypothesis)
    assert cells.adata is not None
    manager = model.get_anndata_manager(cells.adata, required=True)
    needed = hypothesis.mode == "change" and hypothesis.pseudocounts is None
    return posterior.differential_expression(
        model.module,
        cells.loader_of,
        [_balanced(one, alike) for one in posterior.comparisons(obs_with(cells.adata, who.get("groupby")), **who)],
        [f"{name}{(suffixes or {}).get(one.name, '')}" for one in outputs for name in names_of(model, one)],
        outputs=outputs,
        hypothesis=hypothesis,
        sampling=posterior.Sampling(batches1=batches[0], batches2=batches[1], **of_sampling),
        counts=_counts_of(manager, outputs, needed) if all_stats or needed else None,
        all_stats=all_stats,
        fdr_target=fdr_target,
        seed=seed,
    )


def _balanced(compared: posterior.Comparison, alike: np.ndarray | None) -> posterior.Comparison:
    if alike is None:
        return compared
    cells1, cells2 = (_repeated(cells, alike[cells]) for cells in (compared.cells1, compared.cells2))
    return replace(compared, cells1=cells1, cells2=cells2)


def _repeated(cells: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Cells of each code, repeated until each code has as many as the largest."""
    parts = [cells[codes == code] for code in np.unique(codes)]
    return np.concatenate([np.resize(part, max(map(len, parts))) for part in parts])


def corrected_batches(model: Model, batchid1: object, batchid2: object) -> tuple[list[Any], list[Any]]:
    """Codes of the batches that either group is decoded as; None: all."""
    every = model.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
    return (
        codes_of_batches(model, every if batchid1 is None else batchid1, "batchid1"),
        codes_of_batches(model, every if batchid2 is None else batchid2, "batchid2"),
    )


def _counts_of(manager: AnnDataManager, outputs: Sequence[Output], needed: bool) -> list[posterior.Counts] | None:
    """The counts; None where they were not kept, a ``ValueError`` if they are needed."""
    if minify_type_of(manager.adata) != LATENT_POSTERIOR:
        return [counts_behind(manager, output.data, output.part) for output in outputs]
    if needed:
        raise ValueError(
            "mode='change' estimates its pseudocount from the counts, and these data are minified without them: give "
            "pseudocounts=, for example 1e-5."
        )
    return None


def counts_behind(manager: AnnDataManager, key: str, part: slice | None = None) -> posterior.Counts:
    """A matrix by registry key as it is stored, and which of its columns to use; None: all."""
    x, columns = manager.get_from_registry(key), manager.get_column_indexer(key)
    if part is not None:
        columns = (np.arange(x.shape[1]) if columns is None else columns)[part]
    return posterior.Counts(x, columns, manager.get_row_indexer(key))
