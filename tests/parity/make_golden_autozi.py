"""Save small AUTOZI models with scvi-tools 1.4.2, and what they compute.

Run it with the Python of an environment that has scvi-tools: ``python tests/parity/make_golden_autozi.py [FOLDER]``.
Latents are at their posterior mean, delta at the mean of its Beta distribution: nothing is random.
"""

import sys
from pathlib import Path

import numpy as np

CASES = {
    "gene": {"alpha_prior": None, "beta_prior": None},
    "gene_batch": {
        "zero_inflation": "gene-batch",
        "use_observed_lib_size": False,
        "alpha_prior": 0.3,
        "beta_prior": 0.8,
    },
    "gene_label": {"zero_inflation": "gene-label", "dispersion": "gene-batch", "minimal_dropout": 0.1},
}
LOSS_KWARGS = {"kl_weight": 0.5, "n_obs": 300}


def data():
    """30 cells x 14 genes, two batches, three labels."""
    import anndata

    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1.0, 3.0, (30, 14))).astype(np.float32)
    adata = anndata.AnnData(np.where(rng.random(counts.shape) < 0.2, 0, counts))
    adata.obs["batch"] = np.array(["a", "b"])[np.arange(30) % 2]
    adata.obs["label"] = np.array(["x", "y", "z"])[np.arange(30) % 3]
    return adata


def figures(model) -> dict[str, np.ndarray]:
    """Terms of the loss of all cells, latents, parameters of the Beta distributions."""
    import torch

    batch = next(iter(model._make_data_loader(model.adata, batch_size=model.adata.n_obs)))
    with torch.no_grad():
        inference, generative, out = model.module.eval()(batch, loss_kwargs=LOSS_KWARGS)
    found = {
        "loss": out.loss,
        "reconstruction_loss": out.reconstruction_loss["reconstruction_loss"],
        **out.kl_local,
        "kl_global": out.kl_global_sum,
        "z": inference["z"],
        "mu": generative["px"].mu,
        "delta": generative["bernoulli_params"],
    }
    found = {name: value.numpy() for name, value in found.items()}
    return found | {"latent": model.get_latent_representation()} | model.get_alphas_betas()


def main(folder: Path) -> None:
    import scvi
    from torch.distributions import Normal

    scvi.settings.seed = 0
    for name, options in CASES.items():
        adata = data()
        scvi.model.AUTOZI.setup_anndata(adata, batch_key="batch", labels_key="label")
        model = scvi.model.AUTOZI(adata, n_hidden=6, n_latent=3, **options)
        model.train(max_epochs=3, plan_kwargs={"lr": 0.05}, accelerator="cpu", enable_progress_bar=False)
        model.save(str(folder / name), overwrite=True)
    Normal.rsample = lambda self, sample_shape=None: self.loc
    scvi.module.AutoZIVAE.sample_from_beta_distribution = lambda self, alpha, beta, **_: alpha / (alpha + beta)
    for name in CASES:
        model = scvi.model.AUTOZI.load(str(folder / name), data(), accelerator="cpu")
        np.savez_compressed(folder / name / "expected.npz", **figures(model))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "golden_autozi")
