"""Private names of ``scvi.train._trainingplans``."""

from ...train.plans.schedules import kl_weight as _compute_kl_weight

__all__ = ["_compute_kl_weight"]
