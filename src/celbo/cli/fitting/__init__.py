"""Models that are set up and trained in a way of their own, one a file."""

__all__: list[str] = []
