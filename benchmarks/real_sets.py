"""Models of one modality on small sets of real cells, beside simple baselines.

``python -m benchmarks.real_sets FOLDER [--models ContrastiveVI SCAR MRVI CYTOVI METHYLVI] [--seeds N]``, the folder
with ``perturb_thp1_eccite.h5ad``, ``droplets_raw_pbmc_toy.h5ad``, ``samples_worm_embryo.h5ad``,
``cytometry_pbmc_stim.h5ad`` and ``methylation_mcg_mch_8cells.h5mu``.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import mudata
import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from celbo.external import METHYLVI, MRVI, SCAR, ContrastiveVI
from celbo.external.cytovi import CYTOVI, scale, transform_arcsinh

from . import common

__all__ = ["auroc", "cells_and_soup", "marker_shares", "principal"]

TARGETS = ("IFNGR1", "IFNGR2", "JAK2", "STAT1", "SMAD4", "IRF1", "CUL3", "BRD4", "CD86")
QUIET: dict[str, Any] = {"verbose": 0, "accelerator": "cpu"}
Figures = dict[str, float]


def principal(adata: anndata.AnnData, n: int) -> np.ndarray:
    """Principal components of logs of counts per 10,000."""
    x_ng = adata.X.toarray()
    log_ng = np.log1p(1e4 * x_ng / x_ng.sum(1, keepdims=True))
    return PCA(n, random_state=0).fit_transform(log_ng)


def auroc(z_nk: np.ndarray, target_n: np.ndarray, name: str, control: str = "non-targeting") -> float:
    """Of a logistic regression of one target against controls, in five folds."""
    rows = np.flatnonzero(np.isin(target_n, (name, control)))
    is_target = target_n[rows] == name
    p = cross_val_predict(LogisticRegression(max_iter=2000), z_nk[rows], is_target, cv=5, method="predict_proba")
    return float(roc_auc_score(is_target, p[:, 1]))


def perturbed(folder: Path, seed: int) -> Figures:
    """Targets told from controls by salient latents, background latents and principal components."""
    adata = anndata.read_h5ad(folder / "perturb_thp1_eccite.h5ad")
    target = adata.obs["target"].astype(str).to_numpy()
    is_control = target == "non-targeting"
    ContrastiveVI.setup_anndata(adata, batch_key="replicate")
    model, start = ContrastiveVI(adata), time.process_time()
    model.train(np.flatnonzero(is_control), np.flatnonzero(~is_control), seed=seed, **QUIET)
    found = {"processor time, s": time.process_time() - start}
    latents = {
        kind: model.get_latent_representation(representation_kind=kind) for kind in ("salient", "background")
    } | {"10 principal components": principal(adata, 10)}
    return found | {f"{name}, {kind}": auroc(z, target, name) for kind, z in latents.items() for name in TARGETS}


def cells_and_soup(folder: Path) -> tuple[anndata.AnnData, anndata.AnnData, np.ndarray]:
    """Cells, all droplets, and the mean profile of those without a cell."""
    droplets = anndata.read_h5ad(folder / "droplets_raw_pbmc_toy.h5ad")
    is_cell = droplets.obs["is_cell"].astype(bool).to_numpy()
    soup_g = np.asarray(droplets[~is_cell].X.sum(0)).ravel()
    return droplets[is_cell].copy(), droplets, soup_g / soup_g.sum()


def marker_shares(x_ng: np.ndarray, raw_ng: np.ndarray, cluster_n: np.ndarray) -> tuple[float, float]:
    """Of genes ten times as high in one cluster as in any other: the share of their counts outside of it, and how many
    of the counts inside of it are left.
    """
    names = np.unique(cluster_n)
    profile_cg = np.stack([raw_ng[cluster_n == c].sum(0) / raw_ng[cluster_n == c].sum() for c in names])
    genes = np.flatnonzero((profile_cg.max(0) > 10 * np.sort(profile_cg, 0)[-2]) & (raw_ng.sum(0) > 20))
    own_ng = cluster_n[:, None] == names[profile_cg.argmax(0)][genes]
    x, raw = x_ng[:, genes], raw_ng[:, genes]
    return float(x[~own_ng].sum() / x.sum()), float(x[own_ng].sum() / raw[own_ng].sum())


def spread_of_droplets(droplets: anndata.AnnData, profile_g: np.ndarray, least: float = 0.005) -> float:
    """Variance of droplets' counts over that of draws from one profile: 1 for a soup; genes of at least that share."""
    x_ng = droplets.X.toarray()[:, profile_g > least]
    share_g = profile_g[profile_g > least]
    mean_ng = np.asarray(droplets.X.sum(1)) * share_g
    return float(((x_ng - mean_ng) ** 2 / (mean_ng * (1 - share_g))).mean())


def most_soup(cells: anndata.AnnData, profile_g: np.ndarray, n_genes: int = 8) -> float:
    """The most that the profile may hold of the cells: what cells of a cluster express of the genes that the other half
    of the cluster expresses least, had the soup brought all of it. The least of all clusters.
    """
    x_ng, cluster_n, rng = cells.X.toarray(), cells.obs["cluster"].astype(str).to_numpy(), np.random.default_rng(0)
    found = []
    for name in np.unique(cluster_n):
        rows = rng.permutation(np.flatnonzero(cluster_n == name))
        seen = wanted = 0.0
        for these, others in ((rows[::2], rows[1::2]), (rows[1::2], rows[::2])):
            excess_g = np.where(profile_g > 0.005, x_ng[these].mean(0) / np.maximum(profile_g, 1e-12), np.inf)
            genes = np.argsort(excess_g)[:n_genes]
            seen, wanted = seen + x_ng[others][:, genes].sum(), wanted + x_ng[others].sum() * profile_g[genes].sum()
        found.append(seen / wanted)
    return float(min(found))


