"""What the commands do.

Dims: n cells, g genes, k latents.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from ..core import elbo_of_weights, number_of
from ..core.replacing import printable
from ..data import Finding, simulate_counts
from ..data.modalities import gathered_obs
from ..model.base.archives.archive import versions
from ..model.base.archives.convert import convert_archive, export_archive
from ..report import ModelSummary, model_report
from ..report.projection import log_normalised, principal_components
from ..report.summary import latent_metrics
from ..train.checkpoints.folder import SUBFOLDER
from ..train.history import epoch_table
from .answers.comparing import Groups, compare
from .answers.denoising import denoise, remove_ambient, require_none
from .answers.embedding import embed, embedded, write_embedding
from .answers.judging import report, say_verdict, verdict_of
from .answers.mapping import map_query
from .answers.predictions import predict, write_predictions
from .checking import check_files
from .columns import with_values_of
from .errors import UserError
from .interrupts import INTERRUPTED
from .kind import Fitted
from .messages import speaking
from .models import MODELS, settings_of_others, settled
from .multimodal import findings_of, is_on_disk
from .options import ReadingOptions, TrainOptions
from .output import new_folder, require_name
from .resuming import FinishedError, checkpoints_of, keep_for_resuming, keeping_checkpoints, writes_and_speaks
from .saved import describe, find_archive
from .streams import data_to_train, named, shard
from .training import Clock, as_trained, check_options, fitted_on, with_top_genes

__all__ = [
    "Groups",
    "ReadingOptions",
    "TrainOptions",
    "check_files",
    "compare",
    "convert",
    "demo",
    "denoise",
    "embed",
    "export",
    "info",
    "map_query",
    "predict",
    "remove_ambient",
    "report",
    "require_none",
    "shard",
    "train",
]

_DEMO_CELLS, _DEMO_GENES = 3000, 1000


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
        options = settled(options)
        check_options(options)
        require_name(output)
        try:
            resumed = checkpoints_of(output, resume, overwrite)
        except FinishedError:
            typer.echo(f"{printable(output)} holds a run that is complete: there is nothing to resume.")
            return 0
        if not is_first:
            adata, options = data_to_train(MODELS[options.model], inputs, options)
            options = with_values_of(adata, options)
            fitted_on(with_top_genes(adata, options), options, True, resumed, output.absolute() / SUBFOLDER)
            return 0
        replace = overwrite or (resume and not (output / "run.json").exists()) or resumed is not None
        read = [*inputs, *options.files]
        with new_folder(output, replace, read) as folder, keeping_checkpoints(output, resumed) as checkpoints:
            if resume and resumed is None and not quiet:
                typer.echo(f"There are no checkpoints in {output}: training begins.", err=True)
            adata, options = data_to_train(MODELS[options.model], inputs, options)
            source = {"input": ", ".join(map(printable, inputs)), "streamed": is_on_disk(adata)}
            figures = _run(adata, options, folder, named(inputs), quiet, source, None, resumed, checkpoints, inputs)
            figures["resumable"] = figures["interrupted"] and keep_for_resuming(checkpoints, folder)
        return _farewell(figures, output, quiet)


def demo(output: Path, overwrite: bool, quiet: bool) -> int:
    """Simulate, train, compare with principal components; arguments and return value as of :func:`train`."""
    with speaking(quiet), new_folder(output, overwrite) as folder:
        options = settled(TrainOptions(batch_key="batch", labels_key="cell_type", seed=0))
        adata = simulate_counts(_DEMO_CELLS, _DEMO_GENES, n_cell_types=8, batch_strength=0.8, seed=0)
        if not quiet:
            typer.echo(f"Simulated {adata.n_obs:,} cells of 8 types in 2 batches, {adata.n_vars:,} genes.")
        before_nk = principal_components(log_normalised(adata.X), MODELS["scvi"].settings["n_latent"])
        before = latent_metrics(before_nk, adata.obs["cell_type"].to_numpy(str), adata.obs["batch"].to_numpy(str))
        figures = _run(adata, options, folder, "celbo demo: simulated cells", quiet, {}, before)
    code = _farewell(figures, output, quiet)
    if not quiet:
        typer.echo(f"\n{'':34}{'before (PCA)':>14}{'after':>10}")
        for name, value in figures["metrics"].items():
            typer.echo(f"{name:34}{before[name]:14.3f}{value:10.3f}")
    return code


def info(model_dir: Path) -> None:
    """Print what a saved model is."""
    with speaking(quiet=True):
        lines = describe(model_dir)
    for name, value in lines.items():
        typer.echo(f"{name:18}{value}")


def convert(old: Path, new: Path, overwrite: bool) -> None:
    """Write a model of scvi-tools as an archive of celbo's."""
    with speaking(quiet=False):
        typer.echo(f"Written: {convert_archive(_apart(old, new), new, overwrite=overwrite)}")


def export(saved: Path, target: Path, overwrite: bool, version: str | None = None) -> None:
    """Write a model of celbo's as an archive of scvi-tools'."""
    with speaking(quiet=False):
        typer.echo(f"Written: {export_archive(_apart(saved, target), target, overwrite=overwrite, version=version)}")


