"""Compare celbo's public names with scvi-tools', and write docs/compatibility.md.

``python docs/make_compatibility.py`` rewrites the page; tests/compat/test_surface.py fails when it is stale, or when a
signature differs in a way that :data:`DEVIATIONS` does not give a reason for.
"""

import ast
import enum
import gzip
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path
from typing import Any

from celbo.compat.aliases import ADDED
from celbo.core.planned import INSTEAD

REPOSITORY = Path(__file__).resolve().parents[1]
PEER_API = REPOSITORY / "tests" / "compat" / "peer_api.json.gz"
PAGE = REPOSITORY / "docs" / "compatibility.md"

_DOES_NOT_SAMPLE = "it raises that the module draws no counts"
_SWITCH = "accepted by keyword, and without effect: what it switches on celbo does anyway, or has no equivalent of"

DEVIATIONS: dict[str, str] = {
    "scvi.data.add_dna_sequence: default of `sequence_varm_key` is *": (
        "codes are what models take; letters need many times their memory"
    ),
    "scvi.dataloaders.SemiSupervisedDataSplitter: default of `adata_manager` is *": (
        "a data module of one's own goes to `train(datamodule=...)` as it is"
    ),
    "scvi.external.*: `sample`: has no *": _DOES_NOT_SAMPLE,
    "scvi.external.scviva.nicheVAE: has no *": "taken by keyword, as those of `VAE`",
    "scvi.external.methylvi.METHYLANVAE: `classify`: *": "cells are encoded by their batch, and none is continuous",
    "scvi.external.methylvi.METHYLANVAE: `loss`: has no `feed_labels`": "nothing is read of it",
    "scvi.external.mrvi_torch.TorchMRVAE: default of `z_u_prior_scale` is *": "the same number",
    "scvi.external.mrvi_torch.TorchMRVAE: `generative`: *": "labels are called `y`, as in other modules",
    "scvi.external.velovi.VELOVAE: default of `var_activation` is *": "the same function",
    "scvi.external.velovi.VELOVAE: `generative`: has no *": "rates are the module's own",
    "scvi.external.cellassign.CellAssignModule: `generative`: has no `transform_batch`": (
        "to decode as another batch, the batch is replaced in the minibatch"
    ),
    "scvi.model.base.UnsupervisedTrainingMixin: `train`: default of `batch_size` is *": (
        "128 under `classic`; the default recipe takes fewer where there are few cells"
    ),
    "scvi.module.MRDeconv: `sample`: has no *": _DOES_NOT_SAMPLE,
    "scvi.model.MULTIVI: `differential_accessibility`: has no `pseudocounts`": (
        "probabilities are compared by their difference, which needs none"
    ),
    "scvi.module.MULTIVAE: `generative`: *": "labels are called `y`, as in other modules, and depths are logits",
    "scvi.module.MULTIVAE: `inference`: has no *": "it takes the modalities of a minibatch as one",
    "scvi.module.SCANVAE: `loss`: has no `generative_ouputs`": "scvi-tools misspells it",
    "scvi.module.SCANVAE: `loss`: `generative_outputs` of celbo's own *": "the same misspelling",
    "scvi.module.TOTALVAE: `generative`: has no `label`": "it is called `y`, as in other modules",
    "scvi.module.TOTALVAE: `generative`: has no `library_gene`": "`library` is its natural log",
    "scvi.module.TOTALVAE: `generative`: `library` of celbo's own *": "it is the natural log, as in other modules",
    "scvi.module.TOTALVAE: `marginal_ll`: default of `return_mean` is *": "that of other modules",
    "scvi.module.TOTALVAE: `sample`: `module` of celbo's own *": "the module itself",
    "scvi.train.AdversarialTrainingPlan: has no *": "goes to `TrainingPlan` by keyword, with the same default",
    "scvi.train.SaveCheckpoint: `on_train_end`: has no `pl_module`": "hooks are called by position",
    "scvi.train.SemiSupervisedAdversarialTrainingPlan: has no *": (
        "goes to `TrainingPlan` by keyword, with the same default"
    ),
    "scvi.train.SemiSupervisedTrainingPlan: has no *": "goes to `TrainingPlan` by keyword, with the same default",
    "scvi.train.Trainer: default of `accelerator` is *": "None means the same",
    "scvi.train.Trainer: default of `devices` is *": "None means the same",
    "scvi.train.Trainer: has no *": _SWITCH,
    "scvi.train.Trainer: `min_epochs` of celbo's own *": "pass the arguments of the trainer by keyword",
}
"""Difference (or a pattern of such) -> why it is on purpose. A row that no longer applies fails the test."""

