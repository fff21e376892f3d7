r"""Which genes make a classifier say what it says of a cell: integrated gradients.

.. math:: a_{ng} = (x_{ng} - x'_{ng}) \int_0^1 \frac{\partial f_{c_n}}{\partial x_g}
          \bigl(x'_n + \alpha (x_n - x'_n)\bigr)\, d\alpha, \qquad \sum_g a_{ng} = f_{c_n}(x_n) - f_{c_n}(x'_n)

with :math:`f` what the classifier gives at the mean of the latents' posterior, :math:`c_n` the class predicted and
:math:`x'` a baseline, by Gauss-Legendre quadrature. Covariates are held at the cell's own. Where a feature has
several numbers, as a region has methylated and all reads, its attribution is the sum of theirs.

Dims: n cells, g genes, c classes, i inputs.
Reference: Sundararajan, Taly and Yan, *Axiomatic attribution for deep networks*, ICML 2017.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..core import REGISTRY_KEYS
from ..module.classes import ClassesModule
from .classification import probabilities_of
from .passes import Batches, Minibatch, Rows, evaluating, on_device, size_of

__all__ = ["class_attributions", "ranked_features", "with_counts"]


def class_attributions(
    module: ClassesModule,
    batches: Batches,
    *,
    n_steps: int = 50,
    baselines: float | Tensor = 0.0,
    use_posterior_mean: bool = True,
    n_cells: int | None = None,
    seed: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each class, and how much each gene adds to the output for the most probable one.

    Parameters
    ----------
    module, batches, use_posterior_mean, n_cells, seed
        See :func:`~celbo.posterior.classification.class_probabilities`. The latents' draw bears on the prediction only.
    n_steps
        Nodes of the quadrature.
    baselines
        Counts to start from: a number, or a tensor that broadcasts to ``(n, g)``.

    Returns
    -------
    Probabilities ``(n, c)`` and attributions ``(n, g)``, in units of the classifier's output (logits).

    Raises
    ------
    ValueError
        Less than one step.
    """
    if n_steps < 1:
        raise ValueError(f"At least one step is needed, got {n_steps=}.")
    probabilities, attributions = Rows(n_cells), Rows(n_cells)
    with evaluating(module, seed):
        for tensors in on_device(batches, module):
            probability_nc = probabilities_of(module, tensors, use_posterior_mean)
            probabilities.append(probability_nc)
            attributions.append(_integrated_gradients(module, tensors, probability_nc.argmax(1), n_steps, baselines))
    return probabilities.array(), attributions.array()


def _integrated_gradients(
    module: ClassesModule, tensors: Minibatch, class_n: Tensor, n_steps: int, baselines: float | Tensor
) -> Tensor:
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    with torch.inference_mode(False), torch.enable_grad():
        ordinary = {key: table.clone() for key, table in tensors.items()}  # made in inference mode, they have no graph
        inputs = module._get_inference_input(ordinary, full_forward_pass=True)
        arguments = {name: inputs[name] for name in module.classified_by if name in inputs}
        x_ing = torch.stack([arguments.pop(name) for name in module.attributed_to])
        start_ing = torch.as_tensor(baselines, dtype=x_ing.dtype, device=x_ing.device).expand_as(x_ing)
        class_n1 = class_n.clone()[:, None]
        slope_ing = torch.zeros_like(x_ing)
        for alpha, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            between_ing = torch.lerp(start_ing, x_ing, float(alpha)).requires_grad_()
            inputs_between = dict(zip(module.attributed_to, between_ing, strict=True))
            output = module.classify(**inputs_between, **arguments).gather(1, class_n1).sum()
            slope_ing += float(weight) * torch.autograd.grad(output, between_ing)[0]
        return ((x_ing - start_ing) * slope_ing).sum(0)


def ranked_features(attribution_ng: np.ndarray, features: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """Features by their mean attribution over cells, the largest first.

    Parameters
    ----------
    attribution_ng
        Attributions, ``(n, g)``.
    features
        Modality -> names of its features, beside each other ``(g,)``.

    Returns
    -------
    Columns ``feature``, ``feature_idx`` (its column), ``modality`` (``"None"`` where there is one alone),
    ``attribution_mean``, ``attribution_std`` (over cells) and ``cells`` (how many).
    """
    names = [(modality, name) for modality, of_one in features.items() for name in of_one]
    mean_g, std_g = attribution_ng.mean(0), attribution_ng.std(0)
    order_g = np.argsort(-mean_g, kind="stable")
    return pd.DataFrame(
        {
            "feature": np.array([name for _, name in names], dtype=object)[order_g],
            "feature_idx": order_g,
            "modality": np.array([modality for modality, _ in names])[order_g] if len(features) > 1 else "None",
            "attribution_mean": mean_g[order_g],
            "attribution_std": std_g[order_g],
            "cells": len(attribution_ng),
        }
    )


def with_counts(batches: Batches, x_ng: np.ndarray) -> Iterator[dict[str, Tensor]]:
    """Minibatches with other counts in place of their own, row by row, and all else as it is."""
    start = 0
    for tensors in batches:
        stop = start + size_of(tensors)
        yield {**tensors, REGISTRY_KEYS.X_KEY: torch.from_numpy(np.array(x_ng[start:stop], dtype=np.float32))}
        start = stop
