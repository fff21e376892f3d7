"""A dict whose keys are attributes too."""

from collections.abc import Mapping
from typing import Any

from ..core import unknown_name

__all__ = ["attrdict"]


class attrdict(dict):
    """Dictionary with attribute access.

    Parameters
    ----------
    init_dict
        What it holds; copied (shallowly, values are shared).
    recursive
        Also turn the dictionaries inside into attrdicts.

    Raises
    ------
    AttributeError
        For a name that is no key (the nearest keys are listed), and on assignment to an attribute:
        what a manager hands out describes the registry, it does not change it.

    Examples
    --------
    >>> attrdict({"n_vars": 100}).n_vars
    100
    """

    def __init__(self, init_dict: Mapping[str, Any] | None = None, recursive: bool = False) -> None:
        items = dict(init_dict or {})
        if recursive:
            items = {
                key: attrdict(value, True) if isinstance(value, Mapping) else value for key, value in items.items()
            }
        super().__init__(items)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(unknown_name("entry", name, self)) from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Cannot set {name!r}: an attrdict describes the registry, it does not change it.")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *map(str, self)})
