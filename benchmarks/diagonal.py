"""DIAGVI on two modalities of other cells from one latent space: types carried over, cells mixed, markers imputed.

``python -m benchmarks.diagonal [--seeds N] [--cells N] [--labels] [--recipe NAME] [--epochs N]``
"""

import time
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

from celbo.external import DIAGVI

from . import common

__all__ = ["figures", "simulate_unpaired"]

_NEIGHBORS = 15
_GENES, _MARKERS, _LINKED, _SIZE, _TYPES = 400, 40, 30, 8, 6


def simulate_unpaired(n_cells: int = 1000, seed: int = 0) -> tuple[dict[str, anndata.AnnData], pd.DataFrame]:
    """Cells with counts of 400 genes, and as many others with 40 markers, of which 30 each follow a gene.

    Six types, of other shares in the two, and variation within them; two batches of each modality.

    Parameters
    ----------
    n_cells
        Of each modality.
    seed
        Of everything.

    Returns
    -------
    ``"rna"``: counts; ``"protein"``: markers scaled to 0 to 1; both with ``obs["type"]``, ``obs["batch"]`` and, in
    ``obsm["markers"]``, their markers without noise. The pairs of genes and markers.
    """
    rng = np.random.default_rng(seed)
    center_ck = rng.normal(0, 1.3, (_TYPES, _SIZE))
    gene_gk = rng.normal(0, 1 / np.sqrt(_SIZE), (_GENES, _SIZE))
    marker_pk = rng.normal(0, 1 / np.sqrt(_SIZE), (_MARKERS, _SIZE))
    linked_g = rng.choice(_GENES, _LINKED, replace=False)
    marker_pk[:_LINKED] = gene_gk[linked_g] + rng.normal(0, 0.3 / np.sqrt(_SIZE), (_LINKED, _SIZE))
    level_g, adatas = rng.normal(0, 1, _GENES), {}
    for name, n_features in (("rna", _GENES), ("protein", _MARKERS)):
        type_n = rng.choice(_TYPES, n_cells, p=rng.dirichlet(np.full(_TYPES, 5.0)))
        z_nk = center_ck[type_n] + rng.normal(0, 0.7, (n_cells, _SIZE))
        batch_n, shift_bg = rng.integers(2, size=n_cells), rng.normal(0, 0.25, (2, n_features))
        if name == "rna":
            log_rate_ng = level_g + 1.2 * z_nk @ gene_gk.T + shift_bg[batch_n]
            share_ng = np.exp(log_rate_ng) / np.exp(log_rate_ng).sum(1, keepdims=True)
            mean_ng = rng.lognormal(np.log(1500), 0.3, (n_cells, 1)) * share_ng
            x = sp.csr_matrix(rng.poisson(rng.gamma(4, mean_ng / 4)).astype(np.float32))
            names = [f"gene_{g}" for g in range(n_features)]
        else:
            noisy = z_nk @ marker_pk.T + shift_bg[batch_n] + rng.normal(0, 0.6, (n_cells, n_features))
            x = ((noisy - noisy.min(0)) / np.ptp(noisy, axis=0)).astype(np.float32)
            names = [f"marker_{p}" for p in range(n_features)]
        adata = anndata.AnnData(x, var=pd.DataFrame(index=names))
        adata.obs_names = [f"{name}_{i}" for i in range(n_cells)]
        adata.obs["type"] = pd.Categorical([f"type_{c}" for c in type_n])
        adata.obs["batch"] = pd.Categorical([f"batch_{b}" for b in batch_n])
        adata.obsm["markers"] = z_nk @ marker_pk.T
        adatas[name] = adata
    pairs = {"rna": [f"gene_{g}" for g in linked_g], "protein": [f"marker_{p}" for p in range(_LINKED)]}
    return adatas, pd.DataFrame(pairs)


def _linked_features(adatas: dict[str, anndata.AnnData], pairs: pd.DataFrame) -> dict[str, np.ndarray]:
    """What both modalities have, on one scale: the null."""
    x = adatas["rna"].X.toarray()
    normalized = anndata.AnnData(np.log1p(1e4 * x / x.sum(1, keepdims=True)), var=adatas["rna"].var)
    of = {"rna": normalized[:, pairs["rna"]].X, "protein": adatas["protein"][:, pairs["protein"]].X}
    return {name: (values - values.mean(0)) / values.std(0) for name, values in of.items()}


def _scores(
    z: dict[str, np.ndarray], adatas: dict[str, anndata.AnnData], imputed: np.ndarray | None
) -> dict[str, float]:
    type_of = {name: adata.obs["type"].to_numpy() for name, adata in adatas.items()}
    _, near = cKDTree(z["rna"]).query(z["protein"], _NEIGHBORS)
    voted = pd.DataFrame(type_of["rna"][near]).mode(axis=1)[0].to_numpy()
    both, is_rna = (
        np.concatenate([z["rna"], z["protein"]]),
        np.repeat([True, False], [len(z["rna"]), len(z["protein"])]),
    )
    _, around = cKDTree(both).query(both, _NEIGHBORS + 1)
    if imputed is None:
        _, partners = cKDTree(z["protein"]).query(z["rna"], _NEIGHBORS)
        imputed = adatas["protein"].X[partners].mean(1)
    true = adatas["rna"].obsm["markers"]
    each = [spearmanr(imputed[:, p], true[:, p])[0] for p in range(_MARKERS)]
    return {
        "types carried over": float((voted == type_of["protein"]).mean()),
        "same modality": float((is_rna[around[:, 1:]] == is_rna[:, None]).mean()),
        "Spearman of imputed linked markers": float(np.median(each[:_LINKED])),
        "Spearman of imputed other markers": float(np.median(each[_LINKED:])),
    }


def figures(seed: int, n_cells: int, with_labels: bool, options: dict[str, Any]) -> dict[str, float]:
    """Figures of one training, and of the null."""
    adatas, pairs = simulate_unpaired(n_cells, seed)
    labels = {"labels_key": "type"} if with_labels else {}
    DIAGVI.setup_anndata(adatas["rna"], batch_key="batch", **labels)
    DIAGVI.setup_anndata(adatas["protein"], batch_key="batch", likelihood="normal", normalize_lib=False)
    model = DIAGVI(adatas, mapping_df=pairs, n_latent=20)
    start = time.perf_counter()
    model.train(seed=seed, verbose=0, accelerator="cpu", **options)
    result = {"training, s": time.perf_counter() - start, "epochs": float(len(model.history["train_loss"]))}
    result |= _scores(model.get_latent_representation(), adatas, model.get_imputed_values("rna"))
    if with_labels:
        predicted = model.predict_celltype("rna")["predictions"]
        result["types by the classifier"] = float((predicted == adatas["protein"].obs["type"].to_numpy()).mean())
    null = _scores(_linked_features(adatas, pairs), adatas, None)
    largest = adatas["rna"].obs["type"].mode()[0]
    result["types carried over, largest type"] = float((adatas["protein"].obs["type"] == largest).mean())
    return result | {f"{name}, linked features": value for name, value in null.items()}


def main() -> None:
    """Measure."""
    parser = common.training_arguments(__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--labels", action="store_true")
    given = parser.parse_args()
    options = common.training_options(given)
    runs = [figures(seed, given.cells, given.labels, options) for seed in range(given.seeds)]
    report = common.Report("diagonal", given.dry)
    labels = ", types of the one known" if given.labels else ""
    report.add_runs(f"DIAGVI, {given.cells:,} cells of each modality{labels} {common.shown(options)}".strip(), runs)
    report.write()


if __name__ == "__main__":
    main()
