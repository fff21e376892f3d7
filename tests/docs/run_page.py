"""Run the Python blocks of one Markdown page, in one namespace, as a reader would type them.

Use: ``python run_page.py PAGE [OPTIONAL_PACKAGE ...]``. Blocks opened by ```` ```python ```` and the code cells of
notebooks run, blocks opened by ```` ```python no-run ```` do not. A block that needs one of the optional packages, and
that package alone is absent, is reported as skipped; any other error ends the run with the page's own line number in
the traceback.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(
    r"^```(?:python|\{code-cell\} ipython3)[ \t]*(?P<mark>[^\n]*)\n(?P<code>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    line: int
    mark: str
    code: str


def blocks_of(text: str) -> list[Block]:
    """Python blocks of a page; ``line`` is where the code starts."""
    return [
        Block(text.count("\n", 0, found.start("code")) + 1, found["mark"].strip(), found["code"])
        for found in FENCE.finditer(text)
    ]


def run(page: Path, optional: set[str]) -> list[str]:
    """Run a page; say which blocks were skipped and why."""
    namespace = {"__name__": "__main__"}
    skipped = []
    for line, mark, code in blocks_of(page.read_text()):
        if mark == "no-run":
            continue
        if mark:
            raise ValueError(f"{page}:{line}: unknown mark {mark!r} after ```python, only 'no-run' is known")
        try:
            exec(compile("\n" * (line - 1) + code, page, "exec"), namespace)
        except ModuleNotFoundError as error:
            absent = str(error.name).partition(".")[0]
            if absent not in optional:
                raise
            skipped.append(f"{page.name}:{line} needs {absent}, which is not installed")
    return skipped


if __name__ == "__main__":
    for reason in run(Path(sys.argv[1]), set(sys.argv[2:])):
        print("SKIPPED", reason)
