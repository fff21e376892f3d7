"""Whole default trainings of models, in processor time, and what they find on simulated cells.

``python -m benchmarks.default_trainings --models ContrastiveVI SysVI --data FOLDER [--cells N] [--seeds N]``

``--package scvi``, in an environment with scvi-tools, trains its models on the files that celbo left in the folder. The
times of both packages for the same cells and seeds are compared. Set ``OMP_NUM_THREADS=1``.
"""

import argparse
import importlib
import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from . import common

__all__ = ["CASES", "Case", "figures"]

Figures = dict[str, float]


def _near(z_nk: np.ndarray, labels: "pd.Series[str]") -> float:
    return common.neighbours_of_their_own(z_nk, labels.astype(str).to_numpy())


def two_perturbations(
    n_cells: int, seed: int, n_genes: int = 150, n_types: int = 4, n_perturbations: int = 2, of_genes: int = 2
) -> anndata.AnnData:
    """Cells of four types in two batches; in the second half each is under one of two perturbations of 20 genes.

    Of more perturbations the first ``of_genes`` are of genes.
    """
    rng = np.random.default_rng(seed)
    profile_tg = rng.gamma(1.0, size=n_genes) * np.exp(rng.normal(0, 1, (n_types, n_genes)))
    kind, is_target = rng.integers(n_types, size=n_cells), np.arange(n_cells) >= n_cells // 2
    perturbation = np.where(is_target, rng.integers(1, 1 + n_perturbations, size=n_cells), 0)
    batch = rng.integers(2, size=n_cells)
    profile_ng = profile_tg[kind] * np.exp(rng.normal(0, 0.2, (2, n_genes)))[batch]
    touched = {k: rng.choice(n_genes, 20, replace=False) for k in range(1, 1 + of_genes)}
    for k, genes in touched.items():
        profile_ng[np.ix_(perturbation == k, genes)] *= np.e
    profile_ng /= profile_ng.sum(1, keepdims=True)
    library_n = np.exp(rng.normal(np.log(1000), 0.3, n_cells))
    adata = anndata.AnnData(rng.poisson(rng.gamma(5.0, library_n[:, None] * profile_ng / 5.0)).astype(np.float32))
    for name, code in (("type", kind), ("perturbation", perturbation), ("batch", batch), ("is_target", is_target)):
        adata.obs[name] = pd.Categorical([f"{name}_{int(k)}" for k in code])
    for k, genes in touched.items():
        adata.var[f"perturbation_{k}"] = np.isin(np.arange(n_genes), genes)
    return adata


def perturbed_cite_seq(n_cells: int, seed: int, n_proteins: int = 24, n_perturbed: int = 8) -> anndata.AnnData:
    """The same with proteins; a perturbation is of 20 genes, the second of eight proteins, the third of nothing.

    Foreground is five times the background. Proteins have it in about half of the types, and the last eight under
    the second perturbation alone.
    """
    adata = two_perturbations(n_cells, seed, n_perturbations=3, of_genes=1)
    rng = np.random.default_rng([seed, 1])
    kind, batch = (adata.obs[name].cat.codes.to_numpy() for name in ("type", "batch"))
    is_fore_np = (rng.random((4, n_proteins)) < 0.5)[kind]
    is_fore_np[:, -n_perturbed:] = (adata.obs["perturbation"] == "perturbation_2").to_numpy()[:, None]
    capture_bp = np.exp(rng.normal(0, 0.2, (2, n_proteins)))
    mean_np = rng.lognormal(1.5, 0.4, (n_cells, n_proteins)) * capture_bp[batch] * np.where(is_fore_np, 5.0, 1.0)
    counts_np = rng.poisson(rng.gamma(5, mean_np / 5)).astype(np.float32)
    names = [f"protein_{p}" for p in range(n_proteins)]
    adata.obsm["protein"] = pd.DataFrame(counts_np, adata.obs_names, names)
    adata.obsm["foreground"] = is_fore_np
    return adata


