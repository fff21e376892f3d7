"""Settings of a training run, and how they are spelt on the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

__all__ = ["LAYERS", "Asked", "ReadingOptions", "TrainOptions", "spelt"]


@dataclass(frozen=True)
class ReadingOptions:
    """How the inputs are read: ``--data``, ``--modality``, ``--orientation``, ``--rna``, ``--protein``, ``--atac``."""

    data: str = "auto"
    modality: str | None = None
    orientation: str | None = None
    rna: str | None = None
    protein: str | None = None
    atac: str | None = None


@dataclass(frozen=True)
class Asked:
    """What every command is given that asks a trained model about cells.

    Attributes
    ----------
    model_dir
        Folder of a run, or of a saved model.
    inputs
        Files of the cells.
    output
        File to write.
    how
        How the files are read.
    overwrite
        Whether a file that is there may be replaced.
    quiet
        Say nothing but errors.
    """

    model_dir: Path
    inputs: Sequence[Path]
    output: Path
    how: ReadingOptions = field(default_factory=ReadingOptions)
    overwrite: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class TrainOptions:
    """Settings of a training run, as on the command line.

    Those that only some models take stand in :data:`celbo.cli.models.MODELS`; None, or an empty tuple, is "not given".
    """

    model: str = "scvi"
    layer: str | None = None
    raw: bool = False
    batch_key: str | None = None
    labels_key: str | None = None
    unlabeled_category: str | int | float | bool | None = None
    size_factor_key: str | None = None
    categorical_covariates: tuple[str, ...] = ()
    continuous_covariates: tuple[str, ...] = ()
    sample_key: str | None = None
    background_key: str | None = None
    background_category: str | int | float | bool | None = None
    spliced_layer: str | None = None
    unspliced_layer: str | None = None
    nan_layer: str | None = None
    contexts: tuple[str, ...] = ()
    mc_layer: str | None = None
    cov_layer: str | None = None
    spatial_key: str | None = None
    embedding_key: str | None = None
    fasta: str | None = None
    seq_len: int | None = None
    markers: str | None = None
    ambient: str | None = None
    ambient_prob: float | None = None
    reference: str | None = None
    reference_labels: str | None = None
    pairs: str | None = None
    restrict_to_batch: str | int | float | bool | None = None
    n_top_genes: int | None = None
    n_latent: int | None = None
    encode_covariates: bool | None = None
    n_topics: int | None = None
    max_epochs: int | None = None
    recipe: str | None = None
    seed: int | None = None
    accelerator: str = "auto"
    data: str = "auto"
    modality: str | None = None
    orientation: str | None = None
    rna: str | None = None
    protein: str | None = None
    atac: str | None = None
    devices: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"
    checkpoint_every: str | None = "never"

    @classmethod
    def of_line(cls, given: Mapping[str, Any]) -> "TrainOptions":
        """The settings among the arguments of the command, by the names that these have there."""
        values: dict[str, Any] = {field.name: given[spelt(field.name)[2:].replace("-", "_")] for field in fields(cls)}
        values |= {name: tuple(values[name] or ()) for name in _ONE_OF_SEVERAL}
        values |= {name: str(value) for name, value in values.items() if isinstance(value, Path)}
        return cls(**values)

    @property
    def layers(self) -> list[str]:
        """All layers that are named."""
        return [layer for name in LAYERS if (layer := getattr(self, name)) is not None]

    @property
    def files(self) -> list[Path]:
        """Files that are read beside the inputs."""
        return [Path(given) for name in _FILES if (given := getattr(self, name)) is not None]

    @property
    def reading(self) -> ReadingOptions:
        """How the inputs are read."""
        return ReadingOptions(*(getattr(self, field.name) for field in fields(ReadingOptions)))


LAYERS = ("layer", "spliced_layer", "unspliced_layer", "nan_layer")
"""Settings that name a layer; arguments of setup are called the same."""

_FILES = ("fasta", "markers", "ambient", "reference", "pairs")
"""Settings that name a file."""

_ONE_OF_SEVERAL = {
    "categorical_covariates": "--categorical-covariate",
    "continuous_covariates": "--continuous-covariate",
    "contexts": "--context",
}


def spelt(name: str) -> str:
    """A setting as it is typed: ``n_top_genes`` is ``--n-top-genes``."""
    return _ONE_OF_SEVERAL.get(name, "--" + name.replace("_", "-"))
