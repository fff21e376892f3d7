"""ResolvedMixin: corrected expression, the parts of a cell's counts, labels of cells and of their neighbours."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor
from torch.distributions import Poisson

from ...core import NEIGHBOR_COUNTS_KEY, REGISTRY_KEYS, ArgumentError, checked_methods, unknown_name
from ...data import state_registry_of
from ...dataloaders.dataset import keys_of_rows
from ...model.base import RNASeqMixin
from ...ops.draws import sample
from ...posterior import gene_columns
from ...posterior.passes import Rows, decode, encode, evaluating, on_device
from ...verbs.cells import Asked, Weights, asked, codes_of_batches
from ...verbs.keys import offers_key
from .module import INDEX_KEY
from .parts import SHARES, Parts
from .weighed import weighed_draw

__all__ = ["ResolvedMixin"]

Cells = Sequence[int] | Sequence[bool] | str
Summary = Mapping[str, Callable[..., Any]]
Table = np.ndarray | pd.DataFrame

_SITES: Mapping[str, Callable[[Parts], Tensor]] = {
    "px_rate": lambda parts: parts.own,
    "px_scale": lambda parts: parts.own / parts.own.sum(-1, keepdim=True).clamp(min=1e-30),
    "px_rate_n": lambda parts: parts.neighbors,
    "mean_poisson": lambda parts: parts.mean,
    "background": lambda parts: parts.background,
    "mixture_proportions": lambda parts: parts.shares,
    "true_mixture_proportion": lambda parts: parts.shares[:, :1],
    "diffusion_mixture_proportion": lambda parts: parts.shares[:, 1:2],
    "background_mixture_proportion": lambda parts: parts.shares[:, 2:],
    "per_neighbor_diffusion": lambda parts: parts.weights,
    "diffusion_proportion_per_neighbor": lambda parts: (parts.shares[:, 1:2] * parts.weights)[..., None],
    "obs": lambda parts: sample(Poisson(parts.mean, validate_args=False)),
}
"""What can be asked of the posterior, by scvi-tools' names."""


