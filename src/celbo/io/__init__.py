"""Archives: celbo's own (safetensors and JSON), and a reader and writer of scvi-tools' that never runs what a file
says.

Nothing here knows modules or AnnData: dictionaries of arrays and documents go in and come out.
"""

from typing import TYPE_CHECKING

from ..core.planned import planned_names, public_names
from .archive import Archive, is_archive, read_archive, write_archive
from .errors import ArchiveError, ArchiveNotFoundError

if TYPE_CHECKING:
    from .pickles.unpickle_torch import Constraint
    from .scvitools.read import ScviArchive, is_scvi_archive, read_scvi_archive
    from .scvitools.write import write_scvi_archive

__all__ = [
    "Archive",
    "ArchiveError",
    "ArchiveNotFoundError",
    "Constraint",
    "ScviArchive",
    "is_archive",
    "is_scvi_archive",
    "read_archive",
    "read_scvi_archive",
    "write_archive",
    "write_scvi_archive",
]

_HOMES = {
    "Constraint": "pickles.unpickle_torch",
    "ScviArchive": "scvitools.read",
    "is_scvi_archive": "scvitools.read",
    "read_scvi_archive": "scvitools.read",
    "write_scvi_archive": "scvitools.write",
}

__getattr__ = planned_names(__name__, _HOMES)
__dir__ = public_names(__name__)
