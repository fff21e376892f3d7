"""Several processes: each reads its share, one speaks."""

import logging
import os
from typing import Any

from .engine import Engine
from .fabric import asks_for_several

__all__ = ["several_processes", "share_out"]

logger = logging.getLogger("celbo")


def several_processes(trainer_kwargs: dict[str, Any]) -> bool:
    """Whether a run with these arguments of the trainer will have several processes, before any is started."""
    asked = asks_for_several(trainer_kwargs.get("devices"), trainer_kwargs.get("num_nodes", 1))
    return asked or int(os.environ.get("WORLD_SIZE", "1")) > 1


def share_out(train_loader: object, val_loader: object, engine: Engine) -> None:
    """Let each of several processes read its own share of every minibatch.

    Parameters
    ----------
    train_loader, val_loader
        Loaders with ``take_share(rank, size)``, as all of celbo's. One without it must give each process its own share
        itself; this is logged.
    engine
        Says how many processes there are.
    """
    if engine.world_size == 1:
        return
    for loader in (train_loader, val_loader):
        take_share = getattr(loader, "take_share", None)
        if take_share is not None:
            take_share(engine.rank, engine.world_size)
        elif loader is not None and engine.is_first:
            logger.info(
                f"{type(loader).__name__} has no take_share(rank, size): it must give each of the {engine.world_size} "
                "processes its own share of the cells, and all of them as many minibatches."
            )
