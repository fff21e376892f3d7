"""Schedules as pure functions of a step or an epoch."""

import math

__all__ = ["kl_weight", "max_epochs_classic", "one_cycle"]


def kl_weight(
    epoch: int,
    step: int,
    n_epochs_kl_warmup: int | None,
    n_steps_kl_warmup: int | None,
    max_kl_weight: float = 1.0,
    min_kl_weight: float = 0.0,
) -> float:
    r"""Weight of the local KL term during its linear warm-up.

    .. math:: w(t) = w_{\min} + (w_{\max} - w_{\min}) \min(1, t / T)

    Parameters
    ----------
    epoch, step
        Where training stands, both from 0.
    n_epochs_kl_warmup, n_steps_kl_warmup
        Length :math:`T` of the warm-up; epochs win when both are set, and 0 or None means unset.
    max_kl_weight, min_kl_weight
        Where the weight ends and begins.

    Raises
    ------
    ValueError
        ``min_kl_weight`` above ``max_kl_weight``.
    """
    if min_kl_weight > max_kl_weight:
        raise ValueError(f"min_kl_weight={min_kl_weight} is above max_kl_weight={max_kl_weight}.")
    if n_epochs_kl_warmup:
        progress = epoch / n_epochs_kl_warmup
    elif n_steps_kl_warmup:
        progress = step / n_steps_kl_warmup
    else:
        progress = 1.0
    return max_kl_weight if progress >= 1 else min_kl_weight + (max_kl_weight - min_kl_weight) * progress


def one_cycle(step: int, n_steps: int, warmup_fraction: float = 0.1) -> float:
    r"""Learning-rate factor in [0, 1]: linear warm-up, then a cosine to zero.

    Parameters
    ----------
    step
        Optimizer steps done so far.
    n_steps
        Steps of the whole run.
    warmup_fraction
        Share of the run in which the factor rises.

    References
    ----------
    Smith and Topin, *Super-convergence: very fast training of neural networks using large learning rates*, 2018.
    """
    warmup = max(1, round(warmup_fraction * n_steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup + 1) / max(1, n_steps - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress))


def max_epochs_classic(n_obs: int, epochs_cap: int = 400, decay_at_n_obs: int = 20_000) -> int:
    """scvi-tools' number of epochs: 400 up to 20,000 cells, then fewer, so that as many cells are seen.

    Parameters
    ----------
    n_obs
        Cells of the data.
    epochs_cap
        Largest number of epochs.
    decay_at_n_obs
        Cells above which the number falls.
    """
    return max(min(round(decay_at_n_obs / n_obs * epochs_cap), epochs_cap), 1)
