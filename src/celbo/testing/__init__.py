"""Contract tests that authors of models and distributions can run on their own."""

from .distributions import check_distribution

__all__ = ["check_distribution"]
