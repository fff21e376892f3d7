"""BaseModuleClass: what a model's maths must provide, and the way a minibatch takes through it, bound by name."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core import REGISTRY_KEYS
from ..likelihoods import log_likelihood
from .lossoutput import LossOutput

if TYPE_CHECKING:
    from ...ops.quasi_newton import Extent

__all__ = ["ARGUMENT_KEYS", "BaseModuleClass", "Binding", "accepts", "auto_move_data"]

ARGUMENT_KEYS: Mapping[str, str] = {
    "x": REGISTRY_KEYS.X_KEY,
    "batch_index": REGISTRY_KEYS.BATCH_KEY,
    "sample_index": REGISTRY_KEYS.SAMPLE_KEY,
    "y": REGISTRY_KEYS.LABELS_KEY,
    "cat_covs": REGISTRY_KEYS.CAT_COVS_KEY,
    "cont_covs": REGISTRY_KEYS.CONT_COVS_KEY,
    "size_factor": REGISTRY_KEYS.SIZE_FACTOR_KEY,
}
"""Argument name -> registry key, where the two differ; every other argument is looked up by its own name."""

_WHOLE_BATCH = "tensors"


@dataclass(frozen=True)
class Binding:
    """Which arguments a method takes and where each is found.

    Attributes
    ----------
    owner
        Qualified name of the method, for messages.
    required, optional
        Argument names without and with a default.
    """

    owner: str
    required: tuple[str, ...]
    optional: tuple[str, ...]

    @classmethod
    def of(cls, method: Callable[..., Any]) -> "Binding":
        """Read the signature of a method (its ``self`` is left out)."""
        parameters = list(inspect.signature(method).parameters.values())[1:]
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        return cls(
            owner=method.__qualname__,
            required=tuple(p.name for p in named if p.default is p.empty),
            optional=tuple(p.name for p in named if p.default is not p.empty),
        )

    def collect(self, *sources: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the arguments, taken from the first source that has them.

        Parameters
        ----------
        *sources
            Mappings searched in order, first by argument name, then by registry key; the last one is the minibatch.

        Raises
        ------
        KeyError
            A required argument that no source has: names it and what there is.
        """
        bound = {}
        for name in (*self.required, *self.optional):
            if name == _WHOLE_BATCH:
                bound[name] = sources[-1]
                continue
            value = _first(name, sources)
            if value is not None:
                bound[name] = value
            elif name in self.required:
                have = sorted({str(key) for source in sources for key in source})
                raise KeyError(
                    f"{self.owner} needs {name!r}, which is not among what this minibatch has: {', '.join(have)}."
                )
        return bound


def _first(name: str, sources: tuple[Mapping[str, Any], ...]) -> Any:
    key = ARGUMENT_KEYS.get(name, name)
    for source in sources:
        value = source.get(name)
        if value is None and key != name:
            value = source.get(key)
        if value is not None:
            return value
    return None


def accepts(method: Callable[..., Any], argument: str) -> bool:
    """Whether a bound method has an argument of that name (``**kwargs`` does not count)."""
    return argument in inspect.signature(method).parameters


Outputs = dict[str, Any]
"""What ``inference`` and ``generative`` return: tensors and distributions by name."""


_CPU = torch.device("cpu")


