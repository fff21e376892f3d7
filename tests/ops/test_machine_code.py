"""Compiled loops on disk: taken when they are whole and meant for this machine, made anew otherwise."""

import inspect
import logging
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

from celbo.ops.native import machine_code

FAMILY = "poisson"


@pytest.fixture(scope="module")
def made():
    from celbo.ops.native.compiling import compile_rows

    return compile_rows(FAMILY)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def compiler(monkeypatch, made):
    """Stands in for the compiler; counts how often it is asked."""
    asked = []

    class Compiler:
        @staticmethod
        def compile_rows(family):
            asked.append(family)
            return made

    monkeypatch.setattr(machine_code.importlib, "import_module", lambda name: Compiler)
    return asked


def values_of(loop):
    x, logits, library = torch.tensor([[0.0, 3.0]]), torch.zeros(1, 2), torch.zeros(1)
    values, nothing, grad_library = torch.empty(1), torch.empty(0, 2), torch.empty(1)
    loop.bind([x, logits, library, values, nothing, grad_library, torch.ones(1)], 2)(0, 1)
    return values


def expected():
    rate = torch.tensor([0.5, 0.5])
    return torch.distributions.Poisson(rate).log_prob(torch.tensor([0.0, 3.0])).sum()


def test_kept_code_is_taken_without_the_compiler(folder, compiler):
    first, second = machine_code.ready_loop(FAMILY), machine_code.ready_loop(FAMILY)
    assert compiler == [FAMILY]
    torch.testing.assert_close(values_of(first)[0], expected())
    assert torch.equal(values_of(second), values_of(first))
    assert [path.suffix for path in folder.iterdir()] == [".celbo"]


@pytest.mark.parametrize("place", [0, 3, 40, 80, 200, -1])
def test_a_flipped_bit_is_noticed(folder, compiler, caplog, place):
    machine_code.ready_loop(FAMILY)
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.INFO, "celbo"):
        values = values_of(machine_code.ready_loop(FAMILY))
    assert compiler == [FAMILY] * 2, "the damaged file was taken"
    assert "compiling again" in caplog.text
    torch.testing.assert_close(values[0], expected())


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_a_file_cut_short_is_noticed(folder, compiler, size):
    machine_code.ready_loop(FAMILY)
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:size])
    machine_code.ready_loop(FAMILY)
    assert compiler == [FAMILY] * 2


def test_other_processors_and_versions_have_other_files(monkeypatch):
    key = machine_code._key.__wrapped__
    here = key()
    assert here == key()
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    generic = key()
    monkeypatch.setattr(machine_code.metadata, "version", lambda package: "0.0")
    assert len({here, generic, key()}) == 3


def test_every_module_that_is_compiled_counts(monkeypatch):
    """A loop that has changed is compiled again, whichever file of kernels it is in."""
    from celbo.ops.native import compiling

    kernels = {
        Path(module.__file__)
        for module in vars(compiling).values()
        if inspect.ismodule(module) and "kernel" in module.__name__
    }
    read = []
    bytes_of = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or bytes_of(path))
    machine_code._key.__wrapped__()
    assert len(kernels) >= 5
    assert kernels < set(read)


def test_no_place_to_keep_it(tmp_path, monkeypatch, compiler, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "folder"))
    with caplog.at_level(logging.INFO, "celbo"):
        values = values_of(machine_code.ready_loop(FAMILY))
    assert "cannot be kept for the next run" in caplog.text
    torch.testing.assert_close(values[0], expected())


def test_a_symbol_that_is_not_there(made):
    with pytest.raises(RuntimeError, match="no function absent"):
        machine_code.Loop(made[0], "absent")


SCRIPT = """
import sys
import torch
from celbo.ops import nb_log_prob_sum, poisson_log_prob_sum
from celbo.ops.linear import csr_linear
from celbo.ops.native import machine_code
one = torch.ones(40, 9)
x = torch.sparse_csr_tensor(torch.arange(41), torch.arange(40) % 9, torch.ones(40), size=(40, 9), check_invariants=True)
with torch.inference_mode():
    product = csr_linear(x, torch.arange(27.0).reshape(3, 9), torch.ones(3))
    likelihoods = nb_log_prob_sum(one, one, one[:, :1], one[0]), poisson_log_prob_sum(one, one, one[:, :1])
assert torch.equal(product[:2], torch.tensor([[1.0, 10.0, 19.0], [2.0, 11.0, 20.0]])), product
assert all(values.isfinite().all() for values in likelihoods)
assert machine_code.all_work() and "numba" not in sys.modules
"""


def test_every_loop_runs_in_a_process_without_numba():
    for family in get_args(machine_code.Family):
        machine_code.ready_loop(family)  # compiled, if not before, here
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_code_that_needs_numba_is_refused():
    from celbo.ops.native.compiling import _refuse_foreign_calls

    _refuse_foreign_calls("declare double @exp(double)\ndeclare void @llvm.memset.p0.i64(ptr)\n")
    with pytest.raises(RuntimeError, match="NRT_Allocate"):
        _refuse_foreign_calls("declare noalias ptr @NRT_Allocate(i64) #3\n")
