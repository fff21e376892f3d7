"""The commands and their options; what they do is in :mod:`celbo.cli.runs`, which is imported when one of them runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..core import __version__
from .arguments import (
    Accelerator,
    Ambient,
    AmbientProb,
    BackgroundKey,
    CheckpointEvery,
    Inputs,
    Markers,
    MaxEpochs,
    Modality,
    Model,
    ModelDir,
    Orientation,
    Overwrite,
    Pairs,
    Quiet,
    Raw,
    Recipe,
    Reference,
    ReferenceLabels,
    SampleKey,
    Seed,
    SpatialKey,
    asking,
    reading,
)
from .errors import OneLineErrors
from .interrupts import while_loading
from .options import Asked, ReadingOptions

__all__ = ["app"]

app = typer.Typer(
    cls=OneLineErrors,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_RunOrCells = Annotated[Path, typer.Argument(help="Folder of a run; with --ambient: cells.", show_default=False)]


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"celbo {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Deep probabilistic models of single-cell counts: latent space, denoised expression, one report."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
@reading
def train(
    inputs: Inputs,
    how: ReadingOptions,
    model: Model = "scvi",
    layer: Annotated[str | None, typer.Option(help="Layer with the counts.", show_default="X")] = None,
    raw: Raw = False,
    batch_key: Annotated[str | None, typer.Option(help="Column of obs with the batch of each cell.")] = None,
    labels_key: Annotated[str | None, typer.Option(help="Column of obs with the label of each cell.")] = None,
    unlabeled_category: Annotated[str | None, typer.Option(help="scanvi: label that is none, as NaN is.")] = None,
    size_factor_key: Annotated[str | None, typer.Option(help="Column of obs that takes the library's place.")] = None,
    categorical_covariate: Annotated[list[str] | None, typer.Option(help="Further column of obs; repeatable.")] = None,
    continuous_covariate: Annotated[list[str] | None, typer.Option(help="Further column of obs; repeatable.")] = None,
    n_top_genes: Annotated[int | None, typer.Option(min=1, help="Most variable genes.", show_default="all")] = None,
    sample_key: SampleKey = None,
    background_key: BackgroundKey = None,
    background_category: Annotated[str | None, typer.Option(help="contrastivevi: its value in those cells.")] = None,
    spliced_layer: Annotated[str | None, typer.Option(help="velovi: layer of smoothed spliced RNA.")] = None,
    unspliced_layer: Annotated[str | None, typer.Option(help="velovi: layer of smoothed unspliced RNA.")] = None,
    nan_layer: Annotated[str | None, typer.Option(help="cytovi: layer, 1 where a marker was measured, else 0.")] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="methylvi: modality; repeatable.", show_default="all")
    ] = None,
    mc_layer: Annotated[str | None, typer.Option(help="methylvi: methylated reads.", show_default="mc")] = None,
    cov_layer: Annotated[str | None, typer.Option(help="methylvi: all reads.", show_default="cov")] = None,
    spatial_key: SpatialKey = None,
    embedding_key: Annotated[str | None, typer.Option(help="scviva: obsm with an embedding of expression.")] = None,
    fasta: Annotated[Path | None, typer.Option(help="scbasset: the genome, FASTA.")] = None,
    seq_len: Annotated[int | None, typer.Option(min=1, help="scbasset: bases a region.", show_default="1344")] = None,
    markers: Markers = None,
    ambient: Ambient = None,
    ambient_prob: AmbientProb = None,
    reference: Reference = None,
    reference_labels: ReferenceLabels = None,
    pairs: Pairs = None,
    restrict_to_batch: Annotated[str | None, typer.Option(help="solo: the batch to call doublets of.")] = None,
    n_latent: Annotated[int | None, typer.Option(min=1, help="Latent dimensions.", show_default="10")] = None,
    encode_covariates: Annotated[
        bool | None,
        typer.Option(help="Show batches to the encoder too: celbo map needs it.", show_default="the model's"),
    ] = None,
    n_topics: Annotated[int | None, typer.Option(min=1, help="lda: topics.", show_default="20")] = None,
    max_epochs: MaxEpochs = None,
    recipe: Recipe = None,
    seed: Seed = None,
    accelerator: Accelerator = "auto",
    devices: Annotated[str, typer.Option(help="How many, a process each; under torchrun: all of its.")] = "auto",
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines of the job.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
    checkpoint_every: CheckpointEvery = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was killed, if there is one.")
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder.", show_default="INPUT_celbo")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train a model and write a report.

    The folder then holds the model, the embedding of the cells, the history and the report; from models that predict
    labels, types or doublets the predictions too, and from those that say something of genes a table of these.

    Ctrl-C ends training early and writes what there is. A run that is killed goes on with --resume, to the same result.

    Example: celbo train counts.h5ad --batch-key donor --n-top-genes 2000 -o run
    """
    given = locals()
    runs = _runs()
    options = runs.TrainOptions.of_line({**given, **vars(how)})
    _leave(runs.train(inputs, options, output or Path(f"{inputs[0].stem}_celbo"), overwrite, quiet, resume))


