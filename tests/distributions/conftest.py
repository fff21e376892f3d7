"""Fixtures of the tests of distributions."""

import pytest
import torch


@pytest.fixture(autouse=True)
def validating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own default: its compiler, once used anywhere in the process, leaves validation off."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)
