"""The default recipe on few cells of many counts, where it once ended a thousand times above ``classic``."""

import numpy as np
import pytest

from celbo.data import simulate_counts
from celbo.model import SCVI, LinearSCVI

ROWS = np.random.default_rng(1).permutation(150)
SPLIT = {"external_indexing": [ROWS[:130], ROWS[130:]]}


@pytest.fixture(scope="module")
def deep():
    """150 cells of 100,000 counts, in four types and two batches."""
    return simulate_counts(150, 200, n_cell_types=4, n_batches=2, median_library=100_000, seed=3)


def validation_elbo(adata, cls=SCVI, init=None, **kwargs) -> tuple[float, int]:
    """Of the trained model, averaged over draws, and the epochs that it took."""
    cls.setup_anndata(adata, batch_key="batch")
    model = cls(adata, **(init or {}))
    model.train(**({"seed": 0, "verbose": 0, "accelerator": "cpu", "datasplitter_kwargs": SPLIT} | kwargs))
    draws = [-float(model.get_elbo(indices=SPLIT["external_indexing"][1], seed=i)) for i in range(5)]
    return float(np.mean(draws)), len(model.history["elbo_train"])


def test_the_whole_length(deep):
    """Not worse than scvi-tools' 400 epochs, in a quarter of them."""
    default, n_default = validation_elbo(deep)
    classic, n_classic = validation_elbo(deep, recipe="classic", check_val_every_n_epoch=400)
    assert default <= 1.003 * classic
    assert n_default <= n_classic / 4


@pytest.mark.parametrize("n_epochs", [1, 2, 5, 10])
def test_few_epochs(deep, n_epochs):
    """Rate, minibatches and the running means of batch normalization fit the epochs that there are."""
    default, _ = validation_elbo(deep, max_epochs=n_epochs)
    classic, _ = validation_elbo(deep, max_epochs=n_epochs, recipe="classic")
    assert default <= 1.003 * classic


def test_a_batch_size_of_the_user_s_own(deep):
    """Every cell in one minibatch: a step an epoch."""
    default, _ = validation_elbo(deep, max_epochs=5, batch_size=150)
    classic, _ = validation_elbo(deep, max_epochs=5, batch_size=150, recipe="classic")
    assert default <= 1.003 * classic


@pytest.mark.parametrize(
    ("cls", "init"),
    [
        (SCVI, {"gene_likelihood": "nb", "dispersion": "gene-batch"}),
        (SCVI, {"gene_likelihood": "poisson"}),
        (SCVI, {"dispersion": "gene-cell"}),
        (SCVI, {"use_observed_lib_size": False}),
        (LinearSCVI, {}),
    ],
)
def test_few_epochs_of_other_models(deep, cls, init):
    """Latent libraries and linear decoders are far from their place after five epochs, by either recipe."""
    default, _ = validation_elbo(deep, cls, init, max_epochs=5)
    classic, _ = validation_elbo(deep, cls, init, max_epochs=5, recipe="classic")
    assert default <= 10 * classic
