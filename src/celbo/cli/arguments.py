"""Arguments and options that several commands take: the same names, the same words."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Accelerator",
    "Atac",
    "Data",
    "Inputs",
    "Markers",
    "MaxEpochs",
    "Modality",
    "Model",
    "ModelDir",
    "Orientation",
    "Overwrite",
    "Protein",
    "Quiet",
    "Raw",
    "Recipe",
    "Rna",
    "Seed",
]

Inputs = Annotated[
    list[Path],
    typer.Argument(
        help="Raw counts: .h5ad, .h5mu, .zarr, 10x .h5 or mtx, .loom, .csv; several; a folder.", show_default=False
    ),
]
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
        help="scvi, joint_embedding, drvi, linear_scvi, scanvi, autozi, lda, decipher, cellassign, solo, scar or "
        "sysvi; of genes and proteins totalvi or totalanvi, of regions peakvi or poissonvi, of several of the three "
        "multivi."
    ),
]
Markers = Annotated[Path | None, typer.Option(help="cellassign: .csv of genes by cell types, 1 for a marker, else 0.")]
Recipe = Annotated[
    str | None,
    typer.Option(help="one_cycle, long_cycle, or classic (scvi-tools' defaults).", show_default="the model's"),
]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**32 - 1, help="Makes the run repeatable.", show_default="random")
]
MaxEpochs = Annotated[int | None, typer.Option(min=1, help="Passes.", show_default="from the recipe")]
Accelerator = Annotated[str, typer.Option(help="auto, cpu, gpu, cuda or mps.")]
