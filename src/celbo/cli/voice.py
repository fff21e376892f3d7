"""What the user hears during a command: celbo's own messages, and nothing of the packages below it."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from ..core import settings
from .errors import INTERRUPTED

__all__ = ["speaking"]

logger = logging.getLogger("celbo")


@contextmanager
def speaking(quiet: bool) -> Iterator[None]:
    """Run a command under the command line's rules of speech.

    Parameters
    ----------
    quiet
        Say nothing but errors.

    Notes
    -----
    Ctrl-C inside ends the command with exit code 130; whoever made something has taken it away by then.
    """
    before = settings.verbosity
    settings.verbosity = logging.ERROR if quiet else logging.INFO
    logger.addFilter(_without_summary)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not quiet:
                warnings.filterwarnings("always", category=UserWarning, module=r"celbo\b")
            warnings.showwarning = _show
            yield
    except KeyboardInterrupt:
        typer.echo("celbo: interrupted; nothing was written.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        logger.removeFilter(_without_summary)
        settings.verbosity = before


def _show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    # Packages have subclasses of their own for what they warn of in celbo's calls; celbo warns with the plain class.
    if category is UserWarning:
        print(f"celbo: {' '.join(str(message).split())}", file=sys.stderr)


def _without_summary(record: logging.LogRecord) -> bool:
    """The trainer's closing line is left out: the command ends with the figures of the weights that were kept."""
    return not (record.module == "trainer" and record.levelno == logging.INFO)
