"""SCAR: counts without the ambient RNA of droplets.

Reference: Sheng, Lopes, Li, Schuierer, Waldt, Cuttat, Dimitrieva, Kauffmann, Durand, Galli, Roma and de Weck,
*Probabilistic machine learning ensures accurate ambient denoising in droplet-based single-cell omics*, bioRxiv 2022.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from anndata import AnnData
from torch import Tensor

from ... import posterior
from ...core import REGISTRY_KEYS
from ...core.kinds import Number, Whole
from ...data import align_genes
from ...data.fields import bundles
from ...data.modalities import gathered_obs
from ...model.base import (
    BaseModelClass,
    RNASeqMixin,
    UnsupervisedTrainingMixin,
    VAEMixin,
    library_arguments,
    setup_method,
)
from ...module.likelihoods import LatentDistribution
from ...posterior import gene_columns
from ...posterior.denoised import denoised_blocks
from ...store.matrices.matrix import columns_of
from ...store.writing.matrix import matrix_writer
from ...verbs.cells import asked
from ...verbs.keys import offers_key
from ...verbs.writing import features_of
from .ambient import ambient_profile_of, batches_of, empty_droplet_profile
from .module import SCAR_VAE, Scale, ScarLikelihood

__all__ = ["SCAR"]


class SCAR(RNASeqMixin, VAEMixin, UnsupervisedTrainingMixin, BaseModelClass):
    r"""Native counts of cells, separated from those of the ambient RNA.

    .. math:: x_{ng} \mid z_n \sim \mathrm{Binomial}\bigl(\ell_n,\;
              (1 - \epsilon_n)\,\rho_{ng} + \epsilon_n a_g\bigr)

    with the cell's total :math:`\ell_n`, its native profile :math:`\rho_n = \rho(z_n)` and ambient share
    :math:`\epsilon_n = \epsilon(z_n)`, and the ambient profile a.

    Parameters
    ----------
    adata
        Cells, set up with :meth:`setup_anndata`.
    ambient_profile
        Share of each gene in the ambient RNA: a key of ``adata.varm`` (:meth:`get_ambient_profile` writes one), a
        DataFrame by gene name, or ``(g,)`` numbers in the order of the genes. A DataFrame of several columns has a
        profile for each batch, by its name. None: the mean profile of the cells, with a warning.
    n_hidden, n_latent, n_layers, dropout_rate
        As in :class:`~celbo.model.SCVI`.
    gene_likelihood
        ``"b"`` (binomial), ``"poisson"``, ``"nb"`` or ``"zinb"``.
    latent_distribution
        ``"normal"`` or ``"ln"`` (logistic normal).
    scale_activation
        What makes native profiles of the decoder's numbers, see :class:`~celbo.external.scar.module.NativeScale`.
    sparsity
        For ``"softplus_sp"``: the closer to 1, the more genes a cell does not express at all.
    **model_kwargs
        Further arguments of :class:`~celbo.external.scar.SCAR_VAE`.

    Raises
    ------
    KeyError, ValueError
        An ambient profile of other genes, or of numbers that are not shares.

    Examples
    --------
    >>> import celbo
    >>> adata = celbo.data.synthetic_iid(seed=0)
    >>> ambient = adata.X.mean(0) / adata.X.mean(0).sum()  # better of empty droplets: get_ambient_profile
    >>> celbo.external.SCAR.setup_anndata(adata, batch_key="batch")
    >>> model = celbo.external.SCAR(adata, ambient, n_latent=5)
    >>> model.train(max_epochs=2, verbose=0, seed=0)
    >>> model.get_denoised_counts().shape
    (400, 100)
    """

    _module_cls: ClassVar[type[SCAR_VAE]] = SCAR_VAE
    _recipe: ClassVar[str | None] = "brief_cycle"  # native profiles begin as the mean of the cells: 50 epochs end there

    _plan_defaults: Mapping[str, Any] = MappingProxyType({"lr": 3e-3})  # at 0.01 at 50% ambient 46% are removed

    _computed_arguments = library_arguments

    def __init__(
        self,
        adata: AnnData,
        ambient_profile: str | np.ndarray | pd.DataFrame | Tensor | None = None,
        n_hidden: int = 150,
        n_latent: int = 15,
        n_layers: int = 2,
        dropout_rate: float = 0.0,
        gene_likelihood: ScarLikelihood = "b",
        latent_distribution: LatentDistribution = "normal",
        scale_activation: Scale = "softplus_sp",
        sparsity: float = 0.9,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(adata)
        counts = None if ambient_profile is not None else self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        batches = list(map(str, self.get_state_registry(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]))
        profile = ambient_profile_of(adata, self.get_var_names(), counts, ambient_profile, batches)
        # an archive holds the numbers, as in scvi-tools: the key may mean others by then, the cells be others
        self.init_params_["non_kwargs"]["ambient_profile"] = profile
        self._build_module(ambient_profile=profile)

    @staticmethod
    def get_ambient_profile(
        adata: AnnData,
        raw_adata: AnnData,
        prob: Annotated[float, Number(0, 1)] = 0.995,
        min_raw_counts: Annotated[int, Whole(0)] = 2,
        iterations: Annotated[int, Whole(0)] = 3,
        n_batch: Annotated[int, Whole(1)] = 1,
        sample: Annotated[int, Whole(1)] = 50000,
        *,
        batch_key: str | None = None,
        seed: int | None = None,
    ) -> None:
        """Estimate the ambient profile from droplets without a cell, and write it to ``adata.varm["ambient_profile"]``.

        Parameters
        ----------
        adata
            The cells.
        raw_adata
            All droplets, unfiltered, with counts in ``X``, as :func:`celbo.data.open` gives them too: on disk they stay
            there. Not changed; it may have more genes.
        prob
            A droplet is empty if its counts have at least this probability per gene.
        min_raw_counts
            Droplets with fewer counts are left out.
        iterations
            Rounds of choosing droplets and of taking their profile.
        n_batch
            Accepted for compatibility with scvi-tools: sparse counts need no parts.
        sample
            Most droplets to use, of each batch; more are sampled at random.
        batch_key
            Column of both with the batch, each of which has its own soup: the profile is then a DataFrame with a column
            for each batch of ``adata``. None: one profile for all.
        seed
            Of that draw.

        Raises
        ------
        KeyError
            ``raw_adata`` has no such column.
        ValueError
            Genes of ``adata`` that ``raw_adata`` lacks; fewer than 50 droplets without a cell in the data or a batch.

        Examples
        --------
        >>> import anndata, numpy as np
        >>> counts = np.random.default_rng(0).poisson(0.1, (500, adata.n_vars))
        >>> droplets = anndata.AnnData(counts.astype("float32"), var=adata.var)  # yours: all droplets, unfiltered
        >>> celbo.external.SCAR.get_ambient_profile(adata, droplets, prob=0.5, seed=0)
        >>> adata.varm["ambient_profile"].shape
        (100, 1)
        """
        match = align_genes(raw_adata.var_names, adata.var_names, where="raw_adata")
        match.raise_if_missing()
        x = raw_adata.X if match.is_identity else columns_of(raw_adata.X, match.indexer)
        rng, settings = np.random.default_rng(seed), (prob, min_raw_counts, iterations, sample)
        if batch_key is None:
            adata.varm["ambient_profile"] = empty_droplet_profile(x, *settings, rng)[:, None]
            return
        of_cells, of_droplets = (
            batches_of(one.obs, batch_key, name) for one, name in ((adata, "adata"), (raw_adata, "raw_adata"))
        )
        profiles = {
            batch: empty_droplet_profile(x, *settings, rng, of_droplets == batch) for batch in np.unique(of_cells)
        }
        adata.varm["ambient_profile"] = pd.DataFrame(profiles, index=adata.var_names)

    @offers_key("features")
    def get_denoised_counts(
        self,
        adata: AnnData | None = None,
        n_samples: int = 1,
        batch_size: int | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> np.ndarray:
        """Native counts of each cell, see :func:`~celbo.posterior.denoised_counts`.

        Parameters
        ----------
        adata, batch_size, seed, key_added
            See :class:`~celbo.model.base.VAEMixin`.
        n_samples
            Draws for each cell, of which the median is given (of an even number the lower one). One draw has the right
            mean; a median of counts is nearer to 0 where few are expected.

        Returns
        -------
        ``(n, g)`` float32.

        Examples
        --------
        >>> model.get_denoised_counts(n_samples=5, seed=0).shape
        (400, 100)
        """
        self._check_if_trained()
        cells = asked(self, adata, None, batch_size)
        return posterior.denoised_counts(
            self.module, cells.batches, n_samples=n_samples, n_cells=cells.n_cells, seed=seed
        )

    def write_denoised_counts(
        self,
        path: str | Path,
        adata: AnnData | None = None,
        n_samples: int = 1,
        batch_size: int | None = None,
        gene_list: Sequence[str] | None = None,
        overwrite: bool = False,
        *,
        seed: int | None = None,
    ) -> Path:
        """Write native counts straight to an AnnData file; memory holds one minibatch of them.

        Parameters
        ----------
        path
            File to write, ``.h5ad`` or ``.zarr``: ``X`` in CSR form, float32 ``(n, g)``, with ``obs`` and ``var``. It
            is there whole or not at all.
        adata, n_samples, batch_size, seed
            As of :meth:`get_denoised_counts`.
        gene_list
            Genes to write; None: all.
        overwrite
            Whether a file that is there may be replaced.

        Returns
        -------
        The path.

        Raises
        ------
        FileExistsError
            A file is there and may not be replaced.
        ValueError
            No known gene, or another suffix.

        Examples
        --------
        >>> model.write_denoised_counts("native.h5ad", seed=0).name
        'native.h5ad'
        """
        self._check_if_trained()
        cells = asked(self, adata, None, batch_size)
        assert cells.adata is not None
        names = np.asarray(self.get_var_names(), dtype=object)
        genes = gene_columns(gene_list, names)
        var = features_of(self, cells.adata, REGISTRY_KEYS.X_KEY, names if genes is None else names[genes])
        blocks = denoised_blocks(self.module, cells.batches, n_samples=n_samples, seed=seed)
        with matrix_writer(path, gathered_obs(cells.adata), var, overwrite=overwrite, sparse=True) as writer:
            for block in blocks:
                counts_ng = block.cpu().numpy()
                writer.append(counts_ng if genes is None else counts_ng[:, genes])
        return Path(path)

    @classmethod
    @setup_method
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str | None = None,
        labels_key: str | None = None,
        layer: str | None = None,
        size_factor_key: str | None = None,
        *,
        use_raw: bool = False,
    ) -> bundles.Fields:
        """Register cells; the batch says which ambient profile is theirs, if there are several."""
        return [
            *bundles.counts(layer, use_raw),
            *bundles.batch(batch_key),
            *bundles.labels(labels_key),
            *bundles.size_factor(size_factor_key),
        ]
