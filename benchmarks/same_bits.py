"""Whether a change of the code changed a figure: digests of weights and histories of every model, to the bit.

Run it on the commit before with ``--write FILE``, on the one after with ``--against FILE``: ``python -m
benchmarks.same_bits --write before.txt``. Two seeds, both recipes, one thread, a few seconds a model.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch

import celbo

SEEDS = (0, 1)
RECIPES = ("one_cycle", "classic")
EPOCHS = 3


def digest(model: Any) -> str:
    """Of the weights and the history."""
    found = hashlib.sha256()
    for name, value in sorted(model.module.state_dict().items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    for name, frame in sorted((model.history or {}).items()):
        found.update(name.encode() + np.ascontiguousarray(frame.to_numpy(dtype=float)).tobytes())
    return found.hexdigest()[:16]


def cells() -> ad.AnnData:
    """Simulated cells with every kind of covariate."""
    adata = celbo.data.synthetic_iid(seed=0)
    adata.obs["size"], adata.obs["number"] = 1.0, np.arange(adata.n_obs) / adata.n_obs
    return adata


def trained(cls: Any, setup: dict[str, Any], how: dict[str, Any], **arguments: Any) -> Any:
    """A model of its own cells."""
    cls.setup_anndata(adata := cells(), **setup)
    model = cls(adata, **arguments)
    model.train(EPOCHS, **how)
    return model


def models(how: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every model, trained for a few epochs."""
    model, external = celbo.model, celbo.external
    covariates = {"categorical_covariate_keys": ["labels"], "continuous_covariate_keys": ["number"]}
    yield "SCVI", (scvi := trained(model.SCVI, {"batch_key": "batch"} | covariates, how))
    latent_library = {"use_observed_lib_size": False, "dispersion": "gene-batch"}
    yield "SCVI, latent library", trained(model.SCVI, {"batch_key": "batch"}, how, **latent_library)
    solo = external.SOLO.from_scvi_model(scvi)
    solo.train(EPOCHS, seed=how["seed"], verbose=0)
    yield "SOLO", solo
    yield "LinearSCVI", trained(model.LinearSCVI, {"batch_key": "batch"}, how, n_layers=2)
    yield "AUTOZI", trained(model.AUTOZI, {"batch_key": "batch", "labels_key": "labels"}, how)
    yield "AmortizedLDA", trained(model.AmortizedLDA, {}, how, n_topics=4)
    unlabeled = {"labels_key": "labels", "unlabeled_category": "label_0", "batch_key": "batch"}
    yield "SCANVI", trained(model.SCANVI, unlabeled, how)
    yield "CondSCVI", (of_cells := trained(model.CondSCVI, {"labels_key": "labels"}, how, weight_obs=True))
    spots = model.DestVI.from_rna_model(cells(), of_cells, vamp_prior_p=2, anndata_setup_kwargs={})
    spots.train(EPOCHS, **how)
    yield "DestVI", spots
    rna = trained(external.RNAStereoscope, {"labels_key": "labels"}, how)
    yield "RNAStereoscope", rna
    external.SpatialStereoscope.setup_anndata(adata := cells())
    spatial = external.SpatialStereoscope.from_rna_model(adata, rna)
    spatial.train(EPOCHS, **how)
    yield "SpatialStereoscope", spatial
    adata = cells()[:, :12].copy()
    markers = pd.DataFrame(np.eye(4)[np.arange(12) % 4], index=adata.var_names, columns=list("abcd"))
    external.CellAssign.setup_anndata(adata, size_factor_key="size", batch_key="batch")
    assign = external.CellAssign(adata, markers)
    assign.train(EPOCHS, **how)
    yield "CellAssign", assign


def main() -> None:
    """Print the digests; write them, or compare them with those written before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="file for the digests")
    parser.add_argument("--against", type=Path, help="file of the digests of another commit")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"{seed} {recipe} {name}: {digest(model)}"
        for seed in SEEDS
        for recipe in RECIPES
        for name, model in models({"seed": seed, "recipe": recipe, "verbose": 0, "accelerator": "cpu"})
    ]
    print("\n".join(lines))
    if options.write:
        options.write.write_text("\n".join(lines))
    if options.against:
        before = options.against.read_text().splitlines()
        unlike = [line for line in lines if line not in before]
        print(f"{len(lines) - len(unlike)} of {len(lines)} are the same to the bit")
        sys.exit(bool(unlike))


if __name__ == "__main__":
    main()
