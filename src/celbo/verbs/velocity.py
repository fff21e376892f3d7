"""VelocityMixin: rates, times, states and velocities of each gene in each cell."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor

from ..core import REGISTRY_KEYS, checked_methods
from ..module.kinetics import STATES, Kinetics
from ..posterior import gene_columns
from ..posterior.passes import Rows, encode, evaluating, on_device
from .base import Model
from .cells import Asked, asked
from .keys import offers_key

__all__ = ["VelocityMixin"]

Statistic = Literal["mean", "max"]
Decoded = Mapping[str, Any]
Columns = slice | np.ndarray
Table = np.ndarray | pd.DataFrame
_MOST_NUMBERS = 2**24
_INDUCTION, _INDUCED, _REPRESSION, _ = range(len(STATES))


class _Figure(Protocol):
    """What is asked of a decoded minibatch."""

    def __call__(self, tensors: Mapping[str, Tensor], decoded: Decoded, kinetics: Kinetics, /) -> Tensor: ...


@checked_methods
class VelocityMixin(Model):
    """Rates, times, states and velocities.

    Common arguments: ``adata``, ``indices``, ``batch_size``, ``seed``: see :class:`~celbo.model.base.VAEMixin`;
    ``gene_list`` (names; None: all genes), ``n_samples`` (draws of latents and states), ``n_samples_overall`` (cells to
    draw; None: all), ``return_mean`` (the mean over draws, or all of them with a leading dimension), ``return_numpy``
    (an array, or a frame with the names of cells and genes; None: a frame of the mean).
    """

    @offers_key()
    def get_state_assignment(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        gene_list: Sequence[str] | None = None,
        hard_assignment: bool = False,
        n_samples: int = 20,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> tuple[np.ndarray, list[str]]:
        """Probability of each state of each gene in each cell.

        Parameters
        ----------
        adata, indices, gene_list, n_samples, batch_size, return_mean, seed, key_added
            See the class.
        hard_assignment
            1 for the likeliest state of a draw, else 0.
        return_numpy
            Accepted for compatibility with scvi-tools: it is an array.

        Returns
        -------
        ``(n, g, 4)``, and the names of the states.

        Examples
        --------
        >>> probabilities, states = model.get_state_assignment(n_samples=5)
        >>> probabilities.shape, len(states)
        ((60, 20, 4), 4)
        """

        def states(tensors: object, decoded: Decoded, kinetics: object) -> Tensor:
            pi: Tensor = decoded["px_pi"]
            return _is_likeliest(pi).to(pi) if hard_assignment else pi

        cells = self._asked(adata, indices, batch_size)
        values = self._drawn(states, cells, self._columns(gene_list), n_samples, batch_size, seed)
        return (values.mean(0) if return_mean else values), list(STATES)

    @offers_key("features")
    def get_latent_time(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        gene_list: Sequence[str] | None = None,
        time_statistic: Statistic = "mean",
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> Table:
        """Time of each cell on each gene's path, between 0 and ``t_max``.

        Parameters
        ----------
        adata, indices, gene_list, n_samples, n_samples_overall, batch_size, return_mean, return_numpy, seed
            See the class.
        time_statistic
            The mean over states, or the time in the likeliest one.
        key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Notes
        -----
        A cell in which nothing is transcribed any more is at ``t_max``; scvi-tools 1.4.2 has it at 0, and so have
        models that it saved.

        Examples
        --------
        >>> model.get_latent_time(n_samples=5).shape
        (60, 20)
        """

        def times(tensors: object, decoded: Decoded, kinetics: Kinetics) -> Tensor:
            up, down = kinetics.times(decoded["px_rho"], decoded["px_tau"])
            switch = kinetics.switch_time.expand_as(up)
            last = torch.full_like(up, 0.0 if self.module.scvi_tools_figures else kinetics.t_max)
            return _over_states([up, switch, switch + down, last], decoded["px_pi"], time_statistic)

        asked_for = (gene_list, n_samples, n_samples_overall, batch_size, return_mean, return_numpy, seed)
        return self._table(times, adata, indices, *asked_for)

    @offers_key("features")
    def get_velocity(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        gene_list: Sequence[str] | None = None,
        n_samples: int = 1,
        n_samples_overall: int | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        velo_statistic: Literal["mean", "max"] = "mean",
        velo_mode: Literal["spliced", "unspliced"] = "spliced",
        clip: bool = True,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> Table:
        r"""Change of RNA a unit of time: :math:`\beta u - \gamma s`, or :math:`\alpha - \beta u` of unspliced RNA.

        Parameters
        ----------
        adata, indices, gene_list, n_samples, n_samples_overall, batch_size, return_mean, return_numpy, seed
            See the class.
        velo_statistic
            ``"mean"`` over states, or ``"max"``: that of the likeliest one.
        velo_mode
            Of which RNA.
        clip
            No less than the spliced RNA there is, negated.
        key_added
            See :class:`~celbo.model.base.VAEMixin`.

        Examples
        --------
        >>> adata.layers["velocity"] = model.get_velocity(n_samples=5)  # what scvelo reads
        """

        def velocities(tensors: Mapping[str, Tensor], decoded: Decoded, kinetics: Kinetics) -> Tensor:
            up, down = kinetics.times(decoded["px_rho"], decoded["px_tau"])
            change = kinetics.change_of_spliced if velo_mode == "spliced" else kinetics.change_of_unspliced
            rising, falling = change(kinetics.induction(up), up), change(kinetics.repression(down), None)
            still = torch.zeros_like(rising)
            velocity = _over_states([rising, still, falling, still], decoded["px_pi"], velo_statistic)
            return torch.maximum(velocity, -tensors[REGISTRY_KEYS.X_KEY]) if clip else velocity

        asked_for = (gene_list, n_samples, n_samples_overall, batch_size, return_mean, return_numpy, seed)
        return self._table(velocities, adata, indices, *asked_for)

    @offers_key("features", ("spliced", "unspliced"))
    def get_expression_fit(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        gene_list: Sequence[str] | None = None,
        n_samples: int = 1,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        restrict_to_latent_dim: int | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> tuple[Table, Table]:
        """Spliced and unspliced RNA as the model has them.

        Parameters
        ----------
        adata, indices, gene_list, n_samples, batch_size, return_mean, return_numpy, seed, key_added
            See the class.
        restrict_to_latent_dim
            The one latent that times are decoded from, the others at 0; None: all.

        Returns
        -------
        Spliced, unspliced; each ``(n, g)``.

        Examples
        --------
        >>> spliced, unspliced = model.get_expression_fit(n_samples=5)
        >>> spliced.shape, unspliced.shape
        ((60, 20), (60, 20))
        """

        def fit(tensors: object, decoded: Decoded, kinetics: object) -> Tensor:
            return torch.stack([decoded["px"].mean, decoded["pu"].mean], -1)

        cells, columns = self._asked(adata, indices, batch_size), self._columns(gene_list)
        values = self._drawn(fit, cells, columns, n_samples, batch_size, seed, restrict_to_latent_dim)
        spliced, unspliced = (
            self._named(values[..., kind], cells, columns, return_mean, return_numpy) for kind in (0, 1)
        )
        return spliced, unspliced

    @offers_key("features")
    def get_gene_likelihood(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        gene_list: Sequence[str] | None = None,
        n_samples: int = 1,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        *,
        seed: int | None = None,
        key_added: str | None = None,
    ) -> Table:
        """Log-likelihood of the RNA of each gene in each cell, in nats.

        Parameters
        ----------
        adata, indices, gene_list, n_samples, batch_size, return_mean, return_numpy, seed, key_added
            See the class.

        Examples
        --------
        >>> model.get_gene_likelihood(n_samples=5).shape
        (60, 20)
        """

        def likelihoods(tensors: Mapping[str, Tensor], decoded: Decoded, kinetics: object) -> Tensor:
            return self.module.log_likelihood(tensors, decoded)

        asked_for = (gene_list, n_samples, None, batch_size, return_mean, return_numpy, seed)
        return self._table(likelihoods, adata, indices, *asked_for)

    def get_rates(self) -> dict[str, np.ndarray]:
        """Rates of each gene: ``beta``, ``gamma``, ``alpha``, ``alpha_1``, ``lambda_alpha``, each ``(g,)``.

        Raises
        ------
        RuntimeError
            Before training.

        Examples
        --------
        >>> {name: rates.shape for name, rates in model.get_rates().items()}
        {'beta': (20,), 'gamma': (20,), 'alpha': (20,), 'alpha_1': (20,), 'lambda_alpha': (20,)}
        """
        self._check_if_trained(warn=False)
        rates = self.module.kinetics()
        names = ("beta", "gamma", "alpha", "alpha_1", "lambda_alpha")
        return {name: getattr(rates, name).detach().cpu().numpy() for name in names}

    def _asked(self, adata: AnnData | None, indices: object, batch_size: int | None) -> Asked:
        self._check_if_trained(warn=False)
        return asked(self, adata, indices, batch_size)

    def _columns(self, gene_list: Sequence[str] | None) -> Columns:
        """Places of the genes asked for."""
        columns = gene_columns(gene_list, self.get_var_names())
        return slice(None) if columns is None else columns

    def _table(
        self,
        figure: _Figure,
        adata: AnnData | None,
        indices: object,
        gene_list: Sequence[str] | None,
        n_samples: int,
        n_samples_overall: int | None,
        batch_size: int | None,
        return_mean: bool,
        return_numpy: bool | None,
        seed: int | None,
    ) -> Table:
        cells, columns = self._asked(adata, indices, batch_size), self._columns(gene_list)
        cells = cells if n_samples_overall is None else cells.drawn(n_samples_overall, seed)
        values = self._drawn(figure, cells, columns, n_samples, batch_size, seed)
        return self._named(values, cells, columns, return_mean, return_numpy)

    def _named(
        self, values: np.ndarray, cells: Asked, columns: Columns, return_mean: bool, return_numpy: bool | None
    ) -> Table:
        """Draws ``(s, n, g)`` as their mean, in a frame or an array, or as they are."""
        if len(values) > 1 and not return_mean:
            return values
        mean = values.mean(0)
        if return_numpy:
            return mean
        return pd.DataFrame(mean, index=cells.names, columns=np.asarray(self.get_var_names())[columns])

    def _drawn(
        self,
        figure: _Figure,
        cells: Asked,
        columns: Columns,
        n_samples: int,
        batch_size: int | None,
        seed: int | None,
        latent_dim: int | None = None,
    ) -> np.ndarray:
        """A figure of each draw, cell and gene: ``(s, n, g, ...)``; all draws of a minibatch are decoded at once."""
        rows = Rows(cells.n_cells, axis=1)
        at_once = max(1, _MOST_NUMBERS // (8 * self.summary_stats["n_vars"] * max(1, batch_size or 128)))
        with evaluating(self.module, seed):
            kinetics = self.module.kinetics(of_figures=True)
            for tensors in on_device(cells.batches, self.module):
                parts = []
                for start in range(0, n_samples, at_once):
                    n = min(at_once, n_samples - start)
                    encoded = encode(self.module, tensors, n)
                    encoded["z"] = encoded["z"].reshape(n, -1, encoded["z"].shape[-1])
                    decoded = self.module.generative(encoded["z"], latent_dim)
                    parts.append(figure(tensors, decoded, kinetics)[:, :, columns].cpu().numpy())
                rows.append(np.concatenate(parts))
        return rows.array()


def _is_likeliest(pi: Tensor) -> Tensor:
    return pi >= pi.amax(-1, keepdim=True)


def _over_states(values: Sequence[Tensor], pi: Tensor, statistic: str) -> Tensor:
    """Mean of a value of each of the four states, or that of the likeliest."""
    weights = _is_likeliest(pi) if statistic == "max" else pi
    return (torch.stack(tuple(values), -1) * weights).sum(-1)
