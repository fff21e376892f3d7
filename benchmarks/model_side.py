"""One model of one tool in a process of its own: ``python model_side.py TASK.json RESULT.json``.

The same lines run with ``import celbo as scvi`` and with scvi-tools. Each function trains with the model's defaults and
leaves what it found beside ``task["out"]``; judging is the caller's, with the same code for both.
"""

import importlib
import json
import sys
import time
import warnings

import anndata
import numpy as np
import pandas as pd


def training(task: dict, model, **arguments) -> float:
    """Train quietly; seconds from ``train()`` to its return."""
    quiet = {"verbose": 0} if task["tool"] == "celbo" else {"enable_progress_bar": False}
    started = time.perf_counter()
    model.train(accelerator="cpu", **quiet, **arguments)
    return time.perf_counter() - started


def scanvi(scvi, task: dict, adata) -> dict:
    """Labels of the cells that had none, from scratch."""
    scvi.model.SCANVI.setup_anndata(adata, labels_key="seen_label", unlabeled_category="Unknown")
    model = scvi.model.SCANVI(adata)
    seconds = training(task, model)
    np.save(task["out"], np.asarray(model.predict()).astype(str))
    return {"seconds": seconds}


def scanvi_from_scvi(scvi, task: dict, adata) -> dict:
    """Labels of the cells that had none, beginning with an SCVI."""
    scvi.model.SCVI.setup_anndata(adata, labels_key="seen_label")
    base = scvi.model.SCVI(adata)
    seconds = training(task, base)
    model = scvi.model.SCANVI.from_scvi_model(base, "Unknown")
    seconds += training(task, model)
    np.save(task["out"], np.asarray(model.predict()).astype(str))
    return {"seconds": seconds}


def linear(scvi, task: dict, adata) -> dict:
    """Latents whose loadings can be read."""
    scvi.model.LinearSCVI.setup_anndata(adata)
    model = scvi.model.LinearSCVI(adata)
    seconds = training(task, model)
    np.save(task["out"], model.get_latent_representation())
    return {"seconds": seconds}


def autozi(scvi, task: dict, adata) -> dict:
    """Probability that each gene is zero-inflated: of delta < 1/2 under its Beta posterior."""
    from scipy.stats import beta

    scvi.model.AUTOZI.setup_anndata(adata)
    model = scvi.model.AUTOZI(adata)
    seconds = training(task, model)
    found = model.get_alphas_betas()
    np.save(task["out"], beta.cdf(0.5, found["alpha_posterior"], found["beta_posterior"]))
    return {"seconds": seconds}


def stereoscope(scvi, task: dict, adata) -> dict:
    """Profiles of the cell types, then proportions of the spots."""
    spots = anndata.read_h5ad(task["spots"])
    external = importlib.import_module(f"{scvi.__name__}.external")
    external.RNAStereoscope.setup_anndata(adata, labels_key="cell_type")
    rna = external.RNAStereoscope(adata)
    seconds = training(task, rna)
    external.SpatialStereoscope.setup_anndata(spots)
    spatial = external.SpatialStereoscope.from_rna_model(spots, rna)
    seconds += training(task, spatial)
    proportions = spatial.get_proportions()
    np.save(task["out"], proportions[sorted(proportions.columns)].to_numpy())
    return {"seconds": seconds}


def destvi(scvi, task: dict, adata) -> dict:
    """Proportions of the spots."""
    spots = anndata.read_h5ad(task["spots"])
    scvi.model.CondSCVI.setup_anndata(adata, labels_key="cell_type")
    rna = scvi.model.CondSCVI(adata, weight_obs=False, prior="mog")
    seconds = training(task, rna)
    scvi.model.DestVI.setup_anndata(spots)
    spatial = scvi.model.DestVI.from_rna_model(spots, rna)
    seconds += training(task, spatial)
    proportions = spatial.get_proportions()
    np.save(task["out"], proportions[sorted(proportions.columns)].to_numpy())
    return {"seconds": seconds}


def cellassign(scvi, task: dict, adata) -> dict:
    """Types from marker genes."""
    markers = pd.read_csv(task["markers"], index_col=0)
    adata.obs["size_factor"] = np.asarray(adata.X.sum(1)).ravel()
    adata.obs["size_factor"] /= adata.obs["size_factor"].mean()
    seen = adata[:, markers.index].copy()
    external = importlib.import_module(f"{scvi.__name__}.external")
    external.CellAssign.setup_anndata(seen, size_factor_key="size_factor")
    model = external.CellAssign(seen, markers)
    seconds = training(task, model)
    found = model.predict()
    np.save(task["out"], found.columns.to_numpy().astype(str)[found.to_numpy().argmax(1)])
    return {"seconds": seconds}


def solo(scvi, task: dict, adata) -> dict:
    """Doublet scores."""
    scvi.model.SCVI.setup_anndata(adata)
    base = scvi.model.SCVI(adata)
    seconds = training(task, base)
    external = importlib.import_module(f"{scvi.__name__}.external")
    model = external.SOLO.from_scvi_model(base)
    seconds += training(task, model)
    np.save(task["out"], model.predict()["doublet"].to_numpy())
    return {"seconds": seconds}


def lda(scvi, task: dict, adata) -> dict:
    """Genes of each topic, and how surprised the model is by the documents."""
    scvi.model.AmortizedLDA.setup_anndata(adata)
    model = scvi.model.AmortizedLDA(adata, n_topics=task["topics"])
    seconds = training(task, model)
    np.save(task["out"], model.get_feature_by_topic().to_numpy())
    perplexity = float(model.get_perplexity())
    # scvi-tools 1.4.2 returns the reciprocal: its get_elbo has the wrong sign
    return {"seconds": seconds, "perplexity": max(perplexity, 1 / perplexity)}


def main() -> None:
    with open(sys.argv[1]) as file:
        task = json.load(file)
    warnings.filterwarnings("ignore")
    scvi = importlib.import_module(task["tool"])
    scvi.settings.seed = task["seed"]
    result = globals()[task["model"]](scvi, task, anndata.read_h5ad(task["data"]))
    with open(sys.argv[2], "w") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main()
