"""Training by Lightning, for those who want its trainer."""

__all__: list[str] = []
