"""Every model trained on a device, and each of its verbs asked there and on the CPU (for :mod:`benchmarks.gpu`)."""

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch

from celbo.data import simulate_counts, simulate_spots
from celbo.external import (
    CYTOVI,
    MRVI,
    POISSONVI,
    SCAR,
    SOLO,
    TOTALANVI,
    CellAssign,
    ContrastiveTOTALVI,
    ContrastiveVI,
    RNAStereoscope,
    SpatialStereoscope,
    SysVI,
)
from celbo.model import (
    AUTOZI,
    MULTIVI,
    PEAKVI,
    SCANVI,
    SCVI,
    TOTALVI,
    AmortizedLDA,
    CondSCVI,
    DestVI,
    LinearSCVI,
)

__all__ = ["ask_everything"]

Train = Callable[..., Any]

GENERAL: dict[str, Mapping[str, Any]] = {
    "get_latent_representation": {},
    "get_normalized_expression": {"return_numpy": True},
    "get_normalized_accessibility": {},
    "get_elbo": {},
    "get_reconstruction_error": {},
    "get_marginal_ll": {"n_mc_samples": 4},
    "get_latent_library_size": {},
    "get_library_size_factors": {},
    "get_region_factors": {},
    "get_likelihood_parameters": {},
    "get_loadings": {},
    "get_alphas_betas": {},
    "get_feature_by_topic": {"n_samples": 10},
    "get_perplexity": {},
    "get_vamp_prior": {},
    "get_batch_representation": {},
    "predict": {},
    "get_proportions": {},
    "get_gamma": {},
    "get_denoised_counts": {},
    "posterior_predictive_sample": {},
    "get_feature_correlation_matrix": {"n_samples": 2},
    "get_aggregated_posterior": {},
    "differential_expression": {"groupby": "cell_type", "silent": True},
    "differential_accessibility": {"groupby": "cell_type", "silent": True},
    "differential_abundance": {"sample_key": "batch"},
    "get_salient_normalized_expression": {},
    "get_specific_normalized_expression": {"expression_type": "salient"},
    "get_protein_foreground_probability": {},
    "get_local_sample_representation": {},
    "get_local_sample_distances": {},
}
"""Verb -> arguments. Each model is asked those that it has."""

DRAWN = {
    "posterior_predictive_sample",
    "get_feature_correlation_matrix",
    "differential_expression",
    "differential_accessibility",
    "get_denoised_counts",
    "get_feature_by_topic",
    "get_perplexity",
    "differential_abundance",
}
"""Verbs whose draws are not normal, or whose order they decide: asked, and not compared."""

DRAWN_OF_AUTOZI = {"get_elbo", "get_reconstruction_error", "get_marginal_ll", "get_likelihood_parameters"}


def ask_everything(train: Train, means: Callable[[], Any], add: Callable[..., None], report: list[str]) -> None:
    """Train each model, ask its verbs there and on the CPU, and write what went wrong to ``report``.

    Parameters
    ----------
    train
        ``(model, **options)``: trains on the device.
    means
        A block in which normal draws are their means.
    add
        Adds a row to the benchmark.
    report
        One line a failure.
    """
    unanswered = set(GENERAL)
    for name, make in _models(train):
        start = time.perf_counter()
        try:
            model = make()
        except Exception as error:
            report.append(f"{name}: {type(error).__name__}: {error}")
            traceback.print_exc(limit=-8, file=sys.stdout)
            continue
        seconds = time.perf_counter() - start
        worst = _ask(name, model, means, report, unanswered)
        print(f"    {name:24s} trained in {seconds:4.1f} s, verbs in {time.perf_counter() - start - seconds:4.1f} s")
        add(name, "verbs on both devices, largest relative difference", "", worst)
    report += [f"{verb}: no model answers, so nothing is compared" for verb in sorted(unanswered)]