def _sets(adata: anndata.AnnData) -> tuple[np.ndarray, np.ndarray]:
    is_target = (adata.obs["is_target"] == "is_target_1").to_numpy()
    return np.flatnonzero(~is_target), np.flatnonzero(is_target)


def _contrast(model: Any, adata: anndata.AnnData) -> Figures:
    target = _sets(adata)[1]
    found = {}
    for kind in ("salient", "background"):
        z_nk = model.get_latent_representation(indices=target, representation_kind=kind)
        for what in ("perturbation", "type"):
            found[f"{kind} latents, neighbours of the same {what}"] = _near(z_nk, adata.obs[what].iloc[target])
    return found


def _contrast_of_both(model: Any, adata: anndata.AnnData) -> Figures:
    """Of the cells under the first two perturbations; and whether that of proteins is told from none."""
    target = _sets(adata)[1]
    of = adata.obs["perturbation"].iloc[target]
    is_perturbed, may_be = (of != "perturbation_3").to_numpy(), (of != "perturbation_1").to_numpy()
    found = {}
    for kind in ("salient", "background"):
        z_nk = model.get_latent_representation(indices=target, representation_kind=kind)
        for what in ("perturbation", "type"):
            labels = adata.obs[what].iloc[target]
            found[f"{kind} latents, neighbours of the same {what}"] = _near(z_nk[is_perturbed], labels[is_perturbed])
        found[f"{kind} latents, that of proteins from none"] = _near(z_nk[may_be], of[may_be])
    return found


def _differences(model: Any, adata: anndata.AnnData) -> Figures:
    """Of targets under each perturbation from background cells: whether what was touched has the highest scores."""
    from sklearn.metrics import roc_auc_score

    background, target = _sets(adata)
    of, found = adata.obs["perturbation"].to_numpy(), {}
    genes = adata.var_names[adata.var["perturbation_1"]]
    proteins = [f"{name}_protein" for name in adata.obsm["protein"].columns[-8:]]
    for name in ("perturbation_1", "perturbation_2", "perturbation_3"):
        groups = {"idx1": np.flatnonzero(of == name), "idx2": background, "target_idx": target}
        table = model.differential_expression(**groups, include_protein_background=True, seed=0)
        is_protein = table.index.str.startswith("protein_")
        for what, touched, rows in (("genes", genes, ~is_protein), ("proteins", proteins, is_protein)):
            score = table.loc[rows, "proba_de"]
            found[f"{name}, AUROC of touched {what}"] = float(roc_auc_score(score.index.isin(touched), score))
        is_called = table["is_de_fdr_0.05"].to_numpy(bool)
        found[f"{name}, called"] = float(is_called.sum())
        found[f"... of them touched {'genes' if name.endswith('1') else 'proteins'}, {name}"] = float(
            table.index[is_called].isin(genes if name.endswith("1") else proteins).sum()
        )
    return found


def _counts_in_batches(n_cells: int, seed: int, **strength: float) -> anndata.AnnData:
    from celbo.data import simulate_counts

    adata = simulate_counts(n_cells, 150, n_cell_types=4, n_batches=2, seed=seed, **strength)
    adata.X = adata.X.toarray()
    return adata


def two_systems(n_cells: int, seed: int, **strength: float) -> anndata.AnnData:
    """Normalized expression of four types in two batches."""
    adata = _counts_in_batches(n_cells, seed, **strength)
    adata.X = np.log1p(1e4 * adata.X / adata.X.sum(1, keepdims=True)).astype(np.float32)
    return adata


def _latents(model: Any, adata: anndata.AnnData) -> Figures:
    z_nk, kind = model.get_latent_representation(), adata.obs["cell_type"].astype(str).to_numpy()
    return {
        "neighbours of the same type": common.neighbours_of_their_own(z_nk, kind),
        "neighbours of the same batch": _near(z_nk, adata.obs["batch"]),
        "types by k-means, ARI": common.types_by_k_means(z_nk, kind),
    }


