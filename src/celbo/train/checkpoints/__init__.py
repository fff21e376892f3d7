"""A run on disk: its state as a document, where it lies, when it is written. Loaded by the first run that has one."""

from typing import TYPE_CHECKING

from ...core.planned import planned_names, public_names

if TYPE_CHECKING:
    from .fingerprint import DifferentRunError, as_begun, blaming_settings, describe_run, refuse_other_run
    from .folder import SavedRun, checked_run, told_of
    from .schedule import Checkpointing, Interval, TerminatedError, make_checkpointing
    from .state import restore, say_what_differs

_HOMES = {
    "Checkpointing": "schedule",
    "DifferentRunError": "fingerprint",
    "Interval": "schedule",
    "SavedRun": "folder",
    "TerminatedError": "schedule",
    "as_begun": "fingerprint",
    "blaming_settings": "fingerprint",
    "checked_run": "folder",
    "describe_run": "fingerprint",
    "make_checkpointing": "schedule",
    "refuse_other_run": "fingerprint",
    "restore": "state",
    "say_what_differs": "state",
    "told_of": "folder",
}

__all__ = [
    "Checkpointing",
    "DifferentRunError",
    "Interval",
    "SavedRun",
    "TerminatedError",
    "as_begun",
    "blaming_settings",
    "checked_run",
    "describe_run",
    "make_checkpointing",
    "refuse_other_run",
    "restore",
    "say_what_differs",
    "told_of",
]

__getattr__ = planned_names(__name__, _HOMES)
__dir__ = public_names(__name__)
