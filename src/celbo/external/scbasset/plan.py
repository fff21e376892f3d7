"""Training of SCBASSET: a plan whose epochs have the area under the ROC curve, from a histogram."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor

from ...core import checked
from ...core.kinds import Whole
from ...module.base import BaseModuleClass, LossOutput
from ...ops.ranking import area_of
from ...train import TrainingPlan
from ...train.metrics import EpochMetrics, Totals

__all__ = ["RankingPlan"]

_HISTOGRAM = "auroc_histogram"


class _RankedMetrics(EpochMetrics):
    """Sums of minibatches, with the counts of scores among them."""

    def update(self, loss_output: LossOutput) -> None:
        """Add a minibatch."""
        super().update(loss_output)
        counts: Tensor | None = loss_output.extra_metrics.get(_HISTOGRAM)
        if counts is not None:
            self._kept[_HISTOGRAM] = (self._kept.get(_HISTOGRAM, (0.0, 0.0))[0] + counts.flatten(), 1.0)

    def totals(self) -> Totals:
        """The sums; each count by a name of its own."""
        counts, _ = self._kept.pop(_HISTOGRAM, (None, 1.0))
        sums = super().totals()
        if counts is not None:
            self._kept[_HISTOGRAM] = (counts, 1.0)
            sums.kept |= {f"{_HISTOGRAM} {i:05d}": (count, 1.0) for i, count in enumerate(counts.tolist())}
        return sums

    def compute(self, n_obs_total: int | None, gather: Callable[[Any], list[Any]] | None = None) -> dict[str, float]:
        """Metrics of the epoch, with ``auroc_{mode}`` where both classes were seen."""
        row = super().compute(n_obs_total, gather)
        names = sorted(name for name in row if name.startswith(_HISTOGRAM))
        counts = torch.tensor([row.pop(name) for name in names], dtype=torch.float64).reshape(2, -1)
        area = float(area_of(counts)) if names else float("nan")
        return row | ({f"auroc_{self.mode}": area} if area == area else {})


class RankingPlan(TrainingPlan):
    """Plan of a module whose loss counts scores in bins.

    Parameters
    ----------
    module
        The module.
    auroc_bins
        Bins of the histogram that the area under the ROC curve is taken from.
    **settings
        Of :class:`~celbo.train.TrainingPlan`.
    """

    @checked
    def __init__(self, module: BaseModuleClass, *, auroc_bins: Annotated[int, Whole(2)] = 512, **settings: Any) -> None:
        super().__init__(module, auroc_bins=auroc_bins, **settings)
        self.train_epoch_metrics = _RankedMetrics("train")
        self.validation_epoch_metrics = _RankedMetrics("validation")
        self.initialize_train_metrics()
        self.initialize_val_metrics()
