"""Small helpers under scvi-tools' names, for code of others that imports them."""

from ..core.planned import planned_names, public_names
from ..data.registry import attrdict
from .dependencies import dependencies, error_on_missing_dependencies, is_package_installed
from .docstrings import DocstringParts, de_dsp, setup_anndata_dsp
from .minified import unsupported_if_adata_minified
from .prng import device_selecting_PRNGKey
from .progress import track

__all__ = [
    "DocstringParts",
    "attrdict",
    "de_dsp",
    "dependencies",
    "device_selecting_PRNGKey",
    "error_on_missing_dependencies",
    "is_package_installed",
    "setup_anndata_dsp",
    "track",
    "unsupported_if_adata_minified",
]

__getattr__ = planned_names(__name__)
__dir__ = public_names(__name__)