def ambient(folder: Path, seed: int) -> Figures:
    """What is taken away, and markers of clusters outside of these, before and after."""
    cells, droplets, soup_g = cells_and_soup(folder)
    others = droplets[~droplets.obs["is_cell"].astype(bool).to_numpy()]
    SCAR.setup_anndata(cells)
    model, start = SCAR(cells, ambient_profile=soup_g), time.process_time()
    model.train(seed=seed, **QUIET)
    seconds = time.process_time() - start
    raw_ng, native_ng = cells.X.toarray(), model.get_denoised_counts(seed=0)
    cluster_n = cells.obs["cluster"].astype(str).to_numpy()
    outside, kept = marker_shares(native_ng, raw_ng, cluster_n)
    return {
        "processor time, s": seconds,
        "taken away, %": 100 * float(1 - native_ng.sum() / raw_ng.sum()),
        "most that may be soup, %": 100 * most_soup(cells, soup_g),
        "spread of the other droplets (a soup: 1)": spread_of_droplets(others, soup_g),
        "markers outside of their cluster": outside,
        "... of the raw counts": marker_shares(raw_ng, raw_ng, cluster_n)[0],
        "markers left in their cluster": kept,
    }


def embryos(folder: Path, seed: int, n_genes: int = 2000) -> Figures:
    """Types, time and batch told from u and from principal components."""
    adata = anndata.read_h5ad(folder / "samples_worm_embryo.h5ad")
    mean_g = np.asarray(adata.X.mean(0)).ravel()
    variance_g = np.asarray(adata.X.multiply(adata.X).mean(0)).ravel() - mean_g**2
    adata = adata[:, np.sort(np.argsort(-variance_g / np.maximum(mean_g, 1e-9))[:n_genes])].copy()
    MRVI.setup_anndata(adata, sample_key="batch")
    model, start = MRVI(adata), time.process_time()
    model.train(seed=seed, **QUIET)
    found = {"processor time, s": time.process_time() - start}
    spaces = {"u": model.get_latent_representation(), "30 principal components": principal(adata, 30)}
    for kind, z_nk in spaces.items():
        for what in ("cell.type", "batch", "embryo.time.bin"):
            found[f"{what}, {kind}"] = common.neighbours_of_their_own(z_nk, adata.obs[what].astype(str).to_numpy())
    return found


def stimulated(folder: Path, seed: int) -> Figures:
    """Condition and patient told from state markers, from type markers, and from latents corrected for the patient."""
    adata = anndata.read_h5ad(folder / "cytometry_pbmc_stim.h5ad")
    adata.layers["raw"] = adata.X.copy()
    transform_arcsinh(adata)
    scale(adata)
    found: Figures = {}
    for kind in ("state", "type"):
        some = adata[:, adata.var["marker_class"] == kind].copy()
        CYTOVI.setup_anndata(some, layer="scaled", batch_key="patient_id")
        model, start = CYTOVI(some), time.process_time()
        model.train(seed=seed, **QUIET)
        found[f"processor time, s, {kind} markers"] = time.process_time() - start
        spaces = {"markers": np.asarray(some.layers["transformed"]), "latents": model.get_latent_representation()}
        for space, z_nk in spaces.items():
            for what in ("condition", "patient_id"):
                told = cross_val_score(
                    KNeighborsClassifier(15), z_nk, some.obs[what], cv=5, scoring="balanced_accuracy"
                )
                found[f"{what}, {space} of {kind} markers"] = float(told.mean())
    return found


def methylated(folder: Path, seed: int) -> Figures:
    """Share of methylated reads of all windows, by the reads and by the model."""
    mdata = mudata.read_h5mu(folder / "methylation_mcg_mch_8cells.h5mu")
    METHYLVI.setup_mudata(mdata, "mc", "cov", ["mCG", "mCH"])
    model, start = METHYLVI(mdata), time.process_time()
    model.train(seed=seed, **QUIET)
    found = {"processor time, s": time.process_time() - start}
    share = model.get_normalized_methylation(return_numpy=True)
    for context in mdata.mod:
        mc, cov = (np.asarray(mdata[context].layers[name].sum(), dtype=float) for name in ("mc", "cov"))
        found[f"{context}, share of methylated reads"] = float(mc / cov)
        found[f"{context}, ... by the model"] = float(mdata[context].layers["cov"].multiply(share[context]).sum() / cov)
    return found


SETS: dict[str, Callable[[Path, int], Figures]] = {
    "ContrastiveVI": perturbed,
    "SCAR": ambient,
    "MRVI": embryos,
    "CYTOVI": stimulated,
    "METHYLVI": methylated,
}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    for name in given.models:
        runs = [SETS[name](given.folder, seed) for seed in range(given.seeds)]
        print(name)
        for figure in runs[0]:
            values = [run[figure] for run in runs]
            print(f"  {figure:45} {np.median(values):8.3f}   " + " ".join(f"{value:.3f}" for value in values))


if __name__ == "__main__":
    main()
