"""Latents of cells and of the same cells with fewer counts: SCVI beside JointEmbeddingSCVI.

``python -m benchmarks.thinned [--cells N] [--counts N] [--weights W ...] [--seeds N]``
"""

import argparse
import time

import numpy as np
import pandas as pd

from celbo.data import simulate_counts
from celbo.external import JointEmbeddingSCVI
from celbo.model import SCVI

__all__ = ["figures"]

_NEIGHBOURS = 15


def figures(cls: type[SCVI], n_cells: int, counts: float, seed: int, **init: float) -> dict[str, float]:
    """Figures of one training: types and batches by neighbours, and of thinned cells among whole ones."""
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    adata = simulate_counts(n_cells, 500, 5, 2, median_library=1000, marker_strength=1.0, seed=seed)
    cls.setup_anndata(adata, batch_key="batch")
    model = cls(adata, **init)
    start = time.perf_counter()
    model.train(verbose=0, seed=seed, accelerator="cpu")
    seconds = time.perf_counter() - start
    few, x = adata.copy(), adata.X.toarray()
    share_n1 = np.minimum(1, counts / x.sum(1, keepdims=True))
    few.X = np.random.default_rng(seed).binomial(x.astype(int), np.broadcast_to(share_n1, x.shape)).astype(np.float32)
    few = few[np.asarray(few.X.sum(1)).ravel() > 0].copy()
    whole, thin = model.get_latent_representation(), model.get_latent_representation(few)
    kinds = adata.obs["cell_type"].to_numpy()
    neighbours = KNeighborsClassifier(_NEIGHBOURS)
    moved = np.linalg.norm(thin - whole[adata.obs_names.get_indexer(few.obs_names)], axis=1).mean()
    spread = np.linalg.norm(whole - whole.mean(0), axis=1).mean()
    return {
        "training, s": seconds,
        "ELBO": float(model.get_elbo(indices=model.validation_indices, seed=0)),
        "types": float(cross_val_score(neighbours, whole, kinds, cv=5).mean()),
        "batch": float(cross_val_score(neighbours, whole, adata.obs["batch"], cv=5).mean()),
        "types of thinned cells": float((neighbours.fit(whole, kinds).predict(thin) == few.obs["cell_type"]).mean()),
        "way of thinned cells by the spread": float(moved / spread),
    }


def main() -> None:
    """Print the figures of each seed, and their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1500)
    parser.add_argument("--counts", type=float, default=100)
    parser.add_argument("--weights", type=float, nargs="+", default=[100.0, 10.0, 1.0])
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    tried: list[tuple[type[SCVI], dict[str, float]]] = [(SCVI, {})]
    tried += [(JointEmbeddingSCVI, {"joint_embedding_weight": weight}) for weight in asked.weights]
    for cls, init in tried:
        rows = []
        for seed in range(asked.seeds):
            rows.append(figures(cls, asked.cells, asked.counts, seed, **init))
            print(cls.__name__, init, seed, {name: round(value, 3) for name, value in rows[-1].items()}, flush=True)
        print(cls.__name__, init, "median", pd.DataFrame(rows).median().round(3).to_dict(), flush=True)


if __name__ == "__main__":
    main()