def _ask(name: str, model: Any, means: Callable[[], Any], report: list[str], unanswered: set[str]) -> float:
    """The largest relative difference; what the model answers is taken off ``unanswered``."""
    device, worst = model.device, 0.0
    asked = {verb: kwargs for verb, kwargs in GENERAL.items() if hasattr(model, verb)}
    there = {verb: _answer(model, verb, kwargs, means) for verb, kwargs in asked.items()}
    model.to_device("cpu")
    for verb, kwargs in asked.items():
        expected, found = _answer(model, verb, kwargs, means), there[verb]
        if isinstance(expected, Exception):  # asked wrongly: of a model that cannot answer it
            continue
        unanswered.discard(verb)
        if isinstance(found, Exception):
            report.append(f"{name}.{verb}: {type(found).__name__}: {found}")
            traceback.print_exception(found, limit=-8, file=sys.stdout)
            continue
        difference = max(map(_difference, _arrays(found), _arrays(expected)), default=0.0)
        if verb not in (DRAWN | DRAWN_OF_AUTOZI if name == "AUTOZI" else DRAWN):
            worst = max(worst, difference)
            if not difference < 1e-4:
                report.append(f"{name}.{verb}: differs by {difference:.2g} of its greatest value")
    model.to_device(device)
    return worst


def _answer(model: Any, verb: str, kwargs: Mapping[str, Any], means: Callable[[], Any]) -> Any:
    try:
        with means():
            return getattr(model, verb)(**kwargs)
    except Exception as error:
        return error


def _arrays(answer: Any) -> Iterator[np.ndarray]:
    if isinstance(answer, pd.DataFrame | pd.Series):
        answer = answer.to_frame() if isinstance(answer, pd.Series) else answer
        yield answer.select_dtypes("number").to_numpy(dtype=float)
    elif isinstance(answer, Mapping):
        for part in answer.values():
            yield from _arrays(part)
    elif isinstance(answer, tuple | list):
        for part in answer:
            yield from _arrays(part)
    elif isinstance(answer, torch.distributions.Distribution):
        yield answer.mean.detach().cpu().numpy()
    elif isinstance(answer, torch.Tensor):
        yield answer.detach().cpu().numpy()
    elif isinstance(answer, float | int) or (isinstance(answer, np.ndarray) and answer.dtype.kind in "fiub"):
        yield np.asarray(answer, dtype=float)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    return float(np.nanmax(np.abs(found - expected)) / max(np.nanmax(np.abs(expected)), 1e-30))


