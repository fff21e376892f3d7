"""Several processes: each reads its share, one speaks."""

import logging
import os
from typing import TYPE_CHECKING, Any

import torch

from ...core import __version__
from ...ops.native.thread_count import allowed_threads
from ..run_state import RunState
from .engine import Engine
from .fabric import asks_for_several

if TYPE_CHECKING:
    from ..checkpoints.folder import SavedRun

__all__ = ["say_what_differs", "several_processes", "share_out"]

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


def say_what_differs(trainer: RunState, resumed: "SavedRun") -> None:
    """Say where a run goes on, and what could make its last digits differ."""
    if not trainer.is_global_zero:
        return
    if trainer.verbose:
        where = f"epoch {trainer.current_epoch}, step {trainer.global_step}"
        logger.info(f"Resumed from {resumed.path}: {where}.")
    present = {"celbo": __version__, "torch": str(torch.__version__), "threads": allowed_threads()}
    before = {name: resumed.state.get(name, now) for name, now in present.items()}
    changed = [f"{name} {before[name]} then, {now} now" for name, now in present.items() if before[name] != now]
    if changed:
        logger.warning(f"The last digits may differ from those of a run without interruption: {'; '.join(changed)}.")
