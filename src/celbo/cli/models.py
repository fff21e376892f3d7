"""The table of models: one row each, what it needs and what it answers."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ..core import unknown_name
from ..data.modality_roles import ATAC, PROTEIN, RNA
from ..external import (
    CYTOVI,
    DIAGVI,
    DRVI,
    GIMVI,
    METHYLANVI,
    METHYLVI,
    MRVI,
    POISSONVI,
    RESOLVI,
    SCAR,
    SCBASSET,
    SCVIVA,
    SOLO,
    TOTALANVI,
    VELOVI,
    CellAssign,
    ContrastiveTOTALVI,
    ContrastiveVI,
    Decipher,
    JointEmbeddingSCVI,
    SysVI,
    Tangram,
)
from ..model import AUTOZI, MULTIVI, PEAKVI, SCANVI, SCVI, TOTALVI, AmortizedLDA, LinearSCVI
from ..model.base.archives.archive import read_saved
from ..report.topics import N_DRAWS, topics_of_cells
from ..report.zero_inflation import gene_table
from . import multimodal
from .errors import UserError
from .fitting import ambient, contrasts, doublets, methylation, references, sequences, tissue
from .fitting import cellassign as marked
from .kind import Fitted, Kind
from .options import LAYERS, TrainOptions, spelt
from .saved import find_archive
from .written import write_expression, write_native

__all__ = ["MODELS", "load", "settings_of_others", "settled"]

_TOP_GENES = ("n_top_genes",)
_OF_VAE = (*_TOP_GENES, "encode_covariates")
_OF_LABELS: Mapping[str, str] = {"labels_key": "the column of obs with the label of each cell that has one"}
_GENES: Mapping[str, str] = {"expression": "differential_expression"}
_REGIONS: Mapping[str, str] = {"accessibility": "differential_accessibility"}
_SMOOTHED = "the layer with smoothed RNA (Ms and Mu of scvelo, or of celbo.external.velovi.moments)"
_OF_TISSUE: Mapping[str, Any] = {
    "needs": {"reference": "a file with dissociated cells of the same tissue"},
    "check": references.check,
    "streams": False,
}
_BOTH: Mapping[str, Any] = {"fit": multimodal.fit, "denoise": write_expression}


def _label_probabilities(fitted: Fitted, adata: AnnData | None = None) -> pd.DataFrame:
    return fitted.model.predict(adata, soft=True)


def _topics(fitted: Fitted, adata: AnnData | None = None, indices: np.ndarray | None = None) -> np.ndarray:
    return topics_of_cells(fitted.model, adata, indices=indices)


def _genes_of_topics(fitted: Fitted) -> pd.DataFrame:
    return fitted.model.get_feature_by_topic(n_samples=N_DRAWS, seed=0)


def _loadings(fitted: Fitted) -> pd.DataFrame:
    return fitted.model.get_loadings()


def _rates(fitted: Fitted) -> pd.DataFrame:
    return pd.DataFrame(fitted.model.get_rates(), index=fitted.model.get_var_names())


def _zero_inflation(fitted: Fitted) -> pd.DataFrame:
    return gene_table(fitted.model)


_ROWS = (
    Kind("scvi", SCVI, _TOP_GENES, denoise=write_expression, compares=_GENES),
    Kind("joint_embedding", JointEmbeddingSCVI, _OF_VAE, denoise=write_expression, compares=_GENES),
    Kind("drvi", DRVI, _TOP_GENES, denoise=write_expression, compares=_GENES),
    Kind("linear_scvi", LinearSCVI, _TOP_GENES, genes=_loadings, denoise=write_expression, compares=_GENES),
    Kind(
        "scanvi",
        SCANVI,
        _OF_VAE,
        needs=_OF_LABELS,
        predict=_label_probabilities,
        denoise=write_expression,
        compares=_GENES,
    ),
    Kind("autozi", AUTOZI, _TOP_GENES, genes=_zero_inflation, denoise=write_expression, compares=_GENES),
    Kind(
        "lda",
        AmortizedLDA,
        _TOP_GENES,
        embed=_topics,
        genes=_genes_of_topics,
        renamed={"devices": "device"},
    ),
    Kind("decipher", Decipher, _TOP_GENES, renamed={"devices": "device"}),
    Kind(
        "cellassign",
        CellAssign,
        ("markers",),
        needs={"markers": "a .csv of genes by cell types, 1 where the gene marks the type, else 0"},
        fit=marked.fit,
        check=marked.check,
        embed=None,
        predict=marked.predict,
    ),
    Kind(
        "solo",
        SOLO,
        (*_TOP_GENES, "restrict_to_batch"),
        ("encode_covariates",),
        fit=doublets.fit,
        parts={doublets.PART: SCVI},
        check=doublets.check,
        embed=doublets.embed,
        predict=doublets.predict,
    ),
    Kind("peakvi", PEAKVI, role=ATAC, compares=_REGIONS),
    Kind("poissonvi", POISSONVI, leaves_out=("size_factor_key",), role=ATAC, compares=_REGIONS),
    Kind("totalvi", TOTALVI, _TOP_GENES, roles={RNA: True, PROTEIN: True}, compares=_GENES, **_BOTH),
    Kind(
        "totalanvi",
        TOTALANVI,
        _TOP_GENES,
        needs=_OF_LABELS,
        predict=_label_probabilities,
        roles={RNA: True, PROTEIN: True},
        compares=_GENES,
        **_BOTH,
    ),
    Kind(
        "multivi",
        MULTIVI,
        _TOP_GENES,
        ("size_factor_key",),
        roles={RNA: False, ATAC: False, PROTEIN: False},
        compares={**_GENES, **_REGIONS, "protein": "differential_expression"},
        **_BOTH,
    ),
    Kind(
        "sysvi",
        SysVI,
        needs={"batch_key": "the column of obs with the system of each cell"},
        takes_counts=False,
    ),
    Kind(
        "scar",
        SCAR,
        (*_TOP_GENES, "ambient", "ambient_prob"),
        fit=ambient.fit,
        check=ambient.check,
        denoise=write_native,
    ),
    Kind("mrvi", MRVI, _TOP_GENES, needs={"sample_key": "the column of obs with the sample of each cell"}),
    Kind(
        "contrastivevi",
        ContrastiveVI,
        (*_TOP_GENES, *contrasts.SETTINGS),
        needs=contrasts.NEEDS,
        fit=contrasts.fit,
        compares=_GENES,
    ),
    Kind(
        "contrastivetotalvi",
        ContrastiveTOTALVI,
        (*_TOP_GENES, *contrasts.SETTINGS),
        needs=contrasts.NEEDS,
        roles={RNA: True, PROTEIN: True},
        compares=_GENES,
        fit=contrasts.fit_both,
        denoise=write_expression,
    ),
    Kind("cytovi", CYTOVI, role=PROTEIN, takes_counts=False, all_layers=True, compares=_GENES),
    Kind(
        "velovi",
        VELOVI,
        needs={"spliced_layer": _SMOOTHED, "unspliced_layer": _SMOOTHED},
        takes_counts=False,
        streams=False,
        genes=_rates,
    ),
    Kind("methylvi", METHYLVI, **methylation.ROW),
    Kind("methylanvi", METHYLANVI, needs=_OF_LABELS, predict=_label_probabilities, **methylation.ROW),
    Kind(
        "resolvi",
        RESOLVI,
        (*_TOP_GENES, "spatial_key"),
        defaults={"spatial_key": "spatial"},
        fit=tissue.fit_resolvi,
        predict=_label_probabilities,
        predicts_by="labels_key",
        denoise=write_expression,
        compares=_GENES,
    ),
    Kind(
        "scviva",
        SCVIVA,
        _TOP_GENES,
        needs={**_OF_LABELS, "embedding_key": "the entry of obsm with an embedding of expression, as of an scvi"},
        defaults={"spatial_key": "spatial"},
        fit=tissue.fit_scviva,
        prepare=tissue.with_niches,
        streams=False,
        denoise=write_expression,
    ),
    Kind(
        "scbasset",
        SCBASSET,
        ("fasta",),
        needs={"fasta": "the genome as a FASTA file"},
        defaults={"seq_len": 1344},
        fit=sequences.fit,
        prepare=sequences.refuse,
        check=sequences.check,
        embed=sequences.embed,
        role=ATAC,
        streams=False,
    ),
    Kind(
        "gimvi",
        GIMVI,
        ("reference",),
        ("labels_key",),
        fit=references.fit_gimvi,
        embed=references.embed_tissue,
        **_OF_TISSUE,
    ),
    Kind(
        "tangram",
        Tangram,
        ("reference", "reference_labels"),
        takes_counts=False,
        fit=references.fit_tangram,
        embed=None,
        **_OF_TISSUE,
    ),
    Kind(
        "diagvi",
        DIAGVI,
        ("reference", "reference_labels", "pairs"),
        needs={"reference": "a file with cells of the other modality"},
        fit=references.fit_diagvi,
        check=references.check,
        embed=references.embed_first,
        predict=references.predict,
        predicts_by="reference_labels",
        streams=False,
    ),
)

MODELS: Mapping[str, Kind] = {row.name: row for row in _ROWS}
"""What ``--model`` may be."""

_IN_PYTHON: Mapping[str, str] = {
    "destvi": "spots, and a model of single cells: celbo.model.DestVI.from_rna_model(spots, condscvi)",
    "condscvi": "single cells with labels, for DestVI: celbo.model.CondSCVI",
    "stereoscope": "spots, and a model of single cells: celbo.external.SpatialStereoscope.from_rna_model",
}
"""Models that are trained in Python alone -> what they take, and where to begin."""


def settled(options: TrainOptions) -> TrainOptions:
    """Settings with the model's own defaults filled in.

    Raises
    ------
    UserError
        No such model, a setting that it does not take, or one that it needs and did not get.
    """
    if options.model.lower() in _IN_PYTHON:
        takes = _IN_PYTHON[options.model.lower()]
        raise UserError(f"--model {options.model} is trained in Python, not by the command line. It takes {takes}.")
    if options.model not in MODELS:
        raise UserError(unknown_name("value of --model", options.model, MODELS))
    kind = MODELS[options.model]
    for name in settings_of_others(kind):
        if getattr(options, name) not in (None, ()):
            *others, last = [row.name for row in _ROWS if name in row.settings]
            able = f"{', '.join(others)} or {last}" if others else last
            raise UserError(f"{kind.name} takes no {spelt(name)}: leave it out, or use --model {able}.")
    _require_place(kind, options)
    for name, what in kind.needs.items():
        if getattr(options, name) is None:
            raise UserError(f"{kind.name} needs {spelt(name)}: {what}.")
    missing = {name: value for name, value in kind.settings.items() if getattr(options, name) is None}
    options = dataclasses.replace(options, **missing)
    if kind.check is not None:
        kind.check(options)
    return options


def _require_place(kind: Kind, options: TrainOptions) -> None:
    """Refuse a layer, or raw, of a model that is not set up with one."""
    named = [spelt(name) for name in LAYERS if name in kind.settings]
    if (options.raw or options.layer is not None) and not kind.places and not named:
        option = "--raw" if options.raw else "--layer"
        raise UserError(f"{kind.name} takes no {option}: write an input whose X is what it is to take.")
    if options.raw and "raw" not in kind.places:
        raise UserError(f"{kind.name} takes no --raw: name a layer with --layer, or write an input whose X is raw.")
    if options.layer is not None and "layer" not in kind.places:
        raise UserError(f"{kind.name} takes no --layer: {' and '.join(named)} name its layers.")


def settings_of_others(kind: Kind) -> tuple[str, ...]:
    """Settings that other models take and this one does not, in the order of the table."""
    return tuple(name for name in dict.fromkeys(n for row in _ROWS for n in row.settings) if name not in kind.settings)


def load(folder: Path, verb: str, does: Callable[[Kind], bool]) -> tuple[Kind, Fitted]:
    """Load a model without its data; the archive says which one it is.

    Parameters
    ----------
    folder
        Of a run, or of a saved model.
    verb
        What is asked of it, for the message.
    does
        Whether a kind of model does that.

    Raises
    ------
    UserError
        No model there, one that the command line does not know, or one that does not do what is asked.
    """
    archive = find_archive(folder)
    by_class = {row.cls.__name__: row for row in _ROWS}
    name = read_saved(archive, "").class_name
    if name not in by_class:
        raise UserError(unknown_name("model of the command line", name, by_class))
    kind = by_class[name]
    if not does(kind):
        able = ", ".join(row.cls.__name__ for row in _ROWS if does(row))
        raise UserError(f"{archive} holds a model of class {name}, which has no {verb}: that is of {able}.")
    return kind, kind.load(archive)
