"""Reads of bisulfite sequencing of made-up cells whose types and shares of methylated reads are known."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from ...core import checked, optional, settings
from ...core.kinds import Number

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["simulate_methylation"]

_SHARES = {"mCG": (3.0, 1.2), "mCH": (1.0, 12.0)}
"""Beta distribution of the regions' shares of methylated reads: CpG are mostly methylated, others hardly."""


@checked
def simulate_methylation(
    n_cells: int = 600,
    n_regions: Mapping[str, int] | None = None,
    n_cell_types: int = 4,
    n_batches: int = 2,
    *,
    coverage: Annotated[float, Number(0, above=True)] = 8.0,
    without_reads: Annotated[float, Number(0, 1)] = 0.3,
    differing: Annotated[float, Number(0, 1)] = 0.3,
    dispersion: Annotated[float, Number(0, 1, above=True, below=True)] = 0.1,
    batch_strength: Annotated[float, Number(0)] = 0.3,
    seed: int | None = 0,
) -> "MuData":
    r"""Draw methylated reads of cells in types and batches, and keep the truth beside them.

    .. math::
        y_{nr} \sim \mathrm{BetaBinomial}(N_{nr};\ \mu_{nr}, \gamma), \qquad
        \mathrm{logit}\, \mu_{nr} = a_r + t_{c(n) r} + e_{b(n) r}, \qquad
        N_{nr} \sim \mathrm{Poisson}(d_n \nu) \text{ or } 0

    with a normal effect :math:`t` of the type in some regions, a normal effect :math:`e` of the batch, and a log-normal
    depth :math:`d` of the cell.

    Parameters
    ----------
    n_cells, n_cell_types, n_batches
        Sizes.
    n_regions
        Regions of each context: ``{"mCG": 120, "mCH": 120}`` by default. The names say nothing but how much is
        methylated: most in ``"mCG"``, little in others.
    coverage
        Mean reads of a region that has some, :math:`\nu`.
    without_reads
        Share of the entries that have none.
    differing
        Share of the regions that types differ in.
    dispersion
        :math:`\gamma`.
    batch_strength
        Standard deviation of :math:`e`.
    seed
        None: ``settings.seed``, else fresh randomness. The global generators are not touched.

    Returns
    -------
    MuData with a modality for each context: layers ``mc`` and ``cov`` (CSR of uint16), ``share`` (the truth,
    :math:`\mu`). ``obs["cell_type"]`` and ``obs["batch"]`` of the MuData.

    Raises
    ------
    ModuleNotFoundError
        When the package ``mudata`` is not installed.

    Examples
    --------
    >>> mdata = simulate_methylation(n_cells=20, n_regions={"mCG": 10})
    >>> mdata["mCG"].layers["cov"].dtype
    dtype('uint16')
    """
    mudata = optional("mudata", extra="mudata", purpose="simulate_methylation")
    rng = np.random.default_rng(settings.seed if seed is None else seed)
    type_n, batch_n = rng.integers(n_cell_types, size=n_cells), rng.integers(n_batches, size=n_cells)
    depth_n1 = rng.lognormal(0.0, 0.4, (n_cells, 1))
    modalities = {}
    for context, n in (n_regions or {"mCG": 120, "mCH": 120}).items():
        base_r = _log_odds(rng.beta(*_SHARES.get(context, _SHARES["mCH"]), size=n))
        of_type_cr = rng.normal(0, 1.5, (n_cell_types, n)) * (rng.random(n) < differing)
        of_batch_br = rng.normal(0, batch_strength, (n_batches, n))
        share_nr = 1 / (1 + np.exp(-(base_r + of_type_cr[type_n] + of_batch_br[batch_n])))
        reads_nr = rng.poisson(coverage * depth_n1, (n_cells, n)) * (rng.random((n_cells, n)) >= without_reads)
        size = (1 - dispersion) / dispersion
        of_cell_nr = rng.beta(np.maximum(share_nr * size, 1e-3), np.maximum((1 - share_nr) * size, 1e-3))
        methylated_nr = rng.binomial(reads_nr, of_cell_nr)
        modalities[context] = _modality(context, methylated_nr, reads_nr, share_nr)
    with mudata.set_options(pull_on_update=False):
        mdata: Any = mudata.MuData(modalities)
    mdata.obs["cell_type"] = pd.Categorical([f"type_{k}" for k in type_n])
    mdata.obs["batch"] = pd.Categorical([f"batch_{k}" for k in batch_n])
    return mdata


def _log_odds(share: np.ndarray) -> np.ndarray:
    share = share.clip(1e-3, 1 - 1e-3)
    return np.log(share / (1 - share))


def _modality(context: str, methylated: np.ndarray, reads: np.ndarray, share: np.ndarray) -> anndata.AnnData:
    n_cells, n = reads.shape
    obs = pd.DataFrame(index=[f"cell_{i}" for i in range(n_cells)])
    adata = anndata.AnnData(obs=obs, var=pd.DataFrame(index=[f"{context}_{r}" for r in range(n)]))
    adata.layers["mc"] = sp.csr_matrix(methylated.astype(np.uint16))
    adata.layers["cov"] = sp.csr_matrix(reads.astype(np.uint16))
    adata.layers["share"] = share.astype(np.float32)
    return adata
