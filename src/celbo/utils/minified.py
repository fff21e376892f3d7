"""Methods that need the counts refuse data of which only the latent posterior was kept."""

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["unsupported_if_adata_minified"]

_WITHOUT_COUNTS = "latent_posterior_parameters"


def unsupported_if_adata_minified(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a model's or module's method that cannot work on minified data.

    Parameters
    ----------
    fn
        The method.

    Raises
    ------
    ValueError
        When called on a model whose ``minified_data_type`` says that the counts are gone.
    """

    @functools.wraps(fn)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(self, "minified_data_type", None) == _WITHOUT_COUNTS:
            error = ValueError(f"The {fn.__qualname__} function currently does not support minified data.")
            error.add_note(
                "It needs the counts, and only the latent posterior was kept: load the model with the full data, or "
                "minify with counts kept."
            )
            raise error
        return fn(self, *args, **kwargs)

    return checked
