"""Models of several modalities that are ended within an epoch go on to the bits of a run that was not."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from tests.train.test_resume import BASE, KillAfter, KilledError, assert_same_run

from celbo.external import TOTALANVI
from celbo.model import MULTIVI, TOTALVI
from celbo.train.checkpoints.folder import find_checkpoints

KILLED_AT = 7
"""A step within the second of three epochs of five steps."""


def counts(n: int, size: int, seed: int, names: str) -> AnnData:
    """Two types of cells in two batches, one cell in three without a label."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 2
    adata = AnnData(sp.csr_matrix(rng.poisson(rng.gamma(1.0, 2.0, size=(2, size))[kind]).astype(np.float32)))
    adata.var_names = [f"{names}_{i}" for i in range(size)]
    adata.obs_names = [f"cell_{i}" for i in range(n)]
    adata.obs["batch"] = pd.Categorical([f"batch_{i // 2 % 2}" for i in range(n)])
    adata.obs["seen"] = np.where(np.arange(n) % 3 == 0, "unknown", [f"type_{k}" for k in kind])
    return adata


def cite() -> AnnData:
    """Genes and proteins; the second batch lacks one protein, which turns the adversary on."""
    adata = counts(100, 20, 0, "gene")
    proteins = pd.DataFrame(counts(100, 12, 1, "protein").X.toarray(), index=adata.obs_names)
    proteins.columns = [f"protein_{i}" for i in range(12)]
    proteins.loc[(adata.obs["batch"] == "batch_1").to_numpy(), "protein_3"] = 0
    adata.obsm["protein"] = proteins
    return adata


def totalvi():
    TOTALVI.setup_anndata(adata := cite(), protein_expression_obsm_key="protein", batch_key="batch")
    return TOTALVI(adata, n_hidden=8, n_latent=2)


def totalanvi():
    setup = {"labels_key": "seen", "unlabeled_category": "unknown", "batch_key": "batch"}
    TOTALANVI.setup_anndata(adata := cite(), protein_expression_obsm_key="protein", **setup)
    return TOTALANVI(adata, n_hidden=8, n_latent=2)


def multivi():
    """A mosaic: genes of most cells, regions of most, proteins of some."""
    mudata = pytest.importorskip("mudata", reason="the optional package mudata is not installed")
    sizes, number = {"rna": 20, "peaks": 24, "adt": 5}, np.arange(100)
    has = {"rna": number % 4 != 1, "peaks": number % 4 != 2, "adt": number % 3 == 0}
    parts = {key: counts(100, size, i, key)[has[key]].copy() for i, (key, size) in enumerate(sizes.items())}
    layers = {"rna_layer": "rna", "atac_layer": "peaks", "protein_layer": "adt", "batch_key": "rna"}
    mdata = mudata.MuData(parts)
    MULTIVI.setup_mudata(mdata, batch_key="batch", modalities=layers)
    return MULTIVI(mdata, n_hidden=16, n_latent=2)


RUNS = {
    "TOTALVI": (totalvi, {}),
    "TOTALVI, classic": (totalvi, {"recipe": "classic"}),
    "TOTALANVI": (totalanvi, {}),
    "MULTIVI": (multivi, {}),
    "MULTIVI, adversary": (multivi, {"adversarial_mixing": True, "recipe": "classic"}),
}


@pytest.mark.usefixtures("mudata_pulls_nothing")
@pytest.mark.parametrize("run", RUNS)
def test_goes_on_exactly(run, tmp_path):
    make, options = RUNS[run]
    options = BASE | options
    whole = make()
    whole.train(**options, callbacks=[KillAfter(-1)])
    with pytest.raises(KilledError):
        make().train(**options, callbacks=[KillAfter(KILLED_AT)], checkpoint_every="1 step", checkpoint_dir=tmp_path)
    assert find_checkpoints(tmp_path)
    resumed = make()
    resumed.train(**options, callbacks=[KillAfter(-1)], resume=tmp_path)
    assert resumed.trainer.global_step > KILLED_AT
    assert_same_run(whole, resumed)
