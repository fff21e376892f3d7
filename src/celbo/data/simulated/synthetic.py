"""Meaningless counts in the layout that tests and examples use."""

from typing import Annotated, Any, Literal

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ...core import checked, optional, settings
from ...core.kinds import Whole

__all__ = ["synthetic_iid"]


@checked
def synthetic_iid(
    batch_size: int = 200,
    n_genes: int = 100,
    n_proteins: int = 100,
    n_regions: int = 100,
    n_batches: int = 2,
    n_labels: Annotated[int, Whole(1)] = 3,
    dropout_ratio: float = 0.7,
    sparse_format: Literal["csr_matrix", "csc_matrix", "csr_array", "csc_array"] | None = None,
    generate_coordinates: bool = False,
    return_mudata: bool = False,
    *,
    seed: int | None = None,
    rna_key: str = "rna",
    protein_expression_key: str = "protein_expression",
    accessibility_key: str = "accessibility",
    rna_dist: Literal["negative_binomial", "normal"] = "negative_binomial",
) -> Any:
    """Counts without any structure, all independent and of one distribution. For tests, not for research.

    Genes and regions are negative binomial with 5 failures and success probability 0.3 (mean 11.7), of which
    a share ``dropout_ratio`` is set to zero; proteins are negative binomial alone.

    Parameters
    ----------
    batch_size
        Cells a batch; there are ``batch_size * n_batches``.
    n_genes, n_proteins, n_regions
        Columns of ``X``, of ``obsm["protein_expression"]``, of ``obsm["accessibility"]``. Zero proteins or regions
        leave that table out.
    n_batches, n_labels
        Number of batches and of labels; a cell's label is drawn evenly.
    dropout_ratio
        Share of counts of genes and regions set to zero.
    sparse_format
        ``"csr_matrix"``, ``"csc_matrix"``, ``"csr_array"``, ``"csc_array"`` or None for dense.
    generate_coordinates
        Also ``obsm["coordinates"]``, ``(n, 2)`` standard normal.
    return_mudata
        Three modalities of a MuData instead of one AnnData.
    seed
        Default: ``settings.seed``, else fresh randomness. The global generators are not touched.
    rna_key, protein_expression_key, accessibility_key
        Names of the modalities of a MuData.
    rna_dist
        Distribution of what takes the place of genes: ``"normal"`` makes numbers like transformed markers, N(0, 1) and
        none of them set to zero.

    Returns
    -------
    AnnData with ``obs["batch"]`` (``batch_0``, ...), ``obs["labels"]`` (``label_0``, ...),
    ``obsm["protein_expression"]``, ``uns["protein_names"]`` and ``obsm["accessibility"]``; or MuData, ``obs`` alike.

    Raises
    ------
    ValueError
        For an unknown ``sparse_format``, or sizes out of range.
    ModuleNotFoundError
        For ``return_mudata`` without mudata, with the pip line.

    Notes
    -----
    scvi-tools keeps the share ``dropout_ratio`` instead of setting it to zero, against its documentation.
    """
    rng = np.random.default_rng(settings.seed if seed is None else seed)
    n = batch_size * n_batches
    if rna_dist == "normal":
        rna_ng = rng.normal(size=(n, n_genes)).astype(np.float32)
    else:
        rna_ng = _counts(rng, (n, n_genes), dropout_ratio)
    regions_nr = _counts(rng, (n, n_regions), dropout_ratio)
    proteins_np = _counts(rng, (n, n_proteins), 0.0)
    obs = _obs(rng, batch_size, n_batches, n_labels)
    obsm = {"coordinates": rng.normal(size=(n, 2))} if generate_coordinates else {}
    stored = [_stored(x, sparse_format) for x in (rna_ng, proteins_np, regions_nr)]
    if return_mudata:
        kinds = {rna_key: ("gene", stored[0]), accessibility_key: ("region", stored[2])}
        return _as_mudata({**kinds, protein_expression_key: ("protein", stored[1])}, obs, obsm)
    return _as_anndata(stored, obs, obsm)


def _counts(rng: np.random.Generator, shape: tuple[int, int], dropout_ratio: float) -> np.ndarray:
    x = rng.negative_binomial(5, 0.3, size=shape)
    x[rng.random(shape) < dropout_ratio] = 0
    return x


def _obs(rng: np.random.Generator, batch_size: int, n_batches: int, n_labels: int) -> pd.DataFrame:
    n = batch_size * n_batches
    batch_n = [f"batch_{i}" for i in np.repeat(np.arange(n_batches), batch_size)]
    label_n = [f"label_{i}" for i in rng.integers(n_labels, size=n)]
    columns = {"batch": pd.Categorical(batch_n), "labels": pd.Categorical(label_n)}
    return pd.DataFrame(columns, index=[str(i) for i in range(n)])


def _stored(x: np.ndarray, sparse_format: str | None) -> Any:
    return x if sparse_format is None else getattr(sp, sparse_format)(x)


def _names(kind: str, x: Any) -> np.ndarray:
    return np.array([f"{kind}_{i}" for i in range(x.shape[1])])


def _as_anndata(stored: list[Any], obs: pd.DataFrame, obsm: dict[str, np.ndarray]) -> anndata.AnnData:
    rna, proteins, regions = stored
    adata = anndata.AnnData(rna, obs=obs, var=pd.DataFrame(index=_names("gene", rna)), obsm=obsm)
    if regions.shape[1]:
        adata.obsm["accessibility"] = regions
    if proteins.shape[1]:
        adata.obsm["protein_expression"] = proteins
        adata.uns["protein_names"] = _names("protein", proteins)
    return adata


def _as_mudata(stored: dict[str, tuple[str, Any]], obs: pd.DataFrame, obsm: dict[str, np.ndarray]) -> Any:
    mudata = optional("mudata", extra="mudata", purpose="synthetic_iid(return_mudata=True)")
    modalities = {
        key: anndata.AnnData(x, obs=pd.DataFrame(index=obs.index), var=pd.DataFrame(index=_names(kind, x)))
        for key, (kind, x) in stored.items()
    }
    with mudata.set_options(pull_on_update=False):  # as by default from mudata 0.4 on; older ones warn
        mdata = mudata.MuData(modalities)
    for name, column in obs.items():
        mdata.obs[name] = column
    for name, values in obsm.items():
        mdata.obsm[name] = values
    return mdata
