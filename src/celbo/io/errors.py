"""What goes wrong with archives, as exceptions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ArchiveError", "ArchiveNotFoundError", "blaming", "in_words"]


class ArchiveError(ValueError):
    """An archive cannot be written, or what lies there cannot be read: the message names the file and what to do."""


class ArchiveNotFoundError(ArchiveError, FileNotFoundError):
    """There is no archive at the place that was named."""


_LETTERS = 300


def in_words(error: BaseException) -> str:
    """What an error says, short enough for a message; one that is no :class:`ArchiveError` with its kind."""
    text = " ".join(str(error).split())
    if not isinstance(error, ArchiveError):
        text = f"it makes no sense ({type(error).__name__}: {text})" if text else f"it makes no sense ({error!r})"
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 3]}..."


@contextmanager
def blaming(path: Path, part: str) -> Iterator[None]:
    """Make whatever a part of an archive provokes an :class:`ArchiveError` that names file and part."""
    try:
        yield
    except ArchiveError as error:
        if str(path) in str(error):
            raise
        raise ArchiveError(f"{path}, {part}: {error}") from error
    except Exception as error:
        raise ArchiveError(f"{path}, {part}: {in_words(error)}.") from error
