"""What the user hears during a command: celbo's own messages, and nothing of the packages below it."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..core import settings
from ..data.count_report import NO_COUNTS
from .errors import as_options

__all__ = ["speaking"]

logger = logging.getLogger("celbo")


@contextmanager
def speaking(quiet: bool) -> Iterator[None]:
    """Run a command under the command line's rules of speech.

    Parameters
    ----------
    quiet
        Say nothing but errors, and what is no count but is taken for one.

    """
    before = settings.verbosity
    settings.verbosity = logging.ERROR if quiet else logging.INFO
    logger.addFilter(_is_news)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not quiet:
                warnings.filterwarnings("always", category=UserWarning, module=r"celbo\b")
            warnings.filterwarnings("always", f".*{NO_COUNTS}", UserWarning)  # no result to be quiet about
            warnings.showwarning = _show
            yield
    finally:
        logger.removeFilter(_is_news)
        settings.verbosity = before


def _show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    # Packages have subclasses of their own for what they warn of in celbo's calls; celbo warns with the plain class.
    if category is UserWarning:
        print(f"celbo: {as_options(str(message))}", file=sys.stderr)


_SAID_ELSEWHERE = {
    "progress": "the command ends with the figures of the weights that were kept",
    "schedule": "the checkpoints lie in the output folder, and vanish with the end of the run",
    "model": "of course an input was not set up before",
    "count_report": "empty cells and genes stand in the report",
}
"""File of celbo -> why what it has to say for information is left out."""


def _is_news(record: logging.LogRecord) -> bool:
    said = record.getMessage()
    if "\n" not in said:  # a table keeps its lines
        record.msg, record.args = as_options(said), ()
    return record.levelno > logging.INFO or record.module not in _SAID_ELSEWHERE
