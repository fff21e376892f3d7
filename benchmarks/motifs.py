"""SCBASSET on regions with a planted motif: which cells does it open, and how well are open regions told.

``python -m benchmarks.motifs [--seeds 3] [--recipe NAME] [--epochs N]``
"""

import time
from typing import Any

import anndata
import numpy as np

from celbo.external import SCBASSET

from . import common

MOTIF = "TGACTCA"
TOWER = {"n_filters_init": 16, "n_repeat_blocks_tower": 2, "n_filters_pre_bottleneck": 8}


def simulate_motif(
    n_regions: int = 2000, n_cells: int = 40, length: int = 60, motif: str = MOTIF, seed: int = 0
) -> anndata.AnnData:
    r"""Regions of random bases, two in five of which have the motif, on either strand; it opens every other cell.

    .. math:: \mathrm{logit}\, P(x_{rn} = 1) = -2 + a_n + c_r + 2\,[\text{motif in } r]\,[n \text{ odd}], \qquad
              a_n \sim N(0, 0.3^2), \quad c_r \sim N(0, 0.5^2)

    Parameters
    ----------
    n_regions, n_cells, length
        How many, and how many bases.
    motif
        Its bases.
    seed
        Of everything.

    Returns
    -------
    Regions by cells; ``obsm["dna_code"]``, ``obs["has_motif"]``, ``var["opened"]``, ``layers["chance"]``.
    """
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (n_regions, length)).astype(np.uint8)
    forward = np.array(["ACGT".index(base) for base in motif], dtype=np.uint8)
    has = rng.random(n_regions) < 0.4
    for region in np.flatnonzero(has):
        start = rng.integers(5, length - 5 - len(motif))
        codes[region, start : start + len(motif)] = forward if rng.random() < 0.5 else 3 - forward[::-1]
    opened = np.arange(n_cells) % 2 == 1
    logit = -2 + rng.normal(0, 0.3, n_cells) + rng.normal(0, 0.5, (n_regions, 1)) + 2 * has[:, None] * opened
    chance = 1 / (1 + np.exp(-logit))
    adata = anndata.AnnData((rng.random(chance.shape) < chance).astype(np.float32))
    adata.layers["chance"] = chance
    adata.obsm["dna_code"], adata.obs["has_motif"], adata.var["opened"] = codes, has, opened
    return adata


def figures(seed: int, options: dict[str, Any]) -> dict[str, float]:
    """Figures of one training; beside the area of the scores that of the true chances."""
    from sklearn.metrics import roc_auc_score

    adata = simulate_motif(seed=seed)
    SCBASSET.setup_anndata(adata, dna_code_key="dna_code")
    model = SCBASSET(adata, 8, **TOWER)
    start = time.perf_counter()
    model.train(**options)
    seconds = time.perf_counter() - start
    activity = model.get_tf_activity("planted", motif=MOTIF, n_sequences=300, seed=0)
    rows = model.validation_indices
    true = roc_auc_score(adata.X[rows].ravel(), adata.layers["chance"][rows].ravel())
    return {
        "training, s": seconds,
        "AUROC of activity for opened cells": float(roc_auc_score(adata.var["opened"], activity)),
        "AUROC of open regions, validation": float(model.history["auroc_validation"].iloc[-1, 0]),
        "the same by the true chances": float(true),
    }


def main() -> None:
    """Measure."""
    parser = common.training_arguments(__doc__)
    given = parser.parse_args()
    options = common.training_options(given)
    runs = [figures(seed, options | {"seed": seed, "verbose": 0}) for seed in range(given.seeds)]
    report = common.Report("motifs", given.dry)
    report.add_runs(f"SCBASSET, 2,000 x 40, {common.shown(options)}", runs)
    report.write()


if __name__ == "__main__":
    main()
