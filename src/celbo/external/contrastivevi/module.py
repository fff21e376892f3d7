r"""Autoencoder of two kinds of cells: target cells vary like background cells, and in further ways.

.. math::

    z_n &\sim N(0, I), \qquad s_n \sim N(0, I) \text{ in target cells}, \quad s_n = 0 \text{ in background cells} \\
    x_{ng} &\sim \mathrm{ZINB}(\ell_n \rho_{ng}, \theta_g, \pi_{ng}), \quad \rho_n = \sigma(f(z_n, s_n, c_n)) \\
    \mathcal{L} &= \tfrac{1}{N} \sum_n \Bigl[ -\log p(x^b_n \mid z^b_n, 0) - \log p(x^t_n \mid z^t_n, s^t_n)
        + \mathrm{KL}_\ell + w \bigl( \mathrm{KL}(z^b_n) + \mathrm{KL}(z^t_n) + \mathrm{KL}(s^t_n)
        + \lambda (|\mu_s(x^b_n)|^2 + \textstyle\sum_k \sigma^2_{sk}(x^b_n)) \bigr) \Bigr]

with the softmax :math:`\sigma`, over pairs n of a background cell :math:`x^b_n` and a target cell :math:`x^t_n`. The
term of :math:`\lambda` is the squared Wasserstein distance of :math:`q(s \mid x^b_n)` from 0; c: batch, covariates.

Each kind of latents may learn what the other says already; the evidence lower bound pays for that twice, but little.
Recipes other than ``classic`` add what encoders miss of recombined cells, which the model draws from the latents of
both cells of a pair, :math:`x'_n \sim p(x \mid z^b_n, s^t_n, c^b_n)`:

.. math::

    r \left[ \mathrm{KL}(q(z \mid x^b_n) \,\|\, q(z \mid x'_n)) + \mathrm{KL}(q(s \mid x^t_n) \,\|\, q(s \mid x'_n))
    \right]

without gradient through :math:`x'_n` or the posteriors of the pair, as in the sleep phase of Hinton et al. In
recombined cells the two kinds are independent, whatever they are in the data.

Dims: n cells, g genes, k latents, s samples.
Reference: Weinberger, Lin and Lee, Nature Methods 2023 (contrastiveVI); Hinton, Dayan, Frey and Neal, *The wake-sleep
algorithm for unsupervised neural networks*, Science 1995.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from ...core import IS_TARGET, REGISTRY_KEYS, checked
from ...core.kinds import Number
from ...module.base import BaseModuleClass, LossOutput, auto_move_data
from ...module.base.module import Binding
from ...module.contrasts import KINDS, Pair, missed, squared_distance_from_zero
from ...module.likelihoods import LIKELIHOODS, log_likelihood
from ...nn import DecoderSCVI, Encoder
from ...nn.fc_layers import with_covariates
from ...ops.draws import randn, sample

__all__ = ["ContrastiveVAE", "Decoded", "Encoded"]


class ContrastiveVAE(BaseModuleClass):
    """Networks and loss of ContrastiveVI. Its minibatches are pairs, ``{"background": ..., "target": ...}``.

    Parameters
    ----------
    n_input, n_batch
        Numbers of genes and batches.
    n_hidden, n_background_latent, n_salient_latent, n_layers
        Width of the hidden layers, dimensions of both latents, hidden layers of encoders and decoder.
    dropout_rate
        Dropout in the encoders.
    use_observed_lib_size
        Whether the library is the cell's total count, or a latent variable.
    library_log_means, library_log_vars
        Mean and variance of the log library in each batch, ``(1, b)``, for a latent library.
    wasserstein_penalty
        Weight of the distance of background cells' salient latents from 0.
    n_continuous_cov, n_cats_per_cov
        Number of continuous covariates; categories of each categorical one. scvi-tools ignores both.
    use_size_factor_key
        Whether size factors take the place of the library, and a softplus that of the softmax. Ignored there, too.
    scvi_tools_figures
        Ignore covariates and size factors, as scvi-tools does.

    Raises
    ------
    ValueError
        The library is latent, and its means or variances are not given.
    """

    library_log_means: Tensor
    library_log_vars: Tensor

    @checked
    def __init__(
        self,
        n_input: int,
        n_batch: int = 0,
        n_hidden: int = 128,
        n_background_latent: int = 10,
        n_salient_latent: int = 10,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
        use_observed_lib_size: bool = True,
        library_log_means: np.ndarray | None = None,
        library_log_vars: np.ndarray | None = None,
        wasserstein_penalty: Annotated[float, Number(0)] = 0,
        n_continuous_cov: int = 0,
        n_cats_per_cov: list[int] | None = None,
        use_size_factor_key: bool = False,
        scvi_tools_figures: bool = False,
    ) -> None:
        super().__init__()
        self.n_input, self.n_batch, self.scvi_tools_figures = n_input, n_batch, scvi_tools_figures
        if scvi_tools_figures:
            n_continuous_cov, n_cats_per_cov, use_size_factor_key = 0, None, False
        self.n_background_latent, self.n_salient_latent = n_background_latent, n_salient_latent
        self.use_size_factor_key = use_size_factor_key
        self.use_observed_lib_size = use_observed_lib_size or use_size_factor_key
        self.wasserstein_penalty = wasserstein_penalty
        self.px_r = nn.Parameter(randn(n_input))
        if not self.use_observed_lib_size:
            if library_log_means is None or library_log_vars is None:
                raise ValueError(
                    "use_observed_lib_size=False needs the prior of the library: library_log_means, library_log_vars."
                )
            self.register_buffer("library_log_means", torch.as_tensor(library_log_means, dtype=torch.float32))
            self.register_buffer("library_log_vars", torch.as_tensor(library_log_vars, dtype=torch.float32))
        n_cats = [n_batch, *(n_cats_per_cov or [])]

        def encoder(n_output: int, n_encoder_layers: int) -> Encoder:
            return Encoder(
                n_input + n_continuous_cov,
                n_output,
                n_cat_list=n_cats,
                n_layers=n_encoder_layers,
                n_hidden=n_hidden,
                dropout_rate=dropout_rate,
                use_batch_norm=True,
                return_dist=True,
            )

        self.z_encoder = encoder(n_background_latent, n_layers)
        self.s_encoder = encoder(n_salient_latent, n_layers)
        self.l_encoder = encoder(1, 1)
        self.decoder = DecoderSCVI(
            n_background_latent + n_salient_latent + n_continuous_cov,
            n_input,
            n_cat_list=n_cats,
            n_layers=n_layers,
            n_hidden=n_hidden,
            use_batch_norm=True,
            scale_activation="softplus" if use_size_factor_key else "softmax",
        )

    def _get_inference_input(self, tensors: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {kind: _ENCODING.collect(tensors[kind]) for kind in KINDS}

    def _get_generative_input(
        self, tensors: Mapping[str, Any], inference_outputs: Mapping[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        return {kind: decoding_input(tensors[kind], inference_outputs[kind]) for kind in KINDS}

    @auto_move_data
    def inference(self, background: dict[str, Any], target: dict[str, Any], n_samples: int = 1) -> dict[str, Any]:
        """Encode pairs of cells: arguments of :meth:`encode` by name, for each kind; the salient latents of background
        cells are 0.
        """
        encoded = {
            "background": self.encode(**background, n_samples=n_samples),
            "target": self.encode(**target, n_samples=n_samples),
        }
        encoded["background"]["s"] = torch.zeros_like(encoded["background"]["s"])
        return encoded

    @auto_move_data
    def generative(self, background: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
        """Decode pairs of cells: arguments of :meth:`decode` by name, for each kind."""
        return {"background": self.decode(**background), "target": self.decode(**target)}

    def encode(
        self,
        x: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        n_samples: int = 1,
    ) -> dict[str, Any]:
        """Latents of cells of either kind.

        Parameters
        ----------
        x
            Counts, ``(n, g)``.
        batch_index, cont_covs, cat_covs
            Codes ``(n, 1)``; further covariates ``(n, k)``.
        n_samples
            With more than 1 the samples get a leading dimension, without gradient.

        Returns
        -------
        Posteriors ``qz``, ``qs``, ``ql`` (None for an observed library), draws ``z`` and ``s`` of them ``(n, k)``, and
        ``library`` ``(n, 1)``, the natural log.
        """
        columns, codes = self._with_covariates(x.log1p(), batch_index, cont_covs, cat_covs)
        (qz, z), (qs, s) = self.z_encoder(columns, *codes), self.s_encoder(columns, *codes)
        ql, library = None, x.sum(-1, keepdim=True).log()
        if not self.use_observed_lib_size:
            ql, library = self.l_encoder(columns, *codes)
        if n_samples > 1:
            z, s = sample(qz, (n_samples,)), sample(qs, (n_samples,))
            library = library.expand(n_samples, -1, -1) if ql is None else sample(ql, (n_samples,))
        return {"z": z, "s": s, "library": library, "qz": qz, "qs": qs, "ql": ql}

    def decode(
        self,
        z: Tensor,
        s: Tensor,
        library: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        size_factor: Tensor | None = None,
    ) -> dict[str, Distribution]:
        """Distribution ``px`` of counts ``(..., g)``.

        Parameters
        ----------
        z, s
            Background and salient latents, ``(n, k)`` or ``(s, n, k)``.
        library
            Natural log of the library, ``(n, 1)`` or ``(s, n, 1)``.
        batch_index, cont_covs, cat_covs
            As in :meth:`encode`.
        size_factor
            ``(n, 1)``, in place of the library where the module is built for it.

        Raises
        ------
        ValueError
            The module is built for size factors, and none are given.
        """
        columns, codes = self._with_covariates(torch.cat([z, s], -1), batch_index, cont_covs, cat_covs)
        logits, _, zi_logits = self.decoder.logits("gene", columns, *codes)
        if self.use_size_factor_key:
            if size_factor is None:
                raise ValueError("This module was built for size factors: give `size_factor`.")
            library = size_factor.log()
        px = LIKELIHOODS["zinb"](logits, library, self.px_r, zi_logits, self.decoder.scale, self.decoder.is_softmax)
        return {"px": px}

    def _with_covariates(
        self, x: Tensor, batch_index: Tensor, cont_covs: Tensor | None, cat_covs: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        covariates = (None, None) if self.scvi_tools_figures else (cont_covs, cat_covs)
        return with_covariates(x, batch_index, *covariates)

    def loss(
        self,
        concat_tensors: Pair,
        inference_outputs: Pair,
        generative_outputs: Pair,
        kl_weight: Tensor | float = 1.0,
        recombination_weight: float = 0.0,
    ) -> LossOutput:
        """Negative evidence lower bound of pairs of cells, see the head of this file.

        Parameters
        ----------
        concat_tensors, inference_outputs, generative_outputs, kl_weight
            As everywhere, for pairs.
        recombination_weight
            Weight r, in training, of what encoders miss of the latents of cells that the model puts together from both
            of a pair.

        Returns
        -------
        Terms have one value per pair: the sum of its two cells. With several draws of the latents each term has them in
        front, ``(s, n)``.
        """
        nll_n: Any = 0
        kl_l_n: Any = 0
        kl_z_n: Any = 0
        for kind in KINDS:
            encoded, x = inference_outputs[kind], concat_tensors[kind][REGISTRY_KEYS.X_KEY]
            nll_n = nll_n - log_likelihood(generative_outputs[kind]["px"], x)
            kl_z_n = kl_z_n + kl_divergence(encoded["qz"], _STANDARD).sum(-1)
            kl_l_n = kl_l_n + self._library_kl(encoded["ql"], concat_tensors[kind], kl_z_n)
        kl_s_n = kl_divergence(inference_outputs["target"]["qs"], _STANDARD).sum(-1)
        distance_n = squared_distance_from_zero(inference_outputs["background"]["qs"])
        warmed_n = kl_z_n + kl_s_n + self.wasserstein_penalty * distance_n
        kl_local = {"kl_divergence_l": kl_l_n, "kl_divergence_z": kl_z_n, "kl_divergence_s": kl_s_n}
        missed_n = self._missed(concat_tensors, inference_outputs) if recombination_weight and self.training else 0
        return LossOutput(
            loss=(nll_n + kl_weight * warmed_n + kl_l_n + recombination_weight * missed_n).mean(),
            reconstruction_loss=nll_n,
            kl_local={name: kl.expand_as(nll_n) for name, kl in kl_local.items()},
            extra_metrics={"wasserstein_loss_sum": distance_n.sum()},
            n_obs_minibatch=nll_n.numel(),
        )

    def _missed(self, tensors: Pair, encoded: Pair) -> Tensor:
        """How far latents of recombined cells are from those that they were made of, ``(n,)``."""
        background, target = encoded["background"], encoded["target"]
        with torch.no_grad():
            latents = {**background, "s": target["s"]}
            x = sample(self.decode(**decoding_input(tensors["background"], latents))["px"])
        found = self.encode(**{**_ENCODING.collect(tensors["background"]), "x": x})
        return missed(background["qz"], found["qz"]) + missed(target["qs"], found["qs"])

    def _library_kl(self, ql: Normal | None, tensors: Mapping[str, Tensor], like_n: Tensor) -> Tensor:
        if ql is None:
            return torch.zeros_like(like_n)
        batch_n1 = tensors[REGISTRY_KEYS.BATCH_KEY].long()
        mean_n1, var_n1 = self.library_log_means[0][batch_n1], self.library_log_vars[0][batch_n1]
        return kl_divergence(ql, Normal(mean_n1, var_n1.sqrt(), validate_args=False)).sum(-1)


_STANDARD = Normal(0.0, 1.0)
_ENCODING = Binding.of(ContrastiveVAE.encode)
_DECODING = Binding.of(ContrastiveVAE.decode)


def decoding_input(tensors: Mapping[str, Any], encoded: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :meth:`ContrastiveVAE.decode` for cells of one kind, from their minibatch and latents."""
    return _DECODING.collect(encoded, tensors)


