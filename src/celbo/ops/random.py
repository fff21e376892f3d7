"""Private randomness: draw inside, leave the process's generators as they were."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["fresh_seed", "private_rng"]

_calls = itertools.count()


def fresh_seed(seed: int | None) -> int:
    """The given seed, or a new one.

    Parameters
    ----------
    seed
        Given back as it is unless None.

    Returns
    -------
    A seed in [0, 2**31). For None it comes from torch's initial seed and a counter: new at every call, yet the same
    sequence in a process that began with ``torch.manual_seed``, whose stream is not advanced.
    """
    if seed is not None:
        return int(seed)
    return int(np.random.SeedSequence([torch.initial_seed(), next(_calls)]).generate_state(1)[0]) >> 1


@contextmanager
def private_rng(seed: int | None, device: torch.device | str = "cpu") -> Iterator[int]:
    """Seed torch's generators inside the block and put their states back afterwards.

    Parameters
    ----------
    seed
        Seed of the block; None takes a fresh one.
    device
        The accelerator whose generator is kept too.

    Yields
    ------
    The seed that was used.
    """
    device = torch.device(device)
    own = [] if device.type == "cpu" else [device]
    used = fresh_seed(seed)
    with torch.random.fork_rng(devices=own, device_type=device.type if own else "cuda"):
        torch.manual_seed(used)
        yield used
