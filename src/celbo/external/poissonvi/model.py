"""POISSONVI: accessibility from counts of fragments rather than from open or closed peaks.

Reference: Martens, Fischer, Yépez, Theis and Gagneur, *Modeling fragment counts improves single-cell ATAC-seq
analysis*, Nature Methods 2024.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from anndata import AnnData
from torch import nn

from ... import posterior
from ...data.fields import bundles
from ...model import PEAKVI
from ...model.base import BaseMinifiedModeModelClass, RNASeqMixin, library_arguments, setup_method
from ...module import VAE
from ...module.likelihoods import LatentDistribution
from ...module.peakvae import peak_sizes
from ...module.variants import without_bias
from ...verbs.accessibility import Cells
from ...verbs.base import answering_with
from ...verbs.cells import Weights
from ...verbs.keys import offers_key

__all__ = ["POISSONVI"]

_REGION_FACTORS = "decoder.px_scale_decoder.0"
_NETWORK: Mapping[str, Any] = {
    "gene_likelihood": "poisson",
    "use_batch_norm": "none",
    "use_layer_norm": "both",
    "extra_encoder_kwargs": {"activation_fn": nn.LeakyReLU},
    "extra_decoder_kwargs": {"activation_fn": nn.LeakyReLU},
}
"""What sets the network apart from that of :class:`~celbo.model.SCVI`."""


class POISSONVI(PEAKVI, BaseMinifiedModeModelClass):
    r"""Variational autoencoder of fragments in regions of open chromatin.

    .. math::
        z_n \sim N(0, I), \qquad
        x_{ng} \mid z_n \sim \mathrm{Poisson}\bigl(\ell_n\, \mathrm{softmax}(W h(z_n, b_n) + f)_g\bigr)

    with :math:`\ell` the cell's total and :math:`f` the factors of the regions.

    Parameters
    ----------
    adata
        AnnData set up with :meth:`setup_anndata`.
    n_hidden, n_latent
        Size of the hidden layers and of the latent space; None: the root of the number of regions, and its root.
    n_layers, dropout_rate
        Hidden layers of encoder and decoder, dropout in the encoder.
    latent_distribution
        ``"normal"`` or ``"ln"`` (logistic normal).
    **model_kwargs
        Further arguments of :class:`~celbo.module.VAE`.

    Examples
    --------
    >>> import celbo
    >>> import numpy as np
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> adata.X = np.random.default_rng(0).poisson(0.4, adata.shape)  # your fragments
    >>> celbo.external.POISSONVI.setup_anndata(adata, batch_key="batch")
    >>> model = celbo.external.POISSONVI(adata)
    >>> model.train(max_epochs=2, verbose=0)
    >>> model.get_latent_representation().shape
    (400, 3)
    """

    _module_cls: ClassVar[type[VAE]] = VAE
    _sizes: ClassVar[Mapping[str, str]] = {}
    _recipe = "long_cycle"  # its latents stay empty for the first hundreds of steps
    _own_recipe: ClassVar[Mapping[str, Any]] = {**PEAKVI._own_recipe, "lr": 1e-2, "n_steps_kl_warmup": 900}
    _computed_arguments = library_arguments
    _LATENT_QZM_KEY: ClassVar[str] = "poissonvi_latent_qzm"
    _LATENT_QZV_KEY: ClassVar[str] = "poissonvi_latent_qzv"

    def __init__(
        self,
        adata: AnnData,
        n_hidden: int | None = None,
        n_latent: int | None = None,
        n_layers: int = 2,
        dropout_rate: float = 0.1,
        latent_distribution: LatentDistribution = "normal",
        **model_kwargs: Any,
    ) -> None:
        super(PEAKVI, self).__init__(adata)  # whose own constructor names what this network does not have
        sizes = dict(zip(("n_hidden", "n_latent"), peak_sizes(self.summary_stats["n_vars"], n_hidden, n_latent)))
        self._build_module(**sizes, **{**_NETWORK, **model_kwargs})

    def get_region_factors(self) -> np.ndarray:
        """Factor of each region on the scale of logits, ``(g,)``: the bias of the decoder's last layer.

        Examples
        --------
        >>> model.get_region_factors().shape
        (100,)
        """
        return self.module.get_submodule(_REGION_FACTORS).bias.detach().cpu().numpy()

    def _answering(self, normalize_regions: bool) -> Self:
        """The model with the regions' factors, or without."""
        return self if normalize_regions else answering_with(self, without_bias(self.module, _REGION_FACTORS))

    @offers_key("features")
    def get_normalized_accessibility(  # type: ignore[override]  # scvi-tools' signature
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[float | str] | float | str | None = None,
        region_list: Sequence[str] | None = None,
        library_size: float | Literal["latent"] = 1,
        normalize_regions: bool = False,
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        weights: Weights | None = None,
        batch_size: int = 128,
        return_mean: bool = True,
        return_numpy: bool = False,
        *,
        seed: int | None = None,
        key_added: str | None = None,
        **importance_weighting_kwargs: Any,
    ) -> np.ndarray | pd.DataFrame:
        """Expected share of each region in a cell's fragments, at drawn latents.

        Parameters
        ----------
        region_list
            Regions to return, names or a mask, in the order of the model's. Unknown names raise a warning.
        library_size
            What each cell sums to over all regions; ``"latent"``: the cell's total.
        normalize_regions
            Include the regions' factors; without them regions of a cell can be compared.
        adata, indices, transform_batch, n_samples, n_samples_overall, weights, batch_size, return_mean, return_numpy
            As in ``get_normalized_expression``.
        seed
            As in ``get_normalized_expression``.
        key_added
            See :class:`~celbo.model.base.VAEMixin`.
        **importance_weighting_kwargs
            As in ``get_normalized_expression``.

        Returns
        -------
        Cells by regions; draws by regions with ``n_samples_overall``; ``(s, n, g)`` for draws that are not averaged.

        Examples
        --------
        >>> model.get_normalized_accessibility(region_list=["gene_3", "gene_7"]).shape
        (400, 2)
        """
        return RNASeqMixin.get_normalized_expression(
            self._answering(normalize_regions),
            adata,
            indices,
            transform_batch,
            region_list,
            library_size,
            n_samples,
            n_samples_overall,
            weights,
            batch_size,
            return_mean,
            return_numpy,
            seed=seed,
            **importance_weighting_kwargs,
        )

    def differential_expression(self) -> None:  # type: ignore[override]
        """Not of this model: raises a ``NotImplementedError``; see :meth:`differential_accessibility`."""
        raise NotImplementedError("POISSONVI compares regions, not genes: use differential_accessibility.")

    def differential_accessibility(  # type: ignore[override]  # scvi-tools' signature
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        group1: Sequence[str] | None = None,
        group2: Sequence[str] | str | None = None,
        idx1: Cells | None = None,
        idx2: Cells | None = None,
        mode: Literal["vanilla", "change"] = "change",
        delta: float = 0.05,
        batch_size: int | None = None,
        all_stats: bool = True,
        batch_correction: bool = False,
        batchid1: Sequence[str] | None = None,
        batchid2: Sequence[str] | None = None,
        fdr_target: float | Sequence[float] = 0.05,
        silent: bool = False,
        two_sided: bool = True,
        weights: Weights | None = "uniform",
        filter_outlier_cells: bool = False,
        importance_weighting_kwargs: dict[str, Any] | None = None,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Differential accessibility between groups of cells, from fold changes without the regions' factors.

        Parameters
        ----------
        delta
            Smallest log2 fold change that counts.
        two_sided
            Whether changes in both directions count together, or only regions that are more accessible in the first
            group.
        adata, groupby, group1, group2, idx1, idx2, mode, batch_size, all_stats, batch_correction, batchid1, batchid2
            As in ``differential_expression`` of :class:`~celbo.model.SCVI`.
        fdr_target, silent, weights, filter_outlier_cells, importance_weighting_kwargs, seed
            As there.
        **kwargs
            As there.

        Returns
        -------
        A row for each region and comparison, columns as there; the shares of cells with a fragment are called
        ``emp_prob1``, ``emp_prob2``, and ``emp_effect`` is the first minus the second.

        Examples
        --------
        >>> found = model.differential_accessibility(groupby="labels", group1="label_0")
        >>> len(found)
        100
        """
        asked: dict[str, Any] = {"test_mode": "two"} if two_sided else {"m1_domain_fn": partial(np.less_equal, delta)}
        table = RNASeqMixin.differential_expression(
            self._answering(normalize_regions=False),
            adata,
            groupby,
            group1,
            group2,
            idx1,
            idx2,
            mode,
            delta,
            batch_size,
            all_stats,
            batch_correction,
            batchid1,
            batchid2,
            fdr_target,
            silent,
            weights,
            filter_outlier_cells,
            importance_weighting_kwargs,
            seed=seed,
            **(asked | kwargs),
        )
        return posterior.with_shares_of_cells(table)

    @classmethod
    @setup_method
    def setup_anndata(  # type: ignore[override]  # scvi-tools' signature
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
    ) -> bundles.Fields:
        """Register an AnnData with counts of fragments, cells by regions.

        Counts of reads, of which a fragment has two, raise a warning: ``celbo.data.reads_to_fragments`` turns them into
        fragments.
        """
        return bundles.counts(layer, fragments=True) + bundles.cells(
            batch_key, labels_key, size_factor_key, categorical_covariate_keys, continuous_covariate_keys
        )