@app.command()
@asking("File to write: .h5ad, .csv, .tsv, .parquet.")
def embed(asked: Asked) -> None:
    """Embed cells by a trained model.

    Genes are matched by name. The file then holds obs and obsm["X_celbo"].

    Example: celbo embed run new.h5ad -o embedded.h5ad
    """
    _runs().embed(asked)


@app.command()
@asking("File to write: .csv, .tsv, .parquet, .h5ad.")
def predict(asked: Asked) -> None:
    """Predict labels (scanvi, totalanvi, methylanvi, resolvi, diagvi), cell types (cellassign) or doublets (solo).

    Genes are matched by name. The file has the most probable class of each cell and the probabilities of all.

    Example: celbo predict run new.h5ad -o labels.csv
    """
    _runs().predict(asked)


@app.command("map")
@asking("File to write: .h5ad, .csv, .tsv, .parquet.")
def map_query(
    asked: Asked,
    max_epochs: MaxEpochs = None,
    recipe: Recipe = None,
    seed: Seed = None,
    accelerator: Accelerator = "auto",
    model_output: Annotated[
        Path | None, typer.Option(help="Folder for the model of the query.", show_default="not kept")
    ] = None,
) -> None:
    """Map new cells, of new batches too, onto a trained reference; the reference's cells stay where they are.

    The query has the columns of obs that the reference was trained with. Genes are matched by name, those that it lacks
    count as zero. The file then holds obs and obsm["X_celbo"], and of a reference that predicts labels these too. Train
    the reference with --encode-covariates: else it cannot adapt to a new batch.

    Example: celbo map run query.h5ad -o mapped.h5ad
    """
    training = {"max_epochs": max_epochs, "recipe": recipe, "seed": seed, "accelerator": accelerator}
    _leave(_runs().map_query(asked, training, model_output))


@app.command()
@asking("File to write: .html or .json.")
def report(asked: Asked) -> None:
    """Judge a trained model on cells: a verdict, figures and pictures on one page.

    Genes are matched by name. A .json has the verdict and the figures without the pictures.

    Example: celbo report run counts.h5ad -o report.html
    """
    _runs().report(asked)


@app.command()
@asking("File to write: .zarr, .h5ad or .h5mu.", _RunOrCells, needs_inputs=False)
def denoise(
    asked: Asked,
    ambient: Annotated[
        Path | None, typer.Option(help="Take the ambient RNA out: all droplets of the run, unfiltered.")
    ] = None,
    ambient_prob: AmbientProb = None,
    batch_key: Annotated[str | None, typer.Option(help="--ambient: column of obs, each batch its own soup.")] = None,
    layer: Annotated[str | None, typer.Option(help="--ambient: layer with the counts.", show_default="X")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="--ambient: take the counts, and the genes, of raw.")] = False,
    max_epochs: MaxEpochs = None,
    model_output: Annotated[
        Path | None, typer.Option(help="--ambient: folder for the model.", show_default="not kept")
    ] = None,
    transform_batch: Annotated[list[str] | None, typer.Option(help="Batch to decode as; several: averaged.")] = None,
    library_size: Annotated[
        float | None, typer.Option(min=0, help="What each cell's expression sums to.", show_default="1")
    ] = None,
    gene: Annotated[list[str] | None, typer.Option(help="Gene to write; repeatable.", show_default="all")] = None,
    seed: Seed = None,
) -> None:
    """Write denoised expression by a trained model, or counts without the ambient RNA, however many cells there are.

       Genes are matched by name. The file is an AnnData with the values in X; each cell's sum to 1 over all genes.
    Of models of
       several modalities a .h5mu holds all of them, an AnnData the genes alone. With --ambient, or by a model of class
       SCAR, the file holds whole counts.

       Example: celbo denoise run cells.h5ad --gene CD4 --gene CD8A -o denoised.h5ad

       Example: celbo denoise filtered.h5 --ambient raw.h5 -o native.h5ad
    """
    runs = _runs()
    options = {"transform_batch": transform_batch or None, "library_size": library_size}
    options |= {"gene_list": gene or None, "seed": seed}
    settings = {"ambient_prob": ambient_prob, "batch_key": batch_key, "layer": layer, "max_epochs": max_epochs}
    if ambient is None:
        runs.require_none({**settings, "raw": raw or None, "model_output": model_output}, "--ambient")
        runs.denoise(asked, options)
    else:
        settings |= {"ambient": str(ambient), "raw": raw, "seed": seed}
        _leave(runs.remove_ambient(asked, settings, options, model_output))


