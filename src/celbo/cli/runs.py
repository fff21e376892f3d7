"""What the commands do.

Dims: n cells, g genes, k latents.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import pandas as pd
import torch
import typer

from ..core import unknown_name
from ..data import Finding, check_counts, simulate_counts, top_variable_genes
from ..data.opening import is_streamed, with_genes
from ..data.progress import counting
from ..model import SCVI, LinearSCVI
from ..model.base.archive import versions
from ..model.base.convert import convert_archive, export_archive
from ..report import ModelSummary, model_report
from ..report.projection import log_normalised, principal_components
from ..report.summary import latent_metrics
from ..train import RECIPES
from ..train.checkpoint_folder import SUBFOLDER
from ..train.checkpointing import Interval
from ..train.history import epoch_table
from .errors import INTERRUPTED, UserError
from .output import new_file, new_folder
from .resuming import FinishedError, checkpoints_of, keeping_checkpoints, writes_and_speaks
from .saved import describe, find_archive, load_from
from .streams import denoise as write_denoised
from .streams import named, opened, shard
from .voice import speaking

__all__ = ["MODELS", "TrainOptions", "convert", "demo", "denoise", "embed", "export", "info", "shard", "train"]

MODELS = {"scvi": SCVI, "linear_scvi": LinearSCVI}
"""What ``--model`` may be."""

EMBEDDING_KEY = "X_celbo"
"""Where the latent representation lies in ``obsm``."""

_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
_DEMO_CELLS, _DEMO_GENES = 3000, 1000


@dataclass(frozen=True)
class TrainOptions:
    """Settings of a training run, as on the command line."""

    model: str = "scvi"
    layer: str | None = None
    batch_key: str | None = None
    labels_key: str | None = None
    categorical_covariates: tuple[str, ...] = ()
    continuous_covariates: tuple[str, ...] = ()
    n_top_genes: int | None = None
    n_latent: int = 10
    max_epochs: int | None = None
    recipe: str = "one_cycle"
    seed: int | None = None
    accelerator: str = "auto"
    data: str = "auto"
    devices: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"
    checkpoint_every: str = "never"


class _Clock:
    """Callback that measures training."""

    started = ended = 0.0

    def on_train_start(self, trainer: Any, plan: Any) -> None:
        self.started = self.ended = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, plan: Any) -> None:
        self.ended = time.perf_counter()


def train(
    inputs: Sequence[Path], options: TrainOptions, output: Path, overwrite: bool, quiet: bool, resume: bool = False
) -> int:
    """Train on a file and write a run's folder.

    Parameters
    ----------
    inputs
        AnnData on disk, one file or several, or folders of them.
    options
        What to do.
    output, overwrite
        The folder; see :func:`celbo.cli.output.new_folder`.
    quiet
        Say nothing.
    resume
        Go on with the checkpoints in the folder, where there are any.

    Returns
    -------
    Exit code: 0, or 130 when training was interrupted (what there is has been written).

    Notes
    -----
    Of several processes the first one writes and speaks, the others only train.
    """
    is_first = writes_and_speaks(options.devices, options.num_nodes)
    with speaking(quiet or not is_first):
        _check_options(options)
        try:
            resumed = checkpoints_of(output, resume, overwrite)
        except FinishedError:
            typer.echo(f"{output} holds a run that is complete: there is nothing to resume.")
            return 0
        if not is_first:
            adata = _with_top_genes(opened(inputs, options.data, options.layer), options)
            _fit(adata, options, True, resumed, output.absolute() / SUBFOLDER)
            return 0
        replace = overwrite or (resume and not (output / "run.json").exists()) or resumed is not None
        with new_folder(output, replace, inputs) as folder, keeping_checkpoints(output, resumed) as checkpoints:
            if resume and resumed is None and not quiet:
                typer.echo(f"There are no checkpoints in {output}: training begins.", err=True)
            adata = opened(inputs, options.data, options.layer)
            source = {"input": ", ".join(map(str, inputs)), "streamed": is_streamed(adata)}
            figures = _run(adata, options, folder, named(inputs), quiet, source, None, resumed, checkpoints)
        return _farewell(figures, output, quiet)


def demo(output: Path, overwrite: bool, quiet: bool) -> int:
    """Simulate, train, compare with principal components; arguments and return value as of :func:`train`."""
    with speaking(quiet), new_folder(output, overwrite) as folder:
        options = TrainOptions(batch_key="batch", labels_key="cell_type", seed=0)
        adata = simulate_counts(_DEMO_CELLS, _DEMO_GENES, n_cell_types=8, batch_strength=0.8, seed=0)
        if not quiet:
            typer.echo(f"Simulated {adata.n_obs:,} cells of 8 types in 2 batches, {adata.n_vars:,} genes.")
        before_nk = principal_components(log_normalised(adata.X), options.n_latent)
        before = latent_metrics(before_nk, adata.obs["cell_type"].to_numpy(str), adata.obs["batch"].to_numpy(str))
        figures = _run(adata, options, folder, "celbo demo: simulated cells", quiet, {}, before)
    code = _farewell(figures, output, quiet)
    if not quiet:
        typer.echo(f"\n{'':34}{'before (PCA)':>14}{'after':>10}")
        for name, value in figures["metrics"].items():
            typer.echo(f"{name:34}{before[name]:14.3f}{value:10.3f}")
    return code


def embed(model_dir: Path, inputs: Sequence[Path], output: Path, overwrite: bool, quiet: bool) -> None:
    """Write the latent representation of the cells of files; the model's genes are found by name."""
    if output.suffix != ".h5ad":
        raise UserError(f"{output} ends in {output.suffix or 'nothing'!r}; the embedding is written as .h5ad.")
    with speaking(quiet), new_file(output, overwrite) as path:
        model = load_from(model_dir, MODELS.values())
        adata = opened(inputs, "auto", model.get_setup_arg("layer"))
        obs = adata.obs.copy()
        _write_embedding(path, obs, model.get_latent_representation(adata))
    if not quiet:
        typer.echo(
            f"{len(obs):,} cells, {model.module.n_latent} latent dimensions: obsm[{EMBEDDING_KEY!r}] in {output}"
        )


