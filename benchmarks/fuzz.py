"""Damaged archives, pickles and checkpoints: does each end in a model that works, or in one error that names the file?

``python -m benchmarks.fuzz [archives|pickles|checkpoints] --count 10000`` damages a small sound file of each kind that
often. Most of the damage is to what lies behind the checksums, which are put right: values of another type, names that
are gone or changed, parts in each other's place. What is read is used too: a verb, or an epoch of training. Prints what
did not end so, took more than 10 s or 1 GB; exit code 1 if anything did. :mod:`benchmarks.fuzz_stores` does the same to
data files.
"""

import argparse
import contextlib
import hashlib
import io
import json
import logging
import pickle
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from celbo.core import DataMismatchError
from celbo.data import synthetic_iid
from celbo.io import ArchiveError, write_scvi_archive
from celbo.io.torch_file import read_pickle_file
from celbo.model import SCVI
from celbo.train.checkpoints.fingerprint import DifferentRunError
from celbo.train.checkpoints.folder import find_checkpoints

from .damage import ODD, damage_bytes, damage_value
from .watching import LIMIT_S, report, watched

__all__ = ["KINDS", "fault", "main", "sound"]

Rng = np.random.Generator
ODD_OBJECTS = (
    *(
        *ODD,
        b"x",
        1j,
        (1, "x"),
        {1: 2},
        np.float32(3),
        np.array(5),
        np.array([np.nan, 1]),
        np.array(["a", None], object),
    ),
    *(np.arange(4).reshape(2, 2), torch.tensor([float("nan")]), torch.ones(3, dtype=torch.bool)),
    *(pd.DataFrame({"a": ["x"]}), pd.Series([1, 2]), pd.Index(["a"]), pd.Categorical(["a"])),
)
# -- damage
# ------------------------------------------------------------------------------------------------------------------


def _bytes(files: dict[str, bytes], rng: Rng) -> str:
    name = sorted(files)[rng.integers(len(files))]
    files[name], how = damage_bytes(files[name], rng)
    return f"{name}: {how}"


def _own(files: dict[str, bytes], rng: Rng) -> str:
    """celbo's format: mostly its document, with right checksums."""
    name, weights = (next(key for key in files if key.endswith(end)) for end in (".json", ".safetensors"))
    way = rng.integers(10)
    if way == 0:
        return _bytes(files, rng)
    body = json.loads(files[name])
    del body["sha256"]
    if way == 1:
        files[weights], how = damage_bytes(files[weights], rng)
    elif way == 2:
        files[weights], how = _another_header(files[weights], rng)
    else:
        how = damage_value(body["arrays" if way == 3 else "document"], rng)
    body["tensors_sha256"] = hashlib.sha256(files[weights]).hexdigest()
    rest = json.dumps(body).removeprefix("{").encode()
    files[name] = b'{"sha256": "' + hashlib.sha256(rest).hexdigest().encode() + b'", ' + rest
    return how


def _another_header(raw: bytes, rng: Rng) -> tuple[bytes, str]:
    """Names, dtypes, shapes and places in a file of tensors."""
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    how = damage_value(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + raw[end:], how


def _of_torch(files: dict[str, bytes], rng: Rng) -> str:
    """scvi-tools' format: values in it, its pickle, or its bytes."""
    way = rng.integers(6)
    if way == 0:
        return _bytes(files, rng)
    if way == 1:
        return _inside_zip(files, "model.pt", rng)
    content = torch.load(io.BytesIO(files["model.pt"]), weights_only=False)
    how = damage_value(content, rng, ODD_OBJECTS)
    files["model.pt"] = _saved(content)
    return how


def _inside_zip(files: dict[str, bytes], name: str, rng: Rng) -> str:
    """A member of a zip, which gets a right checksum."""
    new = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(files[name])) as old, zipfile.ZipFile(new, "w") as archive:
        members = {info.filename: old.read(info) for info in old.infolist()}
        member = next(key for key in members if key.endswith("data.pkl"))
        if rng.integers(4) == 0:
            member = sorted(members)[rng.integers(len(members))]
        members[member], how = damage_bytes(members[member], rng)
        for key, raw in members.items():
            archive.writestr(key, raw)
    files[name] = new.getvalue()
    return f"{member}: {how}"


