"""scCausalVI (sccausalvi): a model with loaders, splitter and `train` of its own; a small training, latents."""

import numpy as np
import scvi
from scCausalVI import scCausalVIModel

scvi.settings.seed = 0
adata = scvi.data.synthetic_iid(batch_size=120, n_genes=50)
adata.obs["condition"] = np.where(np.arange(adata.n_obs) % 2, "treated", "control")
scCausalVIModel.setup_anndata(adata, batch_key="batch", condition_key="condition")
codes = {"control": 0, "treated": 1}
model = scCausalVIModel(
    adata, condition2int=codes, control="control", n_background_latent=4, n_te_latent=3, n_hidden=16
)
groups = [np.flatnonzero(adata.obs["condition"] == name) for name in codes]
model.train(group_indices_list=groups, max_epochs=3, batch_size=32)
assert np.isfinite(model.history["train_loss"].to_numpy().astype(float)).all()
background, effect = model.get_latent_representation(adata)[:2]
assert background.shape == (240, 4)
print("done")
