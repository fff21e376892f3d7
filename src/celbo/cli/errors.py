"""How commands fail: one line and exit code 2 for wrong input, one line and exit code 1 for a fault of celbo's own."""

import json
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from ..core import DataMismatchError
from .interrupts import INTERRUPTED, Interrupts

__all__ = ["OneLineErrors", "UserError", "as_options", "one_line"]

BUG, USER = 1, 2
"""Exit codes; see also :data:`celbo.cli.interrupts.INTERRUPTED`."""


class UserError(Exception):
    """Input that cannot be worked with; the message says what to do."""


# What the parser of the command line raises; typer has no public name for it in all of its versions.
_ParserError: Any = typer.BadParameter.__mro__[2]

_OF_THE_USER = (UserError, ValueError, LookupError, OSError, ImportError, ArithmeticError, _ParserError)


def one_line(error: BaseException) -> str:
    """The message of an error and its notes on one line, Python arguments in it as the options they are here."""
    if isinstance(error, _ParserError):
        said = error.format_message()
        text = f"{said}{'' if said.endswith(('.', '?')) else '.'} See --help."
    elif isinstance(error, KeyError) and error.args:
        text = str(error.args[0])  # str() of a KeyError is the repr of its message
    elif isinstance(error, DataMismatchError):
        text = error.on_command_line
    elif isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"  # without the number
    else:
        text = str(error)
    if notes := vars(error).get("__notes__", ()):
        text = " ".join([f"{text.rstrip('.')}.", *notes])
    return as_options(text) or type(error).__name__


_REMEDIES = {
    r"layer=None": "X (leave --layer out)",
    r"use_raw=False": "X (leave --raw out)",
    r"use_raw=True": "--raw",
    r"make a model of these cells from this one by RESOLVI\.load_query_data": "celbo map takes them",
    r"SCAR\.get_ambient_profile\(adata, raw_adata\) with": "--ambient RAW.h5,",
    r"ambient_profile is not given": "--ambient is not given",
    r"\(celbo\.data\.open\(\.\.\., stream=False\)\)": "(--data load)",
    r" All of them, for a model of several: celbo\.data\.read_mudata\.": " --model totalvi and multivi take several.",
    r": celbo\.data\.read reads .*?\.": ". Give files that hold several, as .h5mu, or choose a --model of one.",
    r"\(encode_covariates=False\)": "(it was trained without --encode-covariates)",
    r"with encode_covariates=True, or pass freeze_expression=False,[^.]*": "with --encode-covariates",
    r"\w+\.prepare_query_\w+\(adata, reference_model\) counts": "celbo map --data load counts",
    r"in Python, prepare_query_\w+ fills missing genes with zeros": "celbo map counts missing genes as zeros",
    r"plan_kwargs=\{'n_epochs_kl_warmup': \d+\} would let it reach 1": "Give more --max-epochs, or leave that out",
    r"(prepare_data_kwargs\['spatial_rep'\]|\bcell_coordinates_key)=": "--spatial-key",
    r"train\(resume=('[^']*')\) goes on": r"the same celbo train with --resume goes on, in Python train(resume=\1)",
    r"resume with max_epochs=(\d+), or without it(; then [^.]*)?\.": r"resume with --max-epochs \1, or without it.",
    r"\bcheckpoint_every='([^']*)'": r"--checkpoint-every '\1'",
    r"say so: (override_missing_proteins=True)\.": r"say so (in Python: setup_mudata(\1)).",
    r"say so: (measured_proteins=[^.]*)\.": r"say so (in Python, to setup_anndata: \1).",
    r"get_normalized_expression\(transform_batch=\.\.\.\)": "celbo denoise --transform-batch",
    r"pass unlabeled_category='([^']*)' if these cells are not labelled, another name, such as 'none', if they are\.": (
        r"give --unlabeled-category \1 if these cells have no label, --unlabeled-category none if they have one."
    ),
    r"\bunlabeled_category='([^']*)'": r"--unlabeled-category \1",
    r"\bunlabeled_category\b": "--unlabeled-category",
    r"(name the file with the counts of these cells)\.": r"\1; celbo de takes a column of this one by --groups-from.",
    r"\bgene_list\b": "--gene",
    r"--raw \(adata\.raw, ": "--raw (",
    r"(?<!-)\brestrict_to_batch\b": "--restrict-to-batch",
    r"\b[am]data\.(?=(obs|var|X|raw|layers|mod|uns)\b|obsm|varm)": "",
}
"""What celbo says to those who call Python -> the same here."""


def as_options(text: str) -> str:
    """A message on one line, with the Python arguments in it as the options they are here."""
    text = re.sub(r"\b(layer|modality|orientation)='([^' ]*)'", r"--\1 \2", " ".join(text.split()))
    text = re.sub(r"\b(layer|modality)=('[^']*')", r"--\1 \2", text)
    text = re.sub(r'\blayer=("(?:[^"\\]|\\.)*")', lambda found: f"--layer {shlex.quote(json.loads(found[1]))}", text)
    for python, here in _REMEDIES.items():
        text = re.sub(python, here, text)
    return text


class OneLineErrors(TyperGroup):
    """The group of all commands; ``--debug``, anywhere on the line, shows tracebacks."""

    def main(  # type: ignore[override]  # the parser's further arguments go through `extra`
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Run a command line and leave the process with its exit code."""
        given = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        interrupts = Interrupts()
        try:
            with interrupts.noting():
                # In this mode the code of an Exit is returned; commands return None.
                code = super().main([arg for arg in given if arg != "--debug"], prog_name, **extra)
        except Exception as error:
            if "--debug" in given:
                raise
            interrupted = interrupts.seen or isinstance(error, _InterruptedError)
            code = _tell_of_interrupt(error) if interrupted else _tell(error)
        sys.exit(code or 0)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; typer would end the process without a word on Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _InterruptedError(*error.args) from None


class _InterruptedError(Exception):
    """Ctrl-C; the message, if any, says what was kept."""


def _tell_of_interrupt(error: Exception) -> int:
    """Other errors after Ctrl-C are its consequences, whatever they say."""
    kept = str(error) if isinstance(error, _InterruptedError) else ""
    typer.echo(f"celbo: {kept or 'interrupted; nothing was written.'}", err=True)
    return INTERRUPTED


_OF_ANY_LIBRARY = (ValueError, LookupError, ArithmeticError)


def _is_our_fault(error: BaseException) -> bool:
    """Whether a library refused what celbo handed it: celbo's own errors are raised on purpose, for the user."""
    if not isinstance(error, _OF_ANY_LIBRARY) or isinstance(error, _ParserError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    package = __name__.partition(".")[0]
    return bool(frames) and frames[-1].f_globals.get("__name__", "").partition(".")[0] != package


def _tell(error: Exception) -> int:
    if _is_of_memory(error):
        what = one_line(error) if str(error) else "how much was needed is not known"
        typer.echo(f"celbo: there is not enough memory: {what.rstrip('.')}. {_LESS_MEMORY}", err=True)
        return USER
    if isinstance(error, _OF_THE_USER) and not _is_our_fault(error):
        typer.echo(f"celbo: {one_line(error)}", err=True)
        return USER
    hint = "a fault of celbo: the same line with --debug shows where"
    typer.echo(f"celbo: {type(error).__name__}: {one_line(error)} ({hint})", err=True)
    return BUG


_LESS_MEMORY = "Take fewer cells or genes (--n-top-genes), or leave the matrices on disk with --data stream."


def _is_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; torch has no class of error for it on the CPU."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "allocate" in text and "memory" in text
    )
