"""Saving, loading, and converting archives."""

__all__: list[str] = []
