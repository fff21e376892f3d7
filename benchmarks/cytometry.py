"""CYTOVI on simulated cells of known types: types, mixing of batches, markers imputed where a panel lacks them.

``python -m benchmarks.cytometry [--package celbo|scvi] [--cells N] [--markers N] [--likelihood NAME] [--seeds N]``

Beside the imputed markers stand two simple baselines: the mean of the cell's true type in the other batch, and the mean
of the 20 nearest cells of the other batch by shared markers. ``--real FILE`` takes cells of patients and conditions
instead (raw intensities in ``X``; ``patient_id``, ``condition``): whether latents, corrected for the patient, tell the
condition, beside all markers as they are.
"""

import argparse
import importlib
import time
from typing import Any

import anndata
import numpy as np
import pandas as pd

__all__ = ["baselines", "figures", "of_patients", "simulate_panels"]

_NEIGHBOURS = 20


def simulate_panels(
    n_cells: int = 600, n_markers: int = 16, n_hidden: int = 4, n_types: int = 4, shift: float = 0.4, seed: int = 0
) -> anndata.AnnData:
    """Intensities of markers in two batches; the second's panel lacks the last markers.

    Each type has each marker or not; within types a factor of two dimensions moves half of the markers, those that are
    hidden among them, so that the mean of a type is not all there is to know.

    Parameters
    ----------
    n_cells, n_markers, n_hidden, n_types
        How many; markers that the second batch's panel lacks.
    shift
        Standard deviation of what each batch adds to the logarithm of each marker.
    seed
        Of everything.

    Returns
    -------
    ``layers["raw"]``, intensities; ``obs``: ``type``, ``batch``; ``var["hidden"]``.
    """
    rng = np.random.default_rng(seed)
    kind, batch = rng.integers(n_types, size=n_cells), rng.integers(2, size=n_cells)
    has_tg = rng.random((n_types, n_markers)) < 0.5
    factor_n2 = rng.normal(size=(n_cells, 2))
    moved_2g = rng.normal(0, 0.5, (2, n_markers)) * (rng.random(n_markers) < 0.5)
    moved_2g[:, -n_hidden:] = rng.normal(0, 0.5, (2, n_hidden))
    log_ng = np.where(has_tg[kind], np.log(150), np.log(8)) + factor_n2 @ moved_2g
    log_ng += rng.normal(0, shift, (2, n_markers))[batch] + rng.normal(0, 0.35, (n_cells, n_markers))
    raw_ng = (np.exp(log_ng) + rng.exponential(2.0, log_ng.shape)).astype(np.float32)
    obs = pd.DataFrame({"type": kind.astype(str), "batch": batch.astype(str)}, map(str, range(n_cells)))
    var = pd.DataFrame(
        {"hidden": np.arange(n_markers) >= n_markers - n_hidden}, [f"marker_{g}" for g in range(n_markers)]
    )
    return anndata.AnnData(raw_ng.copy(), obs.astype("category"), var, layers={"raw": raw_ng})


def _per_marker(imputed_ng: np.ndarray, truth_ng: np.ndarray) -> float:
    """Mean correlation of markers."""
    both = zip(imputed_ng.T, truth_ng.T, strict=True)
    return float(np.mean([np.corrcoef(one, other)[0, 1] if np.ptp(one) else 0.0 for one, other in both]))


def baselines(adata: anndata.AnnData, truth_ng: np.ndarray, kind: str = "type") -> dict[str, float]:
    """Correlation of hidden markers with what the other batch says of them."""
    from sklearn.neighbors import NearestNeighbors

    hidden_g, lacks_n = adata.var["hidden"].to_numpy(bool), (adata.obs["batch"] == "1").to_numpy()
    known = pd.DataFrame(truth_ng[~lacks_n][:, hidden_g]).groupby(adata.obs[kind].to_numpy()[~lacks_n]).mean()
    by_type = known.loc[adata.obs[kind].to_numpy()[lacks_n]].to_numpy()
    shared_ng = adata.layers["scaled"][:, ~hidden_g]
    near = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(shared_ng[~lacks_n]).kneighbors(shared_ng[lacks_n])[1]
    by_neighbours = truth_ng[~lacks_n][:, hidden_g][near].mean(1)
    wanted = truth_ng[lacks_n][:, hidden_g]
    return {
        "imputed by type": _per_marker(by_type, wanted),
        "imputed by neighbours": _per_marker(by_neighbours, wanted),
    }


