"""Save a small AmortizedLDA with scvi-tools 1.4.2, and what its guide and model compute.

Run it with the Python of an environment that has scvi-tools: ``python tests/parity/make_golden_lda.py [FOLDER]``.
All draws are at their mean: nothing is random, but the divergences are those of that one draw.
"""

import sys
from pathlib import Path

import numpy as np

OPTIONS = {"n_topics": 3, "n_hidden": 6, "cell_topic_prior": [0.2, 0.5, 0.9]}


def data():
    """30 cells x 14 features."""
    import anndata

    rng = np.random.default_rng(0)
    return anndata.AnnData(rng.poisson(rng.gamma(0.5, 4.0, (30, 14))).astype(np.float32))


def main(folder: Path) -> None:
    import pyro
    import scvi
    import torch

    scvi.settings.seed = 0
    adata = data()
    scvi.model.AmortizedLDA.setup_anndata(adata)
    model = scvi.model.AmortizedLDA(adata, **OPTIONS)
    model.train(max_epochs=5, lr=0.1, accelerator="cpu", enable_progress_bar=False)
    model.save(str(folder), overwrite=True)
    model.module.eval()
    x = torch.as_tensor(adata.X)
    args = (x, x.sum(1, keepdim=True), len(x))
    torch.distributions.Normal.rsample = lambda self, sample_shape=None: self.loc
    guide = pyro.poutine.trace(model.module.guide).get_trace(*args)
    trace = pyro.poutine.trace(pyro.poutine.replay(model.module.model, trace=guide)).get_trace(*args)
    trace.compute_log_prob()
    guide.compute_log_prob()
    names = {"topics": "log_topic_feature_dist", "cells": "log_cell_topic_dist"}
    found = {"log_likelihood": trace.nodes["feature_counts"]["log_prob"]}
    for short, name in names.items():
        posterior = guide.nodes[name]["fn"].base_dist
        found |= {f"{short}_mean": posterior.loc, f"{short}_scale": posterior.scale}
        found[f"{short}_log_ratio"] = guide.nodes[name]["log_prob"] - trace.nodes[name]["log_prob"]
    np.savez_compressed(
        folder / "expected.npz",
        elbo=model.get_elbo(),
        perplexity=model.get_perplexity(),
        **{name: value.detach().numpy() for name, value in found.items()},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "golden_lda")
