"""Data made from known parameters: counts of cells, spots, and the small set that tests use."""

__all__: list[str] = []
