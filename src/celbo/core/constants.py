"""Names shared by data, modules and models: keys of a registry and of a minibatch.

They are scvi-tools' own names to the letter, because saved models and other people's code contain them.
"""

from typing import NamedTuple

__all__ = [
    "IS_TARGET",
    "NEIGHBORS_KEY",
    "NEIGHBOR_COUNTS_KEY",
    "PRESENCE_KEY",
    "REGISTRY_KEYS",
    "SCVI_FIGURES",
    "SCVI_TOOLS_VERSION",
]

SCVI_TOOLS_VERSION = "1.4.2"
"""The scvi-tools release whose API, registry layout and archives celbo follows."""


class _RegistryKeys(NamedTuple):
    X_KEY: str = "X"
    ATAC_X_KEY: str = "atac"
    BATCH_KEY: str = "batch"
    SAMPLE_KEY: str = "sample"
    LABELS_KEY: str = "labels"
    PROTEIN_EXP_KEY: str = "proteins"
    CAT_COVS_KEY: str = "extra_categorical_covs"
    CONT_COVS_KEY: str = "extra_continuous_covs"
    INDICES_KEY: str = "ind_x"
    SIZE_FACTOR_KEY: str = "size_factor"
    MINIFY_TYPE_KEY: str = "minify_type"
    LATENT_QZM_KEY: str = "latent_qzm"
    LATENT_QZV_KEY: str = "latent_qzv"
    OBSERVED_LIB_SIZE: str = "observed_lib_size"


REGISTRY_KEYS = _RegistryKeys()

IS_TARGET = "is_target"
"""Key of a minibatch, ``(n, 1)``: 1 for cells that have salient latents, 0 for those that have none."""

PRESENCE_KEY = "modality_presence"
"""Key of a minibatch: which cells have which modality, for models that take MuData whose modalities lack cells."""

NEIGHBORS_KEY = "index_neighbor"
"""Registry key of the row numbers of each cell's nearest cells."""

NEIGHBOR_COUNTS_KEY = "x_neighbors"
"""Key of a minibatch: counts of the nearest cells of each cell, beside each other, where row numbers are registered."""

SCVI_FIGURES = "scvi_tools_figures"
"""Argument of a module that keeps scvi-tools' figures where celbo's are others: set for archives of scvi-tools."""
