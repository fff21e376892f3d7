"""What keeps markers apart from other genes in training."""

import math
from typing import Any

import torch

from ...train.callbacks import Callback

__all__ = ["ClampCallback"]


class ClampCallback(Callback):
    """Keep the log fold changes of markers at or above the module's ``min_delta``, after each step."""

    def on_train_batch_end(self, trainer: object, plan: Any, *args: Any) -> None:
        """Clamp them."""
        with torch.no_grad():
            plan.module.delta_log.clamp_(min=math.log(plan.module.min_delta))