def auto_move_data(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Move a method's tensor arguments (also inside dicts, lists and tuples) to the module's device.

    Parameters
    ----------
    fn
        Method of a :class:`BaseModuleClass`.

    Returns
    -------
    The method, with the same signature.
    """

    @functools.wraps(fn)
    def moved(self: "BaseModuleClass", *args: Any, **kwargs: Any) -> Any:
        device = next((p.device for p in self.parameters()), _CPU)  # of the first: looking at all takes 50 us a call
        return fn(self, *(_to(arg, device) for arg in args), **{name: _to(arg, device) for name, arg in kwargs.items()})

    return moved


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value if value.device == device else value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_to(item, device) for item in value)
    return value


class BaseModuleClass(nn.Module):
    r"""Abstract module: networks and ELBO of a model, without any notion of AnnData.

    A subclass writes three methods. Their arguments are bound by name: first to the outputs of the step before, then to
    the minibatch by the names of :data:`~celbo.module.base.module.ARGUMENT_KEYS` (``x``, ``batch_index``, ``y``,
    ``cat_covs``, ``cont_covs``, ``size_factor``) or by the registry key itself.

    - ``inference(x, ...) -> dict``: encode; posterior distributions such as ``qz`` and samples such as ``z``.
    - ``generative(z, library, ...) -> dict``: decode; distributions such as ``px`` and priors such as ``pz``.
    - ``loss(tensors, inference_outputs, generative_outputs, ...) -> LossOutput``; an argument ``kl_weight`` receives
      the warm-up weight of the step, an argument ``n_obs`` the number of training observations.

    Code written for scvi-tools that overrides ``_get_inference_input(tensors)`` or
    ``_get_generative_input(tensors, inference_outputs)`` works as it does there.
    """

    latent_distribution: str = "normal"
    """``"ln"`` where latents go through a softmax."""
    encode_covariates: bool = True
    """Whether encoders see the covariates."""
    parameters_of_cells: tuple[str, ...] = ()
    """Names of the parameters and buffers with an entry for each training cell: a query has its own."""

    _inference_binding: Binding
    _generative_binding: Binding

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._inference_binding = Binding.of(cls.inference)
        cls._generative_binding = Binding.of(cls.generative)

    @property
    def encodes_sparse_counts(self) -> bool:
        """Whether ``inference`` takes counts as a CSR tensor."""
        return False

    @property
    def trains_on_sparse_counts(self) -> bool:
        """Whether ``inference`` and ``loss`` take counts as a CSR tensor, with gradients."""
        return False

    @property
    def parameters_by_label(self) -> tuple[str, ...]:
        """Names of the parameters with a column for each label."""
        return ()

    @property
    def device(self) -> torch.device:
        """Device of the parameters; a ``RuntimeError`` names more than one."""
        devices = {parameter.device for parameter in self.parameters()}
        if len(devices) > 1:
            raise RuntimeError(f"{type(self).__name__} has parameters on several devices: {sorted(map(str, devices))}.")
        return devices.pop() if devices else torch.device("cpu")

    def start_from_cells(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Hook run before the first training by ``recipe="converging"``: begin near the end.

        Parameters
        ----------
        batches
            Minibatches of all cells to train on.
        """

    loss_adds_up = False
    """Whether the losses of minibatches add up to that of all cells; else it is their mean, weighed by cells."""

    search_tolerance = 1e-5
    """Share of the loss by which a step of ``recipe="converging"`` lowers it, if it is not flat."""

    def search_extents(self) -> Mapping[str, "Extent"]:
        """For ``recipe="converging"``: scales and bounds of parameters by name; others have scale 1 and no bound."""
        return {}

    def on_load(self, model: object, **kwargs: Any) -> None:
        """Hook run on a freshly loaded module before its weights are put in."""

    counts_to_start_from: Sequence[str] = (REGISTRY_KEYS.X_KEY,)
    """Registry keys of the counts that :meth:`start_from_counts` takes."""

    def start_from_counts(self, x: Tensor) -> bool:
        """Hook run before the first training: begin with what the counts say.

        Parameters
        ----------
        x
            Counts of some of the cells to train on, ``(n, g)``, dense; several tables beside each other.

        Returns
        -------
        Whether the module did.
        """
        return False

    @property
    def starts_from_profile(self) -> bool:
        """Whether :meth:`start_from_counts` sets the level of each gene too, so that fewer steps do."""
        return False

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
        """Encode, decode and, unless told otherwise, compute the loss of one minibatch.

        Parameters
        ----------
        tensors
            Minibatch by registry key.
        get_inference_input_kwargs, get_generative_input_kwargs
            Further arguments of ``_get_inference_input`` and ``_get_generative_input``.
        inference_kwargs, generative_kwargs, loss_kwargs
            Further arguments of the three methods; they win over what is bound by name.
        compute_loss
            Whether to call ``loss``.

        Returns
        -------
        Inference outputs, generative outputs and, with ``compute_loss``, the :class:`LossOutput`.
        """
        inference_kwargs = inference_kwargs or {}
        generative_kwargs = generative_kwargs or {}
        inference_input = self._get_inference_input(tensors, **(get_inference_input_kwargs or {}))
        inference_outputs = self.inference(**{**inference_input, **inference_kwargs})
        generative_input = self._get_generative_input(tensors, inference_outputs, **(get_generative_input_kwargs or {}))
        generative_outputs = self.generative(**{**generative_input, **generative_kwargs})
        if not compute_loss:
            return inference_outputs, generative_outputs
        loss = self.loss(tensors, inference_outputs, generative_outputs, **(loss_kwargs or {}))
        return inference_outputs, generative_outputs, loss

    def _get_inference_input(self, tensors: Mapping[str, Tensor], **kwargs: Any) -> dict[str, Any]:
        return self._inference_binding.collect(tensors)

    def _get_generative_input(
        self, tensors: Mapping[str, Tensor], inference_outputs: Mapping[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        return {**self._generative_binding.collect(inference_outputs, tensors), **kwargs}

    def inference(self, *args: Any, **kwargs: Any) -> Outputs:
        """Encode a minibatch; see the class."""
        raise NotImplementedError(f"{type(self).__name__} must define inference().")

    def generative(self, *args: Any, **kwargs: Any) -> Outputs:
        """Decode latents; see the class."""
        raise NotImplementedError(f"{type(self).__name__} must define generative().")

    def log_likelihood(self, tensors: Mapping[str, Tensor], generative_outputs: Mapping[str, Any]) -> Tensor:
        """Log-likelihood of each cell's data in nats, for importance sampling: of the counts under ``px``.

        Parameters
        ----------
        tensors
            Minibatch by registry key.
        generative_outputs
            What :meth:`generative` gave for it.

        Returns
        -------
        ``(n,)``, or ``(s, n)`` for samples.
        """
        return log_likelihood(generative_outputs["px"], tensors[REGISTRY_KEYS.X_KEY])

    def loss(self, *args: Any, **kwargs: Any) -> LossOutput:
        """Loss of a minibatch; see the class."""
        raise NotImplementedError(f"{type(self).__name__} must define loss().")

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """Draw from the posterior predictive distribution."""
        raise NotImplementedError(f"{type(self).__name__} does not sample from its posterior predictive distribution.")
