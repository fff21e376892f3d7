"""What modules of counts share: the prior of a latent library, the marginal likelihood, the payload for tuning.

Dims: n cells, b batches.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from ..core import REGISTRY_KEYS
from .base import BaseMinifiedModeModuleClass
from .marginal import marginal_log_likelihood

__all__ = ["CountedModule"]


class CountedModule(BaseMinifiedModeModuleClass):
    """Abstract module of counts whose library is the cell's total count, or a latent variable with a prior by batch.

    A subclass sets ``use_observed_lib_size``, ``extra_payload_autotune`` and, where latents are drawn before a softmax,
    has that in ``latent_transformation``.
    """

    use_observed_lib_size: bool
    extra_payload_autotune: bool
    library_log_means: Tensor
    library_log_vars: Tensor
    _weighs_transformed = False

    @property
    def latent_transformation(self) -> Callable[[Tensor], Tensor]:
        """From a draw of the latents' normal distribution to what the decoder takes."""
        encoder: Any = self.get_submodule("z_encoder")
        return encoder.z_transformation

    def _keep_library_prior(self, log_means: np.ndarray | None, log_vars: np.ndarray | None) -> None:
        if log_means is None or log_vars is None:
            raise ValueError(
                "use_observed_lib_size=False makes the library a latent variable: "
                "give its prior, library_log_means and library_log_vars, each of shape (1, n_batch)."
            )
        self.register_buffer("library_log_means", torch.as_tensor(log_means, dtype=torch.float32))
        self.register_buffer("library_log_vars", torch.as_tensor(log_vars, dtype=torch.float32))

    def _library_prior(self, batch_index: Tensor) -> Normal | None:
        if self.use_observed_lib_size:
            return None
        mean_n1, var_n1 = self.library_log_means[0][batch_index], self.library_log_vars[0][batch_index]
        return Normal(mean_n1, var_n1.sqrt(), validate_args=False)

    def _autotune_payload(self, tensors: Mapping[str, Tensor], inference_outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Extra metrics of the loss: latents, batch and label where they were asked for."""
        if not self.extra_payload_autotune:
            return {}
        keys = (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY)
        return {"z": inference_outputs["z"], **{key: tensors[key] for key in keys}}

    @torch.no_grad()
    def marginal_ll(
        self,
        tensors: Mapping[str, Tensor],
        n_mc_samples: int,
        return_mean: bool = False,
        n_mc_samples_per_pass: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor | float:
        """Marginal log-likelihood by importance sampling from the posterior (:mod:`celbo.module.marginal`).

        Parameters
        ----------
        tensors
            Minibatch by registry key.
        n_mc_samples
            Samples a cell in all.
        return_mean
            Whether to return the mean over cells.
        n_mc_samples_per_pass
            Samples that go through the decoder at once. It bears on memory only.
        generator
            Source of randomness, on the module's device; the one of the running block, else PyTorch's, when not given.

        Returns
        -------
        ``(n,)`` on the CPU in nats, or its mean.
        """
        self.require_counts(f"{type(self).__name__}.marginal_ll")
        sizes = (n_mc_samples, n_mc_samples_per_pass)
        options = (self.latent_transformation, tensors, *sizes, generator, self._weighs_transformed)
        ll_n = marginal_log_likelihood(self, *options).cpu()
        return ll_n.mean().item() if return_mean else ll_n
