"""How much memory there is, and how much data would take: what decides between loading and streaming."""

import os
from pathlib import Path

__all__ = ["available_memory", "readable_bytes", "resident_memory"]

_LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
_CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that this process may still take: of the machine, and of its control group where that has a limit.

    None where the system does not say.
    """
    known = [size for size in (_of_machine(), *(_of_group(*names) for names in _LIMITS)) if size is not None]
    return min(known) if known else None


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return _of_sysconf()
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else _of_sysconf()


def _of_sysconf() -> int | None:
    """Half of the physical memory, where nothing tells what is free."""
    names = os.sysconf_names
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _of_group(limit: str, used: str) -> int | None:
    try:
        most = (_CGROUPS / limit).read_text(encoding="ascii").strip()
        return None if most == "max" else max(0, int(most) - int((_CGROUPS / used).read_text(encoding="ascii")))
    except (OSError, ValueError):
        return None


def resident_memory() -> int | None:
    """Bytes of memory that this process has; None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def readable_bytes(size: float) -> str:
    """A size as people write it: ``"1.6 GB"``."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
