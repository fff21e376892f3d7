"""Keys of JAX's random generator, for models of others that compute with it."""

from collections.abc import Callable
from typing import Any

from ..core import optional

__all__ = ["device_selecting_PRNGKey"]


def device_selecting_PRNGKey(use_cpu: bool = True) -> Callable[..., Any]:
    """Maker of keys on a chosen device.

    Parameters
    ----------
    use_cpu
        Whether keys lie on the CPU; otherwise where JAX computes by default.

    Returns
    -------
    A function like ``jax.random.PRNGKey``: an integer -> a key.

    Raises
    ------
    ModuleNotFoundError
        JAX is not installed.
    """
    jax = optional("jax", extra="jax", purpose="device_selecting_PRNGKey")
    if not use_cpu:
        return jax.random.PRNGKey

    def key_on_cpu(seed: int, **kwargs: Any) -> Any:
        with jax.default_device(jax.devices("cpu")[0]):
            return jax.random.PRNGKey(seed, **kwargs)

    return key_on_cpu
