"""Masked arrays: what lies under a mask is no value, and most code would take it for one."""

from typing import Any

import numpy as np

__all__ = ["require_unmasked"]


def require_unmasked(x: Any, where: str) -> None:
    """Refuse an array with masked entries; a mask that covers nothing is as good as none.

    Raises
    ------
    ValueError
        With the number of masked entries.
    """
    count = int(np.ma.count_masked(x)) if isinstance(x, np.ma.MaskedArray) else 0
    if count:
        raise ValueError(
            f"{where} is a masked array, and {count} of its {x.size} entries are masked: they have no value that could "
            "be counted. Say what they are before setup; its method filled(0) makes zeros of them."
        )