def _of_pickle(files: dict[str, bytes], rng: Rng) -> str:
    """A plain pickle: values in it, or its bytes."""
    if rng.integers(2):
        files["attr.pkl"], how = damage_bytes(files["attr.pkl"], rng)
        return how
    content = pickle.loads(files["attr.pkl"])
    how = damage_value(content, rng, ODD_OBJECTS)
    files["attr.pkl"] = pickle.dumps(content, [2, 4, 5][rng.integers(3)])
    return how


def _of_old(files: dict[str, bytes], rng: Rng) -> str:
    """The three files of old: mostly the pickle of attributes."""
    return _bytes(files, rng) if rng.integers(4) == 0 else _of_pickle(files, rng)


# -- sound files
# ------------------------------------------------------------------------------------------------------------------


def cells() -> Any:
    """A few cells, set up."""
    adata = synthetic_iid(batch_size=8, n_genes=6, seed=0)
    adata.X += 1
    SCVI.setup_anndata(adata, batch_key="batch")
    return adata


def _model(adata: Any) -> SCVI:
    return SCVI(adata, n_hidden=4, n_latent=2)


TRAINING: dict[str, Any] = {"max_epochs": 2, "batch_size": 8, "seed": 0, "verbose": 0, "accelerator": "cpu"}


def _trained() -> SCVI:
    model = _model(cells())
    model.train(**TRAINING)
    return model


def _saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _attributes(model: SCVI) -> dict[str, Any]:
    return {name: value for name, value in vars(model).items() if name.endswith("_")}


def _make_own(folder: Path) -> None:
    _trained().save(folder)


def _make_of_torch(folder: Path) -> None:
    model = _trained()
    write_scvi_archive(folder, model.module.state_dict(), model.get_var_names(), _attributes(model))


def _make_old(folder: Path) -> None:
    model = _trained()
    (folder / "model_params.pt").write_bytes(_saved(model.module.state_dict()))
    (folder / "var_names.csv").write_text("\n".join(model.get_var_names()) + "\n")
    mapping = np.array(["batch_0", "batch_1"], dtype=object)
    setup = {
        "scvi_version": "0.12.2",
        "data_registry": {
            "X": {"attr_name": "X", "attr_key": None},
            "batch_indices": {"attr_name": "obs", "attr_key": "_scvi_batch"},
            "labels": {"attr_name": "obs", "attr_key": "_scvi_labels"},
        },
        "categorical_mappings": {
            "_scvi_batch": {"original_key": "batch", "mapping": mapping},
            "_scvi_labels": {"original_key": "_scvi_labels", "mapping": np.array([0])},
        },
        "summary_stats": {"n_batch": 2, "n_labels": 1, "n_cells": 16, "n_vars": 6},
    }
    attributes = {
        "is_trained_": True,
        "history_": model.history_,
        "train_indices_": np.arange(3),
        "init_params_": {"kwargs": {"model_kwargs": {}}, "non_kwargs": {"n_hidden": 4, "n_latent": 2}},
        "scvi_setup_dict_": setup,
    }
    (folder / "attr.pkl").write_bytes(pickle.dumps(attributes))


def _make_pickle(folder: Path) -> None:
    frame = pd.DataFrame(
        {"a": [1, 2], "b": pd.Categorical(["p", "q"]), "c": pd.array(["x", None], dtype="string")}, index=["r", "s"]
    )
    values = {"frame": frame, "arrays": [np.arange(5), np.float32(2)], "tensor": torch.ones(3), "a": {"b": ["c", 1.5]}}
    (folder / "attr.pkl").write_bytes(pickle.dumps(_attributes(_trained()) | values))


def _make_checkpoint(folder: Path) -> None:
    _model(cells()).train(**TRAINING, checkpoint_every="3 steps", checkpoint_dir=str(folder))
    for later in find_checkpoints(folder)[1:]:
        shutil.rmtree(later)


# -- use
# ------------------------------------------------------------------------------------------------------------------


@cache
def _shared_cells() -> Any:
    return cells()


