"""JointEmbeddingSCVI: one latent space in which cells stay where they are, however many counts were read.

Reference: Zbontar, Jing, Misra, LeCun and Deny, *Barlow twins: self-supervised learning via redundancy reduction*, ICML
2021, for the objective; the model is Svensson's, of 2026.
"""

from typing import Any, ClassVar

from anndata import AnnData

from ...model import SCVI
from ...model.base import Registry
from ...module import VAE
from ...module.likelihoods import Dispersion, GeneLikelihood, LatentDistribution
from .module import JointEmbeddingVAE

__all__ = ["JointEmbeddingSCVI"]


class JointEmbeddingSCVI(SCVI):
    r""":class:`~celbo.model.SCVI` whose latents are the same for a cell and for its thinned counts.

    .. math:: \mathcal{L} = \mathcal{L}_{\mathrm{SCVI}} + w_c \Bigl[ \sum_k (1 - C_{kk})^2
              + \lambda \sum_{j \ne k} C_{jk}^2 \Bigr]

    with the correlations C, over a minibatch, of latents of cells and of their counts thinned at random. After training
    it is an SCVI, with its weights, verbs and validation.

    Parameters
    ----------
    adata, registry
        As in :class:`~celbo.model.SCVI`.
    joint_embedding_weight, lambda_off_diag, min_library_size, reconstruction_weight, variance_weight
        See :class:`~celbo.external.jointembedding.JointEmbeddingVAE`.
    use_joint_embedding
        False: an SCVI.
    n_hidden, n_latent, n_layers, dropout_rate, dispersion, gene_likelihood, use_observed_lib_size, latent_distribution
        As in :class:`~celbo.model.SCVI`.
    **kwargs
        Further arguments of :class:`~celbo.module.VAE`.

    Raises
    ------
    ValueError
        ``gene_likelihood="normal"``: what is not a count cannot be thinned.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> celbo.external.JointEmbeddingSCVI.setup_anndata(adata, batch_key="batch")
    >>> model = celbo.external.JointEmbeddingSCVI(adata, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0)
    >>> "cco_loss_train" in model.history
    True
    """

    _module_cls: ClassVar[type[VAE]] = JointEmbeddingVAE

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: Registry | None = None,
        joint_embedding_weight: float = 100.0,
        lambda_off_diag: float = 0.01,
        min_library_size: float = 10.0,
        reconstruction_weight: float = 1.0,
        variance_weight: float = 0.0,
        use_joint_embedding: bool = True,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        dispersion: Dispersion = "gene",
        gene_likelihood: GeneLikelihood = "zinb",
        use_observed_lib_size: bool = True,
        latent_distribution: LatentDistribution = "normal",
        **kwargs: Any,
    ) -> None:
        super(SCVI, self).__init__(adata, registry)
        self._build_module()
