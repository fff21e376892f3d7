"""Do the defaults of the models of spots find the mixtures: simulated spots with platform effects, and real ones.

``python -m benchmarks.deconvolution [--seeds 1 2] [--mixtures mixtures_9cells.h5ad] [--models stereoscope destvi]``

``mixtures_9cells.h5ad`` (wells of nine cells of three cell lines in known numbers, beside its ``..._reference.h5ad``)
is not in the repository. Seconds are of the processor, on all threads, so that other programs count for little.
"""

import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import celbo

from . import common

QUIET = {"verbose": 0, "accelerator": "cpu"}
GENES, TYPES, CELLS, SPOTS = 400, 5, 2000, 400


def tissue(seed: int, platform_sd: float) -> tuple[ad.AnnData, ad.AnnData]:
    """Cells of five types, and spots of known shares whose genes are caught at other rates than those of the cells."""
    rng = np.random.default_rng(seed)
    differs = rng.normal(0, 1, (TYPES, GENES)) * (rng.random((TYPES, GENES)) < 0.3)
    profile_cg = rng.lognormal(0, 1, GENES) * np.exp(differs)
    profile_cg /= profile_cg.sum(1, keepdims=True)
    type_n, share_sc = rng.integers(TYPES, size=CELLS), rng.dirichlet(np.full(TYPES, 0.5), SPOTS)
    mean_ng = profile_cg[type_n] * rng.lognormal(np.log(1500), 0.3, CELLS)[:, None]
    mean_sg = (share_sc @ profile_cg) * np.exp(rng.normal(0, platform_sd, GENES))
    mean_sg = mean_sg * rng.lognormal(np.log(5000), 0.3, SPOTS)[:, None]
    cells, spots = (
        ad.AnnData(rng.poisson(rng.gamma(5, mean / 5)).astype(np.float32), var=pd.DataFrame(index=_names("g", GENES)))
        for mean in (mean_ng, mean_sg)
    )
    cells.obs_names, spots.obs_names = _names("c", CELLS), _names("s", SPOTS)
    cells.obs["type"] = [f"t{code}" for code in type_n]
    spots.obsm["proportions"] = pd.DataFrame(share_sc, spots.obs_names, _names("t", TYPES))
    return cells, spots


def _names(letter: str, n: int) -> list[str]:
    return [f"{letter}{i}" for i in range(n)]


def stereoscope(cells: ad.AnnData, spots: ad.AnnData, key: str, seed: int) -> pd.DataFrame:
    """Shares by the two stereoscopes."""
    of_cells, of_spots = celbo.external.RNAStereoscope, celbo.external.SpatialStereoscope
    of_cells.setup_anndata(cells, labels_key=key)
    profiles = of_cells(cells)
    profiles.train(seed=seed, **QUIET)
    of_spots.setup_anndata(spots)
    model = of_spots.from_rna_model(spots, profiles)
    model.train(seed=seed, **QUIET)
    return model.get_proportions()


def destvi(cells: ad.AnnData, spots: ad.AnnData, key: str, seed: int) -> pd.DataFrame:
    """Shares by CondSCVI and DestVI."""
    celbo.model.CondSCVI.setup_anndata(cells, labels_key=key)
    profiles = celbo.model.CondSCVI(cells, prior="mog")
    profiles.train(seed=seed, **QUIET)
    celbo.model.DestVI.setup_anndata(spots)
    model = celbo.model.DestVI.from_rna_model(spots, profiles)
    model.train(seed=seed, **QUIET)
    return model.get_proportions()


MODELS: dict[str, Callable] = {"stereoscope": stereoscope, "destvi": destvi}


def judged(model: str, cells: ad.AnnData, spots: ad.AnnData, key: str, seed: int) -> dict[str, float]:
    """Correlation with the true shares, root mean square error, processor seconds."""
    started = time.process_time()
    found = MODELS[model](cells.copy(), spots.copy(), key, seed)
    seconds = time.process_time() - started
    truth = spots.obsm["proportions"][found.columns].to_numpy()
    error = float(np.sqrt(np.square(found.to_numpy() - truth).mean()))
    correlation = float(np.corrcoef(found.to_numpy().ravel(), truth.ravel())[0, 1])
    return {"correlation of proportions": correlation, "error of proportions": error, "processor seconds": seconds}


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--mixtures", type=Path, default=None)
    options = parser.parse_args()
    report = common.Report("deconvolution", options.dry)
    for model in options.models:
        for platform_sd in (0.0, 0.3, 0.6):
            runs = [judged(model, *tissue(seed, platform_sd), "type", seed) for seed in options.seeds]
            _add(report, f"{model}, platform effects {platform_sd:g}", runs)
        if options.mixtures is not None:
            reference = options.mixtures.with_name(f"{options.mixtures.stem}_reference.h5ad")
            cells, spots = ad.read_h5ad(reference), ad.read_h5ad(options.mixtures)
            _add(report, f"{model}, mixtures of nine cells", [judged(model, cells, spots, "cell_line", 0)])
    report.write()


def _add(report: common.Report, case: str, runs: list[dict[str, float]]) -> None:
    for figure in runs[0]:
        unit = "s" if figure == "processor seconds" else "share"
        report.add(case, figure, unit, {"celbo": [run[figure] for run in runs]})


if __name__ == "__main__":
    main()
