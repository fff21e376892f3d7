import logging

import pytest


@pytest.fixture
def log():
    """Messages of the ``celbo`` logger during the test (it does not propagate, so caplog would miss them)."""
    messages: list[str] = []

    class _Keep(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    logger, handler = logging.getLogger("celbo"), _Keep()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)
