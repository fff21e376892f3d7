"""What a session loads, and what it never needs: read off one process, step by step."""

import json
import subprocess
import sys

import pytest

SESSION = """
import json, sys, warnings
loaded = {}

def note(step):
    loaded[step] = sorted(sys.modules)

import celbo
dir(celbo)
note("celbo")
import anndata
import numpy as np
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    celbo.which(anndata.AnnData(np.ones((9, 3))))
note("which")
celbo.model.SCVI
note("a model's class")
import torch
from torch.utils import _pytree
from celbo.module.base import LossOutput
record = LossOutput(torch.tensor(1.0), torch.ones(3))
assert record.replace(kl_local=torch.ones(3)).kl_local_sum.item() == 3.0
assert _pytree.tree_map(lambda t: 2 * t, record).loss.item() == 2.0
note("loss")
adata = celbo.data.synthetic_iid(seed=0)
model = None
for cls in (celbo.model.SCVI, celbo.model.PEAKVI):  # PEAKVI by AdamW
    cls.setup_anndata(adata)
    model = cls(adata)
    model.train(max_epochs=2, verbose=0, accelerator="cpu")
note("training")
model.save(sys.argv[1])
celbo.model.PEAKVI.load(sys.argv[1], adata)
note("loading")
from celbo.train.engines.graphs import Watch
with Watch([]):
    torch.ones(3) + 1
note("watching")
from celbo.report import figures
figures.as_data_uri(figures.latent_scatter(np.zeros((5, 2))))
note("figures")
print(json.dumps(loaded))
"""

FILES = ("celbo.formats", "celbo.io", "celbo.store.zarr", "celbo.train.checkpoints.state", "rich", "scipy.io")
COMPILER = ("torch._dynamo", "sympy")
HEAVY = ("torch", "numpy", "anndata", "pandas", "numba", "jax", "matplotlib", "lightning_fabric", "celbo.tl")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Step -> names of the modules that are loaded after it."""
    command = [sys.executable, "-c", SESSION, str(tmp_path_factory.mktemp("loading") / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {step: set(names) for step, names in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.parametrize(
    ("step", "never"),
    [
        pytest.param("celbo", HEAVY, id="the root loads nothing heavy"),
        pytest.param("which", ("torch",), id="choosing a model needs no torch"),
        pytest.param("a model's class", FILES, id="cells in memory need no reader of files"),
        pytest.param("loss", ("jax", "jaxlib", "flax"), id="a loss of torch needs no jax"),
        pytest.param("training", ("lightning_fabric", *COMPILER), id="nor does one process need Fabric"),
        pytest.param("loading", COMPILER, id="neither training nor loading need torch's compiler"),
        pytest.param("watching", COMPILER, id="nor does watching"),
        pytest.param("figures", ("matplotlib.pyplot",), id="no state of matplotlib is touched"),
    ],
)
def test_what_is_not_loaded(loaded, step, never):
    assert "celbo" in loaded[step]
    assert loaded[step] & set(never) == set()