def soup(n_cells: int, seed: int, share: float, n_genes: int = 150, n_types: int = 4) -> anndata.AnnData:
    """Counts of which a share is ambient; each type has eight genes that no other expresses."""
    rng = np.random.default_rng(seed)
    profile_kg = np.tile(rng.gamma(0.6, 1, n_genes) + 0.01, (n_types, 1))
    profile_kg *= np.exp(rng.normal(0, 0.7, (n_types, n_genes)))
    profile_kg[:, : 8 * n_types] = np.kron(np.eye(n_types), rng.gamma(2, 1, 8) + 0.5) + 1e-4
    profile_kg /= profile_kg.sum(1, keepdims=True)
    kind, ambient_g = rng.integers(n_types, size=n_cells), profile_kg.mean(0)
    total_n = rng.lognormal(np.log(1500), 0.4, n_cells).astype(int)
    soup_n = rng.binomial(total_n, share)
    native = np.stack([rng.multinomial(n, profile_kg[k]) for n, k in zip(total_n - soup_n, kind, strict=True)])
    adata = anndata.AnnData((native + np.stack([rng.multinomial(n, ambient_g) for n in soup_n])).astype(np.float32))
    adata.layers["native"] = native.astype(np.float32)
    adata.uns["ambient"] = ambient_g
    return adata


def _denoised(model: Any, adata: anndata.AnnData) -> Figures:
    given = {"seed": 0} if model.__module__.startswith("celbo") else {}
    found, native = model.get_denoised_counts(**given), adata.layers["native"]

    def correlation(x_ng: np.ndarray) -> float:
        return float(np.corrcoef(np.log1p(x_ng).ravel(), np.log1p(native).ravel())[0, 1])

    return {
        "taken away, %": 100 * float(1 - found.sum() / adata.X.sum()),
        "ambient, %": 100 * float(1 - native.sum() / adata.X.sum()),
        "correlation with native counts (log)": correlation(found),
        "... of the raw counts": correlation(adata.X),
    }


def _methylated(model: Any, mdata: Any) -> Figures:
    found = _latents(model, mdata)
    share = model.get_normalized_methylation(return_numpy=True)
    for context in mdata.mod:
        seen = np.asarray(mdata[context].layers["cov"].todense()) > 0
        truth = mdata[context].layers["share"]
        found[f"{context}, correlation of shares"] = float(np.corrcoef(share[context][seen], truth[seen])[0, 1])
    return found


def _labelled(model: Any, mdata: Any) -> Figures:
    hidden = (mdata.obs["seen"] == "unknown").to_numpy()
    right = np.asarray(model.predict()) == mdata.obs["cell_type"].astype(str).to_numpy()
    return {"hidden labels found": float(right[hidden].mean())} | _methylated(model, mdata)


def _methylomes(n_cells: int, seed: int) -> Any:
    from . import methylation

    return methylation.simulate(seed, n_cells)


def _samples(n_cells: int, seed: int) -> anndata.AnnData:
    from .samples import simulate_samples

    return simulate_samples(n_cells, seed=seed)


def _between_samples(model: Any, adata: anndata.AnnData) -> Figures:
    table = model.get_local_sample_distances(groupby="type", keep_cell=False)["type"]
    found = {}
    is_second_s = np.array([int(str(s).rsplit("_", 1)[1]) >= 4 for s in table.sample_x.values])
    same_ss = is_second_s[:, None] == is_second_s
    apart_ss = same_ss & ~np.eye(len(is_second_s), dtype=bool)
    for name in table.type_name.values:
        d_ss = table.sel(type_name=name).values
        found[str(name)] = float(d_ss[~same_ss].mean() / d_ss[apart_ss].mean())
    u_nk, kind = model.get_latent_representation(), adata.obs["type"].astype(str).to_numpy()
    return {
        "between over within, type that differs": found.pop("type_0"),
        "between over within, others": float(np.mean(list(found.values()))),
        "types by k-means on u, ARI": common.types_by_k_means(u_nk, kind),
        "neighbours of the same sample": _near(u_nk, adata.obs["sample"]),
    }


