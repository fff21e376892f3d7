"""VeloVI (velovi, written for scvi-tools >= 1.0): a small training, velocities, latent times, save and load."""

import tempfile

import numpy as np
import scvi
from anndata import AnnData
from velovi import VELOVI

scvi.settings.seed = 0
rng = np.random.default_rng(0)
time_n1 = rng.uniform(0, 5, (120, 1))
beta_g, gamma_g = rng.uniform(0.5, 2, 20), rng.uniform(0.2, 0.8, 20)
unspliced_ng = (1 - np.exp(-beta_g * time_n1)) / beta_g
spliced_ng = (1 - np.exp(-gamma_g * time_n1)) / gamma_g + 0.05 * rng.standard_normal((120, 20))
adata = AnnData(np.clip(spliced_ng, 0, None).astype(np.float32))
adata.layers["Ms"], adata.layers["Mu"] = adata.X.copy(), unspliced_ng.astype(np.float32)

VELOVI.setup_anndata(adata, spliced_layer="Ms", unspliced_layer="Mu")
model = VELOVI(adata, n_hidden=32)
model.train(max_epochs=10, batch_size=32)
elbo = model.history["elbo_train"].to_numpy().ravel().astype(float)
assert np.isfinite(elbo).all()
assert elbo[-1] < elbo[0]
assert model.get_latent_representation().shape == (120, 10)
assert model.get_velocity(n_samples=2).shape == (120, 20)
assert model.get_latent_time(n_samples=2).shape == (120, 20)
assert set(model.get_rates()) >= {"alpha", "beta", "gamma"}
latent = model.get_latent_representation()
with tempfile.TemporaryDirectory() as folder:
    model.save(folder, overwrite=True)
    again = VELOVI.load(folder, adata)
np.testing.assert_allclose(again.get_latent_representation(), latent, rtol=1e-5, atol=1e-6)
print("done")