def _apart(folder: Path, target: Path) -> Path:
    """The archive of a run; refuses to write another one into the run, which would be taken for it from then on."""
    archive = find_archive(folder)
    if target.resolve() == archive.parent.resolve():
        raise UserError(f"{target} is the run itself: choose another folder.")
    return archive


def _run(
    adata: Any,
    options: TrainOptions,
    folder: Path,
    title: str,
    quiet: bool,
    source: dict[str, Any],
    before: dict[str, float] | None = None,
    resumed: Path | None = None,
    checkpoints: Path | None = None,
    inputs: Sequence[Path] = (),
) -> dict[str, Any]:
    """Train and fill a folder; returns the figures of the run."""
    obs, kind = gathered_obs(adata).copy(deep=False), MODELS[options.model]
    options = with_values_of(adata, options)
    findings = findings_of(adata, inputs, options) if kind.takes_counts else []
    fitted, clock = fitted_on(with_top_genes(adata, options), options, quiet, resumed, checkpoints)
    fitted.save(folder / "model")
    epoch_table(fitted.model.history_ or {}).to_csv(folder / "history.csv")
    if kind.embed is not None:
        write_embedding(folder / "embedding.h5ad", obs, embedded(kind, fitted, None, len(obs)))
    if (probability_nc := kind.predicted(fitted)) is not None:
        write_predictions(folder / "predictions.csv", probability_nc)
    if kind.genes is not None:
        kind.genes(fitted).rename_axis("gene").to_csv(folder / "genes.csv")
    if fitted.writes is not None:
        fitted.writes(folder)
    options = as_trained(options, fitted, resumed)
    settings = {**source, **dataclasses.asdict(options), "seed": fitted.model.seed_}
    settings["recipe"] = fitted.trained[0].recipe_
    settings = {name: value for name, value in settings.items() if name not in settings_of_others(kind)}
    summary = _report(fitted.model, folder / "report.html", title, findings, settings, before)
    figures = _figures(fitted, summary, clock)
    record = {"settings": settings, "seed": fitted.model.seed_, "versions": versions(), "figures": figures}
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    (folder / "run.json").write_text(text, encoding="utf-8", errors="backslashreplace")
    return figures


def _report(
    model: object,
    path: Path,
    title: str,
    findings: list[Finding],
    settings: dict[str, Any],
    before: dict[str, float] | None,
) -> ModelSummary | None:
    """Write the report. All else is saved by now: neither a fault here nor Ctrl-C takes the trained model away."""
    shown = {name: _in_words(value) for name, value in settings.items()}
    try:
        return model_report(
            model, path, title=title, findings=findings, settings=shown, versions=versions(), before=before
        )
    except KeyboardInterrupt:
        typer.echo("celbo: interrupted while the report was drawn; all else is written.", err=True)
    except Exception as error:
        typer.echo(f"celbo: there is no report ({type(error).__name__}: {error}); all else is written.", err=True)
    return None


def _figures(fitted: Fitted, summary: ModelSummary | None, clock: Clock) -> dict[str, Any]:
    model = fitted.model
    history, seconds = epoch_table(model.history_ or {}), clock.ended - clock.started
    n_cells = _n_train(model) * len(history)
    elbo = elbo_of_weights(history, model.kept_epoch_)
    return {
        "epochs": len(history),
        "seconds": round(seconds, 6),
        "cells_per_second": round(n_cells / seconds, 1) if seconds and n_cells else None,
        "elbo_validation": None if elbo is None else elbo.value,
        "elbo_validation_of": None if elbo is None else elbo.where,
        "n_active": int(summary.is_active_k.sum()) if summary is not None and len(summary.kl_k) else None,
        "interrupted": any(bool(one.trainer.interrupted) for one in fitted.trained),
        "metrics": {} if summary is None else {**summary.metrics, **_of_detail(summary)},
        "verdict": None if summary is None else verdict_of(summary),
    }


def _n_train(model: Any) -> int:
    """Cells that a model was trained on, of all its data sets; 0 of one that holds none out and takes all at once."""
    of_sets = [] if model.train_indices is None else model.train_indices
    return sum(map(len, of_sets)) if isinstance(of_sets, list) else len(of_sets)


def _of_detail(summary: ModelSummary) -> dict[str, float]:
    return {} if summary.detail is None else dict(summary.detail.figures)


def _farewell(figures: dict[str, Any], output: Path, quiet: bool) -> int:
    """Say how it went; returns the exit code."""
    if not quiet:
        parts = [f"{number_of(figures['epochs'], 'epoch')} in {figures['seconds']:.1f} s"]
        parts += [f"{figures['cells_per_second']:,.0f} cells/s"] if figures["cells_per_second"] else []
        if figures["elbo_validation"] is not None:
            parts += [f"validation ELBO {figures['elbo_validation']:.2f} ({figures['elbo_validation_of']})"]
        typer.echo(", ".join(parts))
        if figures["verdict"]:
            say_verdict(figures["verdict"])
        typer.echo(f"Report: {printable(output / 'report.html')}")
    if figures["interrupted"]:
        more = " The same line with --resume goes on." if figures.get("resumable") else ""
        done = f"interrupted after {number_of(figures['epochs'], 'epoch')}; what there is has been written."
        typer.echo(f"celbo: {done}{more}", err=True)
        return INTERRUPTED
    return 0


def _in_words(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return "not given" if value is None else str(value)
