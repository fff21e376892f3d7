"""Calls of compiled loops: whether tables fit, and what of them torch does not see, told to whoever writes it down.

Training does most minibatches again as a list of torch's operations (:mod:`celbo.train.engines.tape`). A compiled loop
is none of these, and a piece that looks at values may do something else for the next minibatch: both are one entry of
the list, as a call that is made again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import Tensor

__all__ = ["as_one", "check_shapes", "listening"]

Result = TypeVar("Result")
Listener = Callable[[Callable[..., Any], tuple[Any, ...]], Any]


_listener: ContextVar[Listener | None] = ContextVar("celbo_listener", default=None)


def as_one(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function, which whoever listens takes for one operation.

    Parameters
    ----------
    function
        Changes nothing but the tensors it is given, and has no gradient.
    *args
        Tensors, of the same shapes each time, and plain values.
    """
    listener = _listener.get()
    return function(*args) if listener is None else listener(function, args)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let ``listener(function, args)`` make the calls of :func:`as_one` on this thread, throughout the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def check_shapes(
    x: Tensor,
    scale_logits: Tensor,
    log_library: Tensor,
    log_theta: Tensor | None = None,
    zi_logits: Tensor | None = None,
) -> None:
    """Raise a ``ValueError`` that names every shape unless all are as sums over the genes of cells want them."""
    n_g = tuple(scale_logits.shape)
    fits = len(n_g) == 2 and n_g[1] > 0 and x.shape == n_g and log_library.shape == (n_g[0], 1)
    if log_theta is not None:
        fits = fits and tuple(log_theta.shape) in (n_g[1:], (1, *n_g[1:]), n_g)
    if zi_logits is not None:
        fits = fits and zi_logits.shape == n_g
    if fits:
        return
    given = {"x": x, "scale_logits": scale_logits, "log_library": log_library, "log_theta": log_theta}
    shapes = {name: tuple(v.shape) for name, v in (given | {"zi_logits": zi_logits}).items() if v is not None}
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    raise ValueError(
        f"Shapes do not fit: {listed}. Wanted for n cells and g > 0 genes: x, scale_logits and zi_logits (n, g), "
        "log_library (n, 1), log_theta (g,), (1, g) or (n, g)."
    )
