"""What code for scvi-tools asks of a ContrastiveVAE besides its public face: one kind of cells, moments, parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ...core import REGISTRY_KEYS
from ...distributions import ZeroInflatedNegativeBinomial
from ...external.contrastivevi.module import ContrastiveVAE
from ...module.contrasts import KINDS
from ..over import Over

__all__ = ["COMPUTED"]

_LATENTS = ("z", "s", "library")


class _Lazily(dict[str, Any]):
    """Outputs of which some are worked out when they are asked for."""

    def __init__(self, known: Mapping[str, Any], later: Mapping[str, Callable[[], Any]]) -> None:
        super().__init__({**known, **dict.fromkeys(later)})
        self._later = later

    def __getitem__(self, key: str) -> Any:
        return self._later[key]() if key in self._later else super().__getitem__(key)


def _with_moments(encoded: dict[str, Any]) -> dict[str, Any]:
    found = dict(encoded)
    for letter, draw in (("z", "z"), ("s", "s"), ("l", "library")):
        q = encoded[f"q{letter}"]
        moments = (None, None) if q is None else (q.loc, q.variance)
        like = encoded[draw]
        found[f"q{letter}_m"], found[f"q{letter}_v"] = (None if m is None else m.expand_as(like) for m in moments)
    return found


def _with_parameters(decoded: Mapping[str, Any], px_r: Tensor) -> dict[str, Any]:
    px = decoded["px"]
    later = {"px_scale": lambda: px.scale, "px_rate": lambda: px.mu, "px_dropout": lambda: px.zi_logits}
    return _Lazily(dict(decoded) | {"px_r": px_r.exp()}, later)


def _generic_inference(self: ContrastiveVAE, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Latents of one kind of cells, and their moments."""
    return _with_moments(self.encode(*args, **kwargs))


def _generic_generative(self: ContrastiveVAE, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Distribution of counts of one kind of cells, and its parameters."""
    return _with_parameters(self.decode(*args, **kwargs), self.px_r)


def _inference_input(self: ContrastiveVAE, concat_tensors: Any, data_source: str) -> dict[str, Any]:
    """Arguments of inference for one kind."""
    return self._get_inference_input(concat_tensors)[data_source]


def _generative_input(self: ContrastiveVAE, concat_tensors: Any, data_source: str) -> dict[str, Any]:
    """The batches of one kind."""
    return {"batch_index": concat_tensors[data_source][REGISTRY_KEYS.BATCH_KEY]}


def _generative_input_of(self: ContrastiveVAE, inference_outputs: Any, data_source: str) -> dict[str, Any]:
    """The latents of one kind."""
    return {name: inference_outputs[data_source][name] for name in _LATENTS}


def _reconstruction_loss(x: Tensor, px_rate: Tensor, px_r: Tensor, px_dropout: Tensor) -> Tensor:
    """Negative log-likelihood of each cell."""
    px = ZeroInflatedNegativeBinomial(mu=px_rate, theta=px_r, zi_logits=px_dropout)
    return -px.log_prob(x).sum(-1)


def _latent_kl(variational_mean: Tensor, variational_var: Tensor, prior_mean: Tensor, prior_var: Tensor) -> Tensor:
    """KL divergence of two normal distributions by means and variances."""
    q, p = Normal(variational_mean, variational_var.sqrt()), Normal(prior_mean, prior_var.sqrt())
    return kl_divergence(q, p).sum(-1)


def _library_kl(
    self: ContrastiveVAE, batch_index: Tensor, ql_m: Tensor | None, ql_v: Tensor | None, library: Tensor
) -> Tensor:
    """KL divergence of the library from its prior; zeros where it is observed."""
    if ql_m is None or ql_v is None:
        return torch.zeros(library.shape[:-1])
    ql = Normal(ql_m, ql_v.sqrt())
    return self._library_kl(ql, {REGISTRY_KEYS.BATCH_KEY: batch_index}, library)


def _described(method: Callable[..., Any]) -> Callable[..., Any]:
    """Inference of pairs, with moments."""

    def inference(self: ContrastiveVAE, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {kind: _with_moments(part) for kind, part in method(self, *args, **kwargs).items()}

    return inference


def _parametrized(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decoding of pairs, with parameters."""

    def generative(self: ContrastiveVAE, *args: Any, **kwargs: Any) -> dict[str, Any]:
        decoded = method(self, *args, **kwargs)
        return {kind: _with_parameters(decoded[kind], self.px_r) for kind in KINDS}

    return generative


COMPUTED: Mapping[type, Mapping[str, object]] = {
    ContrastiveVAE: {
        "inference": Over(_described),
        "generative": Over(_parametrized),
        "_generic_inference": _generic_inference,
        "_generic_generative": _generic_generative,
        "_get_inference_input_from_concat_tensors": _inference_input,
        "_get_generative_input_from_concat_tensors": _generative_input,
        "_get_generative_input_from_inference_outputs": _generative_input_of,
        "reconstruction_loss": staticmethod(_reconstruction_loss),
        "latent_kl_divergence": staticmethod(_latent_kl),
        "library_kl_divergence": _library_kl,
    }
}
"""Class -> name -> what it gets under the name scvi."""
