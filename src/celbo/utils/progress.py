"""A progress bar over a sequence."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

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
    from rich.progress import track as rich_track  # 20 ms to import, for those who show a bar

    total = kwargs.get("total")
    return iter(rich_track(sequence, description=description, total=total, disable=disable, transient=True))
