"""Write what scvi-tools 1.4.2 leaves free to move in surgery, and a model that it saved with minified data.

Run it with the Python of an environment that has scvi-tools: ``python tests/parity/make_surgery.py [FOLDER]``.
``freedom.json``: for each set of options, which columns of each parameter have a gradient of their own once its hooks
have had their say. ``minified/``: an archive with its data; ``minified.npz``: what it answers.
"""

import json
import sys
from pathlib import Path

import numpy as np

OPTIONS = {
    "default": {},
    "unfrozen": {"unfrozen": True},
    "freeze_dropout": {"freeze_dropout": True},
    "move_expression": {"freeze_expression": False},
    "move_decoder_first_layer": {"freeze_decoder_first_layer": False},
    "move_batchnorm_encoder": {"freeze_batchnorm_encoder": False},
    "freeze_batchnorm_decoder": {"freeze_batchnorm_decoder": True},
    "move_all_but_the_rest": {"freeze_expression": False, "freeze_batchnorm_encoder": False},
}
INIT = {"n_hidden": 4, "n_latent": 2, "n_layers": 2, "encode_covariates": True}
N_VARIANCE = 1e-12  # stored for every latent: draws are then the mean, and answers reproducible


def data(n_cells: int, batches: list[str], seed: int):
    """Poisson counts of 6 genes; the batches in turn."""
    import anndata

    rng = np.random.default_rng(seed)
    adata = anndata.AnnData(rng.poisson(3, (n_cells, 6)).astype(np.float32))
    adata.var_names = [f"g{i}" for i in range(6)]
    adata.obs_names = [f"c{i}" for i in range(n_cells)]
    adata.obs["batch"] = [batches[i % len(batches)] for i in range(n_cells)]
    return adata


def free_columns(module) -> dict[str, list[int]]:
    """Of each parameter the columns (entries, of a vector) where a gradient of ones comes through."""
    free = {}
    for name, parameter in module.named_parameters():
        free[name] = []
        if parameter.requires_grad:
            parameter.sum().backward()
            grad, parameter.grad = parameter.grad, None
            free[name] = [i for i in range(grad.shape[-1]) if bool((grad[..., i] != 0).any())]
    return free


def reference(model_cls, **train):
    adata = data(60, ["a", "b"], seed=0)
    model_cls.setup_anndata(adata, batch_key="batch")
    model = model_cls(adata, **INIT)
    model.train(1, accelerator="cpu", **train)
    return model


def freedom(model_cls, **train) -> dict[str, dict[str, list[int]]]:
    model = reference(model_cls, **train)
    query = {name: data(30, ["c"], seed=1) for name in OPTIONS}
    return {
        name: free_columns(model_cls.load_query_data(query[name], model, accelerator="cpu", **options).module)
        for name, options in OPTIONS.items()
    }


def write_minified(model, folder: Path) -> None:
    mean, variance = model.get_latent_representation(return_dist=True)
    model.adata.obsm["X_latent_qzm"] = mean
    model.adata.obsm["X_latent_qzv"] = np.full_like(variance, N_VARIANCE)
    model.minify_adata()
    model.save(folder / "minified", overwrite=True, save_anndata=True)
    np.savez(
        folder / "minified.npz",
        mean=mean,
        expression=model.get_normalized_expression(return_numpy=True),
        as_b=model.get_normalized_expression(transform_batch="b", return_numpy=True),
        library=model.adata.obs["observed_lib_size"].to_numpy(),
    )


def main(folder: Path) -> None:
    import scvi

    quiet = {"logger": False, "enable_progress_bar": False}
    folder.mkdir(exist_ok=True, parents=True)
    lines = [f"{json.dumps(name)}: {json.dumps(free)}" for name, free in freedom(scvi.model.SCVI, **quiet).items()]
    (folder / "freedom.json").write_text("{" + ",\n".join(lines) + "}\n")
    scvi.settings.seed = 0
    write_minified(reference(scvi.model.SCVI, **quiet), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("surgery"))
