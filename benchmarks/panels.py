"""TOTALVI on two runs of real cells with other panels: antibodies that a half of one run does not tell are predicted.

``python -m benchmarks.panels FILE.h5mu [--seeds 6 7 8] [--epochs N] [--weight W]``

The file has modalities ``rna`` and ``protein``, ``obs["batch"]``, and in ``protein.var`` columns ``in_RUN``: which
antibodies each run had. Those that the second run lacks are hidden in a random half of the first one's cells.
"""

import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from celbo.data import read, top_variable_genes
from celbo.model import TOTALVI

from . import common

_GENES, _COMPONENTS, _NEIGHBOURS, _TYPES, _DRAWS = 2000, 30, 15, 6, 100


class Panels:
    """Cells of two runs, of one of which half is hidden by a seed."""

    def __init__(self, path: Path, seed: int) -> None:
        rna, protein = (read(path, modality=name) for name in ("rna", "protein"))
        rna = rna[:, top_variable_genes(rna.X, _GENES)]
        self.batch_n = rna.obs["batch"].astype(str).to_numpy()
        counts = protein.X.toarray() if sp.issparse(protein.X) else np.asarray(protein.X)
        first, second = (protein.var[f"in_{run}"].to_numpy() for run in dict.fromkeys(self._runs(protein.var)))
        self.hidden_p = first & ~second
        cells = np.random.default_rng(seed).permutation(np.flatnonzero(self.batch_n == self._runs(protein.var)[0]))
        self.hidden, self.told = np.sort(cells[: len(cells) // 2]), np.sort(cells[len(cells) // 2 :])
        self.log_np = np.log1p(counts)
        counts = counts.copy()
        counts[np.ix_(self.hidden, self.hidden_p)] = 0
        panel = self.batch_n.astype(object)
        panel[self.hidden] = "hidden"
        self.adata = anndata.AnnData(rna.X.astype(np.float32), obs=pd.DataFrame(index=rna.obs_names))
        self.adata.var_names = rna.var_names
        self.adata.obs["batch"], self.adata.obs["panel"] = pd.Categorical(self.batch_n), pd.Categorical(panel)
        self.adata.obsm["protein"] = pd.DataFrame(counts, rna.obs_names, protein.var_names).astype(np.float32)
        self.types_n = self._types(first & second)

    @staticmethod
    def _runs(var: pd.DataFrame) -> list[str]:
        """The runs, that of the larger panel first."""
        runs = [name.removeprefix("in_") for name in var.columns if name.startswith("in_")]
        return sorted(runs, key=lambda run: -int(var[f"in_{run}"].sum()))

    def _types(self, shared_p: np.ndarray) -> np.ndarray:
        """Clusters of the antibodies that both runs have, each scaled within its run."""
        from sklearn.cluster import KMeans

        x_np = self.log_np[:, shared_p].copy()
        for run in np.unique(self.batch_n):
            rows = self.batch_n == run
            x_np[rows] = (x_np[rows] - x_np[rows].mean(0)) / x_np[rows].std(0)
        return KMeans(_TYPES, n_init=10, random_state=0).fit_predict(x_np)

    def correlation(self, log_mp: np.ndarray) -> float:
        """Median over hidden antibodies of the correlation with what was counted, on the log scale."""
        truth = self.log_np[np.ix_(self.hidden, self.hidden_p)]
        return float(np.median([np.corrcoef(a, b)[0, 1] for a, b in zip(log_mp.T, truth.T, strict=True)]))

    def by_neighbours(self, z_nk: np.ndarray) -> float:
        """The same of means over the nearest cells of the run that tell."""
        from sklearn.neighbors import NearestNeighbors

        near = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(z_nk[self.told])
        rows = self.told[near.kneighbors(z_nk[self.hidden], return_distance=False)]
        return self.correlation(self.log_np[:, self.hidden_p][rows].mean(1))

    def components(self) -> np.ndarray:
        """Principal components of log-normalised RNA."""
        from sklearn.decomposition import PCA

        x_ng = self.adata.X.toarray()
        scaled = np.log1p(x_ng / x_ng.sum(1, keepdims=True) * 1e4)
        return PCA(_COMPONENTS, random_state=0).fit_transform(scaled)


def figures(path: Path, seed: int, options: dict[str, Any]) -> dict[str, float]:
    """Figures of one training, and of neighbours in RNA."""
    panels = Panels(path, seed)
    TOTALVI.setup_anndata(panels.adata, "protein", batch_key="batch", panel_key="panel")
    model, start = TOTALVI(panels.adata), time.process_time()
    model.train(verbose=0, seed=seed, accelerator="cpu", **options)
    seconds = time.process_time() - start
    z_nk, x_nk = model.get_latent_representation(), panels.components()
    names = list(panels.adata.obsm["protein"].columns[panels.hidden_p])
    asked = {"protein_list": names, "indices": panels.hidden, "return_numpy": True, "seed": 0}
    _, predicted = model.get_normalized_expression(n_samples=25, include_protein_background=True, **asked)
    like = {"protein_list": names, "gene_list": list(panels.adata.var_names[:1]), "indices": panels.hidden, "seed": 0}
    counts_nps = model.posterior_predictive_sample(n_samples=_DRAWS, **like)["protein"]
    return {
        "processor time of training, s": seconds,
        "epochs": len(model.history["train_loss"]),
        "ELBO": -float(model.history["elbo_validation"].min().iloc[0]),
        "hidden antibodies, correlation": panels.correlation(np.log1p(predicted)),
        "the same of the mean log count of draws": panels.correlation(np.log1p(counts_nps).mean(-1)),
        "the same by neighbours in RNA": panels.by_neighbours(x_nk),
        "batch by neighbours": common.neighbours_of_their_own(z_nk, panels.batch_n),
        "batch by neighbours in RNA": common.neighbours_of_their_own(x_nk, panels.batch_n),
        "clusters of antibodies by neighbours": common.neighbours_of_their_own(z_nk, panels.types_n),
        "the same in RNA": common.neighbours_of_their_own(x_nk, panels.types_n),
    }


def main() -> None:
    """Measure."""
    parser = common.arguments(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[6, 7, 8])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--weight", type=float, help="of the adversary")
    asked = parser.parse_args()
    options: dict[str, Any] = {"max_epochs": asked.epochs}
    if asked.weight is not None:
        options["plan_kwargs"] = {"scale_adversarial_loss": asked.weight}
    report = common.Report("panels", asked.dry)
    runs = [figures(asked.file, seed, options) for seed in asked.seeds]
    report.add_runs(f"TOTALVI, {asked.file.stem}, seeds {asked.seeds}, {common.shown(options)}", runs)
    report.write()


if __name__ == "__main__":
    main()