def denoise(
    model_dir: Path, inputs: Sequence[Path], output: Path, options: dict[str, Any], overwrite: bool, quiet: bool
) -> None:
    """Write the denoised expression of the cells of files; see :func:`celbo.cli.streams.denoise`."""
    write_denoised(model_dir, inputs, output, options, overwrite, quiet, MODELS.values())


def info(model_dir: Path) -> None:
    """Print what a saved model is."""
    with speaking(quiet=True):
        lines = describe(model_dir)
    for name, value in lines.items():
        typer.echo(f"{name:18}{value}")


def convert(old: Path, new: Path, overwrite: bool) -> None:
    """Write a model of scvi-tools as an archive of celbo's."""
    with speaking(quiet=False):
        typer.echo(f"Written: {convert_archive(find_archive(old), new, overwrite=overwrite)}")


def export(new: Path, old: Path, overwrite: bool) -> None:
    """Write a model of celbo's as an archive of scvi-tools'."""
    with speaking(quiet=False):
        typer.echo(f"Written: {export_archive(find_archive(new), old, overwrite=overwrite)}")


def _check_options(options: TrainOptions) -> None:
    """Refuse what is wrong whatever the data."""
    for option, given, known in (
        ("--model", options.model, MODELS),
        ("--recipe", options.recipe, RECIPES),
        ("--accelerator", options.accelerator, _ACCELERATORS),
    ):
        if given not in known:
            raise UserError(unknown_name(f"value of {option}", given, known))
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    found["gpu"] = any(found.values())
    if not found.get(options.accelerator, True):
        raise UserError(f"--accelerator {options.accelerator}: torch finds none here; take --accelerator cpu or auto.")
    if options.checkpoint_every != "never":
        Interval.parse(options.checkpoint_every)
    if options.model == "linear_scvi" and (options.categorical_covariates or options.continuous_covariates):
        raise UserError("linear_scvi takes no covariates but the batch: leave them out, or use --model scvi.")


