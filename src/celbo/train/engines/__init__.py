"""Where a step runs: one process or several, precision, devices."""

__all__: list[str] = []
