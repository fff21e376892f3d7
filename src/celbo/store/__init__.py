"""What lies on disk, row by row: parts of h5ad and zarr, matrices, tables of cells, writing. No registry here."""

__all__: list[str] = []
