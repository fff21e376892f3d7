"""Write small archives of CondSCVI and DestVI saved by scvi-tools 1.4.2, and what they answer.

Run it with the Python of an environment that has scvi-tools: ``python tests/parity/make_golden_destvi.py [FOLDER]``.
Draws from normal distributions are their means, and modules are in evaluation mode: nothing is random.
"""

import sys
from pathlib import Path

import numpy as np

SMALL = {"n_hidden": 6, "n_latent": 3}
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
CELLS = {
    "condscvi_mog": ({"labels_key": "type", "fine_labels_key": "fine"}, {"prior": "mog", "num_classes_mog": 2}),
    "condscvi_normal": ({"labels_key": "type", "batch_key": "batch"}, {"prior": "normal", "weight_obs": True}),
}


def cells(n: int = 60, g: int = 10):
    """Poisson counts of three types; every cell has a fine label. The third type is rare."""
    import anndata

    rng = np.random.default_rng(0)
    code = np.where(np.arange(n) < 2, 2, np.arange(n) % 2)
    rate = rng.gamma(2, 2, (3, g))[code]
    adata = anndata.AnnData(rng.poisson(rate).astype(np.float32))
    adata.var_names = [f"g{i}" for i in range(g)]
    adata.obs_names = [f"c{i}" for i in range(n)]
    adata.obs["type"] = np.array(["A", "B", "C"])[code]
    adata.obs["fine"] = [f"{t}{i % 2}" for i, t in enumerate(adata.obs["type"])]
    adata.obs["batch"] = np.array(["x", "y"])[rng.integers(0, 2, n)]
    return adata


def spots(n: int = 20, g: int = 10):
    """Poisson counts, and their mean with the next spot's as the smoothed layer."""
    import anndata

    rng = np.random.default_rng(1)
    adata = anndata.AnnData(rng.poisson(30, (n, g)).astype(np.float32))
    adata.var_names = [f"g{i}" for i in range(g)]
    adata.obs_names = [f"s{i}" for i in range(n)]
    adata.layers["smoothed"] = (adata.X + np.roll(adata.X, 1, axis=0)) / 2
    return adata


def losses(model) -> dict[str, np.ndarray]:
    """Terms of the loss of all observations in evaluation mode."""
    import torch

    model.module.eval()
    tensors = next(iter(model._make_data_loader(adata=model.adata, batch_size=1000)))
    with torch.no_grad():
        out = model.module(tensors, loss_kwargs={"kl_weight": 0.5})[2]
    terms = {
        "loss": out.loss,
        "reconstruction_loss": out.reconstruction_loss["reconstruction_loss"],
        "kl_local": out.kl_local["kl_local"],
        "kl_global": out.kl_global["kl_global"],
        **out.extra_metrics,
    }
    return {name: np.asarray(value) for name, value in terms.items()}


def answers_of_cells(model) -> dict[str, np.ndarray]:
    answers = {"latent": model.get_latent_representation(), "ct_weight": model.module.ct_weight.numpy()}
    answers["expression"] = model.get_normalized_expression(return_numpy=True)
    if model.module.classifier is not None:
        answers["predict_soft"] = model.predict(soft=True).to_numpy()
    return answers


def answers_of_spots(model) -> dict[str, np.ndarray]:
    return {
        "proportions": model.get_proportions().to_numpy(),
        "proportions_all": model.get_proportions(keep_additional=True, normalize=False).to_numpy(),
        "gamma": model.get_gamma(return_numpy=True),
        "scale_B": model.get_scale_for_ct("B").to_numpy(),
        "expression_B": model.get_expression_for_ct("B").to_numpy(),
    }


def main(folder: Path) -> None:
    import scvi
    from torch.distributions import Normal

    Normal.rsample = lambda self, sample_shape=(): self.loc.expand(*sample_shape, *self.loc.shape)
    scvi.settings.seed = 0
    for name, (setup, init) in CELLS.items():
        adata = cells()
        scvi.model.CondSCVI.setup_anndata(adata, **setup)
        model = scvi.model.CondSCVI(adata, **SMALL, **init)
        model.train(max_epochs=5, plan_kwargs={"lr": 0.02}, **QUIET)
        model.save(folder / name, overwrite=True)
        np.savez_compressed(folder / f"{name}.npz", **losses(model), **answers_of_cells(model))
        if init["prior"] == "mog":
            sc_model = model
    st_adata = spots()
    model = scvi.model.DestVI.from_rna_model(st_adata, sc_model, anndata_setup_kwargs={"smoothed_layer": "smoothed"})
    model.train(max_epochs=5, lr=0.02, n_epochs_kl_warmup=2, **QUIET)
    model.save(folder / "destvi", overwrite=True)
    model.module.augmentation = False  # with it, its loss fails in evaluation mode
    np.savez_compressed(folder / "destvi.npz", **losses(model), **answers_of_spots(model))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "golden_destvi")
