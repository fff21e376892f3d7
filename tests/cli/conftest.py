import json
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from celbo.cli import app
from celbo.data import simulate_counts


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A file with 150 cells whose names are not ASCII, a layer, covariates, and one name that is HTML."""
    adata = simulate_counts(150, 40, n_cell_types=3, seed=3)
    adata.obs_names = [f"細胞_{i}_é" for i in range(adata.n_obs)]
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"type_0": "<script>alert(1)</script>"})
    adata.obs["depth"] = np.log(adata.obs["library_size"])
    adata.obs["donor"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    adata.layers["counts"] = adata.X.copy()
    path = tmp_path_factory.mktemp("data") / "small.h5ad"
    adata.write_h5ad(path)
    return SimpleNamespace(path=path, adata=adata)


@pytest.fixture
def celbo():
    """Run a command line; the answer has ``exit_code``, ``stdout`` and ``stderr``."""

    def run(*args):
        return CliRunner().invoke(app, [str(arg) for arg in args])

    return run


@pytest.fixture(scope="session")
def trained(small, tmp_path_factory):
    """A run's folder."""
    output = tmp_path_factory.mktemp("runs") / "run"
    keys = ["--batch-key", "batch", "--labels-key", "cell_type"]
    args = [
        "train",
        str(small.path),
        *keys,
        "--max-epochs",
        "2",
        "--n-top-genes",
        "30",
        "--seed",
        "5",
        "-o",
        str(output),
    ]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.stderr
    return SimpleNamespace(folder=output, done=done, record=json.loads((output / "run.json").read_text()))
