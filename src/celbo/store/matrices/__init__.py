"""Matrices in memory and on disk, read a block of rows at a time."""

__all__: list[str] = []
