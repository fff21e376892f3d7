"""Small data and models."""

import logging
from pathlib import Path

import anndata
import pytest

from celbo.data import synthetic_iid
from celbo.model import SCVI


@pytest.fixture
def adata() -> anndata.AnnData:
    """80 cells x 100 genes in two batches, with a covariate of each kind."""
    adata = synthetic_iid(batch_size=40, seed=0)
    adata.obs["site"] = [f"site_{i % 3}" for i in range(80)]
    adata.obs["depth"] = [0.5 + (i % 7) for i in range(80)]
    adata.layers["counts"] = adata.X.copy()
    return adata


@pytest.fixture
def make(adata):
    """A small SCVI on fresh (or given) data."""

    def make(data=None, setup=None, cls=SCVI, **kwargs):
        data = adata if data is None else data
        cls.setup_anndata(data, **({"batch_key": "batch"} if setup is None else setup))
        return cls(data, **({"n_hidden": 8, "n_latent": 3} | kwargs))

    return make


@pytest.fixture
def quick():
    """Train fast and silently."""

    def quick(model, **kwargs):
        model.train(**({"max_epochs": 2, "verbose": 0, "seed": 0, "accelerator": "cpu"} | kwargs))
        return model

    return quick


@pytest.fixture
def said():
    """What celbo's logger said at a level or above, in order."""

    class Keeping(logging.Handler):
        def emit(self, record):
            records.append(record)

    records: list[logging.LogRecord] = []
    handler = Keeping()
    logging.getLogger("celbo").addHandler(handler)
    yield lambda level: [record.getMessage() for record in records if record.levelno >= level]
    logging.getLogger("celbo").removeHandler(handler)


@pytest.fixture(scope="session")
def parity(shared_dir: Path) -> Path:
    return shared_dir / "parity"
