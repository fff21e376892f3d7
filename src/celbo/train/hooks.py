"""Callbacks by hook name: looked up once, so that a hook nobody has costs a dictionary look-up a step."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from ..module.base.randomness import drawing_of
from .callbacks import HOOKS
from .run import Run

__all__ = ["Hooks"]


class Hooks:
    """Calls the callbacks of a run.

    Parameters
    ----------
    callbacks
        Objects with methods of the names in :data:`~celbo.train.callbacks.HOOKS`; each needs only those it wants.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self._by_name: dict[str, list[tuple[Any, Callable[..., Any]]]] = {}
        for callback in callbacks:
            methods = dict(inspect.getmembers(callback, callable))
            for name in HOOKS:
                if name in methods:
                    self._by_name.setdefault(name, []).append((callback, methods[name]))

    def listens(self, *hooks: str) -> bool:
        """Whether a callback has one of these."""
        return any(hook in self._by_name for hook in hooks)

    def call(self, hook: str, trainer: Run, *args: Any, **kwargs: Any) -> None:
        """Call a hook of every callback that has it."""
        for callback, method in self._by_name.get(hook, ()):
            with drawing_of(callback):
                method(trainer, trainer.plan, *args, **kwargs)