@checked_methods
class ResolvedMixin(RNASeqMixin):
    """A cell's own expression, what diffused into it, and its label.

    Common arguments: ``adata``, ``indices``, ``batch_size``, ``seed``: see :class:`~celbo.model.base.VAEMixin`;
    ``transform_batch``, ``gene_list``, ``library_size``, ``return_mean``, ``return_numpy``: see
    :class:`~celbo.model.base.RNASeqMixin`. ``get_normalized_expression`` is a cell's own expression, corrected for what
    diffused and for the background. ``size_scaling``, ``library_scaling`` and ``silent`` are accepted for compatibility
    with scvi-tools.
    """

    def _alone(self, adata: AnnData | None) -> dict[str, Any]:
        """Arguments of a loader that leaves out the neighbours' counts, which decoding a cell itself does not need."""
        keys = [
            key
            for key in keys_of_rows(self.get_anndata_manager(self._validate_anndata(adata), required=True))
            if key != NEIGHBOR_COUNTS_KEY
        ]
        return {"data_and_attributes": keys}

    @offers_key("features")
    def get_normalized_expression_importance(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: Sequence[int | str] | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | None = 1,
        n_samples: int = 30,
        n_samples_overall: int | None = None,
        batch_size: int | None = None,
        weights: str | np.ndarray | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        library_scaling: bool = False,
        size_scaling: bool = False,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> Table:
        """Corrected expression, draws weighted by how well they explain the cell's counts.

        Parameters
        ----------
        adata, indices, transform_batch, gene_list, library_size, batch_size, return_mean, return_numpy, seed
            See the class.
        n_samples
            Draws per cell.
        n_samples_overall
            Cells to draw; None: all.
        weights
            Accepted for compatibility with scvi-tools.
        library_scaling, size_scaling
            See the class.
        key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Returns
        -------
        ``(n, g)``; without ``return_mean`` the draws as they are, ``(n_samples, n, g)``.

        Examples
        --------
        >>> model.get_normalized_expression_importance(n_samples=5).shape
        (400, 100)
        """
        if n_samples_overall is not None:
            n_cells = self._validate_anndata(adata).n_obs if indices is None else len(indices)
            drawn = np.random.default_rng(seed).choice(n_cells, n_samples_overall)
            indices = list(drawn if indices is None else np.asarray(indices)[drawn])
        cells = asked(self, adata, indices, batch_size)
        codes = codes_of_batches(self, transform_batch)
        columns = gene_columns(gene_list, self.get_var_names())
        rows = Rows(cells.n_cells, axis=0 if return_mean else 1)
        with evaluating(self.module, seed):
            for tensors in on_device(cells.batches, self.module):
                draws, logs = zip(*[self._weighed(tensors, codes) for _ in range(n_samples)], strict=True)
                drawn_sng = torch.stack(draws) * (library_size or 1)
                share_sn = torch.stack(logs).softmax(0)
                rows.append(torch.einsum("sn,sng->ng", share_sn, drawn_sng) if return_mean else drawn_sng)
        values = rows.array() if columns is None else rows.array()[..., columns]
        if return_numpy or not return_mean:
            return values
        names = self.get_var_names() if columns is None else np.asarray(self.get_var_names())[columns]
        return pd.DataFrame(values, index=cells.names, columns=names)

    def _weighed(self, tensors: Mapping[str, Tensor], codes: Sequence[int | None]) -> tuple[Tensor, Tensor]:
        """Profiles at one draw, ``(n, g)``, and the log of its weight, ``(n,)``."""
        encoded, log_weight_n = weighed_draw(self.module, tensors)
        profiles = [decode(self.module, tensors, encoded, code)["px"].get_normalized("scale") for code in codes]
        return torch.stack(profiles).mean(0), log_weight_n

    def sample_posterior(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        num_samples: int = 100,
        return_sites: Sequence[str] | None = None,
        batch_size: int | None = None,
        summary_fun: Summary | None = None,
        return_samples: bool = False,
        *,
        model: object = None,
        summary_frequency: int | None = None,
        seed: int | None = None,
    ) -> dict[str, Any]:
        """The parts of each cell's counts, at draws of the latents.

        Parameters
        ----------
        adata, indices, batch_size, seed
            See the class.
        num_samples
            Draws.
        return_sites
            What to return: ``"mixture_proportions"`` (shares of own, diffused and background counts),
            ``"diffusion_proportion_per_neighbor"``, ``"px_rate"``, ``"px_scale"``, ``"mean_poisson"``,
            ``"background"``, ``"px_rate_n"``, ``"obs"`` and more; None: all but ``"px_rate_n"`` and ``"obs"``.
        summary_fun
            Name -> function of the draws and ``axis``; None: ``post_sample_means`` and ``post_sample_stds``.
        return_samples
            Whether to give the draws too, under ``"posterior_samples"``.
        model, summary_frequency
            Accepted for compatibility with scvi-tools, whose models of Pyro have the same sites, and which summarises
            so many minibatches at once.

        Returns
        -------
        Name of the summary -> name of the site -> array with the cells first.

        Raises
        ------
        ValueError
            An unknown site.

        Examples
        --------
        >>> drawn = model.sample_posterior(num_samples=5)
        >>> sorted(drawn)
        ['post_sample_means', 'post_sample_stds']
        """
        names = [name for name in _SITES if name not in ("px_rate_n", "obs")] if return_sites is None else return_sites
        for name in names:
            if name not in _SITES:
                raise ValueError(unknown_name("site", name, _SITES))
        cells = asked(self, adata, indices, batch_size)
        drawn = {name: Rows(cells.n_cells, axis=1) for name in names}
        with evaluating(self.module, seed):
            for parts in self._parts(cells, num_samples):
                for name in names:
                    drawn[name].append(torch.stack([_SITES[name](part) for part in parts]))
        draws = {name: rows.array() for name, rows in drawn.items()}
        functions = summary_fun or {"post_sample_means": np.mean, "post_sample_stds": np.std}
        answer: dict[str, Any] = {
            summary: {name: function(values, axis=0) for name, values in draws.items()}
            for summary, function in functions.items()
        }
        return answer | ({"posterior_samples": draws} if return_samples else {})

    def _parts(self, cells: Asked, n_samples: int) -> Iterator[list[Parts]]:
        for tensors in on_device(cells.batches, self.module):
            encoded = [encode(self.module, tensors) for _ in range(n_samples)]
            yield [self.module.parts(tensors, one, decode(self.module, tensors, one)) for one in encoded]

    @offers_key()
    def get_mixture_proportions(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        key_added: str | None = None,
    ) -> pd.DataFrame:
        """Shares of own, diffused and background counts of each cell, rows that sum to 1; nothing is drawn.

        Parameters
        ----------
        adata, indices, batch_size, key_added
            See the class.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> list(model.get_mixture_proportions())
        ['true_proportion', 'diffusion_proportion', 'background_proportion']
        """
        cells = asked(self, adata, indices, batch_size, None, self._alone(adata))
        rows = Rows(cells.n_cells)
        with evaluating(self.module):
            for tensors in on_device(cells.batches, self.module):
                shares = encode(self.module, tensors)["mixture"]
                rows.append(shares / shares.sum(-1, keepdim=True))
        return pd.DataFrame(rows.array(), index=cells.names, columns=SHARES)

    def _labels(self) -> np.ndarray:
        """Names of the labels, without the one that means "not labelled"."""
        if not self.module.semisupervised:
            raise ArgumentError(
                f"This {type(self).__name__} was made without labels: name labels_key in setup_anndata, and pass "
                "semisupervised=True."
            )
        return np.asarray(state_registry_of(self.registry_, REGISTRY_KEYS.LABELS_KEY)["categorical_mapping"])[:-1]

    def _probabilities(self, cells: Asked, n_samples: int, seed: int | None) -> np.ndarray:
        rows = Rows(cells.n_cells)
        with evaluating(self.module, seed):
            for tensors in on_device(cells.batches, self.module):
                draws = [self.module.classify_latents(encode(self.module, tensors)["z"]) for _ in range(n_samples)]
                rows.append(torch.stack(draws).mean(0))
        return rows.array()

    @offers_key()
    def predict(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        soft: bool = False,
        batch_size: int | None = 500,
        num_samples: int | None = 30,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> Table:
        """Label of each cell, for models made with ``semisupervised=True``.

        Parameters
        ----------
        adata, indices, batch_size, seed, key_added
            See the class.
        soft
            Give the probability of each label.
        num_samples
            Draws of the latents that probabilities are averaged over.

        Returns
        -------
        Names, ``(n,)``; with ``soft`` a frame of cells by labels.

        Raises
        ------
        RuntimeError
            Before training.
        ArgumentError
            A model made without labels.

        Examples
        --------
        >>> model.predict(soft=True, num_samples=3).shape
        (400, 3)
        """
        labels = self._labels()
        self._check_if_trained(warn=False)
        cells = asked(self, adata, indices, batch_size, None, self._alone(adata))
        probability_nc = self._probabilities(cells, num_samples or 1, seed)
        if soft:
            return pd.DataFrame(probability_nc, index=cells.names, columns=labels)
        return labels[probability_nc.argmax(1)]

    @offers_key()
    def get_neighbor_abundance(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        neighbor_key: str | None = None,
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        batch_size: int | None = None,
        summary_frequency: int = 2,
        weights: Weights | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
        **kwargs: Any,
    ) -> Table:
        """Mean probability of each label among a cell's neighbours, ``(n, c)``.

        Parameters
        ----------
        adata, indices, batch_size, return_numpy, seed, key_added
            See the class.
        neighbor_key
            Entry of ``obsm`` with the row numbers of the neighbours; None: those of setup.
        n_samples
            Draws of the latents.
        n_samples_overall, summary_frequency, weights, return_mean, **kwargs
            Accepted for compatibility with scvi-tools: the answer is the mean of the draws, for all cells.

        Raises
        ------
        RuntimeError
            Before training.
        ArgumentError
            A model made without labels.

        Examples
        --------
        >>> model.get_neighbor_abundance(n_samples=3).shape
        (400, 3)
        """
        self._check_if_trained(warn=False)
        labels, data = self._labels(), self._validate_anndata(adata)
        every = asked(self, data, None, batch_size, None, self._alone(adata))
        probability_nc = self._probabilities(every, n_samples, seed)
        index_nm = np.asarray(data.obsm[neighbor_key or INDEX_KEY]).astype(np.int64)
        rows = asked(self, data, indices, batch_size, None, self._alone(adata)).require_cells("get_neighbor_abundance")
        found_nc = probability_nc[index_nm[rows]].mean(1)
        return found_nc if return_numpy else pd.DataFrame(found_nc, index=data.obs_names[rows], columns=labels)