def _models(train: Train) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name, and what makes a trained model."""
    counts = simulate_counts(400, 60, n_batches=2, n_cell_types=3, seed=0)
    labels = counts.obs["cell_type"].astype(str).to_numpy(copy=True)
    labels[::3] = "unknown"
    counts.obs["labels"] = labels
    counts.obs["depth"] = np.asarray(counts.X.sum(1)).ravel() / 100 + 0.01
    counts.obs["score"] = np.random.default_rng(0).normal(size=counts.n_obs).astype(np.float32)

    def plain(cls: Any, setup: Mapping[str, Any], options: Mapping[str, Any] | None = None, **more: Any) -> Any:
        def make() -> Any:
            adata = counts.copy()
            cls.setup_anndata(adata, **setup)
            model = cls(adata, **(options or {}))
            train(model, **({"max_epochs": 12} | more))
            return model

        return make

    batch = {"batch_key": "batch"}
    yield "SCVI", plain(SCVI, batch)
    for likelihood in ("nb", "poisson", "normal"):
        yield f"SCVI {likelihood}", plain(SCVI, batch, {"gene_likelihood": likelihood})
    covariates = batch | {"continuous_covariate_keys": ["score"], "categorical_covariate_keys": ["cell_type"]}
    yield "SCVI covariates", plain(SCVI, covariates, {"encode_covariates": True, "dispersion": "gene-batch"})
    yield "SCVI size factor", plain(SCVI, batch | {"size_factor_key": "depth"})
    yield "SCVI latent library", plain(SCVI, batch, {"use_observed_lib_size": False})
    yield "SCVI embedding", plain(SCVI, batch, {"batch_representation": "embedding"})
    yield "SCVI classic", plain(SCVI, batch, recipe="classic", early_stopping=True, enable_checkpointing=False)
    semi = batch | {"labels_key": "labels", "unlabeled_category": "unknown"}
    yield "SCANVI", plain(SCANVI, semi)
    yield "LinearSCVI", plain(LinearSCVI, batch)
    yield "PEAKVI", plain(PEAKVI, batch)
    yield "POISSONVI", plain(POISSONVI, batch)
    yield "AUTOZI", plain(AUTOZI, batch)
    yield "AmortizedLDA", plain(AmortizedLDA, {})
    yield "SysVI", plain(SysVI, batch)
    yield "CYTOVI", plain(CYTOVI, batch | {"labels_key": "labels"})
    yield "SCAR", plain(SCAR, batch, {"ambient_profile": np.ones(counts.n_vars)})

    counts.obsm["protein"] = np.random.default_rng(0).poisson(20.0, (counts.n_obs, 8)).astype(np.float32)
    yield "TOTALVI", plain(TOTALVI, batch | {"protein_expression_obsm_key": "protein"})
    yield "TOTALANVI", plain(TOTALANVI, semi | {"protein_expression_obsm_key": "protein"})
    counts.obs["sample"] = [f"s{i % 4}" for i in range(counts.n_obs)]
    yield "MRVI", plain(MRVI, batch | {"sample_key": "sample"})
    yield "MULTIVI", plain(MULTIVI, batch, {"n_genes": 40, "n_regions": counts.n_vars - 40})

    def query(cls: Any, setup: Mapping[str, Any], **options: Any) -> Callable[[], Any]:
        def make() -> Any:
            rows = counts.obs["batch"] == counts.obs["batch"].iloc[0]
            reference = counts[rows].copy()
            cls.setup_anndata(reference, **setup)
            model = cls(reference, **options)
            train(model, max_epochs=8)
            mapped = cls.load_query_data(counts[~rows].copy(), model)
            train(mapped, max_epochs=8)
            return mapped

        return make

    yield "SCVI query", query(SCVI, batch, use_layer_norm="both", use_batch_norm="none", encode_covariates=True)
    yield "SCANVI query", query(SCANVI, semi)

    def doublets() -> Any:
        adata = counts.copy()
        SCVI.setup_anndata(adata)
        model = SCVI(adata)
        train(model, max_epochs=4)
        solo = SOLO.from_scvi_model(model)
        train(solo, max_epochs=8)
        return solo

    yield "SOLO", doublets

    def contrast(cls: Any, **setup: Any) -> Callable[[], Any]:
        def make() -> Any:
            adata = counts.copy()
            cls.setup_anndata(adata, **batch, **setup)
            model = cls(adata)
            train(model, background_indices=np.arange(200), target_indices=np.arange(200, 400), max_epochs=8)
            return model

        return make

    yield "ContrastiveVI", contrast(ContrastiveVI)
    yield "ContrastiveTOTALVI", contrast(ContrastiveTOTALVI, protein_expression_obsm_key="protein")

    def markers() -> Any:
        adata = counts[:, :12].copy()
        table = pd.DataFrame(0, index=adata.var_names, columns=["a", "b", "c"])
        for i, name in enumerate(table.columns):
            table.loc[adata.var_names[4 * i : 4 * i + 4], name] = 1
        CellAssign.setup_anndata(adata, size_factor_key="depth")
        model = CellAssign(adata, table)
        train(model, max_epochs=20)
        return model

    yield "CellAssign", markers
    spots = simulate_spots(counts, "cell_type", 100, capture_rate=0.5, seed=0)

    def stereoscope() -> Any:
        adata, tissue = counts.copy(), _bare(spots)
        RNAStereoscope.setup_anndata(adata, labels_key="cell_type")
        signatures = RNAStereoscope(adata)
        train(signatures, max_epochs=10)
        SpatialStereoscope.setup_anndata(tissue)
        model = SpatialStereoscope.from_rna_model(tissue, signatures)
        train(model, max_epochs=10)
        return model

    yield "stereoscope", stereoscope

    def conditional() -> Any:
        adata = counts.copy()
        CondSCVI.setup_anndata(adata, labels_key="cell_type")
        model = CondSCVI(adata)
        train(model, max_epochs=10)
        return model

    yield "CondSCVI", conditional

    def destvi() -> Any:
        tissue = _bare(spots)
        DestVI.setup_anndata(tissue)
        model = DestVI.from_rna_model(tissue, conditional())
        train(model, max_epochs=10)
        return model

    yield "DestVI", destvi


def _bare(spots: anndata.AnnData) -> anndata.AnnData:
    spots = spots.copy()
    spots.obsm.clear()
    return spots
