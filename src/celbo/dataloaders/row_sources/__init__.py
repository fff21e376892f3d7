"""Rows of a table by number, wherever the table lies."""

__all__: list[str] = []
