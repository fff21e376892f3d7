"""Memory that training takes beyond data, weights, gradients and moments, beside scvi-tools'.

``python -m benchmarks.training_memory --data FOLDER [--models SysVI ...] [--package celbo|scvi] [--epochs N]``

The folder holds the data; celbo writes them, scvi-tools reads them. Each model is a process of its own: it trains on
200 cells, so that what is loaded late is there, and then on all cells. The figure is the peak of that training over
what the process held before it, less three times the model's weights (gradients, and two moments).
"""

import argparse
import ctypes
import gc
import importlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd

from .side import peak_mb

__all__ = ["CASES", "Case", "measured"]


class Case(NamedTuple):
    """Arguments of a model's setup, of its constructor and of its training, from the data.

    ``parts`` sets up what the constructor takes, from the class, the data and the arguments of its setup.
    """

    setup: dict[str, Any]
    init: Callable[[Any], dict[str, Any]] = lambda data: {}
    sets: Callable[[Any], tuple[Any, ...]] = lambda data: ()
    parts: Callable[[Any, Any, dict[str, Any]], tuple[Any, ...]] | None = None


def _halves(adata: anndata.AnnData) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(0, adata.n_obs, 2), np.arange(1, adata.n_obs, 2)


def _two_sets(cls: Any, adata: anndata.AnnData, setup: dict[str, Any]) -> tuple[Any, ...]:
    """Half of the cells, and the others with half of the genes."""
    first, second = _halves(adata)
    sets = adata[first].copy(), adata[second, : adata.n_vars // 2].copy()
    for one in sets:
        cls.setup_anndata(one, **setup)
    return sets


def _genes_and_markers(cls: Any, adata: anndata.AnnData, setup: dict[str, Any]) -> tuple[Any, ...]:
    """Half of the cells, and 30 genes of the others as if they were markers."""
    first, second = _halves(adata)
    sets = {"rna": adata[first].copy(), "protein": adata[second, :30].copy()}
    sets["protein"].X, sets["protein"].var_names = np.log1p(sets["protein"].X.toarray()), _MARKERS
    cls.setup_anndata(sets["rna"], **setup)
    cls.setup_anndata(sets["protein"], **setup, likelihood="normal", normalize_lib=False)
    return (sets,)


def _cells_and_spots(cls: Any, adata: anndata.AnnData, setup: dict[str, Any]) -> tuple[Any, ...]:
    """Two thirds of the rows as cells, the others as spots; of 300 genes."""
    import mudata

    sets = {"sc": adata[adata.n_obs // 3 :, :300].copy(), "sp": adata[: adata.n_obs // 3, :300].copy()}
    sets["sp"].obs["density"] = 1 / sets["sp"].n_obs
    with mudata.set_options(pull_on_update=False), warnings.catch_warnings(action="ignore"):
        mdata = mudata.MuData(sets)
    cls.setup_mudata(mdata, **setup)
    return (mdata,)


def _with_niches(cls: Any, adata: anndata.AnnData, setup: dict[str, Any]) -> tuple[Any, ...]:
    cls.preprocessing_anndata(adata, k_nn=20, sample_key="batch", **setup)  # without one scvi-tools fails
    cls.setup_anndata(adata, **setup)
    return (adata,)


def _whole(cls: Any, data: Any, setup: dict[str, Any]) -> tuple[Any, ...]:
    (cls.setup_anndata if isinstance(data, anndata.AnnData) else cls.setup_mudata)(data, **setup)
    return (data,)


_MARKERS = [f"marker_{place}" for place in range(30)]
_WHERE = {"sc_layer": "sc", "sp_layer": "sp", "density_prior_key": "sp"}


_READS = {"mc_layer": "mc", "cov_layer": "cov", "methylation_contexts": ["mCG", "mCH"], "batch_key": "batch"}

CASES: dict[str, Case] = {
    "SysVI": Case({"batch_key": "batch"}),
    "SCAR": Case({}, lambda data: {"ambient_profile": np.asarray(data.X.sum(0)).ravel() / data.X.sum()}),
    "ContrastiveVI": Case({"batch_key": "batch"}, sets=_halves),
    "CYTOVI": Case({"layer": "scaled", "batch_key": "batch"}),
    "METHYLVI": Case(_READS | {"modalities": {"batch_key": None}}),
    "Decipher": Case({}),
    "RESOLVI": Case({"batch_key": "batch"}),
    "VELOVI": Case({"spliced_layer": "spliced", "unspliced_layer": "unspliced"}),
    "MRVI": Case({"sample_key": "sample", "batch_key": "batch"}),
    "SCBASSET": Case({"dna_code_key": "dna_code"}, lambda data: {"n_repeat_blocks_tower": 4}),
    "GIMVI": Case({"batch_key": "batch"}, parts=_two_sets),
    "Tangram": Case({"density_prior_key": "density", "modalities": _WHERE}, parts=_cells_and_spots),
    "SCVIVA": Case({"labels_key": "cell_type"}, parts=_with_niches),
    "DIAGVI": Case(
        {"batch_key": "batch"},
        lambda data: {"mapping_df": pd.DataFrame({"rna": data.var_names[:30], "protein": _MARKERS})},
        parts=_genes_and_markers,
    ),
}


def simulated(model: str, n_cells: int) -> Any:
    """Data of 2,000 genes, of twice 1,000 regions, of 30 markers, or of regions of 336 bases in 500 cells."""
    from celbo.data import simulate_counts, simulate_methylation

    rng = np.random.default_rng(0)
    if model == "SCBASSET":
        opened = anndata.AnnData((rng.random((n_cells, 500)) < 0.1).astype(np.float32))
        opened.obsm["dna_code"] = rng.integers(0, 4, (n_cells, 336)).astype(np.uint8)
        return opened
    if model == "METHYLVI":
        return simulate_methylation(n_cells, {"mCG": 1000, "mCH": 1000}, seed=0)
    adata = simulate_counts(n_cells, 30 if model == "CYTOVI" else 2000, n_batches=2, seed=0)
    log_ng = np.log1p(adata.X.toarray())
    if model == "MRVI":
        adata.obs["sample"] = [f"sample_{code}" for code in rng.permutation(n_cells) % 20]
    if model == "SysVI":
        adata.X = log_ng
    if model == "SCVIVA":
        adata.obsm["spatial"], adata.obsm["X_scVI"] = rng.random((n_cells, 2)), log_ng[:, :10]
    if model == "RESOLVI":
        adata.obsm["X_spatial"] = rng.random((n_cells, 2)) * n_cells**0.5
    if model == "VELOVI":
        for layer in ("spliced", "unspliced"):
            adata.layers[layer] = log_ng * rng.uniform(0.5, 1.5, log_ng.shape).astype(np.float32)
    if model == "CYTOVI":
        adata.layers["scaled"] = (log_ng / log_ng.max(0).clip(1)).astype(np.float32)
    return adata


def _data(folder: Path, model: str, n_cells: int) -> Any:
    is_mudata = model == "METHYLVI"
    path = folder / f"{model}_{n_cells}.h5{'mu' if is_mudata else 'ad'}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = simulated(model, n_cells)
        (data.write_h5mu if is_mudata else data.write_h5ad)(path)
    if is_mudata:
        import mudata

        return mudata.read_h5mu(path)
    return anndata.read_h5ad(path)


def _trained(package: str, model: str, data: Any, epochs: int) -> dict[str, float]:
    case, cls = CASES[model], getattr(importlib.import_module(f"{package}.external"), model)
    made = cls(*(case.parts or _whole)(cls, data, case.setup), **case.init(data))
    quiet = {"verbose": 0, "recipe": "classic"} if package == "celbo" else {"enable_progress_bar": False}
    options = {"batch_size": 128} | quiet if model != "Tangram" else quiet if package == "celbo" else {}
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free belongs to no training
    before = _now_mb()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    made.train(*case.sets(data), max_epochs=epochs, accelerator="cpu", **options)
    weights = _weights_mb(made.module)
    return {"beyond": peak_mb() - before - 3 * weights, "weights": weights, "before": before}


def _weights_mb(module: Any) -> float:
    if hasattr(module, "parameters"):
        return sum(p.numel() * p.element_size() for p in module.parameters()) / 2**20
    return sum(weight.nbytes for weight in module.params.values()) / 2**20  # in JAX, of one layer


def _now_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def measured(package: str, model: str, folder: Path, n_cells: int, epochs: int) -> dict[str, float]:
    """MB beyond what data, weights, gradients and moments take; weights; what was held before."""
    _trained(package, model, _data(folder, model, 200), 1)
    return _trained(package, model, _data(folder, model, n_cells), epochs)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--package", default="celbo", choices=["celbo", "scvi"])
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    if len(given.models) > 1:
        for model in given.models:
            sizes = ["--cells", str(given.cells), "--epochs", str(given.epochs), "--package", given.package]
            code = [sys.executable, "-W", "ignore", "-m", "benchmarks.training_memory", "--data", str(given.data)]
            subprocess.run([*code, "--models", model, *sizes], check=True)
        return
    found = measured(given.package, given.models[0], given.data, given.cells, given.epochs)
    print(given.package, given.models[0], {name: round(mb, 1) for name, mb in found.items()}, "MB", flush=True)


if __name__ == "__main__":
    main()
