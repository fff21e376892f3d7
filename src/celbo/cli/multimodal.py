"""Inputs of several modalities on the command line: which of them holds what, and models of more than one.

Dims: g genes.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from ..core import unknown_name
from ..data import Finding
from ..data.access import is_mudata
from ..data.inputs import input_paths
from ..data.modalities import of_modalities
from ..data.modality_roles import PROTEIN, RNA, ROLES, name_of_type, roles_of
from ..data.multimodal import feature_tables, open_mudata
from ..data.opening import is_streamed
from .counts import findings
from .errors import UserError
from .kind import Fitted, Kind
from .options import ReadingOptions, TrainOptions, spelt

if TYPE_CHECKING:
    from mudata import MuData

__all__ = [
    "findings_of",
    "fit",
    "is_on_disk",
    "modality_of_counts",
    "modality_with",
    "named_as_in",
    "names_in",
    "open_contexts",
    "open_modalities",
    "replaced",
]

logger = logging.getLogger("celbo")

_LAYER = "_layer"
"""Behind the name of a role: the argument of ``setup_mudata`` that says which layer of that modality is taken."""


def open_modalities(
    kind: Kind, inputs: Sequence[Path], how: ReadingOptions, stream: bool | None, least: int = 1
) -> tuple["MuData", dict[str, str]]:
    """A MuData with the modalities that a kind of model takes, and the name of each by its role.

    Parameters
    ----------
    kind
        Kind of model.
    inputs
        ``.h5mu``, or what :func:`celbo.data.open_mudata` makes one of.
    how
        Which modality is which, where the user says so.
    stream
        Whether matrices stay on disk; None: by what fits in memory.
    least
        How many modalities there must be.

    Raises
    ------
    UserError
        A modality that is not there, is lacking, or cannot be told from another.
    """
    given = {role: getattr(how, role) for role in ROLES}
    if how.modality is not None:
        raise UserError(f"{kind.name} takes several modalities: leave --modality out; {_named_by(kind)}.")
    mdata = open_mudata(list(inputs), stream=stream, tables=_tables(inputs, given[PROTEIN]))
    where = _chosen(kind, mdata, given, least)
    taken = [f"{ROLES[role]} from {name!r} ({mdata.mod[name].n_vars:,})" for role, name in where.items()]
    left = [repr(name) for name in mdata.mod if name not in where.values()]
    more = f"; left out: {', '.join(left)}" if left else ""
    logger.info("Modalities: %s%s. Others: %s.", ", ".join(taken), more, _named_by(kind))
    return of_modalities(mdata, {name: mdata.mod[name] for name in where.values()}), where


def open_contexts(
    kind: Kind, inputs: Sequence[Path], how: ReadingOptions, stream: bool | None, names: Sequence[str]
) -> "MuData":
    """A MuData with the modalities of these names, in their order; none: with all.

    Raises
    ------
    UserError
        A modality that is not there, or an option of models that tell modalities by what they hold.
    """
    for name in ("modality", *ROLES):
        if getattr(how, name) is not None:
            raise UserError(f"{kind.name} takes modalities by --context: leave {spelt(name)} out.")
    mdata = open_mudata(list(inputs), stream=stream)
    for name in names:
        if name not in mdata.mod:
            raise UserError(f"--context: {unknown_name('modality', name, mdata.mod)}")
    return of_modalities(mdata, {name: mdata.mod[name] for name in names or mdata.mod})


def _named_by(kind: Kind) -> str:
    return ", ".join(spelt(role) for role in kind.roles) + " name them"


def _tables(inputs: Sequence[Path], name: str | None) -> list[str]:
    """Entries of ``obsm`` to take, where the input is one AnnData."""
    return [] if name is None or feature_tables(input_paths(list(inputs))[0]) else [name]


def _chosen(kind: Kind, mdata: "MuData", given: Mapping[str, str | None], least: int) -> dict[str, str]:
    known = roles_of({name: modality.var for name, modality in mdata.mod.items()})
    where: dict[str, str] = {}
    for role, is_needed in kind.roles.items():
        names = [name for name in known.get(role, ()) if name not in given.values()]
        if (name := given[role]) is not None:
            names = [name if name in mdata.mod else name_of_type(name)]
            if names[0] not in mdata.mod:
                raise UserError(f"{spelt(role)}: {unknown_name('modality', name, mdata.mod)}")
        if len(names) > 1:
            listed = " and ".join(map(repr, names))
            raise UserError(f"{listed} both look like {ROLES[role]}: say which by {spelt(role)}.")
        if is_needed and not names:
            there = ", ".join(map(repr, mdata.mod))
            raise UserError(
                f"{kind.name} needs {ROLES[role]}, and none of the modalities {there} is known to hold them: "
                f"{spelt(role)} names it."
            )
        where |= {role: names[0]} if names else {}
    if len(where) < least:
        there = ", ".join(map(repr, mdata.mod))
        raise UserError(f"{kind.name} takes {least} modalities or more; of {there} it knows fewer: {_named_by(kind)}.")
    return where


def names_in(model: Any) -> dict[str, str]:
    """Role -> name of the modality that a model was set up with; nothing for one of an AnnData."""
    modalities = model.registry_["setup_args"].get("modalities") or {}
    of_mudata = model.registry_.get("setup_method_name") == "setup_mudata"
    layers = {argument.removesuffix(_LAYER): name for argument, name in modalities.items()}
    return {role: layers[role] for role in ROLES if role in layers} if of_mudata else {}


def named_as_in(model: Any, mdata: "MuData", where: Mapping[str, str]) -> "MuData":
    """A MuData whose modalities, by role, are called as a model's are; those that it lacks are there without a cell."""
    names = names_in(model)
    there = {name: mdata.mod[where[role]] for role, name in names.items() if role in where}
    lacking = [name for name in names.values() if name not in there]
    if not lacking:
        return of_modalities(mdata, there)
    features = type(model).prepare_query_mudata(mdata, model, return_reference_var_names=True)
    logger.info("No cell has %s: what they hold is imputed.", " and ".join(f"the model's {name!r}" for name in lacking))
    empty = {
        name: AnnData(sp.csr_matrix((0, len(features[name])), dtype=np.float32), var=pd.DataFrame(index=features[name]))
        for name in lacking
    }
    return of_modalities(mdata, {name: (there | empty)[name] for name in names.values()})


