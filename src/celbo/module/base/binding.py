"""Arguments bound to minibatch keys by name, once per class.

``def inference(self, x, batch_index)`` says what it needs; nobody has to write a function that renames keys.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...core import REGISTRY_KEYS

__all__ = ["ARGUMENT_KEYS", "Binding", "accepts"]

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
