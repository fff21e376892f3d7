r"""Modules that can work from stored latents: data of which only the posterior of each cell was kept.

.. math:: q(z_n \mid x_n) = N(\mu_n, \sigma^2_n) \text{ as stored}, \qquad \log \ell_n = \log(\text{stored total count})
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.distributions import Normal

from ...core import REGISTRY_KEYS
from ...ops.draws import sample
from .lossoutput import LossOutput
from .module import BaseModuleClass, Binding, Outputs

__all__ = ["LATENT_POSTERIOR", "LATENT_POSTERIOR_WITH_COUNTS", "BaseMinifiedModeModuleClass", "stored_latents"]

LATENT_POSTERIOR = "latent_posterior_parameters"
"""Minified data: mean and variance of each cell's latents, and its total count."""

LATENT_POSTERIOR_WITH_COUNTS = "latent_posterior_parameters_with_counts"
"""The same beside the counts."""


def stored_latents(
    qzm: Tensor,
    qzv: Tensor,
    observed_lib_size: Tensor,
    transformation: Callable[[Tensor], Tensor],
    n_samples: int = 1,
) -> Outputs:
    """What ``inference`` gives, from what was stored of its outputs.

    Parameters
    ----------
    qzm, qzv
        Mean and variance (not standard deviation) of the latents, ``(n, k)``.
    observed_lib_size
        Total counts, ``(n, 1)``.
    transformation
        From normal to the module's latents.
    n_samples
        With more than 1 the samples get a leading dimension.

    Returns
    -------
    ``z``, ``qz``, ``ql`` (None) and ``library``, the natural log of the total.
    """
    qz = Normal(qzm, qzv.sqrt(), validate_args=False)
    z, library = sample(qz, (n_samples,)), observed_lib_size.log().expand(n_samples, -1, -1)
    if n_samples == 1:
        z, library = z[0], library[0]
    return {"z": transformation(z), "qz": qz, "ql": None, "library": library}


class BaseMinifiedModeModuleClass(BaseModuleClass):
    """Abstract module whose ``inference`` takes a minibatch's counts, or latents stored of it.

    A subclass writes ``_regular_inference`` (bound by name as ``inference`` is in
    :class:`~celbo.module.base.BaseModuleClass`) and ``_cached_inference(qzm, qzv, observed_lib_size, n_samples)``.
    Stored latents are taken once ``minified_data_type`` is set, from minibatches that have them; but a loss, where the
    counts are there too, always encodes these.
    """

    _minified_data_type: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.inference is BaseMinifiedModeModuleClass.inference:
            cls._inference_binding = Binding.of(cls._regular_inference)

    @property
    def minified_data_type(self) -> str | None:
        """How the data that the module is asked about are minified; None: they are not."""
        return self._minified_data_type

    @minified_data_type.setter
    def minified_data_type(self, value: str | None) -> None:
        self._minified_data_type = value

    def require_counts(self, purpose: str) -> None:
        """Raise a ``ValueError`` where the counts were not kept."""
        if self.minified_data_type == LATENT_POSTERIOR:
            error = ValueError(f"The {purpose} function currently does not support minified data.")
            error.add_note(
                "It needs the counts, and only the latent posterior was kept: load the model with the full data, or "
                "minify with counts kept."
            )
            raise error

    def forward(
        self,
        tensors: Mapping[str, Tensor],
        get_inference_input_kwargs: dict[str, Any] | None = None,
        get_generative_input_kwargs: dict[str, Any] | None = None,
        inference_kwargs: dict[str, Any] | None = None,
        generative_kwargs: dict[str, Any] | None = None,
        loss_kwargs: dict[str, Any] | None = None,
        compute_loss: bool = True,
    ) -> tuple[Outputs, Outputs] | tuple[Outputs, Outputs, LossOutput]:
        """As in :class:`~celbo.module.base.BaseModuleClass`; a ``ValueError`` for a loss without counts."""
        of_inference = get_inference_input_kwargs or {}
        if compute_loss and self.minified_data_type is not None:
            self.require_counts(f"{type(self).__name__}.loss")
            of_inference = {"full_forward_pass": True} | of_inference
        of_generative = get_generative_input_kwargs
        return super().forward(
            tensors, of_inference, of_generative, inference_kwargs, generative_kwargs, loss_kwargs, compute_loss
        )

    def inference(self, *args: Any, **kwargs: Any) -> Outputs:
        """Encode counts, or take over stored latents where ``qzm`` and ``qzv`` are among the arguments."""
        if "qzm" in kwargs and "qzv" in kwargs:
            return self._cached_inference(*args, **kwargs)
        return self._regular_inference(*args, **kwargs)

    def _get_inference_input(
        self, tensors: Mapping[str, Tensor], full_forward_pass: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Arguments of ``inference``; ``full_forward_pass`` wants the counts encoded, whatever is stored."""
        has_stored = self.minified_data_type is not None and REGISTRY_KEYS.LATENT_QZM_KEY in tensors
        if full_forward_pass or not has_stored:
            return super()._get_inference_input(tensors, **kwargs)
        return {
            "qzm": tensors[REGISTRY_KEYS.LATENT_QZM_KEY],
            "qzv": tensors[REGISTRY_KEYS.LATENT_QZV_KEY],
            "observed_lib_size": tensors[REGISTRY_KEYS.OBSERVED_LIB_SIZE],
        }

    def _regular_inference(self, *args: Any, **kwargs: Any) -> Outputs:
        raise NotImplementedError(f"{type(self).__name__} must define _regular_inference().")

    def _cached_inference(self, *args: Any, **kwargs: Any) -> Outputs:
        raise NotImplementedError(f"{type(self).__name__} must define _cached_inference().")