MISSING_MEMBERS: dict[str, str] = {
    "scvi.external.cellassign.CellAssignModule.*": (
        "scvi-tools' class derives from an autoencoder that it never runs; the mixture has no encoder"
    ),
    "scvi.external.tangram.TangramMapper.setup": "flax's; the module is torch's here, and reads what JAX saved",
    "scvi.external.tangram.TangramMapper.required_rngs": "flax's, which names the sources of random numbers",
    "scvi.module.*.get_reconstruction_loss": "`generative_outputs['px'].log_prob_sum(x)` is it, negated",
    "scvi.train.LoudEarlyStopping.teardown": "the trainer says why it stopped",
    "scvi.train.SaveCheckpoint.on_exception": "the last finite weights are kept in any case",
    "scvi.train.SaveCheckpoint.on_save_checkpoint": "a checkpoint is an archive of the whole model",
    "scvi.train.SaveCheckpoint.on_train_batch_end": "a loss that is not finite stops training at that step",
}
"""``Class.member`` (or a pattern) that celbo's class does without -> why. What is not listed is still to come."""

MISSING_NAMES: dict[str, str] = {name: f"use {instead}" for name, instead in INSTEAD.items()}
"""Public name that celbo does without -> what instead. What is not listed is still to come."""


def peer_api() -> dict[str, dict[str, Any]]:
    """scvi-tools' public API: dotted name -> kind, signatures, members."""
    entries = json.loads(gzip.decompress(PEER_API.read_bytes()))
    return {name: entry for name, entry in entries.items() if name != "_meta"}


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name and its default as Python writes it (None: it has none)."""

    name: str
    default: str | None


@dataclass
class Name:
    """What became of one public name of scvi-tools.

    Attributes
    ----------
    name
        Dotted name, as in scvi-tools.
    found
        Whether celbo has it.
    differences
        How its signatures differ, one line each.
    missing_members
        Public methods and properties that celbo's class lacks.
    """

    name: str
    found: bool
    differences: list[str] = field(default_factory=list)
    missing_members: list[str] = field(default_factory=list)


def parsed(signature: str) -> tuple[list[Parameter], bool]:
    """Parameters of a signature as text, without ``self`` and stars, and whether it ends in ``**kwargs``."""
    text = signature[signature.index("(") :]
    text = re.sub(r"=\s*(<[^<>]*(?:<[^<>]*>[^<>]*)*>)", lambda m: "=" + repr(m[1]), text)
    text = re.sub(r"([:\[])\s*<[^<>]*>", r"\1 Any", text)  # an annotation that is no type: <built-in method tensor>
    arguments = ast.parse(f"def f{text}: pass").body[0].args  # type: ignore[attr-defined]
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    pairs = [*zip(positional, defaults), *zip(arguments.kwonlyargs, arguments.kw_defaults)]
    parameters = [Parameter(a.arg, None if d is None else ast.unparse(d)) for a, d in pairs if a.arg != "self"]
    return parameters, arguments.kwarg is not None


def differences(theirs: str, ours: Any) -> Iterator[str]:
    """How a callable of celbo differs from a signature of scvi-tools; further keyword-only parameters are fine."""
    wanted, _ = parsed(theirs)
    signature = inspect.signature(ours)
    star = [p.name for p in signature.parameters.values() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    have = {name: p for name, p in signature.parameters.items() if name not in ("self", "cls", *star)}
    for parameter in wanted:
        if parameter.name not in have:
            yield f"has no `{parameter.name}`"
        elif not _same_default(parameter.default, have[parameter.name].default):
            default = have[parameter.name].default
            shown = "none" if default is inspect.Parameter.empty else repr(default)
            yield f"default of `{parameter.name}` is `{shown}`, not `{parameter.default}`"
    names = [parameter.name for parameter in wanted]
    order = [name for name in have if name in names]
    if order != [name for name in names if name in have]:
        yield f"order is {', '.join(order)}"
    own = [n for n, p in have.items() if n not in names and p.kind is not p.KEYWORD_ONLY]
    if own and not _all_behind(own, list(have), names):
        yield f"`{own[0]}` of celbo's own stands before scvi-tools' last parameter"


def _all_behind(own: list[str], have: list[str], names: list[str]) -> bool:
    last = max((have.index(name) for name in names if name in have), default=-1)
    return all(have.index(name) > last for name in own)


def _same_default(theirs: str | None, ours: Any) -> bool:
    if theirs is None:
        return True  # a default where scvi-tools has none takes nothing away
    if ours is inspect.Parameter.empty:
        return False
    try:
        value = ast.literal_eval(theirs)
    except (ValueError, SyntaxError):
        return theirs.rpartition(".")[2] in (repr(ours), getattr(ours, "__name__", None), str(ours))
    if isinstance(value, str) and value.startswith("<"):
        kind = getattr(ours, "__name__", None)
        return value == repr(ours) or value == "<factory>" or (kind is not None and kind in value)
    if isinstance(ours, enum.Enum):
        ours = ours.value
    return value == ours or (isinstance(value, tuple | list) and list(value) == list(ours or ()))


def compare(name: str, entry: dict[str, Any]) -> Name:
    """Look a public name of scvi-tools up in celbo and compare."""
    path, _, attribute = name.removeprefix("scvi.").rpartition(".")
    try:
        found = _find(path, attribute)
    except (ModuleNotFoundError, AttributeError):
        return Name(name, found=False)
    result = Name(name, found=True)
    if "signature" in entry:
        result.differences += differences(entry["signature"], found)
    if "init" in entry and inspect.isclass(found) and "init_from" not in entry:
        result.differences += differences(entry["init"], found.__init__)
    for member, signature in entry.get("methods", {}).items():
        _compare_member(result, found, member, signature)
    inherited = " ".join(entry.get("inherited", {}).values()).split()
    properties = [shown.split(":")[0].split()[0] for shown in entry.get("properties", [])]
    result.missing_members += [member for member in (*properties, *inherited) if not hasattr(found, member)]
    if "values" in entry and found._asdict() != entry["values"]:
        result.differences.append(f"values are {found._asdict()}")
    return result


def _find(path: str, attribute: str) -> Any:
    """A public name where ``import scvi`` would find it on celbo."""
    if attribute in ADDED.get(path, {}):
        return ADDED[path][attribute].find()
    return getattr(importlib.import_module(f"celbo.{path}" if path else "celbo"), attribute)


def _compare_member(result: Name, found: Any, member: str, signature: str) -> None:
    if not hasattr(found, member):
        result.missing_members.append(member)
        return
    if "(" in signature and callable(getattr(found, member)):
        kind = inspect.getattr_static(found, member)
        function = kind.__func__ if isinstance(kind, classmethod | staticmethod) else kind
        result.differences += [f"`{member}`: {difference}" for difference in differences(signature, function)]


def surface() -> list[Name]:
    """Every public name of scvi-tools, compared."""
    return [compare(name, entry) for name, entry in sorted(peer_api().items()) if name != "scvi.settings"]


def unexplained(names: list[Name]) -> list[str]:
    """Differences without a reason."""
    all_differences = [f"{name.name}: {difference}" for name in names for difference in name.differences]
    return [difference for difference in all_differences if not any(fnmatch(difference, row) for row in DEVIATIONS)]


def stale(names: list[Name]) -> list[str]:
    """Rows of the tables of reasons that no longer apply."""
    all_differences = {f"{name.name}: {difference}" for name in names for difference in name.differences}
    members = {f"{name.name}.{member}" for name in names for member in name.missing_members}
    absent = {name.name for name in names if not name.found}
    tables = ((DEVIATIONS, all_differences), (MISSING_MEMBERS, members), (MISSING_NAMES, absent))
    return [row for table, found in tables for row in table if not any(fnmatch(one, row) for one in found)]


def page(names: list[Name]) -> str:
    """docs/compatibility.md."""
    rooms: dict[str, list[Name]] = {}
    for name in names:
        rooms.setdefault(name.name.rpartition(".")[0], []).append(name)
    n_found = sum(name.found for name in names)
    lines = [
        "# What of scvi-tools is in celbo",
        "",
        "Written by `python docs/make_compatibility.py`, checked by `tests/compat/test_surface.py`; not by hand. "
        "What is there has scvi-tools 1.4.2's parameter names, order and defaults, unless a difference is given below. "
        "What is not there yet says so when it is asked for.",
        "",
        f"{n_found} of {len(names)} public names are there.",
        "",
    ]
    for room, members in sorted(rooms.items()):
        lines += [f"## {room}", ""]
        to_come = [member for member in members if not member.found and member.name not in MISSING_NAMES]
        for title, chosen in (("There", [member for member in members if member.found]), ("Not yet", to_come)):
            listed = [f"`{member.name.rpartition('.')[2]}`" for member in chosen]
            lines += [f"{title}: {', '.join(listed)}.", ""] if listed else []
        for member in members:
            lines += _missing_lines(member)
    return "\n".join([*lines, *_deviation_lines()]).rstrip() + "\n"


def _missing_lines(name: Name) -> list[str]:
    members = {member: f"{name.name}.{member}" for member in name.missing_members}
    to_come = [m for m, full in members.items() if not any(fnmatch(full, row) for row in MISSING_MEMBERS)]
    if not name.found or not to_come:
        return []
    return [f"Not yet in `{name.name.rpartition('.')[2]}`: {', '.join(f'`{m}`' for m in to_come)}.", ""]


def _deviation_lines() -> list[str]:
    lines = ["## Differences on purpose", ""]
    lines += [f"- {name} {what.replace('*', '...')}: {why}." for name, what, why in _rows(DEVIATIONS)]
    lines += [f"- `{name}` does not exist: {why}." for name, why in (MISSING_NAMES | MISSING_MEMBERS).items()]
    return [*lines, ""]


def _rows(table: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    for row, why in table.items():
        name, _, what = row.partition(": ")
        yield f"`{name}`", what, why


if __name__ == "__main__":
    PAGE.write_text(page(surface()))