def replaced(mdata: "MuData", modalities: Mapping[str, AnnData]) -> "MuData":
    """The same MuData with some of its modalities replaced."""
    return of_modalities(mdata, {**mdata.mod, **modalities})


def modality_of_counts(data: "AnnData | MuData", options: TrainOptions) -> AnnData:
    """The AnnData whose layer and raw the settings name: the data, or their modality of genes.

    Raises a ``UserError`` where the settings are of genes, and no modality is known to hold them.
    """
    if not is_mudata(data):
        return data
    if options.rna is None and (options.layer is not None or options.n_top_genes is not None):
        raise UserError(
            "--layer and --n-top-genes are of genes, and no modality is known to hold them: --rna names it."
        )
    return data.mod[options.rna] if options.rna is not None else next(iter(data.mod.values()))


def modality_with(inputs: Sequence[Path], kind: Kind) -> str | None:
    """The modality that a model of one matrix takes where none is named; None: nothing tells, or nothing needs to."""
    tables = feature_tables(input_paths(list(inputs))[0])
    names = roles_of(tables).get(kind.role, [])
    if len(tables) < 2 or len(names) != 1 or (kind.role == RNA and names[0].lower() == "gene expression"):
        return None  # of files of 10x genes are taken anyway, and that is told
    left = ", ".join(repr(name) for name in tables if name != names[0])
    logger.info(
        "Modality %r is taken (%s); left out: %s. --modality names another%s.",
        *(names[0], ROLES[kind.role], left),
        ", --model totalvi and multivi take several" if kind.role == RNA else "",
    )
    return names[0]


def findings_of(data: "AnnData | MuData", inputs: Sequence[Path], options: TrainOptions) -> list[Finding]:
    """What the counts of all modalities are like; see :func:`celbo.cli.counts.findings`."""
    if not is_mudata(data):
        return findings(data, inputs, options.layer, options.raw)
    found: list[Finding] = []
    for name, modality in data.mod.items():
        if name != options.protein:  # may be NaN where not measured: setup looks at them
            layer = options.layer if name == options.rna else None
            found += findings(modality, (), layer, False, f" of modality {name!r}")
    return found


def is_on_disk(data: "AnnData | MuData") -> bool:
    """Whether a matrix of the data, or of a modality, lies on disk."""
    return any(map(is_streamed, data.mod.values())) if is_mudata(data) else is_streamed(data)


def fit(
    kind: Kind, data: "AnnData | MuData", options: TrainOptions, training: Mapping[str, Any], *groups: np.ndarray
) -> Fitted:
    """Set up on a MuData, make and train a model of several modalities, which may take groups of cells first."""
    arguments = kind.setup_arguments(options)
    names: dict[str, str | None] = {role: getattr(options, role) for role in kind.roles}
    where = {f"{role}{_LAYER}": name for role, name in names.items() if name is not None}
    kind.cls.setup_mudata(data, rna_layer=arguments.pop("layer"), **arguments, modalities=where)
    model = kind.cls(data, **kind.model_arguments(options))
    model.train(*groups, **training)
    return Fitted(model)
