"""Write what scvi-tools 1.4.2 makes of a small SCVI: doublets, SOLO's input, a trained SOLO and its answers.

Run it with the Python of an environment that has scvi-tools: ``python tests/parity/make_solo.py [FOLDER]``.
"""

import sys
from pathlib import Path

import numpy as np


def main(folder: Path) -> None:
    import anndata
    import scvi

    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    scvi.settings.seed = 0
    adata = anndata.AnnData(np.random.default_rng(0).poisson(3, (40, 6)).astype(np.float32))
    adata.var_names = [f"g{i}" for i in range(6)]
    adata.obs_names = [f"c{i}" for i in range(40)]
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata, n_hidden=4, n_latent=2)
    model.train(2, **quiet)
    doublets = scvi.external.SOLO.create_doublets(model.adata_manager, doublet_ratio=2, seed=1)
    solo = scvi.external.SOLO.from_scvi_model(model, n_hidden=4)
    solo.train(3, accelerator="cpu", enable_progress_bar=False)
    solo.adata.obs_names_make_unique()
    model.save(folder / "scvi", overwrite=True, save_anndata=True)
    solo.save(folder / "model", overwrite=True, save_anndata=True)
    np.savez_compressed(
        folder / "expected.npz",
        doublets=doublets.X,
        input=solo.adata.X,
        logits=solo.predict(include_simulated_doublets=True, return_logits=True).to_numpy(),
        predict_soft=solo.predict().to_numpy(),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("solo"))
