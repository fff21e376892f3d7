"""The inside of HDF5 files: links, chunks and texts, looked at before they are read."""

__all__: list[str] = []