class Encoded(BaseModuleClass):
    """One kind of latents of a :class:`ContrastiveVAE`, as if it had no others: for questions about any cells.

    Parameters
    ----------
    whole
        The module.
    kind
        ``"background"`` or ``"salient"``.
    """

    def __init__(self, whole: ContrastiveVAE, kind: Literal["background", "salient"]) -> None:
        super().__init__()
        self.whole, self.letter = whole, {"background": "z", "salient": "s"}[kind]

    def _get_inference_input(self, tensors: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        return _ENCODING.collect(tensors)

    def inference(self, **cells: Any) -> dict[str, Any]:
        """Latents of minibatches of any cells."""
        encoded = self.whole.encode(**cells)
        return {**encoded, "qz": encoded[f"q{self.letter}"], "z": encoded[self.letter]}


class Decoded(BaseModuleClass):
    """A :class:`ContrastiveVAE` on minibatches of any cells, whose column :data:`IS_TARGET` says which have salient
    latents; without it all have.

    Parameters
    ----------
    whole
        The module.
    variance_as_scale
        Give a latent library's variance for its standard deviation.
    """

    def __init__(self, whole: ContrastiveVAE, variance_as_scale: bool = False) -> None:
        super().__init__()
        self.whole, self.variance_as_scale = whole, variance_as_scale

    def _get_inference_input(self, tensors: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        return _ENCODING.collect(tensors) | {IS_TARGET: tensors.get(IS_TARGET)}

    def _get_generative_input(
        self, tensors: Mapping[str, Any], inference_outputs: Mapping[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        return decoding_input(tensors, inference_outputs)

    def inference(self, is_target: Tensor | None = None, **cells: Any) -> dict[str, Any]:
        """Latents, the salient ones of background cells at 0."""
        encoded = self.whole.encode(**cells)
        if self.variance_as_scale and encoded["ql"] is not None:
            encoded["ql"] = Normal(encoded["ql"].loc, encoded["ql"].scale.square())
        return encoded if is_target is None else encoded | {"s": encoded["s"] * is_target}

    def generative(self, **latents: Any) -> dict[str, Distribution]:
        """Distribution of counts."""
        return self.whole.decode(**latents)
