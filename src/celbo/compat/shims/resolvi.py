"""What code for scvi-tools asks of a RESOLVAE: the models of Pyro that it hands to ``sample_posterior``."""

from collections.abc import Mapping

from ...external.resolvi.module import RESOLVAE

__all__ = ["COMPUTED"]


def _itself(module: RESOLVAE) -> RESOLVAE:
    """The module: there is one model, whose sites all of these have."""
    return module


COMPUTED: Mapping[type, Mapping[str, object]] = {
    RESOLVAE: {name: property(_itself) for name in ("model_corrected", "model_residuals")}
}
"""Class -> name -> what it gets under the name scvi."""
