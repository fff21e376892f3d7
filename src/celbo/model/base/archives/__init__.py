"""Saving, loading, and converting archives; loaded by the first model that is saved or read."""

from typing import TYPE_CHECKING

from ....core.planned import planned_names, public_names

if TYPE_CHECKING:
    from .archive import Saved, delete, load_model, pick_device, read_saved, save_model, without_data
    from .convert import convert_archive, export_archive

__all__ = [
    "Saved",
    "convert_archive",
    "delete",
    "export_archive",
    "load_model",
    "pick_device",
    "read_saved",
    "save_model",
    "without_data",
]

_HOMES = {"convert_archive": "convert", "export_archive": "convert"}

__getattr__ = planned_names(__name__, dict.fromkeys(__all__, "archive") | _HOMES)
__dir__ = public_names(__name__)
