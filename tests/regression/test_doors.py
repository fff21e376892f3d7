"""Every door of celbo, found by looking: each public argument that says what it is refuses another thing at once.

Every function and constructor is called with one bad argument and nothing else: what is looked at on entry is refused
before anything is missed, read or computed.
"""

import importlib
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import anndata
import numpy as np
import pytest

import celbo
from celbo.core import ArgumentError, UnknownArgumentError
from celbo.core.arguments import door_of, parameters_of
from celbo.data import AnnDataManager

ROOMS = [
    "choosing",
    "criticism",
    "data",
    "dataloaders",
    "external",
    "io",
    "model",
    "model.base",
    "pl",
    "report",
    "testing",
    "tl",
    "train",
]

RECORDS = {
    "choosing": "Advice Fit",
    "data": "CountReport Finding GeneMatch StoredMatrix TotalsSummary attrdict",
    "dataloaders": "CSRRows RowSource Split",
    "io": "ScviArchive Constraint",
    "model.base": "library_arguments setup_method",
    "report": "BatchMixing Judgement ModelSummary",
    "train": "DifferentRunError History NonFiniteLossError Plan Recipe TerminatedError merge_kwargs",
}
"""What celbo makes and users only read; classes to derive from; wrappers that look by themselves."""

CATEGORIES = {"label", "restrict_to_batch", "unlabeled_category"}
"""Annotated as text, for compatibility with scvi-tools, but a category may be of any type."""

UNBOUNDED = {"admissibility_threshold", "scale_adversarial_loss"}
"""Numbers of any size."""

ALSO_A_FLAG = {"verbose"}
"""A number of how much is said, or True and False."""

OF_METHODS = (AnnDataManager, celbo.criticism.PosteriorPredictiveCheck)

PLAIN = {int, float, bool, str, Path, os.PathLike, Mapping, dict, Callable, Literal, anndata.AnnData, AnnDataManager}


class Asked(typing.NamedTuple):
    """An argument of something public."""

    call: Callable[..., Any]
    name: str
    annotation: Any

    def __str__(self) -> str:
        return f"{self.call.__qualname__}-{self.name}"

    def refuses(self, value: Any, said: str = "") -> None:
        """The call with this argument alone is refused by its name."""
        with pytest.raises(ArgumentError, match=rf"^{self.name} must be .*, got .*{said}") as caught:
            self.call(*[None] * needs_self(self.call), **{self.name: value})
        assert caught.value.argument == self.name


def needs_self(call: Callable[..., Any]) -> bool:
    return inspect.isfunction(call) and next(iter(inspect.signature(call).parameters), "") == "self"


def methods_of(cls: type) -> Iterator[Callable[..., Any]]:
    """Methods of a class and of celbo's classes that it derives from; ``setup_anndata`` has a door of its own."""
    for name in dir(cls):
        method = getattr(cls, name)
        if not name.startswith("_") and name != "setup_anndata" and (inspect.isroutine(method)):
            yield method


def calls() -> Iterator[Callable[..., Any]]:
    """Functions, constructors, and methods of classes whose methods users call."""
    for room in ROOMS:
        package = importlib.import_module(f"celbo.{room}")
        for name in package.__all__:
            thing = getattr(package, name)
            ours = callable(thing) and thing.__module__.startswith("celbo.")
            if ours and name not in RECORDS.get(room, "").split():
                yield thing
                if inspect.isclass(thing) and (room in ("model", "external") or thing in OF_METHODS):
                    yield from methods_of(thing)


def arguments_of(call: Callable[..., Any]) -> list[inspect.Parameter]:
    function = call.__init__ if inspect.isclass(call) else call
    return [
        one
        for one in parameters_of(inspect.unwrap(function))
        if one.name not in ("self", "cls") and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]


