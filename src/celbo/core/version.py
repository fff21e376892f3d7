"""The one place where celbo's version is written, and how versions are compared."""

import re

__all__ = ["__version__", "version_numbers"]

__version__ = "0.2.0"


def version_numbers(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with, up to three: ``"1.4.3.post1"`` gives ``(1, 4, 3)``."""
    found = re.match(r"\d+(\.\d+){0,2}", text)
    return tuple(map(int, found[0].split("."))) if found else ()
