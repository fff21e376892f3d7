"""VAEMixin: verbs of models with an encoder. No logic here: each finds the cells and asks :mod:`celbo.posterior`."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from torch import Tensor
from torch.distributions import Distribution

from .. import posterior
from ..core import checked_methods, unknown_name
from ..utils import unsupported_if_adata_minified
from .base import Model
from .cells import asked
from .keys import offers_key

__all__ = ["VAEMixin"]


@checked_methods
class VAEMixin(Model):
    """Latent representation and fit of a variational autoencoder.

    Common arguments: ``adata`` (None: the training data), ``indices`` (row numbers in any order or a boolean mask;
    None: all), ``batch_size`` (None: ``celbo.settings.batch_size``), ``dataloader`` (minibatches to take instead of the
    three), ``seed`` (of everything that is drawn; None: ``celbo.settings.seed``, and fresh randomness where that is
    None too), ``key_added`` (write the answer into the data too, under this key: a table into ``obsm``, a value for
    each cell into ``obs``, values of all features into ``layers``, how it was made into ``uns["celbo"]``; None: write
    nothing). The global random generators are never advanced. A model that is not trained has no latent representation
    (``RuntimeError``); how well it fits is answered with a warning, so that you can compare.
    """

    @offers_key(parts=("mean", "variance"))
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        give_mean: bool = True,
        mc_samples: int = 5000,
        batch_size: int | None = None,
        return_dist: bool = False,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
        **data_loader_kwargs: Any,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Latent representation of each cell.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, seed, key_added
            See the class.
        give_mean
            The mean of the posterior, or a draw from it.
        mc_samples
            Draws for the mean of a logistic normal, which has no closed form.
        return_dist
            Return mean and variance of the posterior instead.
        **data_loader_kwargs
            Further arguments of the data loader.

        Returns
        -------
        ``(n, k)``, or with ``return_dist`` two of these: mean and variance.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> model.get_latent_representation(indices=[7, 3]).shape
        (2, 5)
        >>> mean, variance = model.get_latent_representation(return_dist=True)
        >>> bool((variance > 0).all())
        True
        """
        self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size, dataloader, data_loader_kwargs, only_encodes=True)
        return posterior.latent_representation(
            self.module,
            cells.batches,
            give_mean=give_mean,
            mc_samples=mc_samples,
            return_dist=return_dist,
            n_cells=cells.n_cells,
            seed=seed,
        )

    @unsupported_if_adata_minified
    @offers_key()
    def get_elbo(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        return_mean: bool = True,
        data_loader_kwargs: dict[str, Any] | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Evidence lower bound in nats, larger is better; the latents are drawn.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, seed, key_added
            See the class.
        return_mean
            The mean over cells, or a value for each.
        data_loader_kwargs
            Further arguments of the data loader.
        **kwargs
            Further arguments of the module's ``forward``.

        Returns
        -------
        Tensor of no dimension, or ``(n,)``. Global terms (``kl_global``) are left out, and no KL weight enters.

        Examples
        --------
        >>> model.get_elbo(return_mean=False).shape
        torch.Size([400])
        """
        cells = asked(self, adata, indices, batch_size, dataloader, data_loader_kwargs)
        return posterior.elbo(
            self.module, cells.batches, return_mean=return_mean, n_cells=cells.n_cells, seed=seed, **kwargs
        )

    @unsupported_if_adata_minified
    @offers_key()
    def get_reconstruction_error(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        return_mean: bool = True,
        data_loader_kwargs: dict[str, Any] | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Negative log-likelihood of the data at drawn latents in nats, smaller is better.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, return_mean, data_loader_kwargs, seed, **kwargs
            As in :meth:`get_elbo`.
        key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        For each reconstruction term of the loss a tensor of no dimension, or ``(n,)``.

        Examples
        --------
        >>> error = model.get_reconstruction_error()
        >>> list(error)
        ['reconstruction_loss']
        """
        cells = asked(self, adata, indices, batch_size, dataloader, data_loader_kwargs)
        return posterior.reconstruction_error(
            self.module, cells.batches, return_mean=return_mean, n_cells=cells.n_cells, seed=seed, **kwargs
        )

    @unsupported_if_adata_minified
    @offers_key()
    def get_marginal_ll(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_mc_samples: int = 1000,
        batch_size: int | None = None,
        return_mean: bool = True,
        dataloader: Iterable[dict[str, Tensor]] | None = None,
        data_loader_kwargs: dict[str, Any] | None = None,
        *,
        n_mc_samples_per_pass: int = 25,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> float | Tensor:
        """Marginal log-likelihood of the data in nats, by importance sampling from the posterior.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, seed, key_added
            See the class.
        n_mc_samples
            Samples for each cell.
        return_mean
            The mean over cells, or a value for each.
        data_loader_kwargs
            Further arguments of the data loader.
        n_mc_samples_per_pass
            Samples that are decoded at once: memory and speed only.

        Returns
        -------
        A number, or ``(n,)``.

        Raises
        ------
        NotImplementedError
            When the module has no ``marginal_ll``.

        Examples
        --------
        >>> bool(model.get_marginal_ll(n_mc_samples=10) < 0)
        True
        """
        cells = asked(self, adata, indices, batch_size, dataloader, data_loader_kwargs)
        return posterior.marginal_ll(
            self.module,
            cells.batches,
            n_mc_samples=n_mc_samples,
            n_mc_samples_per_pass=n_mc_samples_per_pass,
            return_mean=return_mean,
            n_cells=cells.n_cells,
            seed=seed,
        )

    def get_aggregated_posterior(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        dof: float | None = 3.0,
        *,
        seed: int | None = None,
    ) -> Distribution:
        """Mixture of the cells' posteriors.

        Parameters
        ----------
        adata, batch_size, seed
            See the class; nothing is drawn.
        indices
            Row numbers; None or an empty list: all cells.
        dof
            Degrees of freedom of Student's t components; None for normal ones.

        Returns
        -------
        Distribution over ``(k,)`` on the CPU. The scale of a component is the square root of its variance
        (scvi-tools 1.4.2 takes the variance itself).

        Examples
        --------
        >>> model.get_aggregated_posterior(indices=range(50)).event_shape
        torch.Size([5])
        """
        indices = None if indices is None or not np.size(indices) else indices
        mean, variance = self.get_latent_representation(adata, indices, True, 1, batch_size, True, seed=seed)
        return posterior.aggregated_posterior(mean, variance, dof)

    def differential_abundance(
        self,
        adata: AnnData | None = None,
        sample_key: str | None = None,
        batch_size: int = 128,
        num_cells_posterior: int | None = None,
        dof: float | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        """Log-density of each sample at each cell, see :func:`~celbo.posterior.sample_log_densities`.

        They go to ``adata.obsm["da_log_probs"]``, a frame of cells by samples in the order in which they occur, in
        nats. Differences between columns say in which sample cells like this one abound.

        Parameters
        ----------
        adata
            See the class.
        sample_key
            Column of ``adata.obs`` with the sample of each cell; cells with NaN belong to no sample.
        batch_size
            Cells per minibatch of the encoder.
        num_cells_posterior
            Most cells per sample that its density is made of, drawn at random; None: all.
        dof
            Degrees of freedom of Student's t components of the densities; None for normal ones.
        seed
            Of that draw, see the class.

        Raises
        ------
        KeyError
            No such column.

        Notes
        -----
        scvi-tools 1.4.2 takes the variance of each cell's posterior for its scale, see
        :meth:`get_aggregated_posterior`.

        Examples
        --------
        >>> model.differential_abundance(sample_key="batch")
        >>> list(adata.obsm["da_log_probs"].columns)
        ['batch_0', 'batch_1']
        """
        given, adata = adata, self._validate_anndata(adata)
        if sample_key not in adata.obs:
            raise KeyError(unknown_name("column of adata.obs (sample_key)", str(sample_key), map(str, adata.obs)))
        mean_nk, variance_nk = self.get_latent_representation(adata, batch_size=batch_size, return_dist=True)
        samples = adata.obs[sample_key].dropna().unique()
        densities_ns = posterior.sample_log_densities(
            mean_nk,
            variance_nk,
            adata.obs[sample_key].to_numpy(),
            samples,
            dof=dof,
            max_cells=num_cells_posterior,
            seed=seed,
        )
        table = pd.DataFrame(densities_ns, index=adata.obs_names, columns=samples)
        (adata if given is None else given).obsm["da_log_probs"] = table  # a view was answered by a copy of it
