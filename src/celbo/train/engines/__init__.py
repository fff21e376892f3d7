"""Where a run computes: devices, precision, processes; steps recorded on the device."""

__all__: list[str] = []