def _tree(n_cells: int, seed: int) -> anndata.AnnData:
    from .trajectories import simulate_tree

    return simulate_tree(n_cells, seed=seed)


def _place_on_way(latent_nk: np.ndarray, means_pk: np.ndarray) -> np.ndarray:
    """Length of the way through these means up to its point nearest to each cell."""
    points = np.concatenate([np.linspace(*ends, 50, endpoint=False) for ends in itertools.pairwise(means_pk)])
    length = np.r_[0, np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()]
    return length[((latent_nk[:, None] - points) ** 2).sum(-1).argmin(1)]


def _times(model: Any, adata: anndata.AnnData) -> Figures:
    found = {}
    cluster_n, branch_n = adata.obs["cluster"].astype(str), adata.obs["branch"].astype(str)
    for what, is_z in (("v", False), ("z", True)):
        latent_nk, correlations = model.get_latent_representation(give_z=is_z), []
        for branch in branch_n.unique():
            names = sorted({name for name in cluster_n if name.startswith(branch)})
            means = np.stack([latent_nk[cluster_n == name].mean(0) for name in ["stem", *names]])
            own = (branch_n == branch).to_numpy()
            correlations.append(spearmanr(_place_on_way(latent_nk[own], means), adata.obs["time"][own])[0])
        found[f"rank correlation of time, {what}"] = float(np.mean(correlations))
    return found


def _tissue(n_cells: int, seed: int) -> Any:
    """Cells and 300 spots of about ten of them, normalized; half of the genes are kept from the mapping.

    A gene that is nowhere makes scvi-tools' gradients NaN.
    """
    import mudata

    from celbo.data import simulate_counts, simulate_spots

    cells = simulate_counts(n_cells, 300, n_cell_types=5, seed=seed)
    spots = simulate_spots(cells, "cell_type", 300, seed=seed)
    spots.obs_names = [f"spot_{name}" for name in spots.obs_names]
    somewhere = np.flatnonzero((np.ravel(cells.X.sum(0)) > 0) & (np.ravel(spots.X.sum(0)) > 0))
    known, hidden = np.array_split(np.random.default_rng(seed).permutation(somewhere), 2)
    tables = {}
    for name, adata in (("sc", cells), ("sp", spots)):
        x = adata.X.toarray()
        x = (1e4 * x / np.maximum(x.sum(1, keepdims=True), 1)).astype(np.float32)
        tables[name] = anndata.AnnData(x[:, known], pd.DataFrame(index=adata.obs_names), adata.var.iloc[known].copy())
        tables[name].obsm["hidden"] = x[:, hidden]
    tables["sc"].obs["cell_type"] = cells.obs["cell_type"].astype(str)
    tables["sp"].obs["density"] = 1 / spots.n_obs
    shares = spots.obsm["proportions"]
    tables["sp"].obsm["shares"] = shares[sorted(shares.columns)].to_numpy()
    with mudata.set_options(pull_on_update=False), warnings.catch_warnings(action="ignore"):
        return mudata.MuData(tables)


def _mapped(model: Any, mdata: Any) -> Figures:
    mapper, kind = np.asarray(model.get_mapper_matrix()), mdata["sc"].obs["cell_type"].to_numpy()
    counted = np.stack([mapper[kind == name].sum(0) for name in np.unique(kind)], axis=1)
    shares = counted / counted.sum(1, keepdims=True)
    found, true = mapper.T @ mdata["sc"].obsm["hidden"], mdata["sp"].obsm["hidden"]
    varied = np.flatnonzero(true.std(0) > 0)
    return {
        "RMSE of shares": float(np.sqrt(((shares - mdata["sp"].obsm["shares"]) ** 2).mean())),
        "Spearman of hidden genes": float(np.median([spearmanr(found[:, g], true[:, g])[0] for g in varied])),
    }


def _regions(n_regions: int, seed: int) -> anndata.AnnData:
    from .motifs import simulate_motif

    return simulate_motif(n_regions, length=84, seed=seed)  # which scvi-tools' tower of two blocks asks for


