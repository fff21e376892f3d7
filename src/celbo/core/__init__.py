"""Constants, settings, errors and types: what everything else may use. No torch here."""

from .arguments import ArgumentError, UnknownArgumentError, checked, checked_methods, door_of
from .constants import (
    IS_TARGET,
    NEIGHBOR_COUNTS_KEY,
    NEIGHBORS_KEY,
    PRESENCE_KEY,
    REGISTRY_KEYS,
    SCVI_FIGURES,
    SCVI_TOOLS_VERSION,
)
from .errors import DataMismatchError, MinifiedDataError, misspelt, nearest_first, noted, number_of, unknown_name
from .lazy import optional
from .lookup import listed, position_of
from .planned import public_names
from .process import is_first_process
from .regular_file import open_regular, read_regular
from .settings import Settings, settings
from .summary import ElboOfWeights, Explained, Summary, elbo_of_weights
from .version import __version__, version_numbers

__all__ = [
    "IS_TARGET",
    "NEIGHBORS_KEY",
    "NEIGHBOR_COUNTS_KEY",
    "PRESENCE_KEY",
    "REGISTRY_KEYS",
    "SCVI_FIGURES",
    "SCVI_TOOLS_VERSION",
    "ArgumentError",
    "DataMismatchError",
    "ElboOfWeights",
    "Explained",
    "MinifiedDataError",
    "Settings",
    "Summary",
    "UnknownArgumentError",
    "__version__",
    "checked",
    "checked_methods",
    "door_of",
    "elbo_of_weights",
    "is_first_process",
    "listed",
    "misspelt",
    "nearest_first",
    "noted",
    "number_of",
    "open_regular",
    "optional",
    "position_of",
    "read_regular",
    "settings",
    "unknown_name",
    "version_numbers",
]

__dir__ = public_names(__name__)
