r"""Counts explained by a latent z, and z by two readable numbers v.

.. math::
    v_n &\sim N(0, I), \qquad z_n \mid v_n \sim N\bigl(\mu(v_n), \sigma(v_n)\bigr), \qquad
    x_{ng} \mid z_n \sim \mathrm{NB}\bigl(\ell_n \, \mathrm{softmax}(f(z_n))_g,\; \theta_g\bigr) \\
    q(z_n, v_n \mid x_n) &= q(z_n \mid x_n)\, q(v_n \mid z_n, x_n)

.. math::
    \mathcal{L}_n = -\log p(x_n \mid z_n) + w \Bigl[ \log \frac{q(z_n \mid x_n)}{p(z_n \mid v_n)}
        + \beta\, \mathrm{KL}\bigl(q(v_n \mid z_n, x_n) \,\|\, N(0, I)\bigr) \Bigr]

with z and v drawn once from the posterior; :math:`\ell_n` is the cell's total count, w the KL weight, and
:math:`\beta < 1` lets v spread out.

Dims: n cells, g genes, s samples.
Reference: Nazaret et al., *Joint representation and visualization of derailed cell states with Decipher*, bioRxiv
2023.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import softplus

from ...core import REGISTRY_KEYS, checked
from ...core.kinds import Number, Several, Whole
from ...distributions import NegativeBinomial
from ...module.base import BaseModuleClass, LossOutput, auto_move_data
from ...module.likelihoods import start_genes
from ...module.predictive import predictive_sample
from ...nn.fc_layers import Linear
from ...ops.draws import rsample

__all__ = ["DecipherModule"]

_ENCODER_WIDTH = 128
Widths = Annotated[Sequence[int], Several(Whole(1))]


class DenseNet(nn.Module):
    """Linear layers, each but the last with batch normalization and a ReLU.

    Parameters
    ----------
    sizes
        Width of the input, of each hidden layer, and of the output.
    """

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Linear(*pair) for pair in pairwise(sizes))
        self.batch_norms = nn.ModuleList(nn.BatchNorm1d(size) for size in sizes[1:-1])

    def forward(self, x: Tensor) -> Tensor:
        """``(..., i)`` to ``(..., o)``; leading dimensions are cells alike."""
        h = x.flatten(0, -2)
        *hidden, last = self.layers
        for layer, norm in zip(hidden, self.batch_norms, strict=True):
            h = norm(layer(h)).relu()
        return last(h).unflatten(0, x.shape[:-1])

    def normal(self, x: Tensor) -> Normal:
        """The output as locations and, by a softplus, scales of normal variables."""
        loc, scale = self(x).chunk(2, -1)
        smallest = torch.finfo(scale.dtype).tiny  # a softplus may underflow
        return Normal(loc, softplus(scale).clamp_min(smallest), validate_args=False)


class DecipherModule(BaseModuleClass):
    """Two stacked latent spaces of counts.

    Parameters
    ----------
    dim_genes
        Number of genes.
    dim_v, dim_z
        Numbers of readable dimensions and of latents.
    layers_v_to_z, layers_z_to_x
        Widths of the hidden layers of the two decoders.
    beta
        Weight of the divergence of v.

    Notes
    -----
    ``px_r`` is the log of theta, which scvi-tools keeps in Pyro's global store: its archives are read and written with
    it.
    """

    @checked
    def __init__(
        self,
        dim_genes: int,
        dim_v: Annotated[int, Whole(1)] = 2,
        dim_z: Annotated[int, Whole(1)] = 10,
        layers_v_to_z: Widths = (64,),
        layers_z_to_x: Widths = (),
        beta: Annotated[float, Number(0)] = 0.1,
    ) -> None:
        super().__init__()
        self.dim_genes, self.dim_v, self.dim_z, self.beta = dim_genes, dim_v, dim_z, beta
        self._dummy_param = nn.Parameter(torch.empty(0), requires_grad=False)  # in scvi-tools' archives
        self.decoder_v_to_z = DenseNet(dim_v, *layers_v_to_z, 2 * dim_z)
        self.decoder_z_to_x = DenseNet(dim_z, *layers_z_to_x, dim_genes)
        self.encoder_x_to_z = DenseNet(dim_genes, _ENCODER_WIDTH, 2 * dim_z)
        self.encoder_zx_to_v = DenseNet(dim_z + dim_genes, _ENCODER_WIDTH, 2 * dim_v)
        self.px_r = nn.Parameter(torch.zeros(dim_genes))

    def start_from_counts(self, x: Tensor) -> bool:
        """Begin with the dispersions that the counts have."""
        return start_genes(x, self.px_r, None)

    @auto_move_data
    def inference(self, x: Tensor, n_samples: int = 1) -> dict[str, Any]:
        """Encode counts, ``(n, g)``: posteriors ``qz`` and ``qv``, draws ``z`` and ``v``, and ``library``, a log.

        Parameters
        ----------
        x
            Counts.
        n_samples
            Draws; more than one come first, ``(s, n, k)``.
        """
        encoded = x.log1p()
        qz = self.encoder_x_to_z.normal(encoded)
        z = rsample(qz, (n_samples,) if n_samples > 1 else ())
        qv = self._posterior_of_v(z, encoded)
        return {"qz": qz, "z": z, "qv": qv, "v": rsample(qv), "library": x.sum(-1, keepdim=True).log()}

    def _posterior_of_v(self, z: Tensor, encoded: Tensor) -> Normal:
        return self.encoder_zx_to_v.normal(torch.cat([z, encoded.expand(*z.shape[:-1], -1)], -1))

    @auto_move_data
    def locations(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean of z, ``(n, dim_z)``, and that of v at it, ``(n, dim_v)``."""
        encoded = x.log1p()
        z = self.encoder_x_to_z.normal(encoded).loc
        return z, self._posterior_of_v(z, encoded).loc

    def expected_counts(self, x: Tensor) -> Tensor:
        """Expected counts at the posterior mean of z, ``(n, g)``."""
        return x.sum(-1, keepdim=True) * self.decoder_z_to_x(self.locations(x)[0]).softmax(-1)

    @auto_move_data
    def generative(self, z: Tensor, v: Tensor, library: Tensor) -> dict[str, Any]:
        """Decode: ``px`` of the counts given z, ``pz`` of z given v, ``pv``."""
        return {
            "px": NegativeBinomial.from_logits(self.decoder_z_to_x(z), library, self.px_r),
            "pz": self.decoder_v_to_z.normal(v),
            "pv": Normal(torch.zeros_like(v), torch.ones_like(v), validate_args=False),
        }

    def loss(
        self,
        tensors: Mapping[str, Tensor],
        inference_outputs: Mapping[str, Any],
        generative_outputs: Mapping[str, Any],
        kl_weight: Tensor | float = 1.0,
    ) -> LossOutput:
        """Negative evidence lower bound; ``kl_divergence_v`` in the record has the weight beta."""
        nll_n = -generative_outputs["px"].log_prob_sum(tensors[REGISTRY_KEYS.X_KEY])
        kl_z_n = self._log_ratio_of_z(inference_outputs, generative_outputs)
        kl_v_n = self.beta * kl_divergence(inference_outputs["qv"], generative_outputs["pv"]).sum(-1)
        return LossOutput(
            loss=(nll_n + kl_weight * (kl_z_n + kl_v_n)).mean(),
            reconstruction_loss=nll_n,
            kl_local={"kl_divergence_z": kl_z_n, "kl_divergence_v": kl_v_n},
        )

    def _log_ratio_of_z(self, encoded: Mapping[str, Any], decoded: Mapping[str, Any]) -> Tensor:
        z = encoded["z"]
        return (encoded["qz"].log_prob(z) - decoded["pz"].log_prob(z)).sum(-1)

    @torch.no_grad()
    def marginal_ll(
        self,
        tensors: Mapping[str, Tensor],
        n_mc_samples: int,
        return_mean: bool = False,
        n_mc_samples_per_pass: int = 1,
    ) -> Tensor | float:
        """Marginal log-likelihood by importance sampling from the posterior.

        Parameters
        ----------
        tensors
            Minibatch by registry key.
        n_mc_samples
            Samples per cell in all.
        return_mean
            Whether to return the mean over cells.
        n_mc_samples_per_pass
            Samples that go through the decoder at once. It bears on memory only.

        Returns
        -------
        ``(n,)`` on the CPU in nats, or its mean.
        """
        done = range(0, n_mc_samples, n_mc_samples_per_pass)
        parts = [self._log_weights(tensors, min(n_mc_samples_per_pass, n_mc_samples - start)) for start in done]
        ll_n = (torch.cat(parts).logsumexp(0) - math.log(n_mc_samples)).cpu()
        return ll_n.mean().item() if return_mean else ll_n

    def _log_weights(self, tensors: Mapping[str, Tensor], n_samples: int) -> Tensor:
        """Log of the importance weights, ``(s, n)``."""
        encoded, decoded, *_ = self.forward(tensors, inference_kwargs={"n_samples": n_samples}, compute_loss=False)
        v = encoded["v"]
        of_v = (decoded["pv"].log_prob(v) - encoded["qv"].log_prob(v)).sum(-1)
        log_weights = self.log_likelihood(tensors, decoded) - self._log_ratio_of_z(encoded, decoded) + of_v
        return log_weights.reshape(n_samples, -1)

    sample = predictive_sample
