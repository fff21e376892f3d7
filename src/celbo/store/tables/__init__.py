"""Tables of cells: their names and columns, many files as one."""

__all__: list[str] = []
