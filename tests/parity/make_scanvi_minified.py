"""Write a SCANVI that scvi-tools 1.4.2 saved with minified data, and what it answered before.

Run it with the Python of an environment that has scvi-tools: ``python tests/parity/make_scanvi_minified.py [FOLDER]``.
"""

import sys
from pathlib import Path

import numpy as np
from make_surgery import data


def main(folder: Path) -> None:
    import scvi

    scvi.settings.seed = 0
    adata = data(60, ["a", "b"], seed=0)
    adata.obs["label"] = [("T", "B", "Unknown")[i % 3] for i in range(60)]
    scvi.model.SCANVI.setup_anndata(adata, "label", "Unknown", batch_key="batch")
    model = scvi.model.SCANVI(adata, n_hidden=4, n_latent=2)
    model.train(3, accelerator="cpu", logger=False, enable_progress_bar=False)
    mean, variance = model.get_latent_representation(return_dist=True)
    adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = mean, variance
    soft = model.predict(soft=True).to_numpy()
    model.minify_adata()
    model.save(folder / "model", overwrite=True, save_anndata=True)
    library = model.adata.obs["observed_lib_size"].to_numpy()
    np.savez_compressed(folder / "expected.npz", mean=mean, predict_soft=soft, library=library)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("scanvi_minified"))
