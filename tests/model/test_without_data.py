"""A model made before there are data: its sizes come with the loaders that it is first trained with."""

import numpy as np
import pytest
import torch

from celbo.dataloaders import DataSplitter
from celbo.model import SCVI


@pytest.fixture
def loaders(make):
    """Loaders of two batches, with the sizes that a stranger's data module tells."""
    splitter = DataSplitter(make().adata_manager, seed=0)
    splitter.n_vars, splitter.n_batch = 100, 2
    return splitter


def test_trains_as_with_the_data(make, quick, loaders, global_rng_untouched):
    model = SCVI(n_hidden=8, n_latent=3)
    assert model.module is None
    quick(model, datamodule=loaders)
    with_data = quick(make(), datamodule=loaders)
    for name, weight in with_data.module.state_dict().items():
        torch.testing.assert_close(model.module.state_dict()[name], weight)
    assert model.init_params_ == with_data.init_params_
    z = model.get_latent_representation(dataloader=loaders.train_dataloader())
    assert z.shape == (72, 3)


def test_sizes_and_names_travel_with_the_archive(quick, loaders, tmp_path):
    loaders.n_labels, loaders.n_cats_per_cov, loaders.var_names = 4, None, [f"g{i}" for i in range(100)]
    model = quick(SCVI(n_hidden=8), datamodule=loaders, max_epochs=1)
    assert model.module.n_labels == 4
    model.save(str(tmp_path / "model"))
    again = SCVI.load(str(tmp_path / "model"), adata=False)
    assert again.get_var_names()[:2].tolist() == ["g0", "g1"]
    np.testing.assert_array_equal(again.module.px_r.detach(), model.module.px_r.detach())


def test_what_is_missing_is_said(loaders):
    model = SCVI()
    with pytest.raises(AttributeError, match="made without data: pass datamodule="):
        model.train()
    with pytest.raises(ValueError, match="give DataSplitter an attribute n_obs"):
        model.train(datamodule=loaders)
    del loaders.n_batch
    with pytest.raises(AttributeError, match="n_batch"):
        model.train(1, datamodule=loaders)
    assert model.module is None


def test_epochs_follow_from_n_obs(loaders):
    loaders.n_obs = 10**8
    model = SCVI(n_hidden=8)
    model.train(datamodule=loaders, recipe="classic", verbose=0, seed=0)
    assert len(model.history["elbo_train"]) == 1
