"""ContrastiveVI: what sets target cells apart from background cells, and what both share.

Reference: Weinberger, Lin and Lee, *Isolating salient variations of interest in single-cell data with contrastiveVI*,
Nature Methods 2023.
"""

from typing import ClassVar

from anndata import AnnData

from ...data.fields import bundles
from ...model.base import BaseModelClass, library_arguments, setup_method
from ...model.base.contrasts import ContrastTrainingMixin
from .module import ContrastiveVAE
from .verbs import ContrastiveMixin

__all__ = ["ContrastiveVI"]


class ContrastiveVI(ContrastiveMixin, ContrastTrainingMixin, BaseModelClass):
    r"""Variational autoencoder of background and target cells, whose salient latents only target cells have.

    .. math:: x_{ng} \sim \mathrm{ZINB}\bigl(\ell_n\, \mathrm{softmax}(f(z_n, s_n, c_n))_g,\; \theta_g,\;
              \pi_{ng}\bigr), \qquad s_n = 0 \text{ in background cells}

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    n_hidden, n_layers, dropout_rate
        As in :class:`~celbo.model.SCVI`.
    n_background_latent, n_salient_latent
        Dimensions of the latents z that all cells have, and of those s that only target cells have.
    use_observed_lib_size
        Take the observed total counts as library size; otherwise it is a latent variable.
    wasserstein_penalty
        Weight of the distance from 0 of the salient latents that background cells would have. The paper takes 1.
    scvi_tools_figures
        Ignore covariates and size factors, as scvi-tools does; models of its archives have it.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.external.ContrastiveVI.setup_anndata(adata)
    >>> background, target = (list(range(start, start + 200)) for start in (0, 200))  # batch_0, batch_1
    >>> model = celbo.external.ContrastiveVI(adata)
    >>> model.train(background, target, max_epochs=2, verbose=0, seed=0)
    >>> model.get_latent_representation(representation_kind="salient").shape
    (400, 10)
    """

    _module_cls: ClassVar[type[ContrastiveVAE]] = ContrastiveVAE
    _computed_arguments = library_arguments

    def __init__(
        self,
        adata: AnnData,
        n_hidden: int = 128,
        n_background_latent: int = 10,
        n_salient_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        use_observed_lib_size: bool = True,
        wasserstein_penalty: float = 0,
        scvi_tools_figures: bool = False,
    ) -> None:
        super().__init__(adata)
        self._build_module()

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register background and target cells together; :meth:`train` is told which is which."""
        return bundles.counts(layer, use_raw) + bundles.cells(
            batch_key, labels_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys
        )