def parts_of(annotation: Any) -> set[Any]:
    """The types of a union, None aside, each without what is in its brackets."""
    if typing.get_origin(annotation) is Annotated:
        return parts_of(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return set().union(*map(parts_of, typing.get_args(annotation)))
    return set() if annotation is type(None) else {typing.get_origin(annotation) or annotation}


def is_annotated(annotation: Any) -> bool:
    return any(typing.get_origin(part) is Annotated for part in (annotation, *typing.get_args(annotation)))


CALLS = list(dict.fromkeys(calls()))
ARGUMENTS = [Asked(call, one.name, one.annotation) for call in CALLS for one in arguments_of(call)]
SAID = [one for one in ARGUMENTS if parts_of(one.annotation) <= PLAIN or is_annotated(one.annotation)]


def of_types(*wanted: type) -> list[Asked]:
    return [one for one in SAID if parts_of(one.annotation) and parts_of(one.annotation) <= set(wanted)]


def test_there_are_many():
    assert len(CALLS) > 60
    assert len(SAID) > 400


def passes_on(call: Callable[..., Any]) -> bool:
    return door_of(call.__init__ if inspect.isclass(call) else call).takes_more


def name_of(call: Callable[..., Any]) -> str:
    """Its place, the same in every process."""
    return f"{call.__module__}.{call.__qualname__}"


@pytest.mark.parametrize("call", [one for one in CALLS if arguments_of(one) and not passes_on(one)], ids=name_of)
def test_a_misspelt_argument_is_refused_with_the_nearest(call):
    known = [one.name for one in arguments_of(call)]
    with pytest.raises(UnknownArgumentError, match=f"Did you mean '{known[-1]}'"):
        call(*[None] * needs_self(call), **{known[-1] + "x": 1})


@pytest.mark.parametrize("asked", [one for one in SAID if one.name not in CATEGORIES], ids=str)
def test_another_kind_of_thing_is_refused(asked):
    asked.refuses(object())


@pytest.mark.parametrize("asked", of_types(int), ids=str)
def test_numbers_below_all_sense_are_refused(asked):
    asked.refuses(-(10**9))
    asked.refuses(1.5)
    if asked.name not in ALSO_A_FLAG:
        asked.refuses(True)


@pytest.mark.parametrize("asked", of_types(float, int), ids=str)
def test_what_is_no_number_is_refused(asked):
    for value in (math.nan, math.inf, "3", np.ones(2)):
        asked.refuses(value)
    if asked.name not in UNBOUNDED:
        asked.refuses(-1e9)


@pytest.mark.parametrize("asked", of_types(bool), ids=str)
def test_words_are_no_flags(asked):
    for value in ("yes", "False", [], *([] if asked.name in ALSO_A_FLAG else [2])):
        asked.refuses(value)


@pytest.mark.parametrize("asked", of_types(Literal), ids=str)
def test_a_misspelt_word_is_refused_with_the_nearest(asked):
    words = [word for part in (asked.annotation, *typing.get_args(asked.annotation)) for word in typing.get_args(part)]
    word = max((one for one in words if isinstance(one, str)), key=len)
    asked.refuses(word + "x", said=f"Did you mean '{word}'")


@pytest.fixture(scope="module")
def model() -> celbo.model.SCVI:
    adata = celbo.data.synthetic_iid(batch_size=30, n_genes=20, n_proteins=0, n_regions=0, seed=0)
    celbo.model.SCVI.setup_anndata(adata, batch_key="batch")
    made = celbo.model.SCVI(adata, n_hidden=8, n_latent=2)
    made.train(max_epochs=1, verbose=0, accelerator="cpu", seed=0)
    return made


COUNTS = np.ones((3, 2), np.float32)
LATENT = np.eye(4)

ALONE: dict[str, tuple[Callable[[], Any], str]] = {
    "inputs": (lambda: celbo.data.open(3), "inputs must be a path, or a list of such, got 3"),
    "orientation": (lambda: celbo.data.open("x.csv", orientation="genes_by_cells"), "Did you mean 'genes-by-cells'"),
    "text as a matrix": (lambda: celbo.data.check_counts("counts"), "x must be a matrix of cells by genes"),
    "AnnData as a matrix": (lambda: celbo.data.top_variable_genes(anndata.AnnData(COUNTS), 1), "Of an AnnData it is X"),
    "names of other cells": (lambda: celbo.data.check_counts(COUNTS, obs_names=["c"]), "obs_names has 1 names for 3"),
    "one name of many": (lambda: celbo.data.align_genes("g1", ["g1"]), "var_names must be names of genes"),
    "likelihood": (lambda: celbo.data.simulate_counts(likelihood="zimb"), "Did you mean 'zinb'"),
    "text as latents": (lambda: celbo.report.batch_mixing("z", "batch"), "latent must be an array"),
    "labels": (lambda: celbo.report.batch_mixing(LATENT, "batch"), r"\(batches\)"),
    "cells to name": (lambda: celbo.report.knn_label_accuracy(LATENT, list("aabb"), [0, 1], [9]), r"9 \(test_idx\)"),
    "settings": (lambda: celbo.core.Settings(sead=1), "Did you mean 'seed'"),
    "a folder": (lambda: celbo.core.Settings(logging_dir=3), "logging_dir must be a path"),
    "a plan's settings": (lambda: celbo.train.TrainingPlanConfig(lr=-1), "lr must be a number of at least 0, got -1"),
    "a trainer's settings": (lambda: celbo.train.TrainerConfig(max_epoch=1), "Did you mean 'max_epochs'"),
    "mode": (
        lambda: celbo.train.SaveCheckpoint(mode="mn"),
        "mode must be 'min' or 'max', got 'mn'. Did you mean 'min'",
    ),
    "callbacks": (lambda: celbo.train.Trainer(callbacks=[3]), r"callbacks must be .*, or None, got \[3\]"),
    "a class of callback": (lambda: celbo.train.Trainer(callbacks=[celbo.train.Callback]), "callbacks must be"),
    "loggers": (lambda: celbo.train.Trainer(logger=3), "logger must be None, True, 'csv'"),
}
"""What is wrong -> a call, and what it says."""

WITH_MODEL: dict[str, tuple[Callable[[Any], Any], str]] = {
    "report": (
        lambda m: celbo.report.model_report(m.adata, "r.html"),
        "model must be a trained model, or None, got",
    ),
    "findings": (lambda m: celbo.report.model_report(m, "r.html", findings="none"), "findings must be"),
    "before": (lambda m: celbo.report.model_report(m, "r.html", before={"nmi": "x"}), "before must be"),
    "one model": (lambda m: celbo.criticism.PosteriorPredictiveCheck(m.adata, m), "models_dict must be .*, got a SCVI"),
    "no model": (lambda m: celbo.criticism.PosteriorPredictiveCheck(m.adata, {}), "models_dict must be .*, got {}"),
    "manager": (lambda m: celbo.dataloaders.AnnDataLoader(m.adata), "adata_manager must be an AnnDataManager"),
    "query": (lambda m: celbo.model.SCVI.load_query_data(m.adata, 3), "reference_model must be a model, or the folder"),
    "its model": (lambda m: celbo.model.SCANVI.from_scvi_model(m.adata, "x"), "scvi_model must be a model"),
    "its cells": (lambda m: celbo.model.DestVI.from_rna_model(m.adata, m), "sc_model must be a CondSCVI, got a SCVI"),
    "device": (lambda m: m.to_device("cdua"), "device must be a device of torch"),
}
"""The same, of calls that take a model."""


@pytest.mark.parametrize("case", ALONE)
def test_what_no_annotation_says(case):
    call, said = ALONE[case]
    with pytest.raises((ValueError, TypeError, IndexError), match=said):
        call()


@pytest.mark.parametrize("case", WITH_MODEL)
def test_what_no_annotation_says_of_models(case, model):
    call, said = WITH_MODEL[case]
    with pytest.raises(ArgumentError, match=said):
        call(model)


class TestWhatIsTaken:
    def test_one_layer(self, tmp_path):
        adata = anndata.AnnData(COUNTS, layers={"counts": COUNTS, "other": COUNTS})
        adata.write_h5ad(tmp_path / "a.h5ad")
        assert list(celbo.data.open(tmp_path / "a.h5ad", layers="counts", stream=True).layers) == ["counts"]

    def test_no_callback_and_one(self):
        assert celbo.train.Trainer(callbacks=[]).callbacks == []
        one = celbo.train.Callback()
        assert celbo.train.Trainer(callbacks=one).callbacks == celbo.train.Trainer(callbacks=(one,)).callbacks == [one]

    def test_metrics_of_a_users_own(self):
        assert celbo.train.TrainerConfig(early_stopping_monitor="my_metric").to_kwargs()["early_stopping"] is False

    def test_cells_from_the_end(self, model):
        pytest.importorskip("sparse")
        check = celbo.criticism.PosteriorPredictiveCheck(model.adata, {"scvi": model}, n_samples=1, indices=[-1])
        assert check.indices.tolist() == [59]
        check.calibration_error(np.array([0.1, 0.9]))
        assert list(check.metrics["calibration"].columns) == ["scvi"]
