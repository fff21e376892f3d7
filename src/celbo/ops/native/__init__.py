"""Compiled loops: kernels, how they are compiled and linked, and the threads they share."""

__all__: list[str] = []
