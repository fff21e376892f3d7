"""Archives of scvi-tools: read, of old versions too, and written."""

__all__: list[str] = []
