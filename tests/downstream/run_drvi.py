"""DRVI (drvi-py, written for scvi-tools >= 1.0.4): a small training, the latent space, save and load, traversal."""

import tempfile

import numpy as np
import scvi
from drvi.model import DRVI

scvi.settings.seed = 0
adata = scvi.data.synthetic_iid(batch_size=100, n_genes=50)
DRVI.setup_anndata(adata, categorical_covariate_keys=["batch"], is_count_data=True)
model = DRVI(adata, n_latent=8, encoder_dims=[32], decoder_dims=[32])
model.train(max_epochs=6, early_stopping=True, early_stopping_patience=3, check_val_every_n_epoch=1)
elbo = model.history["elbo_train"].to_numpy().ravel()
assert np.isfinite(elbo.astype(float)).all()
assert elbo[-1] < elbo[0]
latent = model.get_latent_representation()
assert latent.shape == (200, 8)
with tempfile.TemporaryDirectory() as folder:
    model.save(folder, overwrite=True)
    again = DRVI.load(folder, adata)
np.testing.assert_allclose(again.get_latent_representation(), latent, rtol=1e-5, atol=1e-6)
assert np.isfinite(float(model.get_elbo()))
print("done")
