"""Arguments and options that several commands take: the same names, the same words."""

import functools
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Asked, ReadingOptions

__all__ = [
    "Accelerator",
    "Ambient",
    "AmbientProb",
    "Atac",
    "BackgroundKey",
    "CheckpointEvery",
    "Context",
    "Data",
    "Inputs",
    "Markers",
    "MaxEpochs",
    "Modality",
    "Model",
    "ModelDir",
    "Orientation",
    "Overwrite",
    "Pairs",
    "Protein",
    "Quiet",
    "Raw",
    "Recipe",
    "Reference",
    "ReferenceLabels",
    "Rna",
    "SampleKey",
    "Seed",
    "SpatialKey",
    "asking",
    "reading",
]

_CELLS = typer.Argument(
    help="Raw counts: .h5ad, .h5mu, .zarr, 10x .h5 or mtx, .loom, .csv; several; a folder.", show_default=False
)
Inputs = Annotated[list[Path], _CELLS]
ModelDir = Annotated[Path, typer.Argument(help="Folder of a run, or of a saved model.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run wrote there.")]
Data = Annotated[str, typer.Option(help="load, stream from disk, or auto: by what fits in memory.")]
Raw = Annotated[bool, typer.Option("--raw", help="Take the counts, and the genes, of raw.")]
Modality = Annotated[str | None, typer.Option(help=".h5mu: modality; 10x: type of feature.", show_default="RNA")]
Rna = Annotated[str | None, typer.Option(help="Modality of genes.", show_default="by its type or name")]
Protein = Annotated[str | None, typer.Option(help="Modality of proteins.", show_default="by its type or name")]
Atac = Annotated[str | None, typer.Option(help="Modality of regions.", show_default="by its type or name")]
Orientation = Annotated[
    str | None, typer.Option(help=".csv: genes-by-cells or cells-by-genes.", show_default="by the names")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Model = Annotated[
    str,
    typer.Option(
        help="scvi, joint_embedding, drvi, linear_scvi, scanvi, autozi, lda, decipher, cellassign, solo, scar, sysvi, "
        "mrvi, contrastivevi, velovi, resolvi or scviva; of genes and proteins totalvi, totalanvi or "
        "contrastivetotalvi; of regions peakvi, poissonvi or scbasset; of several of the three multivi; of markers by "
        "cytometry cytovi; of methylation methylvi or methylanvi; of a tissue and a --reference gimvi or tangram; of "
        "two modalities diagvi."
    ),
]
Markers = Annotated[Path | None, typer.Option(help="cellassign: .csv of genes by cell types, 1 for a marker, else 0.")]
Ambient = Annotated[
    Path | None, typer.Option(help="scar: all droplets of the run, unfiltered, for the ambient profile.")
]
AmbientProb = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="scar: least probability per gene of an empty droplet.", show_default="0.995"),
]
Reference = Annotated[
    Path | None,
    typer.Option(help="gimvi, tangram: dissociated cells; diagvi: cells of the other modality."),
]
ReferenceLabels = Annotated[
    str | None, typer.Option(help="tangram, diagvi: column of obs with the labels of the --reference.")
]
Pairs = Annotated[
    Path | None,
    typer.Option(help="diagvi: .csv, a feature and one of the --reference a line.", show_default="by name"),
]
SampleKey = Annotated[str | None, typer.Option(help="mrvi, cytovi: column of obs with the sample of each cell.")]
BackgroundKey = Annotated[
    str | None,
    typer.Option(help="contrastivevi, contrastivetotalvi: column of obs that tells background cells."),
]
Context = Annotated[list[str] | None, typer.Option(help="methylvi: modality; repeatable.", show_default="all")]
SpatialKey = Annotated[
    str | None, typer.Option(help="resolvi, scviva: obsm with the coordinates.", show_default="spatial")
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help="one_cycle, long_cycle, brief_cycle, or classic (scvi-tools' defaults).", show_default="the model's"
    ),
]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**32 - 1, help="Makes the run repeatable.", show_default="random")
]
CheckpointEvery = Annotated[
    str | None, typer.Option(help="'1 epoch', '200 steps', '5 min', or never.", show_default="5 min")
]
MaxEpochs = Annotated[int | None, typer.Option(min=1, help="Passes.", show_default="from the recipe")]
Accelerator = Annotated[str, typer.Option(help="auto, cpu, gpu, cuda or mps.")]


def _options(**declared: tuple[Any, Any]) -> dict[str, Parameter]:
    """Parameters of a command: name = annotation, default."""
    return {
        name: Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in declared.items()
    }


_READING = _options(
    data=(Data, "auto"),
    modality=(Modality, None),
    rna=(Rna, None),
    protein=(Protein, None),
    atac=(Atac, None),
    orientation=(Orientation, None),
)
_ANSWERING = _options(overwrite=(Overwrite, False), quiet=(Quiet, False))


def reading(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of how files are read; it gets them as ``how``, :class:`ReadingOptions`."""
    return _with_options(command, "how", _READING, lambda given: ReadingOptions(**given))


def asking(output: str, model: Any = ModelDir, needs_inputs: bool = True) -> Callable[..., Callable[..., None]]:
    """Give a command what all commands take that ask a trained model; it gets that as ``asked``, :class:`Asked`.

    Parameters
    ----------
    output
        Which files the command writes, for its help.
    model
        The first argument.
    needs_inputs
        Whether others must follow.
    """
    first = _options(
        model_dir=(model, Parameter.empty),
        inputs=(Inputs, Parameter.empty) if needs_inputs else (Annotated[list[Path] | None, _CELLS], None),
        output=(Annotated[Path, typer.Option("-o", "--output", help=output, show_default=False)], Parameter.empty),
    )

    def asked(given: dict[str, Any]) -> Asked:
        how = ReadingOptions(**{name: given.pop(name) for name in _READING})
        return Asked(**{**given, "inputs": given["inputs"] or []}, how=how)

    return lambda command: _with_options(command, "asked", {**first, **_READING, **_ANSWERING}, asked)


def _with_options(
    command: Callable[..., None], name: str, options: Mapping[str, Parameter], made: Callable[[dict[str, Any]], Any]
) -> Callable[..., None]:
    """A command that takes options in place of its argument ``name``, which is made of them.

    Options of the command's own stand where the first ones end that have no default.
    """

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(**{name: made({option: given.pop(option) for option in options})}, **given)

    own = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in signature(command).parameters.values()]
    needed = [one for one in options.values() if one.default is Parameter.empty]
    others = [one for one in options.values() if one.default is not Parameter.empty]
    whole = [*needed, *(one for one in own if one.name != name), *others]
    vars(run)["__signature__"] = signature(command).replace(parameters=whole)
    return run
