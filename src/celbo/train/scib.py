"""ScibCallback: the plan of a run, at hand for whoever scores its latents."""

from typing import Any

from .callbacks import Callback
from .run_state import RunState

__all__ = ["ScibCallback"]


class ScibCallback(Callback):
    """Keeps the plan of the run it is in.

    It scores nothing by itself, in scvi-tools neither: there ``scvi.autotune`` takes the plan from it. So it needs no
    package; ``scib_metrics.benchmark.Benchmarker`` takes ``model.get_latent_representation()``.

    Attributes
    ----------
    pl_module
        The plan, from the first validation on; None before.
    """

    pl_module: Any = None

    def on_validation_end(self, trainer: RunState, pl_module: Any) -> None:
        """Keep the plan."""
        self.pl_module = pl_module

    def on_train_end(self, trainer: RunState, pl_module: Any) -> None:
        """Keep the plan."""
        self.pl_module = pl_module
