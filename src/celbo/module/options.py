"""Choices that modules offer by name, and the check that a name given is one of them."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from ..core import unknown_name

__all__ = [
    "BatchRepresentation",
    "Dispersion",
    "GeneLikelihood",
    "LatentDistribution",
    "Placement",
    "check_choices",
    "norms",
]

Dispersion = Literal["gene", "gene-batch", "gene-label", "gene-cell"]
GeneLikelihood = Literal["zinb", "nb", "poisson", "normal"]
LatentDistribution = Literal["normal", "ln"]
BatchRepresentation = Literal["one-hot", "embedding"]
Placement = Literal["encoder", "decoder", "none", "both"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "dispersion": get_args(Dispersion),
    "gene_likelihood": get_args(GeneLikelihood),
    "latent_distribution": get_args(LatentDistribution),
    "batch_representation": get_args(BatchRepresentation),
    "use_batch_norm": get_args(Placement),
    "use_layer_norm": get_args(Placement),
}


def check_choices(**given: str) -> None:
    """Raise ``ValueError`` for a value that its option does not have; the message gives those it has."""
    for option, choice in given.items():
        if choice not in _CHOICES[option]:
            raise ValueError(unknown_name(f"choice of {option}", choice, _CHOICES[option]))


def norms(where: Literal["encoder", "decoder"], use_batch_norm: Placement, use_layer_norm: Placement) -> dict[str, Any]:
    """Which normalizations a network has, as arguments of its layers; ``ValueError`` for an unknown placement.

    Parameters
    ----------
    where
        Which network.
    use_batch_norm, use_layer_norm
        Where each of the two is wanted.
    """
    check_choices(use_batch_norm=use_batch_norm, use_layer_norm=use_layer_norm)
    wanted = (where, "both")
    return {"use_batch_norm": use_batch_norm in wanted, "use_layer_norm": use_layer_norm in wanted}