@app.command()
@asking("File to write: .csv, .tsv, .parquet.")
def de(
    asked: Asked,
    groupby: Annotated[str, typer.Option(help="Column of obs with the groups.", show_default=False)],
    group1: Annotated[
        list[str] | None, typer.Option(help="Group to compare; several are compared one by one.", show_default="each")
    ] = None,
    group2: Annotated[
        list[str] | None, typer.Option(help="Group to compare it with; several count as one.", show_default="the rest")
    ] = None,
    mode: Annotated[str, typer.Option(help="change: by more than --delta; vanilla: at all.")] = "change",
    delta: Annotated[
        float | None, typer.Option(min=0, help="Smallest log2 fold change that counts.", show_default="the model's")
    ] = None,
    fdr_target: Annotated[float, typer.Option(min=0, max=1, help="Expected false discovery rate.")] = 0.05,
    batch_correction: Annotated[
        bool, typer.Option("--batch-correction", help="Decode both groups as the same batches.")
    ] = False,
    groups_from: Annotated[
        Path | None, typer.Option(help="File with that column, as predict writes.", show_default="the cells'")
    ] = None,
    seed: Seed = None,
) -> None:
    """Compare groups of cells by a trained model: differential expression, of proteins and regions too.

    The table has a row for each feature and comparison: proba_de, lfc_mean, is_de_fdr_0.05, means of the counts.

    Example: celbo de run cells.h5ad --groupby cell_type --group1 B --group2 T -o b_or_t.csv
    """
    runs = _runs()
    who = (
        groupby,
        tuple(group1 or ()),
        tuple(group2 or ()),
        mode,
        delta,
        fdr_target,
        batch_correction,
        seed,
        groups_from,
    )
    runs.compare(asked, runs.Groups(*who))


@app.command()
def shard(
    inputs: Inputs,
    output: Annotated[Path, typer.Option("-o", "--output", help="Store to write: .zarr.", show_default=False)],
    layer: Annotated[str | None, typer.Option(help="Layer with the counts.", show_default="X")] = None,
    raw: Raw = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the order.")] = 0,
    modality: Modality = None,
    orientation: Orientation = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Rewrite data into a zarr store with the cells in random order, for the fastest streaming.

    The store is an AnnData; memory stays bounded, and as much room as the data take is needed beside it meanwhile.

    Example: celbo shard atlas.h5ad -o atlas.zarr
    """
    runs = _runs()
    how = runs.ReadingOptions("stream", modality, orientation)
    runs.shard(inputs, output, layer, seed, how, overwrite, quiet, raw)


@app.command()
def check(inputs: Inputs, modality: Modality = None, orientation: Orientation = None) -> None:
    """Look at data without training: what they are, where the counts are, and which models fit.

    Example: celbo check counts.h5ad
    """
    runs = _runs()
    runs.check_files(inputs, runs.ReadingOptions(modality=modality, orientation=orientation))


@app.command()
def info(model_dir: ModelDir) -> None:
    """Say what a saved model is.

    Example: celbo info run
    """
    runs = _runs()
    runs.info(model_dir)


@app.command()
def convert(
    old: Annotated[Path, typer.Argument(help="Folder of a model that scvi-tools saved.", show_default=False)],
    new: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    overwrite: Overwrite = False,
) -> None:
    """Write a model of scvi-tools as a safe archive of celbo's; nothing in the old one is executed.

    Example: celbo convert scvi_model celbo_model
    """
    runs = _runs()
    runs.convert(old, new, overwrite)


@app.command()
def export(
    model_dir: Annotated[
        Path, typer.Argument(help="Folder of a run, or of a model that celbo saved.", show_default=False)
    ],
    output: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    overwrite: Overwrite = False,
    version: Annotated[
        str | None, typer.Option(help="Version of scvi-tools that is to load it; 1.4.2, or 1.4.3 for MRVI.")
    ] = None,
) -> None:
    """Write a model of celbo's as an archive that scvi-tools 1.4.2 loads.

    Example: celbo export celbo_model scvi_model
    """
    runs = _runs()
    runs.export(model_dir, output, overwrite, version)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder.")] = Path("celbo_demo"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train on simulated cells.

    Labels and batches are compared before and after; the folder is one as `train` writes.

    Example: celbo demo -o celbo_demo
    """
    runs = _runs()
    _leave(runs.demo(output, overwrite, quiet))


def _runs() -> Any:
    """What the commands do: loads torch, so only when one runs."""
    with while_loading():
        from . import runs
    return runs


def _leave(code: Any) -> None:
    if code:
        raise typer.Exit(code)
