"""LossOutput: the one record by which a model hands its loss to training, logging and early stopping.

The record asks nothing of a framework beyond arrays with ``shape``, ``dtype`` and arithmetic, so PyTorch tensors, JAX
arrays and numpy arrays all serve; neither framework is imported here (they learn of it where it
first meets them).

Axes: n observations of the minibatch.
"""

import dataclasses
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np

from ...core.kinds import shape_of

__all__ = ["LossOutput", "register_with_loaded_frameworks"]

Array = Any
"""A PyTorch tensor, a JAX array or a numpy array."""


@dataclasses.dataclass(frozen=True, eq=False)
class LossOutput:
    r"""Loss of one minibatch and the components of its evidence lower bound.

    .. math:: \mathrm{ELBO} = -\,\underbrace{\textstyle\sum_n -\log p(x_n \mid z_n)}_{\text{reconstruction\_loss}}
              -\,\underbrace{\textstyle\sum_n \mathrm{KL}(q(z_n) \,\|\, p(z_n))}_{\text{kl\_local}}
              -\,\underbrace{\mathrm{KL}(q(\theta) \,\|\, p(\theta))}_{\text{kl\_global}}

    Variational, MLE, MAP and EM models all use it: a term that a model does not have is left out and becomes a plain
    zero.

    Parameters
    ----------
    loss
        What is differentiated: an array of one element, or a dict of such, which is summed.
    reconstruction_loss
        Negative log-likelihood per observation in nats, ``(n,)``, or a dict of such (one entry a modality). Always a
        dict afterwards; a bare array becomes ``{"reconstruction_loss": array}``.
    kl_local
        KL divergence of the per-observation latents, ``(n,)``, or a dict of such; never weighted. A dict afterwards.
    kl_global
        KL divergence (or negative log-prior) of the global latents: one element, or a dict of such. A dict afterwards.
    classification_loss
        Classification term; needs ``logits`` and ``true_labels`` beside it.
    logits
        Classifier's unnormalised log-probabilities, ``(n, c)``.
    true_labels
        Integer labels, ``(n,)`` or ``(n, 1)``.
    extra_metrics
        Name -> scalar array or number (or a dict of those) to be logged beside the ELBO; None means empty.
    n_obs_minibatch
        Observations of the minibatch; taken from the first reconstruction term's length when not given.
    reconstruction_loss_sum, kl_local_sum, kl_global_sum
        Derived: sums over dict values and observations, attached to the graph. Always recomputed; a value passed is
        replaced.

    Raises
    ------
    TypeError
        A term that is not an array (a Python float as ``loss``, say), or ``extra_metrics`` that is not a mapping.
    ValueError
        A ``loss`` or ``kl_global`` of more than one element; neither ``reconstruction_loss`` nor ``n_obs_minibatch``;
        a 0-d reconstruction term without ``n_obs_minibatch``; an ``n_obs_minibatch`` that is not a whole number or is
        negative; ``classification_loss`` without ``logits`` or ``true_labels``.

    Notes
    -----
    Frozen: :meth:`replace` gives a changed copy with the derived fields recomputed (``dataclasses.replace`` cannot know
    that ``n_obs_minibatch`` was inferred and keeps the old one). A pytree in PyTorch and in JAX (``n_obs_minibatch`` is
    static), so it passes through ``jax.jit``, ``grad(has_aux=True)``, ``vmap`` and ``lax.scan``.
    Subclasses are dataclasses too, ``@dataclass(frozen=True, eq=False)``, and may add fields with defaults.

    Examples
    --------
    >>> import torch
    >>> nll_n, kl_n = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 1.0])
    >>> out = LossOutput(loss=(nll_n + kl_n).mean(), reconstruction_loss=nll_n, kl_local=kl_n)
    >>> out.n_obs_minibatch, float(out.reconstruction_loss_sum), float(out.kl_global_sum)
    (2, 8.0, 0.0)
    """

    loss: Array
    reconstruction_loss: Any = None
    kl_local: Any = None
    kl_global: Any = None
    classification_loss: Any = None
    logits: Array | None = None
    true_labels: Array | None = None
    extra_metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    n_obs_minibatch: int | None = None
    reconstruction_loss_sum: Array = None
    kl_local_sum: Array = None
    kl_global_sum: Array = None

    def __post_init__(self) -> None:
        loss = _summed_loss(self.loss)
        zero = _plain_zero(loss)
        n_given = self.n_obs_minibatch is not None
        if not n_given and self.reconstruction_loss is None:
            raise ValueError(
                "LossOutput got neither reconstruction_loss nor n_obs_minibatch, so the number of observations is "
                "unknown: pass reconstruction_loss of shape (n,), or n_obs_minibatch=n."
            )
        reconstruction_loss = _per_observation("reconstruction_loss", self.reconstruction_loss, zero)
        kl_local = _per_observation("kl_local", self.kl_local, zero)
        kl_global = _one_number_each("kl_global", self.kl_global, zero)
        self._check_classification()
        self._set(
            loss=loss,
            reconstruction_loss=reconstruction_loss,
            kl_local=kl_local,
            kl_global=kl_global,
            extra_metrics=_metrics(self.extra_metrics),
            n_obs_minibatch=_whole(self.n_obs_minibatch) if n_given else _length_of_first(reconstruction_loss),
            reconstruction_loss_sum=_total(reconstruction_loss, zero),
            kl_local_sum=_total(kl_local, zero),
            kl_global_sum=_total(kl_global, zero),
            _n_obs_inferred=not n_given,
        )
        register_with_loaded_frameworks(type(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(**state)
        register_with_loaded_frameworks(type(self))

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_classification(self) -> None:
        if self.classification_loss is None:
            return
        missing = [name for name in ("logits", "true_labels") if getattr(self, name) is None]
        if missing:
            raise ValueError(
                "Must provide `logits` and `true_labels` if `classification_loss` is provided: "
                f"LossOutput got classification_loss without {' and '.join(missing)}."
            )

    def replace(self, **updates: Any) -> Self:
        """Changed copy, with the sums, and an ``n_obs_minibatch`` that was inferred, worked out again.

        Parameters
        ----------
        **updates
            Fields of the record by name.

        Raises
        ------
        TypeError
            A name that is not a field.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self._n_obs_inferred:  # type: ignore[attr-defined]
            values["n_obs_minibatch"] = None
        return type(self)(**values | updates)

    __replace__ = replace

    @property
    def extra_metrics_keys(self) -> Iterable[str]:
        """Names of the extra metrics."""
        return self.extra_metrics.keys()

    @staticmethod
    def dict_sum(dictionary: object) -> Any:
        """Sum of a dict's values; anything else is returned as it came."""
        return sum(dictionary.values()) if isinstance(dictionary, Mapping) else dictionary


def _is_array(value: object) -> bool:
    return shape_of(value) is not None and hasattr(value, "dtype")


def _require_array(field: str, value: object, wanted: str) -> None:
    if not _is_array(value):
        raise TypeError(
            f"LossOutput.{field} must be a tensor or array {wanted}, got a {type(value).__name__}: {value!r}. "
            "Return the tensor itself, not its .item() and not a list."
        )


def _require_one_element(field: str, value: Any) -> None:
    if math.prod(value.shape) != 1:
        raise ValueError(
            f"LossOutput.{field} must have one element, shape (), got shape {tuple(value.shape)}: "
            "reduce it first, for example with .mean() or .sum()."
        )


def _summed_loss(loss: object) -> Array:
    if isinstance(loss, Mapping) and not loss:
        raise ValueError("LossOutput.loss is an empty dict: give at least one term of one element, shape ().")
    terms = {f"loss[{key!r}]": term for key, term in loss.items()} if isinstance(loss, Mapping) else {"loss": loss}
    for field, term in terms.items():
        _require_array(field, term, "of one element, shape ()")
        _require_one_element(field, term)
    return sum(terms.values()) if isinstance(loss, Mapping) else loss


def _plain_zero(loss: Array) -> Array:
    """Zero of the loss's dtype and device, without its graph; not ``0 * loss``, which a NaN loss would make NaN."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(loss, torch.Tensor):
        return loss.new_zeros(())
    if isinstance(loss, np.generic | np.ndarray):
        return np.zeros((), dtype=loss.dtype)
    xp = loss.__array_namespace__()
    return xp.reshape(xp.zeros_like(loss, dtype=loss.dtype), ())


def _as_dict(field: str, value: object, zero: Array) -> dict[str, Any]:
    if value is None:
        return {field: zero}
    return dict(value) if isinstance(value, Mapping) else {field: value}


def _path(field: str, key: str) -> str:
    return field if key == field else f"{field}[{key!r}]"


def _per_observation(field: str, value: object, zero: Array) -> dict[str, Array]:
    terms = _as_dict(field, value, zero)
    for key, term in terms.items():
        _require_array(_path(field, key), term, "with one entry per observation, shape (n,)")
    return terms


def _one_number_each(field: str, value: object, zero: Array) -> dict[str, Array]:
    terms = _as_dict(field, value, zero)
    for key, term in terms.items():
        if isinstance(term, int | float):
            terms[key] = zero + term
            continue
        _require_array(_path(field, key), term, "of one element, shape ()")
        _require_one_element(_path(field, key), term)
    return terms


def _metrics(value: object) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(
            f"LossOutput.extra_metrics must be a dict of name -> number or scalar array, got a {type(value).__name__}: "
            f"{value!r}. Give the value a name: extra_metrics={{'my_metric': value}}."
        )
    return dict(value or {})


def _whole(n_obs: Any) -> int:
    if int(n_obs) != n_obs or n_obs < 0:
        raise ValueError(f"LossOutput.n_obs_minibatch must be a whole number of observations, got {n_obs!r}.")
    return int(n_obs)


def _length_of_first(terms: dict[str, Array]) -> int:
    if not terms:
        raise ValueError(
            "LossOutput.reconstruction_loss is an empty dict and n_obs_minibatch is not given: pass n_obs_minibatch=n."
        )
    key, first = next(iter(terms.items()))
    if len(first.shape) == 0:
        raise ValueError(
            f"LossOutput.{_path('reconstruction_loss', key)} has shape (), wanted one entry per observation, shape "
            "(n,): return it unreduced, or pass n_obs_minibatch=n beside the reduced value."
        )
    return int(first.shape[0])


def _total(terms: dict[str, Array], zero: Array) -> Array:
    sums = [term.sum() for term in terms.values()]
    return sum(sums[1:], start=sums[0]) if sums else zero


_STATIC = ("n_obs_minibatch", "_n_obs_inferred")

_registered: dict[str, set[type]] = {"torch": set(), "jax": set()}


def register_with_loaded_frameworks(cls: type) -> None:
    """Register ``cls`` as a pytree node with torch and with jax, where they are loaded and do not know it yet."""
    # A module set to None in sys.modules is blocked, not loaded.
    if cls not in _registered["torch"] and sys.modules.get("torch.utils._pytree") is not None:
        _registered["torch"].add(cls)
        _register_torch(cls)
    if cls not in _registered["jax"] and sys.modules.get("jax") is not None:
        _registered["jax"].add(cls)
        _register_jax(cls)


def _leaf_names(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls) if field.name not in _STATIC)


def _static(record: object) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in _STATIC)


def _rebuild(cls: type, leaves: dict[str, Any], static: tuple[Any, ...]) -> Any:
    record: Any = object.__new__(cls)
    for name in _leaf_names(cls):
        object.__setattr__(record, name, leaves.get(name))
    for name, value in zip(_STATIC, static, strict=True):
        object.__setattr__(record, name, value)
    return record


def _register_torch(cls: type) -> None:
    from torch.utils import _pytree

    def flatten(record: object) -> tuple[list[Any], tuple[Any, ...]]:
        # torch takes None for a leaf, JAX does not; left out here, `tree_map(lambda t: 2 * t, record)` works in both.
        present = tuple(name for name in _leaf_names(cls) if getattr(record, name) is not None)
        return [getattr(record, name) for name in present], (present, _static(record))

    def flatten_with_keys(record: object) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children, context = flatten(record)
        return [(_pytree.GetAttrKey(name), child) for name, child in zip(context[0], children, strict=True)], context

    def unflatten(children: Iterable[Any], context: tuple[Any, ...]) -> Any:
        present, static = context
        return _rebuild(cls, dict(zip(present, children, strict=True)), static)

    _pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=flatten_with_keys,
    )


def _register_jax(cls: type) -> None:
    from jax import tree_util

    names = _leaf_names(cls)

    def flatten(record: object) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(record, name) for name in names], _static(record)

    def flatten_with_keys(record: object) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children, static = flatten(record)
        return [(tree_util.GetAttrKey(name), child) for name, child in zip(names, children, strict=True)], static

    def unflatten(static: tuple[Any, ...], children: Iterable[Any]) -> Any:
        return _rebuild(cls, dict(zip(names, children, strict=True)), static)

    tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