_TOWER = {"n_bottleneck_layer": 8, "n_filters_init": 16, "n_repeat_blocks_tower": 2, "n_filters_pre_bottleneck": 8}


def _opened(model: Any, adata: anndata.AnnData) -> Figures:
    auroc = np.asarray(model.history["auroc_validation"], dtype=float).ravel()
    z_nk = model.get_latent_representation()
    return {
        "AUROC of open regions, validation": float(auroc[-1]),
        "neighbours that the motif opens alike": _near(z_nk, adata.var["opened"]),
    }


class Case(NamedTuple):
    """A model, data of known truth, and what it is asked.

    Parameters
    ----------
    model
        Its name.
    simulate
        Data from the number of cells and a seed.
    setup
        Arguments of its setup.
    figures
        What a trained model is asked.
    init, sets
        Arguments of its constructor, and positional ones of ``train``, from the data.
    """

    model: str
    simulate: Callable[[int, int], Any]
    setup: Mapping[str, Any]
    figures: Callable[[Any, Any], Figures]
    init: Callable[[Any], dict[str, Any]] = lambda data: {}
    sets: Callable[[Any], tuple[Any, ...]] = lambda data: ()


_WHERE = {"sc_layer": "sc", "sp_layer": "sp", "density_prior_key": "sp"}
_READS = {"mc_layer": "mc", "cov_layer": "cov", "methylation_contexts": ["mCG", "mCH"], "batch_key": "batch"}
_READS |= {"modalities": {"batch_key": None}}
_LABELS = {"labels_key": "seen", "unlabeled_category": "unknown", "modalities": {"batch_key": None, "labels_key": None}}


def _with_ambient(adata: anndata.AnnData) -> dict[str, Any]:
    return {"ambient_profile": np.asarray(adata.uns["ambient"])}


CASES: Mapping[str, Case] = {
    "ContrastiveVI": Case("ContrastiveVI", two_perturbations, {"batch_key": "batch"}, _contrast, sets=_sets),
    "ContrastiveTOTALVI": Case(
        "ContrastiveTOTALVI",
        perturbed_cite_seq,
        {"protein_expression_obsm_key": "protein", "batch_key": "batch"},
        lambda model, adata: _contrast_of_both(model, adata) | _differences(model, adata),
        sets=_sets,
    ),
    "ContrastiveVI of CITE-seq": Case(
        "ContrastiveVI", perturbed_cite_seq, {"batch_key": "batch"}, _contrast_of_both, sets=_sets
    ),
    "SysVI": Case(
        "SysVI",
        lambda n, seed: two_systems(n, seed, marker_strength=2.5, batch_strength=1),
        {"batch_key": "batch"},
        _latents,
    ),
    "SysVI weak types": Case("SysVI", two_systems, {"batch_key": "batch"}, _latents),
    **{
        f"SCAR {percent}%": Case(
            "SCAR", lambda n, seed, share=percent / 100: soup(n, seed, share), {}, _denoised, _with_ambient
        )
        for percent in (10, 30, 50)
    },
    "METHYLVI": Case("METHYLVI", _methylomes, _READS, _methylated),
    "METHYLANVI": Case("METHYLANVI", _methylomes, _READS | _LABELS, _labelled),
    "MRVI": Case("MRVI", _samples, {"sample_key": "sample", "batch_key": "batch"}, _between_samples),
    "Decipher": Case("Decipher", _tree, {}, _times),
    "Tangram": Case("Tangram", _tissue, {"density_prior_key": "density", "modalities": _WHERE}, _mapped),
    "SCBASSET": Case("SCBASSET", _regions, {"dna_code_key": "dna_code"}, _opened, init=lambda data: dict(_TOWER)),
}


def _of_mudata(case: str) -> bool:
    return "METHYL" in case or case == "Tangram"


