"""Writing AnnData a part at a time; shards."""

__all__: list[str] = []
