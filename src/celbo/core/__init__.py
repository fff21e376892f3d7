"""Constants, settings, errors and types: what everything else may use. No torch here."""

from .constants import REGISTRY_KEYS, SCVI_TOOLS_VERSION
from .errors import DataMismatchError, nearest_first, noted, unknown_name
from .lazy import optional
from .process import is_first_process
from .regular_file import open_regular, read_regular
from .settings import Settings, settings
from .version import __version__

__all__ = [
    "REGISTRY_KEYS",
    "SCVI_TOOLS_VERSION",
    "DataMismatchError",
    "Settings",
    "__version__",
    "is_first_process",
    "nearest_first",
    "noted",
    "open_regular",
    "optional",
    "read_regular",
    "settings",
    "unknown_name",
]
