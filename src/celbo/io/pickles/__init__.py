"""Pickles and torch files, read without running what is in them."""

__all__: list[str] = []
