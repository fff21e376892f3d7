"""Settings of a training run, and how they are spelt on the command line."""

from dataclasses import dataclass

__all__ = ["TrainOptions", "spelt"]


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
    markers: str | None = None
    restrict_to_batch: str | int | float | bool | None = None
    n_top_genes: int | None = None
    n_latent: int | None = None
    n_topics: int | None = None
    max_epochs: int | None = None
    recipe: str | None = None
    seed: int | None = None
    accelerator: str = "auto"
    data: str = "auto"
    devices: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"
    checkpoint_every: str = "never"


_ONE_OF_SEVERAL = {
    "categorical_covariates": "--categorical-covariate",
    "continuous_covariates": "--continuous-covariate",
}


def spelt(name: str) -> str:
    """A setting as it is typed: ``n_top_genes`` is ``--n-top-genes``."""
    return _ONE_OF_SEVERAL.get(name, "--" + name.replace("_", "-"))
