"""Cases run one after another in a process of their own: a hang, a crash or a lot of memory is one case's fault."""

import json
import os
import resource
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["LIMIT_BYTES", "LIMIT_S", "report", "watched"]

LIMIT_S, LIMIT_BYTES = 10, 2**30
_BEGINNING_S = 90.0


def report(first: int, last: int, run: Callable[[int], Iterator[dict[str, Any]]]) -> None:
    """Run cases and print lines of JSON: each case when it begins, and the faults that ``run`` gives for it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(first, last):
        print(json.dumps({"case": case}), flush=True)
        for fault in run(case):
            print(json.dumps({"case": case, **fault}), flush=True)
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if (now - before) * 1024 > LIMIT_BYTES:
            print(json.dumps({"case": case, "fault": f"took {(now - before) // 1024} MB"}), flush=True)
            before = now
    print(json.dumps({"case": last}), flush=True)


def watched(module: str, kind: str, n: int, *settings: int) -> Iterator[dict[str, Any]]:
    """The faults of a kind, from ``python -m MODULE --work KIND FIRST N SETTINGS...``.

    A worker that says nothing for too long is killed, and another goes on behind its case.
    """
    first = 0
    while first < n:
        line = [sys.executable, "-m", module, "--work", kind, *map(str, map(int, (first, n, *settings)))]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
            case, why = yield from _faults(worker)
        if case < 0:
            raise RuntimeError(f"{' '.join(line)}: {why} before its first case")
        if case < n:
            yield {"kind": kind, "case": case, "fault": why}
        first = case + 1


def _faults(worker: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    assert worker.stdout is not None
    case, limit, pending = -1, _BEGINNING_S, b""  # the first line comes when everything is imported
    while True:
        ready, _, _ = select.select([worker.stdout], [], [], limit)
        if not ready:
            worker.kill()
            return case, f"no end after {LIMIT_S} s"
        piece = os.read(worker.stdout.fileno(), 2**16)
        if not piece:
            return case, f"the process died with {worker.wait()}"
        *lines, pending = (pending + piece).split(b"\n")
        for found in map(json.loads, lines):
            case, limit = found["case"], float(LIMIT_S)
            if "fault" in found:
                yield found
