"""Dtypes that files and arrays may have, and those that compiled code takes."""

import numpy as np

__all__ = ["plain_dtype", "plain_values"]


def plain_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in the machine's own byte order; half and long floats as the nearest that scipy and torch both know."""
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    return dtype.newbyteorder("=")


def plain_values(values: np.ndarray) -> np.ndarray:
    """The array in :func:`plain_dtype`: itself, unless it has another."""
    return values.astype(plain_dtype(values.dtype), copy=False)
