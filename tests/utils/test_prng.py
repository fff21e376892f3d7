"""Keys for models that compute with JAX."""

import numpy as np
import pytest

from celbo.utils import device_selecting_PRNGKey


@pytest.mark.parametrize("use_cpu", [True, False])
def test_keys_are_jaxs(use_cpu):
    jax = pytest.importorskip("jax", reason="extra 'jax' is not installed")
    key = device_selecting_PRNGKey(use_cpu)(3)
    np.testing.assert_array_equal(key, jax.random.PRNGKey(3))
    if use_cpu:
        assert {device.platform for device in key.devices()} == {"cpu"}
