"""``scvi.distributions._constraints``."""

from torch import Tensor
from torch.distributions.constraints import Constraint

__all__ = ["open_interval"]


class open_interval(Constraint):  # scvi-tools' name
    """Values between two bounds, which are not among them."""

    def __init__(self, lower_bound: float, upper_bound: float) -> None:
        self.lower_bound, self.upper_bound = lower_bound, upper_bound
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Where it holds."""
        return (value > self.lower_bound) & (value < self.upper_bound)
