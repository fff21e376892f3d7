"""Fixtures shared by all tests. Randomness is private to each test: nothing here seeds a global generator."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def rng() -> np.random.Generator:
    """A numpy generator of the test's own."""
    return np.random.default_rng(0)


@pytest.fixture
def torch_rng() -> torch.Generator:
    """A torch generator of the test's own."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def global_rng_untouched() -> Iterator[None]:
    """Fail the test if it moved or seeded the global generator of Python, numpy or torch."""
    python, torch_state = random.getstate(), torch.get_rng_state()
    _, numpy_keys, *numpy_rest = np.random.get_state()
    yield
    _, keys_after, *rest_after = np.random.get_state()
    moved = {
        "random": random.getstate() != python,
        "numpy.random": not np.array_equal(keys_after, numpy_keys) or rest_after != numpy_rest,
        "torch": not torch.equal(torch.get_rng_state(), torch_state),
    }
    touched = [name for name, changed in moved.items() if changed]
    assert not touched, f"the global random state of {', '.join(touched)} was changed: use a private generator"


@pytest.fixture(scope="module")
def mudata_pulls_nothing() -> Iterator[None]:
    """MuData leaves columns of ``obs`` where they are, as from mudata 0.4 on; the option is put back."""
    mudata = pytest.importorskip("mudata", reason="the optional package mudata is not installed")
    with mudata.set_options(pull_on_update=False):
        yield


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data and reference archives that lies beside the repository."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder 'shared' beside the repository: real data and reference archives are not here")
    return folder


@pytest.fixture(scope="session")
def parity2(shared_dir: Path) -> Path:
    """The folder of archives of scvi-tools' further models, with the figures that they must give."""
    folder = shared_dir / "parity2"
    if not folder.is_dir():
        pytest.skip("no folder 'parity2' in 'shared': the archives of scvi-tools' further models are not here")
    return folder


@pytest.fixture
def check_case(parity2: Path) -> Callable[[str], tuple[int, int, list[str]]]:
    """Verbs asked, figures compared and what is wrong of one of these archives, asked in this process."""
    spec = spec_from_file_location("parity2_check", parity2 / "check.py")
    assert spec is not None
    assert spec.loader is not None
    check = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(check)

    def check_case(case: str) -> tuple[int, int, list[str]]:
        for _ in range(2):  # of hundreds of sampled figures one may lie off by chance, not twice
            found = check.check_case(parity2 / case, lambda room: sys.modules[f"celbo.{room}"])
            if not (found[2] and all(fault.startswith("~") for fault in found[2])):
                break
        return found

    return check_case


@pytest.fixture(scope="session")
def peer_python() -> Path:
    """Python of a virtual environment with scvi-tools, for live comparisons."""
    given = os.environ.get("CELBO_PEER_PYTHON")
    if not given:
        pytest.skip("CELBO_PEER_PYTHON is not set: give the python of an environment with scvi-tools==1.4.2")
    # The version is read from the metadata: importing scvi-tools only to ask would cost seconds.
    ask = "from importlib.metadata import version; print(version('scvi-tools'))"
    answer = subprocess.run([given, "-c", ask], capture_output=True, text=True)
    if answer.returncode or answer.stdout.strip() != "1.4.2":
        pytest.fail(
            f"CELBO_PEER_PYTHON={given} has no scvi-tools 1.4.2: {answer.stdout.strip() or answer.stderr[-300:]}"
        )
    return Path(given)
