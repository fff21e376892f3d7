"""The inside of zarr stores: what lies within, chunk by chunk."""

__all__: list[str] = []
