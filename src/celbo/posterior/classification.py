r"""Which class a cell is of: :math:`q(y_n \mid z_n)` at the mean of :math:`q(z_n \mid x_n)` or a draw from it.

Dims: n cells, c classes.
"""

import numpy as np
from torch import Tensor

from ..module.classes import ClassesModule
from .passes import Batches, Minibatch, Rows, encode, evaluating, on_device

__all__ = ["class_probabilities", "probabilities_of"]


def class_probabilities(
    module: ClassesModule,
    batches: Batches,
    *,
    use_posterior_mean: bool = True,
    n_cells: int | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """Probability of each class for each cell.

    Parameters
    ----------
    module
        Its ``inference`` gives ``qz`` and ``z``, its ``classifier`` takes them.
    batches
        Minibatches.
    use_posterior_mean
        Classify the mean of the latents' posterior, or a draw from it.
    n_cells
        Number of cells, if known: the answer is then allocated once.
    seed
        Seed of the draws, see :func:`~celbo.posterior.passes.evaluating`.

    Returns
    -------
    ``(n, c)`` float32, rows that sum to 1.
    """
    probabilities = Rows(n_cells)
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            probabilities.append(probabilities_of(module, tensors, use_posterior_mean))
    return probabilities.array()


def probabilities_of(module: ClassesModule, tensors: Minibatch, use_posterior_mean: bool) -> Tensor:
    """Probability of each class for the cells of a minibatch on the module's device, ``(n, c)``."""
    encoded = encode(module, tensors)
    output_nc = module.classifier(encoded["qz"].loc if use_posterior_mean else encoded["z"])
    return module.classifier.log_probs_of(output_nc).exp()
