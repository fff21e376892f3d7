r"""How well a module explains cells: ELBO, reconstruction error, marginal likelihood; and what it thinks of them.

Dims: n cells, g genes, s samples.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, LogNormal

from ..distributions import Accessibility, Beta, NegativeBinomial, Normal, Poisson, ZeroInflatedNegativeBinomial
from ..module.base import BaseModuleClass, LossOutput
from .output import EXPRESSION, Output
from .passes import Batches, Minibatch, Rows, decode, encode, evaluating, on_device, sample_passes, size_of

__all__ = [
    "MarginalModule",
    "elbo",
    "latent_library_size",
    "likelihood_parameters",
    "marginal_ll",
    "reconstruction_error",
]


@runtime_checkable
class MarginalModule(Protocol):
    """Module that can work out the marginal log-likelihood of its cells."""

    def marginal_ll(
        self, tensors: Minibatch, n_mc_samples: int, return_mean: bool = False, n_mc_samples_per_pass: int = 1
    ) -> Any:
        """Log-likelihoods, ``(n,)``."""


def elbo(
    module: BaseModuleClass,
    batches: Batches,
    *,
    return_mean: bool = True,
    n_cells: int | None = None,
    seed: int | None = None,
    **forward_kwargs: Any,
) -> Tensor:
    r"""Evidence lower bound in nats, larger is better.

    .. math:: \mathrm{ELBO}_n = \log p(x_n \mid z_n) - \mathrm{KL}(q(z_n) \,\|\, p(z_n)), \qquad z_n \sim q(z \mid x_n)

    Global terms (``kl_global``) are left out and no KL weight enters.

    Parameters
    ----------
    module, batches, n_cells, seed
        See :func:`~celbo.posterior.latent_representation`.
    return_mean
        The mean over cells, averaged in float64, or a value for each.
    **forward_kwargs
        Further arguments of the module's ``forward``.

    Returns
    -------
    Tensor of no dimension, or ``(n,)``, on the CPU.
    """
    rows = Rows(n_cells)
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            output: LossOutput = module(tensors, **forward_kwargs)[2]
            loss_n = LossOutput.dict_sum(output.reconstruction_loss) + LossOutput.dict_sum(output.kl_local)
            rows.append(-loss_n)
    return _answer(rows.array(), return_mean)


def reconstruction_error(
    module: BaseModuleClass,
    batches: Batches,
    *,
    return_mean: bool = True,
    n_cells: int | None = None,
    seed: int | None = None,
    **forward_kwargs: Any,
) -> dict[str, Tensor]:
    r"""Reconstruction error :math:`-\log p(x_n \mid z_n)` in nats by term, smaller is better.

    Parameters are those of :func:`elbo`.

    Returns
    -------
    For each reconstruction term of the loss a tensor of no dimension, or ``(n,)``, on the CPU.
    """
    rows: dict[str, Rows] = {}
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            output: LossOutput = module(tensors, **forward_kwargs)[2]
            for name, error_n in output.reconstruction_loss.items():  # type: ignore[union-attr]  # a dict once made
                rows.setdefault(name, Rows(n_cells)).append(error_n)
    return {name: _answer(term.array(), return_mean) for name, term in rows.items()}


def _answer(values_n: np.ndarray, return_mean: bool) -> Tensor:
    values = torch.from_numpy(values_n)
    return values.double().mean() if return_mean else values


def marginal_ll(
    module: BaseModuleClass,
    batches: Batches,
    *,
    n_mc_samples: int = 1000,
    n_mc_samples_per_pass: int = 1,
    return_mean: bool = True,
    n_cells: int | None = None,
    seed: int | None = None,
) -> Tensor | np.float64:
    r"""Marginal log-likelihood :math:`\log p(x_n)` in nats by importance sampling.

    .. math:: \log p(x_n) \approx \log \tfrac{1}{S} \sum_s \frac{p(x_n \mid z_s)\,p(z_s)}{q(z_s \mid x_n)},
              \qquad z_s \sim q

    A lower bound in expectation, tight for large S.

    Parameters
    ----------
    module
        Has a method ``marginal_ll``.
    batches, n_cells, seed
        See :func:`~celbo.posterior.latent_representation`.
    n_mc_samples
        S.
    n_mc_samples_per_pass
        Samples that go through the decoder at once; it bears on memory and speed only.
    return_mean
        The mean over cells, averaged in float64, or a value for each.

    Returns
    -------
    A number, or ``(n,)`` on the CPU.

    Raises
    ------
    NotImplementedError
        When the module has no ``marginal_ll``.
    ValueError
        For less than one sample.
    """
    if not isinstance(module, MarginalModule):
        raise NotImplementedError(
            f"{type(module).__name__} has no method marginal_ll(tensors, n_mc_samples, return_mean, "
            "n_mc_samples_per_pass), so its marginal likelihood is not known."
        )
    if min(n_mc_samples, n_mc_samples_per_pass) < 1:
        raise ValueError(f"At least one sample is needed, got {n_mc_samples=}, {n_mc_samples_per_pass=}.")
    rows = Rows(n_cells)
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            rows.append(
                module.marginal_ll(
                    tensors,
                    n_mc_samples=n_mc_samples,
                    return_mean=False,
                    n_mc_samples_per_pass=min(n_mc_samples, n_mc_samples_per_pass),
                )
            )
    ll_n = rows.array()
    return ll_n.mean(dtype=np.float64) if return_mean else torch.from_numpy(ll_n)


def likelihood_parameters(
    module: BaseModuleClass,
    batches: Batches,
    *,
    output: Output = EXPRESSION,
    n_samples: int | None = 1,
    give_mean: bool = False,
    n_cells: int | None = None,
    seed: int | None = None,
) -> dict[str, np.ndarray]:
    r"""Parameters of :math:`p(x_n \mid z_n)` at draws of the latents.

    Parameters
    ----------
    module, batches, n_cells, seed
        See :func:`~celbo.posterior.latent_representation`.
    output
        Whose distribution.
    n_samples
        Draws of the latents for each cell.
    give_mean
        Average over the draws.

    Returns
    -------
    By name ``(n, g)``, or ``(s, n, g)`` for more than one draw that is not averaged: ``mean`` (:math:`\mu`, before
    zeros are added), ``dropout`` (probability of an added zero; zero-inflated only), ``dispersions`` (:math:`\theta`;
    negative binomials only), ``scale`` (standard deviation; normal and beta).
    """
    n_samples = n_samples or 1
    average = give_mean or n_samples == 1
    rows: dict[str, Rows] = {}
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            for name, values_sng in _parameters_of(module, tensors, output, n_samples, average).items():
                block = values_sng[0] if average else values_sng
                rows.setdefault(name, Rows(n_cells, axis=0 if average else 1)).append(block)
    return {name: parameter.array() for name, parameter in rows.items()}


def _parameters_of(
    module: BaseModuleClass, tensors: Minibatch, output: Output, n_samples: int, average: bool
) -> dict[str, np.ndarray]:
    """Parameters for one minibatch, ``(s, n, g)``, or ``(1, n, g)`` averaged over samples."""
    n = size_of(tensors)
    passes = sample_passes(encode(module, tensors, n_samples), n_samples, tensors)
    rows: dict[str, Rows] = {}
    totals: dict[str, Tensor] = {}
    for encoded in passes:
        for name, value in _named(decode(module, tensors, encoded)[output.distribution]).items():
            values_sng = value.reshape(-1, n, value.shape[-1])
            if average:
                totals[name] = totals.get(name, 0) + values_sng.sum(0, keepdim=True)
            else:
                rows.setdefault(name, Rows(n_samples)).append(values_sng)
    averaged = {name: (total / n_samples).cpu().numpy() for name, total in totals.items()}
    return averaged or {name: parameter.array() for name, parameter in rows.items()}


def _named(px: Distribution) -> dict[str, Tensor]:
    """Parameters of a distribution by the names they are reported under."""
    if isinstance(px, ZeroInflatedNegativeBinomial):
        return {"mean": px.mu, "dropout": px.zi_probs, "dispersions": px.theta}
    if isinstance(px, NegativeBinomial):
        return {"mean": px.mu, "dispersions": px.theta}
    if isinstance(px, Accessibility):
        return {"mean": px.mean}
    if isinstance(px, Poisson):
        return {"mean": px.rate}
    if isinstance(px, Normal):
        return {"mean": px.loc, "scale": px.scale}
    if isinstance(px, Beta):
        return {"mean": px.mean, "scale": px.stddev}
    raise NotImplementedError(
        f"The parameters of {type(px).__name__} have no names here; known are NegativeBinomial, "
        "ZeroInflatedNegativeBinomial, Poisson, Normal and Beta."
    )


def latent_library_size(
    module: BaseModuleClass,
    batches: Batches,
    *,
    give_mean: bool = True,
    n_cells: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    r"""Library size of each cell, on the scale of counts.

    Parameters
    ----------
    module, batches, n_cells, seed
        See :func:`~celbo.posterior.latent_representation`.
    give_mean
        The posterior mean of the log-normal, :math:`\exp(\mu_n + \sigma_n^2/2)`, or a draw. An observed library is
        given as it is with ``False``.

    Returns
    -------
    ``(n, 1)``.

    Raises
    ------
    RuntimeError
        ``give_mean`` for a library that is observed: it has no posterior. Or the module has no library.
    """
    rows = Rows(n_cells)
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            encoded = encode(module, tensors)
            if "library" not in encoded:
                raise RuntimeError(f"{type(module).__name__} has no library size.")
            ql = encoded.get("ql") or encoded.get("ql_unused")  # a head that nothing reads, as scvi-tools gives it
            if not give_mean:
                rows.append(encoded["library"].exp())
            elif ql is not None:
                rows.append(LogNormal(ql.loc, ql.scale).mean)
            else:
                raise RuntimeError(
                    "This model observes the library size, so there is no posterior to take the mean of: "
                    "set give_mean=False for the observed sizes."
                )
    return rows.array()
