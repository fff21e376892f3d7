"""Parameters that scvi-tools keeps in Pyro's global store beside the module, and celbo in the module itself.

Which they are is a row for each class of model. Pyro is not needed: its store is a dictionary of numbers before their
constraint, so that of a positive parameter it holds the log.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from ..pickles.unpickle_torch import Constraint

__all__ = ["OwnParameters", "from_store", "into_store", "only_in_store"]

_REAL = Constraint("_Real", {})
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class OwnParameters(NamedTuple):
    """What the store holds of one class.

    Parameters
    ----------
    networks
        What names of weights begin with in the store -> in the module, which has them too.
    own
        Weight of celbo's module that the store alone has -> its name there, and its constraint.
    again
        Weight of the module that the store has under another name -> that name.
    """

    networks: Mapping[str, str]
    own: Mapping[str, tuple[str, Constraint]]
    again: Mapping[str, str] = MappingProxyType({})


def _above(bound: float) -> Constraint:
    return Constraint("_GreaterThan", {"lower_bound": bound})


_ROWS: Mapping[str, OwnParameters] = {
    "Decipher": OwnParameters({"decipher$$$": ""}, {"px_r": ("theta", _above(0.0))}),
    "RESOLVI": OwnParameters(
        {
            "resolvae.z_encoder$$$": "z_encoder.",
            "resolvae.diffusion_encoder$$$": "_guide.diffusion_encoder.",
            "resolvae.decoder$$$": "_model.decoder.",
            "resolvae.classifier$$$": "_model.classifier.",
        },
        {
            f"learned.{name}": (name, constraint)
            for name, constraint in {
                "sparsity_diffusion_est": _above(1e-3),
                "background_concentration": _REAL,
                "background_proportion_est": _above(1e-6),
                "diffusion_proportion_est": _above(1e-6),
                "true_proportion_est": _above(1e-6),
                "diffuse_scale_est": _above(1e-6),
                "per_neighbor_diffusion_map": Constraint("_Interval", {"lower_bound": -10.0, "upper_bound": 10.0}),
                "px_r_mle": _above(1e-6),
            }.items()
        },
        {f"_model.u_prior_{part}": f"u_prior_{part}" for part in ("logits", "means", "scales")},
    ),
}


def only_in_store(class_name: str) -> frozenset[str]:
    """Weights of celbo's module that an archive of scvi-tools has in the store, if anywhere."""
    return frozenset(_ROWS[class_name].own) if class_name in _ROWS else frozenset()


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
    names = _ROWS[class_name].own if class_name in _ROWS else {}
    stored = pyro_params.get("params", {})
    return dict(state_dict) | {own: stored[name].detach() for own, (name, _) in names.items() if name in stored}


def into_store(class_name: str, state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights as scvi-tools has them in the module, and its store (empty for models that need none)."""
    if class_name not in _ROWS:
        return dict(state_dict), {}
    networks, own, again = _ROWS[class_name]
    weights = {name: weight for name, weight in state_dict.items() if name not in own}
    named = {name: (stored, _REAL) for name, stored in again.items()} | dict(own)
    for there, here in networks.items():
        mine = [name for name in weights if name.startswith(here) and not name.endswith(_BUFFERS)]
        named |= {name: (f"{there}{name.removeprefix(here)}", _REAL) for name in mine}
    params = {stored: state_dict[name].detach().cpu() for name, (stored, _) in named.items()}
    return weights, {"params": params, "constraints": dict(named.values())}
