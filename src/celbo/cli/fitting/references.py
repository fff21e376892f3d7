"""Models of two data sets on the command line: the input, and a reference of other cells in a file of its own.

Dims: n cells of the input, m cells of the reference, g genes, c labels.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from ...core import unknown_name
from ...data import open as open_data
from ...data.inputs import input_paths
from ...data.multimodal import joined
from ...data.opening import of_genes
from ...external.tangram.projecting import project_cell_annotations, project_genes
from ..counts import findings, genes_of
from ..errors import UserError
from ..kind import Fitted, Kind
from ..multimodal import modality_with
from ..options import TrainOptions
from ..output import EMBEDDING_KEY

__all__ = ["check", "embed_first", "embed_tissue", "fit_diagvi", "fit_gimvi", "fit_tangram", "predict"]

logger = logging.getLogger("celbo")

INPUT, REFERENCE = "input", "reference"
"""Names of the data sets of a DIAGVI, and those of a Tangram's MuData."""

_SHOWN = 3


def check(options: TrainOptions) -> None:
    """Look for the other files before the data are read; a ``UserError`` for a table of pairs that is none."""
    input_paths(str(options.reference))
    if options.pairs is not None:
        _read_pairs(Path(options.pairs))


def fit_gimvi(kind: Kind, adata: AnnData, options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """Train on the tissue and the reference; the folder gets all genes of the tissue, and where the reference lies."""
    reference, names = _reference(kind, options), genes_of(adata, options.raw)
    findings(reference, [Path(str(options.reference))], None, False)
    tissue = of_genes(adata, _is_shared(names, reference, options), options.raw)
    kind.cls.setup_anndata(reference, **_batches(reference, options))
    kind.cls.setup_anndata(tissue, **kind.setup_arguments(options))
    model = kind.cls(reference, tissue, **kind.model_arguments(options))
    model.train(**training)

    def write(folder: Path) -> None:
        latents, values = model.get_latent_representation(), model.get_imputed_values()[1]
        imputed = AnnData(values, obs=adata.obs.copy(), var=reference.var.copy(), obsm=_placed(adata, latents[1]))
        imputed.write_h5ad(folder / "imputed.h5ad")
        _write_latents(folder / "reference.h5ad", reference, latents[0])

    return Fitted(model, writes=write)


def fit_tangram(kind: Kind, adata: AnnData, options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """Map the reference's cells onto the tissue; the folder gets the map, and their genes and labels in the tissue."""
    reference = _reference(kind, options)
    shared = adata.var_names[_is_shared(adata.var_names, reference, options)]
    both = {REFERENCE: _bare(reference, shared, "cell"), INPUT: _bare(adata, shared, "spot")}
    mdata = joined(both)
    where = {"sc_layer": REFERENCE, "sp_layer": INPUT, "density_prior_key": INPUT}
    kind.cls.setup_mudata(mdata, modalities=where)
    model = kind.cls(mdata)
    model.train(**training)

    def write(folder: Path) -> None:
        mapper_mn = model.get_mapper_matrix()
        AnnData(mapper_mn, reference.obs, pd.DataFrame(index=adata.obs_names)).write_h5ad(folder / "mapping.h5ad")
        genes = project_genes(reference, adata, mapper_mn)
        imputed = AnnData(genes.X, obs=adata.obs.copy(), var=reference.var.copy(), obsm=_placed(adata))
        if options.reference_labels is not None:
            labels = reference.obs[options.reference_labels]
            imputed.obsm["celbo_labels"] = project_cell_annotations(reference, adata, mapper_mn, labels)
        imputed.write_h5ad(folder / "imputed.h5ad")

    return Fitted(model, writes=write)


def fit_diagvi(kind: Kind, adata: AnnData, options: TrainOptions, training: Mapping[str, Any]) -> Fitted:
    """Train on the cells of both modalities; the folder gets the latents of the reference too."""
    reference = _reference(kind, options)
    findings(reference, [Path(str(options.reference))], None, False)
    pairs = None if options.pairs is None else _read_pairs(Path(options.pairs))
    _require_pairs(adata, reference, options, pairs)
    labels = {} if options.reference_labels is None else {"labels_key": options.reference_labels}
    kind.cls.setup_anndata(adata, **kind.setup_arguments(options))
    kind.cls.setup_anndata(reference, **_batches(reference, options), **labels)
    sets = {INPUT: adata, REFERENCE: reference}
    model = kind.cls(sets, mapping_df=pairs, **kind.model_arguments(options))
    model.train(**training)

    def write(folder: Path) -> None:
        _write_latents(folder / "reference.h5ad", reference, model.get_latent_representation()[REFERENCE])

    return Fitted(model, writes=write)


def embed_tissue(fitted: Fitted, adata: AnnData | None = None, indices: np.ndarray | None = None) -> np.ndarray:
    """Latents of cells in tissue, the second data set of a GIMVI, ``(n, k)``."""
    model = fitted.model
    if adata is not None and not any(one is adata for one in model.adatas):
        model.adatas = [adata[:0], adata]  # cells that are asked about are taken for those at their place
    latent_nk = model.get_latent_representation(model.adatas[1:])[0]
    return latent_nk if indices is None else latent_nk[indices]


def embed_first(fitted: Fitted, adata: AnnData | None = None, indices: np.ndarray | None = None) -> np.ndarray:
    """Latents of cells of the input's modality, ``(n, k)``."""
    rows = None if indices is None else {INPUT: indices.tolist()}
    cells = fitted.model.adatas[INPUT] if adata is None else adata
    return fitted.model.get_latent_representation({INPUT: cells}, indices=rows)[INPUT]


def predict(fitted: Fitted, adata: AnnData | None = None) -> pd.DataFrame | None:
    """Probability of each label of the reference for each cell of the input, ``(n, c)``; None: it had no labels."""
    model = fitted.model
    if not model.module.has_labels[REFERENCE]:
        return None
    cells = model.adatas[INPUT] if adata is None else adata
    said = model.predict_celltype(REFERENCE, target_modality=INPUT, target_adata=cells)
    p_nc = said["probabilities"]
    labels = model.registries_[1]["field_registries"]["labels"]["state_registry"]["categorical_mapping"]
    return pd.DataFrame(p_nc, index=cells.obs_names, columns=labels[: p_nc.shape[1]])


def _reference(kind: Kind, options: TrainOptions) -> AnnData:
    """The cells of the other file, in memory."""
    path = Path(str(options.reference))
    modality = None if kind.name == "diagvi" else modality_with([path], kind)
    reference = open_data(path, stream=False, modality=modality)
    if reference.X is None:
        raise UserError(f"--reference {path} has no X, which is what is taken of it.")
    key = options.reference_labels
    if key is not None and key not in reference.obs:
        raise UserError(f"--reference-labels: {unknown_name(f'column of obs of {path}', key, reference.obs.columns)}")
    return reference


def _batches(reference: AnnData, options: TrainOptions) -> dict[str, str]:
    """Setup's column of batches, where the reference has it; else its cells are one batch."""
    key = options.batch_key
    if key is None or key in reference.obs:
        return {} if key is None else {"batch_key": key}
    logger.info("--reference %s has no column %r: its cells are taken as one batch.", options.reference, key)
    return {}


def _is_shared(names: pd.Index, reference: AnnData, options: TrainOptions) -> np.ndarray:
    """Which features of the input the reference has too, ``(g,)``; a line names those that are left out."""
    path, names = options.reference, pd.Index(names)
    for where, some in (("The input", names), (f"--reference {path}", reference.var_names)):
        if not some.is_unique:
            raise UserError(f"{where} has {some[some.duplicated()][0]!r} more than once: give each gene a name.")
    is_shared_g = names.isin(reference.var_names)
    if not is_shared_g.any():
        raise UserError(
            f"--reference {path} has none of the {len(names):,} genes of the input: its are called "
            f"{_some(reference.var_names)}, those of the input {_some(names)}. Give both the same kind of names "
            "(symbols or identifiers)."
        )
    if not is_shared_g.all():
        left = names[~is_shared_g]
        numbers = f"{len(left):,} of the {len(names):,}"
        logger.info("--reference %s lacks %s genes of the input: %s. They are left out.", path, numbers, _some(left))
    return np.asarray(is_shared_g)


def _some(names: pd.Index) -> str:
    return ", ".join(repr(str(name)) for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _bare(adata: AnnData, genes: pd.Index, what: str) -> AnnData:
    """Expression of some genes; rows by number, as cells and spots of one name would be taken for the same."""
    rows = pd.DataFrame(index=[f"{what}_{number}" for number in range(adata.n_obs)])
    return AnnData(adata[:, genes].X.copy(), rows, pd.DataFrame(index=genes))


def _placed(adata: AnnData, latent_nk: np.ndarray | None = None) -> dict[str, Any]:
    """What ``obsm`` of the input has, with coordinates, and the latents."""
    own = {str(key): value for key, value in adata.obsm.items()}
    return own if latent_nk is None else own | {EMBEDDING_KEY: latent_nk}


def _write_latents(path: Path, adata: AnnData, latent_mk: np.ndarray) -> None:
    AnnData(obs=adata.obs.copy(), obsm={EMBEDDING_KEY: latent_mk}).write_h5ad(path)


def _read_pairs(path: Path) -> pd.DataFrame:
    """A table of features that go together: one of the input and one of the reference a line."""
    if not path.is_file():
        raise UserError(f"--pairs {path}: there is no such file.")
    try:
        table = pd.read_csv(path, dtype=str, sep="\t" if path.suffix == ".tsv" else ",")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"--pairs {path} is no table: {error}") from None
    if table.shape[1] != 2 or table.empty:
        raise UserError(
            f"--pairs {path}: wanted a first line of headings, then two names a line, a feature of the input and one "
            f"of the --reference; got a table of {table.shape[0]} lines and {table.shape[1]} columns."
        )
    return table.set_axis([INPUT, REFERENCE], axis=1)


def _require_pairs(adata: AnnData, reference: AnnData, options: TrainOptions, pairs: pd.DataFrame | None) -> None:
    """Refuse data without features that go together."""
    if pairs is None:
        if not adata.var_names.isin(reference.var_names).any():
            raise UserError(
                f"No feature of the input ({_some(adata.var_names)}) is called as one of --reference "
                f"{options.reference} ({_some(reference.var_names)}): --pairs says which go together."
            )
        return
    is_known = pairs[INPUT].isin(adata.var_names) & pairs[REFERENCE].isin(reference.var_names)
    if not is_known.any():
        raise UserError(
            f"--pairs {options.pairs}: no line has a feature of the input ({_some(adata.var_names)}) and one of the "
            f"--reference ({_some(reference.var_names)}), in this order. The first: "
            f"{pairs[INPUT].iloc[0]!r}, {pairs[REFERENCE].iloc[0]!r}."
        )
