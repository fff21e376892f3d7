"""Whether this process is the one that speaks, of those that ``torchrun`` or Lightning Fabric started together."""

import os

__all__ = ["is_first_process"]


def is_first_process() -> bool:
    """Whether this is the first of several processes, or the only one.

    Told from the environment, before any process group exists: ``WORLD_SIZE`` with ``RANK`` (torchrun), or with
    ``LOCAL_RANK`` and ``NODE_RANK`` (Fabric). Tasks of ``srun`` count as processes of their own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return True
    if "RANK" in os.environ:
        return int(os.environ["RANK"]) == 0
    return int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0
