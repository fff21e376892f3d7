"""Parameters that scvi-tools keeps in Pyro's global store beside the module, and celbo in the module itself.

Which they are is a row for each class of model. Pyro is not needed: its store is a dictionary of numbers before their
constraint, so that of a positive parameter it holds the log.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ..pickles.unpickle_torch import Constraint

__all__ = ["OwnParameters", "from_store", "into_store", "only_in_store"]

_POSITIVE = Constraint("_GreaterThan", {"lower_bound": 0.0})
_REAL = Constraint("_Real", {})
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class OwnParameters(NamedTuple):
    """What the store holds of one class.

    Parameters
    ----------
    prefix
        Name under which Pyro knows the module, whose weights the store holds too.
    positive
        Weight of celbo's module, a log -> name of the positive parameter in the store.
    """

    prefix: str
    positive: Mapping[str, str]


_ROWS: Mapping[str, OwnParameters] = {"Decipher": OwnParameters("decipher", {"px_r": "theta"})}


def only_in_store(class_name: str) -> frozenset[str]:
    """Weights of celbo's module that an archive of scvi-tools has in the store, if anywhere."""
    return frozenset(_ROWS[class_name].positive) if class_name in _ROWS else frozenset()


def from_store(
    class_name: str, state_dict: Mapping[str, Tensor], pyro_params: Mapping[str, Mapping[str, Any]]
) -> dict[str, Tensor]:
    """Weights of celbo's module: those of the archive, with what the store alone has.

    Parameters
    ----------
    class_name
        Of the model.
    state_dict, pyro_params
        As :class:`~celbo.io.ScviArchive` has them.
    """
    names = _ROWS[class_name].positive if class_name in _ROWS else {}
    stored = pyro_params.get("params", {})
    return dict(state_dict) | {own: stored[name] for own, name in names.items() if name in stored}


def into_store(class_name: str, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights as scvi-tools has them in the module, and its store (empty for models that need none)."""
    if class_name not in _ROWS:
        return dict(state_dict), {}
    prefix, positive = _ROWS[class_name]
    weights = {name: weight for name, weight in state_dict.items() if name not in positive}
    trained = {name: weight for name, weight in weights.items() if not name.endswith(_BUFFERS)}
    own = {name: state_dict[weight].detach().cpu() for weight, name in positive.items()}
    params = {f"{prefix}$$${name}": weight.detach().cpu() for name, weight in trained.items()} | own
    constraints = {name: _POSITIVE if name in own else _REAL for name in params}
    return weights, {"params": params, "constraints": constraints}
