"""A notebook's cells in scvi-tools' idiom, one after the other; run under `python -m celbo.compat`."""

import tempfile

import anndata as ad
import numpy as np
import pandas as pd
import scvi
import torch
from scvi.model import SCVI

scvi.settings.seed = 0
torch.set_float32_matmul_precision("high")
save_dir = tempfile.TemporaryDirectory()

# In [2]: data
adata = scvi.data.synthetic_iid(batch_size=150, n_genes=60)
adata.layers["counts"] = adata.X.copy()
adata.X = np.log1p(adata.X)
adata.obs["percent_mito"] = np.linspace(0, 1, adata.n_obs)
adata.obs["donor"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 2, "d1", "d0"))
query = adata[:40].copy()

# In [3]: setup
scvi.model.SCVI.setup_anndata(
    adata,
    layer="counts",
    batch_key="batch",
    categorical_covariate_keys=["donor"],
    continuous_covariate_keys=["percent_mito"],
)
model = scvi.model.SCVI(adata, n_layers=2, n_latent=8, gene_likelihood="nb")
model.view_anndata_setup()
print(model)

# In [4]: train
model.train(
    max_epochs=8,
    accelerator="cpu",
    devices=1,
    train_size=0.9,
    early_stopping=True,
    early_stopping_patience=3,
    check_val_every_n_epoch=1,
    plan_kwargs={"lr": 5e-3, "n_epochs_kl_warmup": 4, "reduce_lr_on_plateau": True},
)
assert len(model.history["elbo_train"]) == len(model.history["elbo_validation"])
table = pd.concat([model.history["elbo_train"], model.history["elbo_validation"]], axis=1)
assert list(table.columns) == ["elbo_train", "elbo_validation"]
assert model.history["train_loss"].index.name == "epoch"

# In [5]: latent space
SCVI_LATENT_KEY = "X_scVI"
adata.obsm[SCVI_LATENT_KEY] = model.get_latent_representation()
assert adata.obsm[SCVI_LATENT_KEY].shape == (300, 8)

# In [6]: save and load
model.save(save_dir.name + "/model", overwrite=True, save_anndata=True)
model = scvi.model.SCVI.load(save_dir.name + "/model", adata=adata)
np.testing.assert_array_equal(model.get_latent_representation(), adata.obsm[SCVI_LATENT_KEY])
again = SCVI.load(save_dir.name + "/model")
assert isinstance(again.adata, ad.AnnData)

# In [7]: normalized expression
subset = adata[adata.obs["labels"] == "label_1"]
denoised = model.get_normalized_expression(subset, library_size=1e4)
assert denoised.shape == (subset.n_obs, 60)
np.testing.assert_allclose(denoised.sum(1), 1e4, rtol=1e-3)
adata.layers["scvi_normalized"] = model.get_normalized_expression(library_size=10e4)
corrected = model.get_normalized_expression(transform_batch="batch_1", gene_list=list(adata.var_names[:5]), n_samples=3)
assert corrected.shape == (300, 5)

# In [8]: differential expression
de = model.differential_expression(groupby="labels")
assert {"proba_de", "bayes_factor", "comparison"} & set(de.columns)
de_change = model.differential_expression(
    groupby="labels", group1="label_0", group2="label_1", mode="change", batch_correction=True, delta=0.25
)
assert {"proba_de", "lfc_mean", "is_de_fdr_0.05"} <= set(de_change.columns)

# In [9]: model criticism
print(float(model.get_elbo()), model.get_reconstruction_error(), float(model.get_marginal_ll(n_mc_samples=4)))
assert model.posterior_predictive_sample(indices=[1, 2]).shape == (2, 60)

# In [10]: other data of the same experiment
assert model.get_latent_representation(query).shape == (40, 8)
np.testing.assert_allclose(model.get_latent_representation(query), adata.obsm[SCVI_LATENT_KEY][:40], atol=1e-5)

# In [11]: train on
model.train(max_epochs=2, accelerator="cpu")

# In [12]: a new batch, mapped onto the reference
query.obs["batch"] = "batch_of_the_query"
scvi.model.SCVI.prepare_query_anndata(query, model)
mapped = scvi.model.SCVI.load_query_data(query, model)
mapped.train(max_epochs=2, accelerator="cpu", plan_kwargs={"weight_decay": 0.0})
assert mapped.get_latent_representation().shape == (40, 8)
assert mapped.summary_stats.n_batch == 3
save_dir.cleanup()
print("done", scvi.__version__)