def _run(
    adata: anndata.AnnData,
    options: TrainOptions,
    folder: Path,
    title: str,
    quiet: bool,
    source: dict[str, Any],
    before: dict[str, float] | None = None,
    resumed: Path | None = None,
    checkpoints: Path | None = None,
) -> dict[str, Any]:
    """Train and fill a folder; returns the figures of the run."""
    obs = adata.obs.copy()
    _check_columns(adata, options)
    findings = _findings(adata, options.layer)
    adata = _with_top_genes(adata, options)
    model, clock = _fit(adata, options, quiet, resumed, checkpoints)
    settings = {**source, **dataclasses.asdict(options), "seed": model.seed_}
    shown = {name: _in_words(value) for name, value in settings.items()}
    summary = model_report(
        model,
        folder / "report.html",
        title=title,
        findings=findings,
        settings=shown,
        versions=versions(),
        before=before,
    )
    figures = _figures(model, summary, clock)
    model.save(str(folder / "model"))
    _write_embedding(folder / "embedding.h5ad", obs, model.get_latent_representation())
    epoch_table(model.history_ or {}).to_csv(folder / "history.csv")
    record = {"settings": settings, "seed": model.seed_, "versions": versions(), "figures": figures}
    (folder / "run.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return figures


def _check_columns(adata: anndata.AnnData, options: TrainOptions) -> None:
    given = [options.batch_key, options.labels_key, *options.categorical_covariates, *options.continuous_covariates]
    for key in given:
        if key is not None and key not in adata.obs:
            raise UserError(unknown_name("column of obs", key, adata.obs.columns))
    if options.layer is not None and options.layer not in adata.layers:
        raise UserError(unknown_name("layer", options.layer, adata.layers))


def _findings(adata: anndata.AnnData, layer: str | None) -> list[Finding]:
    """What the counts are like; an error where no model can be trained on them."""
    x = adata.X if layer is None else adata.layers[layer]
    where = "X" if layer is None else f"layer {layer!r}"
    if x is None:
        raise UserError("The input has no X: name the layer that holds the counts with --layer.")
    with counting(x, where) as progress:
        report = check_counts(x, obs_names=adata.obs_names, var_names=adata.var_names, progress=progress)
    report.raise_if_bad(where)
    return report.findings(where)


def _with_top_genes(adata: anndata.AnnData, options: TrainOptions) -> anndata.AnnData:
    n_top = options.n_top_genes
    if n_top is None:
        return adata
    if n_top > adata.n_vars:
        raise UserError(f"--n-top-genes {n_top}: the input has {adata.n_vars} genes; ask for that many or fewer.")
    x = adata.X if options.layer is None else adata.layers[options.layer]
    wanted_g = top_variable_genes(x, n_top)
    return with_genes(adata, wanted_g) if is_streamed(adata) else adata[:, wanted_g].copy()


def _fit(
    adata: anndata.AnnData, options: TrainOptions, quiet: bool, resumed: Path | None, checkpoints: Path | None
) -> tuple[Any, _Clock]:
    cls: Any = MODELS[options.model]
    keys: dict[str, Any] = {"layer": options.layer, "batch_key": options.batch_key, "labels_key": options.labels_key}
    if options.categorical_covariates:
        keys["categorical_covariate_keys"] = list(options.categorical_covariates)
    if options.continuous_covariates:
        keys["continuous_covariate_keys"] = list(options.continuous_covariates)
    cls.setup_anndata(adata, **keys)
    model, clock = cls(adata, n_latent=options.n_latent), _Clock()
    model.train(
        max_epochs=options.max_epochs,
        recipe=options.recipe,
        seed=options.seed,
        accelerator=options.accelerator,
        devices=int(options.devices) if options.devices.isdecimal() else options.devices,
        num_nodes=options.num_nodes,
        precision=options.precision,
        resume=resumed,
        checkpoint_every=None if options.checkpoint_every == "never" else options.checkpoint_every,
        checkpoint_dir=None if options.checkpoint_every == "never" else checkpoints,
        verbose=0 if quiet else 1,
        callbacks=[clock],
    )
    return model, clock


def _figures(model: Any, summary: ModelSummary, clock: _Clock) -> dict[str, Any]:
    history, seconds = summary.history, clock.ended - clock.started
    n_cells = len(model.train_indices) * len(history)
    elbo = history["elbo_validation"].dropna() if "elbo_validation" in history else pd.Series(dtype=float)
    return {
        "epochs": len(history),
        "seconds": round(seconds, 6),
        "cells_per_second": round(n_cells / seconds, 1) if seconds else None,
        "elbo_validation": float(elbo.min()) if len(elbo) else None,
        "n_active": int(summary.is_active_k.sum()),
        "interrupted": bool(model.trainer.interrupted),
        "metrics": dict(summary.metrics),
    }


def _farewell(figures: dict[str, Any], output: Path, quiet: bool) -> int:
    """Say how it went; returns the exit code."""
    if not quiet:
        parts = [f"{figures['epochs']} epochs in {figures['seconds']:.1f} s"]
        parts += [f"{figures['cells_per_second']:,.0f} cells/s"] if figures["cells_per_second"] else []
        parts += [f"validation ELBO {figures['elbo_validation']:.2f}"] if figures["elbo_validation"] is not None else []
        typer.echo(f"{', '.join(parts)}\nReport: {output / 'report.html'}")
    if figures["interrupted"]:
        typer.echo(f"celbo: interrupted after {figures['epochs']} epochs; what there is has been written.", err=True)
        return INTERRUPTED
    return 0


def _write_embedding(path: Path, obs: pd.DataFrame, latent_nk: Any) -> None:
    anndata.AnnData(obs=obs, obsm={EMBEDDING_KEY: latent_nk}).write_h5ad(path)


def _in_words(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return "not given" if value is None else str(value)
