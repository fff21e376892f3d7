"""What setup looks at: counts, or values that their likelihood can give."""

from ...data.fields import bundles
from ...data.fields.values import ValuesField
from .start import COUNTS

__all__ = ["data_field"]

_OF_SHARES = "likelihood='normal' with normalize_lib=True is for shares of a cell's total: pass normalize_lib=False."
_AT_LEAST_0 = "This likelihood is for numbers of at least 0: pass likelihood='normal', normalize_lib=False."


def data_field(layer: str | None, likelihood: str, normalize_lib: bool) -> bundles.Fields:
    """The data of a modality, looked at for what their likelihood cannot give.

    Parameters
    ----------
    layer
        Their layer; None: ``X``.
    likelihood
        Name of the likelihood.
    normalize_lib
        Whether a normal likelihood is of shares of the cell's total.
    """
    if likelihood in COUNTS:
        return bundles.counts(layer)
    if likelihood != "normal":
        return [ValuesField(layer, 0.0, _AT_LEAST_0)]
    return [ValuesField(layer, 0.0, _OF_SHARES) if normalize_lib else ValuesField(layer)]
