"""``celbo.which``: which models suit the data."""

from collections.abc import Sequence
from typing import Annotated, Any

from ..core import checked, number_of
from ..core.argument_names import NAMES
from ..data.modality_roles import ATAC, PROTEIN, RNA, ROLES, role_of
from .advice import Advice, Fit
from .found import Found, look_at
from .table import CHOICES, Choice, Need

__all__ = ["fitting", "which"]

_DATA = NAMES["adata"]
_ONLY = {Need.METHYLATION, Need.MARKERS}
"""Needs that are met by data of one kind alone."""


@checked
def which(adata: Annotated[Any, _DATA]) -> Advice:
    """Say which models suit some data, what each gives, and a line to begin with. Nothing is trained or changed.

    Parameters
    ----------
    adata
        AnnData or MuData, in memory or backed. All of a matrix in memory is looked at, some rows of one on disk.

    Returns
    -------
    What fits, what fits with something more, and what the others lack; it prints itself. Columns are told by their
    names and the number of their values: look at them before you believe it.

    Examples
    --------
    >>> import celbo
    >>> advice = celbo.which(celbo.data.synthetic_iid(n_proteins=0, n_regions=0, seed=0))
    >>> advice.fits[0].begin
    "celbo.model.SCVI.setup_anndata(adata, batch_key='batch')"
    >>> advice.table().loc["celbo.model.PEAKVI", "missing"]
    ('counts of regions',)
    """
    found = look_at(adata)
    missing = {choice.file: _missing(choice, found) for choice in CHOICES}
    fits = {choice.file: Fit.of(choice, missing[choice.file], begin(choice, found)) for choice in CHOICES}
    suited = fitting(found)
    return Advice(
        data="; ".join(_described(name, found) for name in found.parts),
        counts="; ".join(_where(name, found) for name in found.parts if found.counts[name]),
        columns={"batches": found.columns.batches, "labels": found.columns.labels},
        fits=tuple(fits[choice.file] for choice in suited if not choice.brings),
        with_more=tuple(fits[choice.file] for choice in suited if choice.brings),
        others=tuple(fits[choice.file] for choice in CHOICES if missing[choice.file]),
    )


def fitting(found: Found) -> list[Choice]:
    """Models that data have all for that can be seen in them.

    Those that are made for such data alone come first, then those of most kinds of features.
    """
    suited = [choice for choice in CHOICES if not _missing(choice, found)]
    return sorted(suited, key=lambda choice: (not _ONLY & set(choice.needs), -len(_roles(choice, found))))


def _missing(choice: Choice, found: Found) -> list[Need]:
    met = found.needs_met
    return [need for need in choice.needs if need not in met]


def _roles(choice: Choice, found: Found) -> list[str]:
    """Kinds of features that a model would use."""
    if Need.MODALITIES in choice.needs:
        return [role for role in (RNA, ATAC, PROTEIN) if role in found.roles]
    of = {Need.RNA: RNA, Need.PROTEINS: PROTEIN, Need.REGIONS: ATAC}
    return [of[need] for need in choice.needs if need in of]


def begin(choice: Choice, found: Found) -> str:
    """Code that sets the model up on the data; empty where more than a line is needed."""
    own = (Need.SPLICED, Need.METHYLATION, Need.MARKERS, Need.PLACES)
    if choice.brings or _missing(choice, found) or any(need in choice.needs for need in own):
        return ""
    roles = _roles(choice, found)
    if "" not in found.parts and len(roles) > 1:
        modalities = {f"{role}_layer": found.roles[role] for role in roles}
        return f"celbo.{choice.names[0]}.setup_mudata(adata, modalities={modalities!r})"
    part = found.roles[roles[0]] if roles else next(iter(found.parts))
    data = f"adata.mod[{part!r}]" if part else "adata"
    arguments = [data, *_place(choice, found.counts[part]), *_columns(choice, found)]
    return f"celbo.{choice.names[0]}.setup_anndata({', '.join(arguments)})"


def _place(choice: Choice, places: Sequence[str]) -> list[str]:
    """Where the counts are, unless they are in ``X``."""
    if Need.VALUES in choice.needs:
        return []
    typed = next((place for place in places if choice.takes_raw or not place.startswith("use_raw")), "")
    return [typed.partition(" (")[0].replace('"', "'")] if typed.startswith(("layer='", 'layer="', "use_raw=T")) else []


def _columns(choice: Choice, found: Found) -> list[str]:
    first: dict[Need, tuple[str, list[str | None]]] = {
        Need.LABELS: ("labels_key", [*found.columns.labels]),
        Need.SAMPLES: ("sample_key", [*found.columns.samples]),
        Need.PROTEINS: ("protein_expression_obsm_key", [found.protein_table]),
        Need.MODALITIES: ("protein_expression_obsm_key", [found.protein_table]),
    }
    given = {argument: names[0] for need, (argument, names) in first.items() if need in choice.needs}
    batch = next((name for name in found.columns.batches if name not in given.values()), None)
    if choice.takes_batch and batch is not None:
        given["batch_key"] = batch
    return [f"{argument}={name!r}" for argument, name in given.items() if name is not None]


def _described(name: str, found: Found) -> str:
    adata = found.parts[name]
    role = role_of(name, adata.var)
    what = ROLES[role] if role is not None else "features" if name else "genes"
    return (f"{name}: " if name else "") + f"{number_of(adata.n_obs, 'cell')} x {adata.n_vars:,} {what}"


def _where(name: str, found: Found) -> str:
    first, *more = (place.replace("layer=None", "X") for place in found.counts[name])
    return (f"{name}: " if name else "") + first + (f" (also {', '.join(more)})" if more else "")
