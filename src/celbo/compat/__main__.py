"""Run code on celbo in place of scvi-tools: ``python -m celbo.compat SCRIPT.py ARGUMENTS``, or ``-m MODULE``."""

import runpy
import sys
from pathlib import Path

from .install import install_as_scvi

_USAGE = """usage: python -m celbo.compat SCRIPT.py [ARGUMENTS]
       python -m celbo.compat -m MODULE [ARGUMENTS]      (for example: -m pytest)

Runs code written for scvi-tools on celbo: `import scvi` gives celbo there."""


def main(arguments: list[str]) -> None:
    """Run a script or module with ``sys.argv`` and ``sys.path`` as if Python had been called with it."""
    if not arguments or arguments[0] in ("-h", "--help") or (arguments[0] == "-m" and len(arguments) < 2):
        print(_USAGE, file=sys.stderr)
        raise SystemExit(0 if arguments[:1] in (["-h"], ["--help"]) else 2)
    install_as_scvi()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = ""
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
