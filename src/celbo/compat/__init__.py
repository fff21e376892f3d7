"""celbo under scvi-tools' import name, for notebooks and packages that say ``import scvi``.

``celbo.compat.install_as_scvi()``, or ``python -m celbo.compat SCRIPT.py ARGUMENTS`` for code that cannot be edited.
"""

from ..core.planned import public_names
from .install import as_scvi, install_as_scvi, is_installed, uninstall

__all__ = ["as_scvi", "install_as_scvi", "is_installed", "uninstall"]

__dir__ = public_names(__name__)
