"""The table of models by question: what each needs of the data, what one brings beside them, what one gets.

What a model is for and its paper stand at the top of its file, see :func:`~celbo.choosing.heads.head_of`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from .heads import Head, head_of

__all__ = ["CHOICES", "GROUPS", "Choice", "Need"]


class Need(Enum):
    """What data can be seen to have; the value names it after "needs" and "no"."""

    RNA = "counts of genes"
    REGIONS = "counts of regions"
    PROTEINS = "counts of proteins"
    MODALITIES = "two of genes, regions and proteins"
    VALUES = "values that are no counts in X"
    MARKERS = "transformed intensities of protein markers in X"
    SPLICED = "layers 'spliced' and 'unspliced'"
    METHYLATION = "layers of methylated and of all reads in a MuData"
    BATCHES = "column of batches"
    LABELS = "column of labels"
    SAMPLES = "column of samples or donors"
    PLACES = "coordinates in obsm"


RNA, TWO, CHROMATIN, TISSUE, OTHERS = "RNA", "Several modalities", "Open chromatin", "Tissue", "Other data"
GROUPS = (RNA, TWO, CHROMATIN, TISSUE, OTHERS)
"""Kinds of data, in the order of the documentation."""


@dataclass(frozen=True)
class Choice:
    """One file of models.

    Attributes
    ----------
    file
        Below the package.
    names
        As users write them, without ``celbo.``
    group
        One of :data:`GROUPS`.
    needs
        What the data must have.
    needs_text
        The same, and what else it needs, for readers.
    gives
        What one gets from it.
    brings
        What one brings beside the data; empty: nothing.
    tutorial
        File in ``docs/tutorials``, without ``.md``.
    takes_batch
        Whether its setup takes ``batch_key``.
    takes_raw
        Whether its setup takes ``use_raw``.
    """

    file: str
    names: tuple[str, ...]
    group: str
    needs: tuple[Need, ...]
    needs_text: str
    gives: str
    brings: str = ""
    tutorial: str = ""
    takes_batch: bool = True
    takes_raw: bool = True

    @property
    def head(self) -> Head:
        """What it is for, and its paper."""
        return head_of(self.file)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(name.partition(".")[2] for name in self.names)

    @property
    def page(self) -> str:
        """Its page, below ``docs``."""
        folder, _, name = self.file.removesuffix(".py").rpartition("/")
        return f"models/{folder.rpartition('/')[2] if name == 'model' else name}.md"


_LATENT = "latent space"

CHOICES: tuple[Choice, ...] = (
    Choice(
        "model/scvi.py",
        ("model.SCVI",),
        RNA,
        (Need.RNA,),
        "counts; batches, if there are any",
        "latent space, denoised expression, differential expression",
        tutorial="integrate",
    ),
    Choice(
        "model/scanvi.py",
        ("model.SCANVI",),
        RNA,
        (Need.RNA, Need.LABELS),
        "counts; labels of some cells, ten of each type may do",
        "labels with probabilities, latent space, denoised and differential expression",
        tutorial="annotate",
    ),
    Choice(
        "external/cellassign/model.py",
        ("external.CellAssign",),
        RNA,
        (Need.RNA,),
        "counts; a table of marker genes by cell types",
        "cell types with probabilities",
        brings="a table of marker genes by cell types",
        tutorial="markers",
    ),
    Choice(
        "external/solo/model.py",
        ("external.SOLO",),
        RNA,
        (Need.RNA,),
        "counts; a trained SCVI",
        "probability of each droplet of being a doublet",
        brings="a trained SCVI (celbo.tl.doublets does both)",
        tutorial="doublets",
    ),
    Choice(
        "external/sysvi/model.py",
        ("external.SysVI",),
        RNA,
        (Need.VALUES, Need.BATCHES),
        "log-normalised values; the system of each cell",
        "latent space across systems",
    ),
    Choice(
        "external/mrvi/model.py",
        ("external.MRVI", "external.TorchMRVI"),
        RNA,
        (Need.RNA, Need.SAMPLES),
        "counts; the sample of each cell",
        "latent space, distances of samples, differential expression and abundance over samples",
    ),
    Choice(
        "external/contrastivevi/model.py",
        ("external.ContrastiveVI",),
        RNA,
        (Need.RNA,),
        "counts; which cells are background and which are targets",
        "two latent spaces: what is shared, and what only targets have",
        brings="which cells are background, which targets",
    ),
    Choice(
        "model/linear_scvi.py",
        ("model.LinearSCVI",),
        RNA,
        (Need.RNA,),
        "counts; batches, if there are any",
        "latent space, loading of each gene on each dimension",
    ),
    Choice(
        "external/drvi/model.py",
        ("external.DRVI",),
        RNA,
        (Need.RNA,),
        "counts; batches, if there are any",
        "disentangled latent space, genes of each side of each dimension",
    ),
    Choice(
        "model/amortizedlda.py",
        ("model.AmortizedLDA",),
        RNA,
        (Need.RNA,),
        "counts",
        "topics of each cell, genes of each topic",
        takes_batch=False,
    ),
    Choice(
        "external/decipher/model.py",
        ("external.Decipher",),
        RNA,
        (Need.RNA,),
        "counts of cells along a process",
        "two-dimensional map, trajectories, time of each cell, genes along them",
        takes_batch=False,
    ),
    Choice(
        "external/jointembedding/model.py",
        ("external.JointEmbeddingSCVI",),
        RNA,
        (Need.RNA,),
        "counts of cells read at different depths",
        "latent space that does not depend on depth, denoised expression",
    ),
    Choice(
        "model/autozi.py",
        ("model.AUTOZI",),
        RNA,
        (Need.RNA,),
        "counts",
        "probability of each gene of being zero-inflated",
    ),
    Choice(
        "external/scar/model.py",
        ("external.SCAR",),
        RNA,
        (Need.RNA,),
        "counts; the unfiltered droplets, or the profile of the ambient RNA",
        "counts without ambient RNA, share of native counts of each cell",
        brings="the unfiltered droplets, or their profile",
    ),
    Choice(
        "external/velovi/model.py",
        ("external.VELOVI",),
        RNA,
        (Need.SPLICED,),
        "spliced and unspliced counts as layers",
        "velocity, time, state and rates, with their uncertainty",
        takes_batch=False,
        takes_raw=False,
    ),
    Choice(
        "model/totalvi.py",
        ("model.TOTALVI",),
        TWO,
        (Need.RNA, Need.PROTEINS),
        "counts of genes and of proteins in one AnnData or MuData",
        "joint latent space, protein foreground apart from background, denoised and differential expression of both",
        tutorial="cite_seq",
    ),
    Choice(
        "external/totalanvi/model.py",
        ("external.TOTALANVI",),
        TWO,
        (Need.RNA, Need.PROTEINS, Need.LABELS),
        "as TOTALVI; labels of some cells",
        "labels with probabilities, and what TOTALVI gives",
    ),
    Choice(
        "external/contrastivetotalvi/model.py",
        ("external.ContrastiveTOTALVI",),
        TWO,
        (Need.RNA, Need.PROTEINS),
        "as TOTALVI; which cells are background and which are targets",
        "two latent spaces, what is shared and what only targets have, and what TOTALVI gives",
        brings="which cells are background, which targets",
        takes_raw=False,
    ),
    Choice(
        "model/multivi.py",
        ("model.MULTIVI",),
        TWO,
        (Need.MODALITIES,),
        "genes and regions, with proteins or without; cells may lack any of them",
        "joint latent space, expression and accessibility of all cells, those of lacking modalities imputed",
        tutorial="multiome",
    ),
    Choice(
        "external/diagvi/model.py",
        ("external.DIAGVI",),
        TWO,
        (Need.RNA,),
        "counts or values of two modalities, each of cells of its own; which features go together",
        "joint latent space, labels carried over, what the other modality would have measured",
        brings="cells of the other modality, and which of its features go with genes",
        takes_raw=False,
    ),
    Choice(
        "model/peakvi.py",
        ("model.PEAKVI",),
        CHROMATIN,
        (Need.REGIONS,),
        "peaks by cells",
        "latent space, accessibility, differential accessibility",
        tutorial="accessibility",
        takes_raw=False,
    ),
    Choice(
        "external/poissonvi/model.py",
        ("external.POISSONVI",),
        CHROMATIN,
        (Need.REGIONS,),
        "counts of fragments, or of reads that are turned into such",
        "latent space, accessibility, differential accessibility",
        takes_raw=False,
    ),
    Choice(
        "external/scbasset/model.py",
        ("external.SCBASSET",),
        CHROMATIN,
        (Need.REGIONS,),
        "peaks, regions by cells; a FASTA file of the genome",
        "embedding of cells, activity of transcription factors",
        brings="the genome as a FASTA file",
        takes_raw=False,
    ),
    Choice(
        "external/stereoscope/model.py",
        ("external.RNAStereoscope", "external.SpatialStereoscope"),
        TISSUE,
        (Need.RNA, Need.PLACES),
        "spots; single cells of the same tissue with labels",
        "proportions of cell types in each spot",
        brings="single cells of the same tissue, with labels",
        tutorial="deconvolution",
    ),
    Choice(
        "model/condscvi.py",
        ("model.CondSCVI",),
        TISSUE,
        (Need.RNA, Need.LABELS),
        "single cells with labels",
        "the reference that DestVI needs",
        tutorial="deconvolution",
    ),
    Choice(
        "model/destvi.py",
        ("model.DestVI",),
        TISSUE,
        (Need.RNA, Need.PLACES),
        "spots; a CondSCVI of single cells of the same tissue",
        "proportions and states of cell types in each spot, expression of each type",
        brings="a CondSCVI of single cells of the same tissue",
        tutorial="deconvolution",
    ),
    Choice(
        "external/tangram/model.py",
        ("external.Tangram",),
        TISSUE,
        (Need.RNA, Need.PLACES),
        "spots or cells of a tissue; single cells with the same genes",
        "place of each single cell, its genes and labels in the tissue",
        brings="single cells of the same tissue",
        takes_batch=False,
        takes_raw=False,
    ),
    Choice(
        "external/gimvi/model.py",
        ("external.GIMVI",),
        TISSUE,
        (Need.RNA, Need.PLACES),
        "cells in tissue with few genes; dissociated cells with more",
        "joint latent space, genes that were not measured",
        brings="dissociated cells of the same tissue, with more genes",
    ),
    Choice(
        "external/scviva/model.py",
        ("external.SCVIVA",),
        TISSUE,
        (Need.RNA, Need.PLACES, Need.LABELS),
        "counts, coordinates and labels of cells in tissue; an embedding of expression",
        "latent space of cells and their niches, differential expression apart from what neighbours leak",
        brings="an embedding of expression, as SCVI gives",
    ),
    Choice(
        "external/resolvi/model.py",
        ("external.RESOLVI",),
        TISSUE,
        (Need.RNA, Need.PLACES),
        "counts and coordinates of cells in tissue; labels, if there are any",
        "a cell's own counts, latent space, labels, differential expression and abundance of neighbours",
    ),
    Choice(
        "external/cytovi/model.py",
        ("external.CYTOVI",),
        OTHERS,
        (Need.MARKERS,),
        "transformed and scaled intensities, in panels that overlap",
        "latent space, markers that a panel lacks, differential expression and abundance",
        takes_raw=False,
    ),
    Choice(
        "external/methylvi/model.py",
        ("external.METHYLVI",),
        OTHERS,
        (Need.METHYLATION,),
        "methylated and all reads of each region, in a MuData",
        "latent space, normalized and differential methylation",
        takes_raw=False,
    ),
    Choice(
        "external/methylvi/methylanvi.py",
        ("external.METHYLANVI",),
        OTHERS,
        (Need.METHYLATION, Need.LABELS),
        "as METHYLVI; labels of some cells",
        "labels with probabilities, and what METHYLVI gives",
        takes_raw=False,
    ),
)

BY_NAME: Mapping[str, Choice] = {name: choice for choice in CHOICES for name in choice.classes}
"""Class -> its row."""
