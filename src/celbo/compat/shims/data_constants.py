"""``scvi.data._constants``: keys of registries and of minified data."""

from typing import NamedTuple

from ...data.constants import ATTR_KEY as _DR_ATTR_KEY
from ...data.constants import ATTR_NAME as _DR_ATTR_NAME
from ...data.constants import DATA_REGISTRY as _DATA_REGISTRY_KEY
from ...data.constants import FIELD_REGISTRIES as _FIELD_REGISTRIES_KEY
from ...data.constants import MANAGER_UUID as _MANAGER_UUID_KEY
from ...data.constants import MOD_KEY as _DR_MOD_KEY
from ...data.constants import MODEL_NAME as _MODEL_NAME_KEY
from ...data.constants import SCVI_VERSION as _SCVI_VERSION_KEY
from ...data.constants import SETUP_ARGS as _SETUP_ARGS_KEY
from ...data.constants import SETUP_METHOD_NAME as _SETUP_METHOD_NAME
from ...data.constants import STATE_REGISTRY as _STATE_REGISTRY_KEY
from ...data.constants import SUMMARY_STATS as _SUMMARY_STATS_KEY
from ...data.constants import UUID as _SCVI_UUID_KEY

__all__ = [
    "ADATA_MINIFY_TYPE",
    "_ADATA_ATTRS",
    "_ADATA_MINIFY_TYPE_UNS_KEY",
    "_DATA_REGISTRY_KEY",
    "_DR_ATTR_KEY",
    "_DR_ATTR_NAME",
    "_DR_MOD_KEY",
    "_FIELD_REGISTRIES_KEY",
    "_MANAGER_UUID_KEY",
    "_MODEL_NAME_KEY",
    "_SCVI_UUID_KEY",
    "_SCVI_VERSION_KEY",
    "_SETUP_ARGS_KEY",
    "_SETUP_METHOD_NAME",
    "_STATE_REGISTRY_KEY",
    "_SUMMARY_STATS_KEY",
]

_ADATA_MINIFY_TYPE_UNS_KEY = "_scvi_adata_minify_type"


class _MinifyTypes(NamedTuple):
    LATENT_POSTERIOR: str = "latent_posterior_parameters"
    LATENT_POSTERIOR_WITH_COUNTS: str = "latent_posterior_parameters_with_counts"


class _AnnDataAttributes(NamedTuple):
    X: str = "X"
    LAYERS: str = "layers"
    OBS: str = "obs"
    OBSM: str = "obsm"
    VAR: str = "var"
    VARM: str = "varm"
    UNS: str = "uns"


ADATA_MINIFY_TYPE = _MinifyTypes()
_ADATA_ATTRS = _AnnDataAttributes()