def _data(case: str, folder: Path, n_cells: int, seed: int) -> Any:
    is_mudata = _of_mudata(case)
    path = folder / f"{case.replace('METHYLANVI', 'METHYLVI')} {n_cells} {seed}.h5{'mu' if is_mudata else 'ad'}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        getattr(data := CASES[case].simulate(n_cells, seed), "write_h5mu" if is_mudata else "write_h5ad")(path)
        return data
    if is_mudata:
        import mudata

        return mudata.read_h5mu(path)
    return anndata.read_h5ad(path)


def figures(package: str, name: str, data: Any, seed: int, options: dict[str, Any]) -> Figures:
    """Figures of one training by one of the two packages."""
    case, is_celbo = CASES[name], package == "celbo"
    cls = getattr(importlib.import_module(f"{package}.external"), case.model)
    setup = dict(case.setup) | ({"backend": "torch"} if case.model == "MRVI" and not is_celbo else {})
    (cls.setup_mudata if _of_mudata(name) else cls.setup_anndata)(data, **setup)
    if not is_celbo:
        importlib.import_module("scvi").settings.seed = seed
        if "pyro" in sys.modules:  # whose store would hand the weights of one model to the next
            sys.modules["pyro"].clear_param_store()
    model = cls(data, **case.init(data))
    quiet = {"enable_progress_bar": False} if name != "Tangram" else {}
    quiet = {"seed": seed, "verbose": 0} if is_celbo else quiet
    start = time.process_time()
    model.train(*case.sets(data), accelerator="cpu", **quiet, **options)
    seconds = time.process_time() - start
    kept = ("train_loss_epoch", "train_loss", "elbo_train", "loss")
    losses = [model.history[name] for name in kept if name in model.history]
    return {
        "processor time, s": seconds,
        "epochs": len(losses[0]),
    } | case.figures(model, data)


def _beside(folder: Path, package: str, name: str, seeds: range, n_cells: int, runs: list[Figures]) -> str | None:
    """Keep the seconds of one package; how many times those of scvi-tools they are, where both are known."""

    def kept(of: str) -> Path:
        return folder / f"{name} {n_cells} {seeds.start} {len(seeds)} {of}.json"

    kept(package).write_text(json.dumps([run["processor time, s"] for run in runs]))
    if not (kept("celbo").exists() and kept("scvi").exists()):
        return None
    celbo, scvi = (json.loads(kept(of).read_text()) for of in ("celbo", "scvi"))
    ratios = [a / b for a, b in zip(celbo, scvi, strict=True)]
    shown = " ".join(f"{ratio:.3f}" for ratio in ratios)
    return f"  {'times the processor time of scvi-tools':45} {np.median(ratios):8.3f}   {shown}"


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--package", default="celbo", choices=["celbo", "scvi"])
    parser.add_argument("--data", type=Path, required=True, help="folder that data are written to, or read from")
    parser.add_argument("--cells", type=int, default=600)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--recipe")
    parser.add_argument("--plan", default="", help="settings of the plan, name=value,...")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    given = parser.parse_args()
    options: dict[str, Any] = {"recipe": given.recipe, "max_epochs": given.epochs}
    options = {name: value for name, value in options.items() if value is not None}
    options |= {"plan_kwargs": plan} if (plan := common.settings_of(given.plan)) else {}
    seeds = range(given.first, given.first + given.seeds)
    for name in given.models:
        once = options | {"max_epochs": 1}  # what a process does once is in no figure
        figures(given.package, name, _data(name, given.data, given.cells, given.first), given.first, once)
        runs = [
            figures(given.package, name, _data(name, given.data, given.cells, seed), seed, options) for seed in seeds
        ]
        print(f"{given.package} {name}, {given.cells} cells, {common.shown(options)}")
        for figure in runs[0]:
            values = [run[figure] for run in runs]
            print(f"  {figure:45} {np.median(values):8.3f}   " + " ".join(f"{value:.3f}" for value in values))
        if ratio := _beside(given.data, given.package, name, seeds, given.cells, runs):
            print(ratio)


if __name__ == "__main__":
    main()
