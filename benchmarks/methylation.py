"""Models of methylated reads on simulated cells of known types: types, labels, shares of methylated reads, differences.

``python -m benchmarks.methylation [--models METHYLVI METHYLANVI] [--cells N] [--epochs N] [--recipe NAME] [--seeds N]``

``--keep FOLDER`` also writes the data; with ``--package scvi --data FOLDER``, in an environment with scvi-tools, its
models are then trained on the same files.
"""

import importlib
import time
from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd

from . import common

__all__ = ["figures", "simulate"]

_CONTEXTS = ["mCG", "mCH"]
_HIDDEN = 0.8
_DIFFERS = 0.1
"""Difference of mean shares from which on a region counts as different."""


def simulate(seed: int, n_cells: int = 600, n_regions: int = 120, without_reads: float = 0.3) -> Any:
    """Cells of four types in two batches; ``obs["seen"]`` has the type of a fifth of them."""
    from celbo.data import simulate_methylation

    regions = dict.fromkeys(_CONTEXTS, n_regions)
    mdata = simulate_methylation(n_cells, regions, without_reads=without_reads, seed=seed)
    hidden = np.random.default_rng(seed).random(n_cells) < _HIDDEN
    mdata.obs["seen"] = pd.Categorical(np.where(hidden, "unknown", mdata.obs["cell_type"].astype(str)))
    return mdata


def figures(package: str, name: str, mdata: Any, seed: int, options: dict[str, Any]) -> dict[str, float]:
    """Figures of one training by one of the two packages."""
    from sklearn.metrics import roc_auc_score

    cls = getattr(importlib.import_module(f"{package}.external"), name)
    setup = {"mc_layer": "mc", "cov_layer": "cov", "methylation_contexts": _CONTEXTS, "batch_key": "batch"}
    setup |= {"labels_key": "seen", "unlabeled_category": "unknown"} if name == "METHYLANVI" else {}
    where = {argument: None for argument in ("batch_key", "labels_key") if argument in setup}
    cls.setup_mudata(mdata, **setup, modalities=where)
    if package == "scvi":
        importlib.import_module("scvi").settings.seed = seed
    model = cls(mdata)
    start = time.perf_counter()
    model.train(accelerator="cpu", **({"seed": seed, "verbose": 0} if package == "celbo" else {}), **options)
    seconds = time.perf_counter() - start
    z_nk, kind = model.get_latent_representation(), mdata.obs["cell_type"].astype(str).to_numpy()
    share = model.get_normalized_methylation(return_numpy=True)
    result = {
        "training, s": seconds,
        "epochs": len(model.history["elbo_train"]),
        "ARI of k-means": common.types_by_k_means(z_nk, kind),
        "accuracy of 15 neighbours": common.neighbours_of_their_own(z_nk, kind),
        "15 neighbours tell the batch": common.neighbours_of_their_own(z_nk, mdata.obs["batch"].astype(str).to_numpy()),
    }
    first = kind == "type_0"
    for context in _CONTEXTS:
        adata = mdata[context]
        reads, truth = np.asarray(adata.layers["cov"].todense()).astype(float), adata.layers["share"]
        raw = np.asarray(adata.layers["mc"].todense()) / np.where(reads > 0, reads, np.nan)
        seen = reads > 0
        region = np.broadcast_to(np.nanmean(raw, 0), raw.shape)
        for who, values in {"": share[context], ", raw": raw, ", region mean": region}.items():
            result[f"{context}: correlation{who}"] = float(np.corrcoef(values[seen], truth[seen])[0, 1])
        apart = [np.abs(x[first].mean(0) - x[~first].mean(0)) for x in (truth, share[context])]
        of_reads = np.abs(np.nanmean(raw[first], 0) - np.nanmean(raw[~first], 0))
        differs = apart[0] > _DIFFERS
        result[f"{context}: AUROC of differences"] = float(roc_auc_score(differs, apart[1]))
        result[f"{context}: AUROC of differences, raw"] = float(roc_auc_score(differs, of_reads))
    if name == "METHYLANVI":
        hidden = (mdata.obs["seen"] == "unknown").to_numpy()
        result["accuracy on hidden labels"] = float((np.asarray(model.predict()) == kind)[hidden].mean())
    return result


def main() -> None:
    """Measure."""
    parser = common.training_arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=["METHYLVI", "METHYLANVI"])
    parser.add_argument("--package", default="celbo", choices=["celbo", "scvi"])
    parser.add_argument("--cells", type=int, default=600)
    parser.add_argument("--regions", type=int, default=120)
    parser.add_argument("--without-reads", type=float, default=0.3)
    parser.add_argument("--keep", type=Path, help="folder to write the data to")
    parser.add_argument("--data", type=Path, help="folder to read the data from")
    given = parser.parse_args()
    options = common.training_options(given)
    for name in given.models:
        runs = []
        for seed in range(given.seeds):
            if given.data is not None:
                mdata = mudata.read_h5mu(given.data / f"{seed}.h5mu")
            else:
                mdata = simulate(seed, given.cells, given.regions, given.without_reads)
            if given.keep is not None:
                given.keep.mkdir(parents=True, exist_ok=True)
                mdata.write_h5mu(given.keep / f"{seed}.h5mu")
            runs.append(figures(given.package, name, mdata, seed, options))
        for figure in runs[0]:
            p20, p50, p80 = common.percentiles([run[figure] for run in runs])
            print(f"{given.package} {name} {common.shown(options)} {figure}: {p50:.3f} ({p20:.3f} to {p80:.3f})")


if __name__ == "__main__":
    main()
