"""``scvi.train._callbacks`` and ``_progress``: callbacks that celbo's loop has no need of."""

from typing import Any

from ...train import Callback

__all__ = ["ProgressBar", "SubSampleLabels"]


class SubSampleLabels(Callback):
    """Nothing to do: :class:`~celbo.dataloaders.SemiSupervisedDataLoader` redraws labelled cells by itself."""


class ProgressBar(Callback):
    """Nothing to do: the trainer has a bar of its own; ``verbose`` says what is shown.

    Parameters
    ----------
    refresh_rate
        Accepted, and without effect.
    """

    def __init__(self, refresh_rate: int = 1, **kwargs: Any) -> None:
        self.refresh_rate = refresh_rate
