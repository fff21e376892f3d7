"""AUTOZI against scvi-tools 1.4.2: archives that it saved (``make_golden_autozi.py``), read and asked."""

import sys
from pathlib import Path

import numpy as np
import pytest
from torch.distributions import Normal

from celbo.model import AUTOZI
from celbo.module import AutoZIVAE

FOLDER = Path(__file__).parent
CASES = sorted(path.parent.name for path in (FOLDER / "golden_autozi").glob("*/model.pt"))
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def script():
    """The script that made the figures: data and recording are one and the same for both tools."""
    sys.path.insert(0, str(FOLDER))
    try:
        import make_golden_autozi
    finally:
        sys.path.remove(str(FOLDER))
    return make_golden_autozi


@pytest.mark.parametrize("case", CASES)
def test_archives_load_and_give_the_same_figures(case, script, monkeypatch):
    folder = FOLDER / "golden_autozi" / case
    model = AUTOZI.load(str(folder), script.data(), accelerator="cpu")
    monkeypatch.setattr(Normal, "rsample", lambda self, sample_shape=None: self.loc)
    monkeypatch.setattr(AutoZIVAE, "sample_from_beta_distribution", lambda self, a, b: a / (a + b))
    ours = script.figures(model)
    with np.load(folder / "expected.npz") as theirs:
        assert set(ours) == set(theirs.files)
        for name in theirs.files:
            scale = np.abs(theirs[name]).max()
            np.testing.assert_allclose(ours[name], theirs[name], rtol=TOLERANCE, atol=TOLERANCE * scale, err_msg=name)


def test_there_are_archives():
    assert len(CASES) == 3