def _use_model(folder: Path, case: int) -> None:
    adata = _shared_cells()
    model = SCVI.load(folder, adata=adata if case % 2 else False, accelerator="cpu")
    with _saying_what_data_lack():
        if model.is_trained:
            assert np.isfinite(model.get_latent_representation(adata)).all()
            model.get_normalized_expression(adata, gene_list=list(adata.var_names[:1]))
    assert repr(model)
    assert repr(model.history)


_LACKING = ("No column of adata.obs is called", "No layer of adata.layers is called", "genes cannot be matched by name")


@contextlib.contextmanager
def _saying_what_data_lack() -> Iterator[None]:
    """A model of other genes, categories, columns or layers is a sound one, and says so to these data."""
    try:
        yield
    except DataMismatchError:
        pass
    except (KeyError, ValueError) as error:
        if not any(words in str(error) for words in _LACKING):
            raise


def _use_pickle(folder: Path, case: int) -> None:
    read_pickle_file(folder / "attr.pkl")


def _use_checkpoint(folder: Path, case: int) -> None:
    model = _model(_shared_cells())
    model.train(**TRAINING, resume=folder)
    model.get_latent_representation()


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes
    ----------
    make
        Writes a sound one into a folder.
    damage
        Changes the bytes of its files, by name, and says how.
    use
        Reads what lies in a folder and uses it; the number of the case chooses among ways.
    """

    make: Callable[[Path], None]
    damage: Callable[[dict[str, bytes], Rng], str]
    use: Callable[[Path, int], None]


KINDS = {
    "celbo": Kind(_make_own, _own, _use_model),
    "scvi": Kind(_make_of_torch, _of_torch, _use_model),
    "old": Kind(_make_old, _of_old, _use_model),
    "pickle": Kind(_make_pickle, _of_pickle, _use_pickle),
    "checkpoint": Kind(_make_checkpoint, _own, _use_checkpoint),
}
GROUPS = {"archives": ("celbo", "scvi"), "pickles": ("old", "pickle"), "checkpoints": ("checkpoint",)}


@cache
def sound(kind: str) -> dict[str, bytes]:
    """The bytes of a sound one's files, by name."""
    with tempfile.TemporaryDirectory() as folder:
        KINDS[kind].make(Path(folder))
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def fault(kind: str, case: int, seed: int, folder: Path) -> dict[str, Any] | None:
    """What was not clean about one damaged file, and how it was damaged; None for nothing.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    case, seed
        They fix the damage.
    folder
        An empty one.
    """
    files = dict(sound(kind))
    how = KINDS[kind].damage(files, np.random.default_rng([seed, case]))
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    began = time.perf_counter()
    wrong = _wrong(lambda: KINDS[kind].use(folder, case), folder)
    took = time.perf_counter() - began
    shutil.rmtree(folder)
    if wrong is None and took > LIMIT_S:
        wrong = f"took {took:.0f} s"
    return None if wrong is None else {"how": how[:300], "fault": wrong}


def _wrong(use: Callable[[], None], folder: Path) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            use()
        except Exception as error:
            if isinstance(error, ArchiveError | DifferentRunError) and f"{folder}/" in str(error):
                return None
            last = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {str(error)[:300]} ({Path(last.filename).name}:{last.lineno})"
    return None


def _work(kind: str, first: int, last: int, seed: int) -> None:
    logging.disable()
    with tempfile.TemporaryDirectory() as parent:

        def run(case: int) -> Iterator[dict[str, Any]]:
            found = fault(kind, case, seed, Path(parent) / str(case))
            if found is not None:
                yield found

        report(first, last, run)


def main(arguments: list[str] | None = None) -> int:
    """Print the faults, and a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="archives|pickles|checkpoints", default=tuple(GROUPS))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", nargs=4, metavar=("KIND", "FIRST", "LAST", "SEED"), help="one worker's cases")
    given = parser.parse_args(arguments)
    if given.work:
        kind, *numbers = given.work
        _work(kind, *map(int, numbers))
        return 0
    bad = 0
    for kind in (kind for group in given.groups for kind in GROUPS[group]):
        began, found = time.perf_counter(), list(watched("benchmarks.fuzz", kind, given.count, given.seed))
        for one in found:
            print(json.dumps(one))
        bad += len(found)
        took = time.perf_counter() - began
        print(f"{kind}: {given.count} damaged, {len(found)} did not end clean, {took:.0f} s", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
