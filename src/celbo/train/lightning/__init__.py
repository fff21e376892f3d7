"""Training under Lightning's own Trainer, loaded by the first run that needs it."""

from typing import TYPE_CHECKING

from ...core.planned import planned_names, public_names

if TYPE_CHECKING:
    from .trainer import LightningTrainer

__all__ = ["LightningTrainer"]

__getattr__ = planned_names(__name__, {"LightningTrainer": "trainer"})
__dir__ = public_names(__name__)
