"""What a trained model answers about cells of files, one command a file."""

__all__: list[str] = []
