"""What goes wrong with archives, as exceptions."""

__all__ = ["ArchiveError", "ArchiveNotFoundError"]


class ArchiveError(ValueError):
    """An archive cannot be written, or what lies there cannot be read: the message names the file and what to do."""


class ArchiveNotFoundError(ArchiveError, FileNotFoundError):
    """There is no archive at the place that was named."""