def figures(
    package: str, adata: anndata.AnnData, seed: int, init: dict[str, Any], options: dict[str, Any]
) -> dict[str, float]:
    """Figures of one training, on data whose panels differ."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    cytovi = importlib.import_module(f"{package}.external.cytovi")
    cytovi.transform_arcsinh(adata)
    cytovi.scale(adata, batch_key="batch")
    model, seconds, known = _imputed(package, cytovi, adata, seed, init, options)
    some = np.random.default_rng(0).permutation(adata.n_obs)[:5000]
    z_nk, kind = model.get_latent_representation()[some], adata.obs["type"].cat.codes.to_numpy()[some]
    found = KMeans(kind.max() + 1, n_init=10, random_state=0).fit_predict(z_nk)
    return {
        "training, s": seconds,
        "epochs": len(model.history["elbo_train"]),
        "ELBO": float(model.get_elbo(indices=model.validation_indices)),
        **known,
        **baselines(adata, np.asarray(adata.layers["scaled"], np.float32)),
        "ARI of k-means": float(adjusted_rand_score(kind, found)),
        "types by neighbours": _by_neighbours(z_nk, kind),
        "batch by neighbours": _by_neighbours(z_nk, adata.obs["batch"].iloc[some]),
    }


def _imputed(
    package: str, cytovi: Any, adata: anndata.AnnData, seed: int, init: dict[str, Any], options: dict[str, Any]
) -> tuple[Any, float, dict[str, float]]:
    """A model trained without the hidden markers of batch 1, seconds, and how well it imputes them."""
    truth_ng = np.asarray(adata.layers["scaled"], np.float32)
    hidden_g, lacks_n = adata.var["hidden"].to_numpy(bool), (adata.obs["batch"] == "1").to_numpy()
    masked = cytovi.mask_markers(adata, list(adata.var_names[hidden_g]), masked_batch="1")
    masked = masked[adata.obs_names, adata.var_names].copy()
    model, seconds = _trained(package, cytovi, masked, {"batch_key": "batch"}, seed, init, options)
    imputed_ng = model.get_normalized_expression(
        transform_batch="0", n_samples=10, return_numpy=True, nan_warning=False
    )
    return model, seconds, {"imputed": _per_marker(imputed_ng[lacks_n][:, hidden_g], truth_ng[lacks_n][:, hidden_g])}


def _trained(
    package: str,
    cytovi: Any,
    adata: anndata.AnnData,
    setup: dict[str, str],
    seed: int,
    init: dict[str, Any],
    options: dict[str, Any],
) -> tuple[Any, float]:
    cytovi.CYTOVI.setup_anndata(adata, layer="scaled", **setup)
    quiet: dict[str, Any] = {"verbose": 0, "seed": seed} if package == "celbo" else {"enable_progress_bar": False}
    if package != "celbo":
        importlib.import_module(package).settings.seed = seed
    model = cytovi.CYTOVI(adata, **init)
    start = time.perf_counter()
    model.train(accelerator="cpu", **quiet, **options)
    return model, time.perf_counter() - start


def _by_neighbours(z_nk: np.ndarray, labels: Any) -> float:
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    return float(cross_val_score(KNeighborsClassifier(15), z_nk, labels, cv=5, scoring="balanced_accuracy").mean())


def of_patients(
    package: str, adata: anndata.AnnData, seed: int, init: dict[str, Any], options: dict[str, Any]
) -> dict[str, float]:
    """Conditions and patients in the latents of real cells, and markers that two patients' panels lack."""
    cytovi = importlib.import_module(f"{package}.external.cytovi")
    adata.layers["raw"] = adata.X.copy()
    cytovi.transform_arcsinh(adata)
    cytovi.scale(adata)
    model, seconds = _trained(package, cytovi, adata, {"batch_key": "patient_id"}, seed, init, options)
    z_nk, markers_ng = model.get_latent_representation(), adata.layers["transformed"]
    found = {"training, s": seconds, "epochs": len(model.history["elbo_train"])}
    for column in ("condition", "patient_id"):
        found[f"{column} by neighbours"] = _by_neighbours(z_nk, adata.obs[column])
        found[f"{column} by neighbours, all markers"] = _by_neighbours(markers_ng, adata.obs[column])
    adata.obs["batch"] = pd.Categorical(np.where(adata.obs["patient_id"].isin(["Patient3", "Patient4"]), "1", "0"))
    adata.var["hidden"] = adata.var_names.isin(["CD4", "CD20", "CD33", "pS6"])
    of_neighbours = baselines(adata, np.asarray(adata.layers["scaled"]), "condition")["imputed by neighbours"]
    return found | _imputed(package, cytovi, adata, seed, init, options)[2] | {"imputed by neighbours": of_neighbours}


def main() -> None:
    """Print the figures of each seed, and their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", choices=["celbo", "scvi"], default="celbo")
    parser.add_argument("--cells", type=int, default=600)
    parser.add_argument("--markers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=4)
    parser.add_argument("--types", type=int, default=4)
    parser.add_argument("--likelihood", choices=["normal", "beta"], default="normal")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--kl-warmup", type=int)
    parser.add_argument("--recipe")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--adversary", type=float)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--real", help="an .h5ad file")
    asked = parser.parse_args()
    options: dict[str, Any] = {"max_epochs": asked.epochs, "batch_size": asked.batch_size, "recipe": asked.recipe}
    options["n_epochs_kl_warmup"] = asked.kl_warmup
    options = {name: value for name, value in options.items() if value is not None}
    plan: dict[str, Any] = {} if asked.lr is None else {"lr": asked.lr}
    if asked.adversary is not None:
        plan |= {"scale_adversarial_loss": asked.adversary} if asked.adversary else {"adversarial_classifier": False}
    options |= {"plan_kwargs": plan} if plan else {}
    rows = []
    for seed in range(asked.seeds):
        init = {"protein_likelihood": asked.likelihood}
        if asked.real:
            rows.append(of_patients(asked.package, anndata.read_h5ad(asked.real), seed, init, options))
        else:
            adata = simulate_panels(asked.cells, asked.markers, asked.hidden, asked.types, seed=seed)
            rows.append(figures(asked.package, adata, seed, init, options))
        print(asked.package, seed, {figure: round(value, 3) for figure, value in rows[-1].items()}, flush=True)
    print(asked.package, "median", pd.DataFrame(rows).median().round(3).to_dict(), flush=True)


if __name__ == "__main__":
    main()
