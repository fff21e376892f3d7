"""A progress bar over a sequence."""

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Literal, TypeVar

from ..store.progress import tracking

__all__ = ["track"]

Item = TypeVar("Item")


def track(
    sequence: Iterable[Item] | Sequence[Item],
    description: str = "Working...",
    disable: bool = False,
    style: Literal["rich", "tqdm"] | None = None,
    **kwargs: Any,
) -> Iterator[Item]:
    """Go through a sequence with a progress bar.

    Parameters
    ----------
    sequence
        What to go through.
    description
        Text before the bar.
    disable
        Show nothing.
    style
        Accepted for compatibility with scvi-tools; celbo has one bar.
    **kwargs
        ``total``: length of a sequence that does not know its own; others of tqdm are without effect.
    """
    if disable:
        yield from sequence
        return
    total = kwargs.get("total", len(sequence) if isinstance(sequence, Sized) else None)
    with tracking(description, "items") as tell:
        for done, item in enumerate(sequence, start=1):
            yield item
            if tell is not None:
                tell(done, total)
