"""Stereoscope and CellAssign against scvi-tools 1.4.2: the figures and archives of ``make_golden_cell_types.py``."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from celbo.external import CellAssign, RNAStereoscope, SpatialStereoscope
from celbo.external.cellassign import CellAssignModule
from celbo.external.stereoscope import RNADeconv, SpatialDeconv

FOLDER = Path(__file__).parent
GOLDEN = FOLDER / "golden_cell_types"
TOLERANCE = 1e-5
CLASSES = {cls.__name__: cls for cls in (RNADeconv, SpatialDeconv, CellAssignModule)}


@pytest.fixture(scope="module")
def script():
    """The script that made the figures: its recording half is one and the same for both tools."""
    sys.path.insert(0, str(FOLDER))
    try:
        import make_golden_cell_types
    finally:
        sys.path.remove(str(FOLDER))
    return make_golden_cell_types


@pytest.mark.parametrize("name", ["rna", "spatial_n_obs", "spatial_minibatch", "cellassign", "cellassign_covariates"])
def test_losses_gradients_and_training_agree(name, script):
    with np.load(GOLDEN / f"{name}.npz") as archive:
        golden = dict(archive)

    def part(prefix):
        return {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}

    cls, kwargs = json.loads(str(golden["case"]))
    module = script.made(CLASSES, cls, kwargs, part("arrays/"))
    state = {key: torch.as_tensor(value) for key, value in part("weights/").items()}
    assert list(module.state_dict()) == list(state), "names and order of the state_dict"
    module.load_state_dict(state)
    ours = script.record(module, {key: torch.as_tensor(value) for key, value in part("batch/").items()})
    theirs = part("figures/")
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        scale = float(np.abs(value).max())
        np.testing.assert_allclose(ours[key], value, rtol=TOLERANCE, atol=TOLERANCE * scale, err_msg=key)


def answer(model):
    if isinstance(model, RNAStereoscope):
        return model.module.get_params()[0]
    return model.predict() if isinstance(model, CellAssign) else model.get_proportions()


@pytest.mark.parametrize(
    ("cls", "name", "seed"),
    [(RNAStereoscope, "rna", 0), (SpatialStereoscope, "spatial", 1), (CellAssign, "cellassign", 2)],
)
def test_archives_of_scvi_tools_load_and_answer(cls, name, seed, script, tmp_path):
    adata = script.data(seed)
    model = cls.load(str(GOLDEN / name), adata, accelerator="cpu")
    expected = np.load(GOLDEN / name / "answer.npy")
    np.testing.assert_allclose(answer(model), expected, rtol=TOLERANCE, atol=1e-6)
    assert model.is_trained
    bare = cls.load(str(GOLDEN / name), adata=False, accelerator="cpu")
    again = bare.predict(script.data(seed)) if isinstance(bare, CellAssign) else answer(bare)
    np.testing.assert_allclose(again, expected, rtol=TOLERANCE, atol=1e-6)
    model.train(max_epochs=1, verbose=0, seed=0, accelerator="cpu")
    model.save(str(tmp_path / "own"))
    np.testing.assert_array_equal(answer(cls.load(str(tmp_path / "own"), adata, accelerator="cpu")), answer(model))
