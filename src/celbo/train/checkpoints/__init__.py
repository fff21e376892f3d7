"""The state of a run on disk: what it holds, where it lies, when it is written, whose it is."""

__all__: list[str] = []
