"""Write golden.json.gz: what scvi-tools' PosteriorPredictiveCheck finds in draws that are given.

Run in an environment with scvi-tools 1.4.2, scanpy and leidenalg: ``python make_golden.py``. The model must be called
"model1": that version's calibration error looks at the draws of that name only.
"""

import gzip
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import sparse
from scvi.criticism import PosteriorPredictiveCheck


class Drawn:
    """A model whose draws are given."""

    adata = None

    def __init__(self, draws):
        self.draws = draws

    def posterior_predictive_sample(self, adata=None, indices=None, n_samples=1, **kwargs):
        return sparse.GCXS.from_numpy(self.draws[:, :, :n_samples])


def plain(value):
    if isinstance(value, pd.DataFrame):
        return {"index": list(value.index), "columns": list(value.columns), "data": value.to_numpy().tolist()}
    return {key: plain(part) for key, part in value.items()}


def checked(x, draws, **obs):
    adata = anndata.AnnData(x, obs=pd.DataFrame(obs, index=[str(i) for i in range(len(x))]))
    return PosteriorPredictiveCheck(adata, {"model1": Drawn(draws)}, n_samples=draws.shape[-1])


def statistics():
    rng = np.random.default_rng(1)
    x = rng.poisson(1.2, (9, 5)).astype(np.float64)
    x[:, 3], x[2] = 0, 0
    draws = rng.poisson(1.5, (9, 5, 4)).astype(np.float64)
    draws[:, 3, 1], draws[4, :, 2] = 0, 0
    check = checked(x, draws)
    check.coefficient_of_variation("cells")
    check.coefficient_of_variation("features")
    check.zero_fraction()
    found = plain(check.metrics)
    found["errors"] = []
    for levels in (None, [0.05, 0.95], [0.1, 0.25, 0.75, 0.9], [0.3, 0.6]):
        check.calibration_error(levels)
        found["errors"].append([levels, float(check.metrics["calibration"].iloc[0, 0])])
    return {"x": x.tolist(), "draws": draws.tolist(), "found": found}


def differential():
    rng = np.random.default_rng(0)
    kind = np.arange(60) % 3
    mean = np.full((3, 12), 2.0)
    mean[0, :4], mean[1, 4:8], mean[2, 8:11] = 12, 12, 9
    x = rng.poisson(mean[kind]).astype(np.float64)
    draws = rng.poisson(mean[kind][:, :, None] * rng.gamma(3, 1 / 3, (60, 12, 3))).astype(np.float64)
    found = []
    for options in ({}, {"n_samples": 2}, {"cell_scale_factor": 100.0}):
        check = checked(x, draws, kind=pd.Categorical(np.array(list("abc"))[kind]))
        check.differential_expression(de_groupby="kind", **options)
        found.append([options, plain(check.metrics["diff_exp"])])
    return {"x": x.tolist(), "draws": draws.tolist(), "kind": kind.tolist(), "found": found}


if __name__ == "__main__":
    golden = json.dumps({"statistics": statistics(), "differential": differential()}, default=float)
    Path(__file__).with_name("golden.json.gz").write_bytes(gzip.compress(golden.encode(), mtime=0))
