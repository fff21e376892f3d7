r"""Which class a cell is of: :math:`q(y_n \mid z_n)` at the mean of :math:`q(z_n \mid x_n)` or a draw from it.

Dims: n cells, c classes.
"""

import numpy as np

from ..module import SCANVAE
from .passes import Batches, Rows, encode, evaluating

__all__ = ["class_probabilities"]


def class_probabilities(
    module: SCANVAE,
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
        for tensors in batches:
            encoded = encode(module, tensors)
            output_nc = module.classifier(encoded["qz"].loc if use_posterior_mean else encoded["z"])
            probabilities.append(module.classifier.log_probs_of(output_nc).exp())
    return probabilities.array()
