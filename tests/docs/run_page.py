"""Run the Python blocks of one Markdown page, in one namespace, as a reader would type them.

Use: ``python run_page.py PAGE [OPTIONAL_PACKAGE ...]``. Blocks opened by ```` ```python ```` and the code cells of
notebooks run, blocks opened by ```` ```python no-run ```` do not. A block that needs one of the optional packages, and
that package alone is absent, is reported as skipped; any other error ends the run with the page's own line number in
the traceback.

``python run_page.py --each [OPTIONAL_PACKAGE ...]`` loads torch and celbo once and forks for every line of its input, a
page and a folder with a tab between: the page runs there, what it says is in the folder's files ``out`` and ``err``,
and the exit status is answered.
"""

import os
import re
import sys
import traceback
import warnings
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


def run_and_say(page: Path, optional: set[str]) -> None:
    for reason in run(page, optional):
        print("SKIPPED", reason)


def run_in_a_fork(page: Path, folder: Path, optional: set[str]) -> int:
    """Exit status of a page."""
    with warnings.catch_warnings(action="ignore"):  # of threads that libraries have started
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        os.chdir(folder)
        for number, name in ((0, os.devnull), (1, "out"), (2, "err")):
            file = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
            os.dup2(file, number)
        run_and_say(page, optional)
        status = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    first, *optional = sys.argv[1:]
    if first != "--each":
        run_and_say(Path(first), set(optional))
        return
    import celbo.external  # with torch and anndata, which take most of a page's time
    import celbo.model  # noqa: F401

    for line in sys.stdin:
        page, folder = map(Path, line.rstrip("\n").split("\t"))
        print(run_in_a_fork(page, folder, set(optional)), flush=True)


if __name__ == "__main__":
    main()
