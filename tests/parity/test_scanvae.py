"""SCANVAE against scvi-tools 1.4.2: the figures of ``make_golden_scanvae.py``, from the same weights."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from celbo.module import SCANVAE

FOLDER = Path(__file__).parent
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def recording():
    """The recording half of the script that made the figures: one and the same for both tools."""
    sys.path.insert(0, str(FOLDER))
    try:
        import make_golden_scanvae
    finally:
        sys.path.remove(str(FOLDER))
    return make_golden_scanvae.record


@pytest.mark.parametrize("path", sorted((FOLDER / "golden_scanvae").glob("*.npz")), ids=lambda path: path.stem)
def test_losses_and_training_agree(path, recording, monkeypatch):
    monkeypatch.setattr(Normal, "rsample", lambda self, sample_shape=None: self.loc)
    with np.load(path) as archive:
        golden = dict(archive)

    def part(prefix):
        return {key.removeprefix(prefix): torch.as_tensor(v) for key, v in golden.items() if key.startswith(prefix)}

    module = SCANVAE(**json.loads(str(golden["case"]))["kwargs"])
    state = part("weights/")
    assert list(module.state_dict()) == list(state), "names and order of the state_dict"
    module.load_state_dict(state)
    ours, theirs = recording(module, part("batch/")), part("figures/")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        scale = float(value.abs().max())
        np.testing.assert_allclose(ours[name], value, rtol=TOLERANCE, atol=TOLERANCE * scale, err_msg=name)


def test_there_are_figures():
    assert len(list((FOLDER / "golden_scanvae").glob("*.npz"))) == 3
