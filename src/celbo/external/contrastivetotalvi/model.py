"""ContrastiveTOTALVI: what sets the RNA and proteins of target cells apart, and what background cells share.

Reference: Weinberger, Lin and Lee, *Isolating salient variations of interest in single-cell data with contrastiveVI*,
Nature Methods 2023.
"""

from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from ...dataloaders.contrasts import StackedDataSplitter
from ...model import TOTALVI
from ...model.base.contrasts import ContrastTrainingMixin
from ...module.likelihoods import ProteinDispersion
from ...module.totalvae import GeneDispersion
from .module import ContrastiveTOTALVAE
from .verbs import ContrastiveTOTALMixin

__all__ = ["ContrastiveTOTALVI"]


class ContrastiveTOTALVI(ContrastiveTOTALMixin, ContrastTrainingMixin, TOTALVI):
    r"""Variational autoencoder of genes and surface proteins of background and target cells.

    .. math::
        z_n \sim N(0, I), \qquad s_n \sim N(0, I) \text{ in target cells}, \quad s_n = 0 \text{ in background cells},
        \qquad x_n, y_n \mid (z_n, s_n) \text{ as in TOTALVI}

    It is set up as :class:`~celbo.model.TOTALVI` is; :meth:`train` is told which cells are which. Verbs that do not say
    otherwise take all cells as target cells.

    Parameters
    ----------
    adata
        AnnData or MuData set up with :meth:`setup_anndata` or :meth:`setup_mudata`.
    n_background_latent, n_salient_latent
        Dimensions of the latents z that all cells have, and of those s that only target cells have.
    gene_dispersion, protein_dispersion, gene_likelihood, empirical_protein_background_prior
        See :class:`~celbo.model.TOTALVI`.
    override_missing_proteins, empty_droplets
        See :class:`~celbo.model.TOTALVI`.
    wasserstein_penalty
        Weight of the distance from 0 of the salient latents that background cells would have.
    **model_kwargs
        Further arguments of :class:`~celbo.module.TOTALVAE`.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(n_proteins=12, seed=0)
    >>> celbo.external.ContrastiveTOTALVI.setup_anndata(adata, "protein_expression")
    >>> background, target = (list(range(start, start + 200)) for start in (0, 200))  # batch_0, batch_1
    >>> model = celbo.external.ContrastiveTOTALVI(adata)
    >>> model.train(background, target, max_epochs=2, verbose=0, seed=0)
    >>> model.get_latent_representation(representation_kind="salient").shape
    (400, 10)
    """

    _module_cls: ClassVar[type[ContrastiveTOTALVAE]] = ContrastiveTOTALVAE
    _data_splitter_cls: ClassVar[type] = StackedDataSplitter
    _of_missing: ClassVar[dict[str, Any]] = {}
    _share_of_warmup: ClassVar[float] = 1 / 3  # after two thirds background latents still tell perturbations

    def __init__(
        self,
        adata: AnnData,
        n_background_latent: int = 10,
        n_salient_latent: int = 10,
        gene_dispersion: GeneDispersion = "gene",
        protein_dispersion: ProteinDispersion = "protein",
        gene_likelihood: Literal["zinb", "nb"] = "nb",
        wasserstein_penalty: float = 0,
        empirical_protein_background_prior: bool | None = None,
        override_missing_proteins: bool = False,
        *,
        empty_droplets: AnnData | pd.DataFrame | np.ndarray | None = None,
        **model_kwargs: Any,
    ) -> None:
        super(TOTALVI, self).__init__(adata)
        self._build_module()
