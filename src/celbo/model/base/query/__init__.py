"""A model for new cells: surgery on its weights, the genes of a query."""

__all__: list[str] = []
