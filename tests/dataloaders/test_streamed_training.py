"""Training on data that stay on disk: edge cases, and that it is the training it would be in memory."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celbo.data import open as open_data
from celbo.data import simulate_counts
from celbo.model import SCANVI, SCVI


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Cells sorted by type and batch."""
    adata = simulate_counts(400, 20, n_cell_types=4, n_batches=2, seed=1)
    adata = adata[np.lexsort([adata.obs["batch"].cat.codes, adata.obs["cell_type"].cat.codes])].copy()
    path = tmp_path_factory.mktemp("data") / "sorted.h5ad"
    adata.write_h5ad(path)
    return path


def trained(adata, cls=SCVI, epochs=4, **setup):
    cls.setup_anndata(adata, **setup)
    model = cls(adata, n_hidden=16, n_latent=3)
    model.train(max_epochs=epochs, seed=0, verbose=0, accelerator="cpu", datasplitter_kwargs={"pool_bytes": 20_000})
    return model


def test_elbo_is_that_of_memory(path):
    streamed = trained(open_data(path, stream=True), epochs=20, batch_key="batch")
    in_memory = trained(open_data(path, stream=False), epochs=20, batch_key="batch")
    elbos = [model.history["elbo_validation"].to_numpy(float).ravel() for model in (streamed, in_memory)]
    assert elbos[0][-1] < elbos[0][0]
    assert elbos[0][-1] == pytest.approx(elbos[1][-1], rel=0.03)
    np.testing.assert_array_equal(streamed.validation_indices, in_memory.validation_indices)


def test_backed_anndata_and_labels(path):
    backed = anndata.read_h5ad(path, backed="r")
    model = trained(backed, SCANVI, 2, labels_key="cell_type", unlabeled_category="?", batch_key="batch")
    assert len(model.predict()) == 400
    backed.file.close()


def test_latents_are_those_of_memory(path):
    model = trained(open_data(path, stream=True), epochs=1, batch_key="batch")
    rows = [399, 0, 7, 7]
    wanted = model.get_latent_representation(open_data(path, stream=False))
    np.testing.assert_allclose(model.get_latent_representation(), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.get_latent_representation(indices=rows), wanted[rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("n", "g", "batches"), [(50, 2, range(50)), (12, 5000, "aabb" * 3), (40, 3, ["é", "", "b", "b"] * 10)]
)
@pytest.mark.filterwarnings("ignore:Category .* fewer than 3 cells")
def test_edges(tmp_path, n, g, batches):
    """A cell a batch; two genes; many genes; names that are empty or not ASCII."""
    x = np.random.default_rng(0).poisson(1.0, (n, g)).astype(np.float32)
    obs = pd.DataFrame({"b": pd.Categorical([str(b) for b in batches])}, index=[f"細胞{i}" for i in range(n)])
    anndata.AnnData(sparse.csr_matrix(x), obs=obs).write_h5ad(tmp_path / "x.h5ad")
    model = trained(open_data(tmp_path / "x.h5ad", stream=True), epochs=1, batch_key="b")
    assert np.isfinite(model.get_latent_representation()).all()


def test_latent_library_sizes_come_from_the_same_pass(path):
    adata, loaded = open_data(path, stream=True), open_data(path, stream=False)
    for one in (adata, loaded):
        SCVI.setup_anndata(one, batch_key="batch")
    first, second = (SCVI(one, use_observed_lib_size=False).module for one in (adata, loaded))
    np.testing.assert_allclose(first.library_log_means, second.library_log_means, rtol=1e-6)
    np.testing.assert_allclose(first.library_log_vars, second.library_log_vars, rtol=1e-5)


class _Batches:
    """A data module of somebody else's: any iterable of dicts is a loader."""

    n_train, n_val = 40, 0

    def __init__(self, batches):
        self.batches = batches

    def train_dataloader(self):
        return self.batches

    def val_dataloader(self):
        return None


def test_any_iterable_of_batches_trains(path):
    adata = open_data(path, stream=True)
    SCVI.setup_anndata(adata, batch_key="batch")
    model = SCVI(adata, n_hidden=16, n_latent=3)
    batches = list(model._make_data_loader(adata, indices=range(40), batch_size=8))
    model.train(datamodule=_Batches(batches), max_epochs=2, verbose=0, accelerator="cpu")
    assert len(model.history["train_loss"]) == 2


class _Kill:
    """Callback that ends a run in the middle of its second epoch."""

    def on_train_batch_end(self, trainer, plan, output, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 1:
            raise RuntimeError("killed")


def test_a_killed_run_goes_on_in_the_middle_of_an_epoch(path, tmp_path):
    def make():
        adata = open_data(path, stream=True)
        SCVI.setup_anndata(adata, batch_key="batch")
        return SCVI(adata, n_hidden=16, n_latent=3)

    options = {"max_epochs": 3, "seed": 0, "verbose": 0, "accelerator": "cpu", "checkpoint_every": "1 steps"}
    options["datasplitter_kwargs"] = {"pool_bytes": 20_000}
    whole, killed, resumed = make(), make(), make()
    whole.train(checkpoint_dir=tmp_path / "whole", **options)
    with pytest.raises(RuntimeError, match="killed"):
        killed.train(checkpoint_dir=tmp_path / "killed", callbacks=[_Kill()], **options)
    resumed.train(resume=tmp_path / "killed", **options)
    for name, value in whole.module.state_dict().items():
        np.testing.assert_array_equal(value, resumed.module.state_dict()[name], err_msg=name)
