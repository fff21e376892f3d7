"""Recipes: named sets of plan and loop settings, one row each.

``one_cycle`` is celbo's own, ``long_cycle`` the same over a fifth of scvi-tools' epochs, ``brief_cycle`` over a tenth,
``short_cycle`` over thirty; ``converging`` goes to the maximum of a loss without noise and no further; ``classic`` is
scvi-tools' defaults to the letter.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

from ..core import unknown_name
from .plans.base import Plan
from .plans.schedules import max_epochs_classic

__all__ = ["RECIPES", "Recipe", "default_recipe", "find_recipe", "use_default_recipe"]


class HasRecipe(Protocol):
    """A class of models or plans, which may name the recipe that it trains by."""

    _recipe: ClassVar[str | None]


_CELLS_A_BATCH = 128
_FEWEST_A_BATCH = 32
_FEWEST_TO_MIX = 64


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run; explicit arguments of ``train`` win over them.

    Attributes
    ----------
    name
        What the user types.
    max_epochs
        Epochs from the number of cells, of cells a minibatch, and of experimental batches.
    pretrained_epochs
        As ``max_epochs``, for a module that begins with the weights of a trained model.
    plan_kwargs
        Arguments of the training plan.
    keep_best
        Whether the weights of the epoch with the best validation ELBO are put back at the end.
    keep_best_from
        Share of the run before which no weights are kept.
    retries
        How often a run that diverged starts again, with a quarter of the learning rate.
    early_stopping_waits
        Whether early stopping, where asked for, waits for the end of the KL warm-up unless told how long to wait.
    lr
        Peak of the learning rate from the numbers of cells and of steps; None: what ``plan_kwargs`` or the plan says.
    batch_size
        Cells a minibatch from the numbers of cells and of experimental batches, where nobody says.
    from_counts
        Recipe in place of this one for a module that can begin with what the counts say of its genes
        (:meth:`~celbo.module.base.BaseModuleClass.start_from_counts`).
    from_profile
        As ``from_counts``, for one that begins with the mean profile too
        (:attr:`~celbo.module.base.BaseModuleClass.starts_from_profile`).
    worth_it_beyond
        Training cells up to which the classic recipe is taken where the user names neither recipe nor epochs.
    converges
        Whether the plan is the model's converging one, whose steps know no learning rate.
    """

    name: str
    max_epochs: Callable[[int, int, int], int]
    pretrained_epochs: Callable[[int, int, int], int]
    plan_kwargs: Mapping[str, Any] = field(default_factory=dict)
    keep_best: bool = False
    keep_best_from: float = 0.0
    retries: int = 0
    early_stopping_waits: bool = True
    lr: Callable[[int, int], float] | None = None
    batch_size: Callable[[int, int], int] = lambda n_obs, n_batch: _CELLS_A_BATCH
    from_counts: "Recipe | None" = None
    from_profile: "Recipe | None" = None
    worth_it_beyond: int = 0
    converges: bool = False

    def kwargs_for(self, plan_cls: type[Plan], n_obs: int | None = None, n_steps: int | None = None) -> dict[str, Any]:
        """Arguments of a plan of that class, or of one that derives from it, for cells and steps (None: many)."""
        rate = {} if self.lr is None else {"lr": self.lr(n_obs or _MANY, n_steps or _MANY)}
        return dict(self.plan_kwargs) | rate | dict(plan_cls._recipe_kwargs.get(self.name, {}))

    def epochs_of(self, options: Mapping[str, Any], n_obs: int, n_batch: int) -> int:
        """Epochs of a training with these arguments of ``train``: those asked for, else what the recipe says."""
        batch_size = options.get("batch_size") or self.batch_size(n_obs, n_batch)
        return options.get("max_epochs") or self.max_epochs(n_obs, batch_size, n_batch)

    def started(self, with_profile: bool) -> "Recipe":
        """The recipe once a module has begun with what the counts say, of the mean profile too or of the rest alone."""
        return (self.from_profile if with_profile else None) or self.from_counts or self

    def lasting(self, n_steps: int) -> "Recipe":
        """The recipe with so many steps at least; ``classic`` stays as it is."""
        if not n_steps or self.name == "classic":
            return self

        def epochs(n_obs: int, batch_size: int, n_batch: int) -> int:
            enough = math.ceil(n_steps / max(1, math.ceil(n_obs / batch_size)))
            return max(enough, self.max_epochs(n_obs, batch_size, n_batch))

        return replace(self, max_epochs=epochs)

    def for_cells(self, n_train: int) -> "Recipe":
        """The recipe for so many training cells, where the user names neither recipe nor epochs.

        For few cells it is the classic one: its epochs are single steps, which take seconds in all.
        """
        return find_recipe("classic") if n_train <= self.worth_it_beyond else self


_MANY = 10**9
_FEWEST_STEPS = 700
_STEPS_TO_MIX = 1200
_ENOUGH_STEPS = 3000
_ENOUGH_EPOCHS = 10
_SHARE_OF_CLASSIC = 1 / 5
_BRIEF_SHARE = 1 / 10
_BRIEF_STEPS = 250
_MOST_EPOCHS_TO_CONVERGE = 400
_SHARE_TO_MIX = 0.225
_FEWEST_FROM_PROFILE = 450
_STEPS_TO_MIX_FROM_PROFILE = 800
_EPOCHS_FROM_PROFILE = 6
_SHARE_FROM_PROFILE = 0.12
_SHARE_TO_MIX_FROM_PROFILE = 0.14
_ONE_CYCLE = {"lr": 2e-2, "lr_schedule": "one_cycle", "n_epochs_kl_warmup": None}
_HIGHEST_RATE, _LOWEST_RATE = 2e-2, 1e-2
_RATE_A_STEP = 2e-3
_MANY_CELLS = 6400


def _one_cycle_epochs(n_obs: int, batch_size: int, n_batch: int) -> int:
    """Ten passes, at least 700 steps, or 1,200 where batches must mix; beyond 38,000 cells 3,000 steps or one pass."""
    fewest = _STEPS_TO_MIX if n_batch > 1 else _FEWEST_STEPS
    return _epochs_of_steps(n_obs, batch_size, fewest, _ENOUGH_EPOCHS)


def _epochs_of_steps(n_obs: int, batch_size: int, fewest: int, n_epochs: int) -> int:
    """So many epochs, at least so many steps; at most 3,000 steps, or one epoch."""
    steps_an_epoch = max(1, math.ceil(0.9 * n_obs / batch_size))
    steps = max(fewest, min(n_epochs * steps_an_epoch, _ENOUGH_STEPS))
    return math.ceil(steps / steps_an_epoch)


def _long_cycle_epochs(n_obs: int, batch_size: int, n_batch: int) -> int:
    """A fifth of scvi-tools' epochs, and no fewer than those of ``one_cycle``."""
    share = math.ceil(_SHARE_OF_CLASSIC * max_epochs_classic(n_obs))
    return max(share, _one_cycle_epochs(n_obs, batch_size, n_batch))


def _brief_cycle_epochs(n_obs: int, batch_size: int, n_batch: int) -> int:
    """A tenth of scvi-tools' epochs, at least 250 steps, and no more than ``one_cycle``."""
    steps_an_epoch = max(1, math.ceil(0.9 * n_obs / batch_size))
    share = math.ceil(_BRIEF_SHARE * max_epochs_classic(n_obs))
    return min(max(share, math.ceil(_BRIEF_STEPS / steps_an_epoch)), _one_cycle_epochs(n_obs, batch_size, n_batch))


def _short_cycle_epochs(n_obs: int, batch_size: int, n_batch: int) -> int:
    """Thirty passes, at least 120 steps and at most 3,000."""
    steps_an_epoch = max(1, math.ceil(n_obs / batch_size))
    return math.ceil(min(max(30 * steps_an_epoch, 120), _ENOUGH_STEPS) / steps_an_epoch)


def _few_epochs(n_obs: int, batch_size: int, n_batch: int) -> int:
    """As ``one_cycle``, and no more than a fifth of scvi-tools' epochs, or 0.225 where batches must mix."""
    share = math.ceil((_SHARE_TO_MIX if n_batch > 1 else _SHARE_OF_CLASSIC) * max_epochs_classic(n_obs))
    return min(share, _one_cycle_epochs(n_obs, batch_size, n_batch))


def _fewer_epochs(n_obs: int, batch_size: int, n_batch: int) -> int:
    """Six passes, at least 450 steps (800 where batches must mix); at most 0.12 (0.14) of scvi-tools' epochs."""
    mixes = n_batch > 1
    share = math.ceil((_SHARE_TO_MIX_FROM_PROFILE if mixes else _SHARE_FROM_PROFILE) * max_epochs_classic(n_obs))
    fewest = _STEPS_TO_MIX_FROM_PROFILE if mixes else _FEWEST_FROM_PROFILE
    return min(share, _epochs_of_steps(n_obs, batch_size, fewest, _EPOCHS_FROM_PROFILE))


def _part_of(n_obs: int, n_batch: int) -> int:
    """A third of the cells, 32 to 128: a step an epoch would leave few steps in all.

    Where batches must mix, which takes more steps, a fifth; 64 if a third has as many.
    """
    third = n_obs // 3
    part = max(n_obs // 5, min(third, _FEWEST_TO_MIX)) if n_batch > 1 else third
    return min(_CELLS_A_BATCH, max(_FEWEST_A_BATCH, part))


def _rate(n_obs: int, n_steps: int) -> float:
    """0.01 for up to 1,600 cells, 0.02 from 6,400, as the root between: few deep cells overfit at the higher rate.

    No more than 0.002 a step there is: validation lags behind weights that jump.
    """
    by_cells = max(_LOWEST_RATE, _HIGHEST_RATE * math.sqrt(n_obs / _MANY_CELLS))
    return min(_HIGHEST_RATE, by_cells, _RATE_A_STEP * n_steps)


# Where the dispersions begin as the counts say, a fifth of classic's epochs is enough. They are single numbers, which
# move more slowly than what a matrix gives at the same rate; and running means must follow weights that move fast.
_FROM_COUNTS = Recipe(
    name="one_cycle",
    max_epochs=_few_epochs,
    pretrained_epochs=lambda *sizes: math.ceil(_few_epochs(*sizes) / 3),
    plan_kwargs=_ONE_CYCLE | {"dispersion_lr_factor": 3.0, "batch_norm_momentum": 0.1},
    lr=_rate,
    batch_size=_part_of,
    keep_best=True,
    keep_best_from=0.4,
    retries=2,
)

# Levels of the genes are most of what the first steps learn.
_FROM_PROFILE = replace(
    _FROM_COUNTS,
    max_epochs=_fewer_epochs,
    pretrained_epochs=lambda *sizes: math.ceil(_fewer_epochs(*sizes) / 3),
)

_BRIEF = Recipe(
    name="brief_cycle",
    max_epochs=_brief_cycle_epochs,
    pretrained_epochs=lambda *sizes: math.ceil(_brief_cycle_epochs(*sizes) / 3),
    plan_kwargs=_ONE_CYCLE,
    retries=2,
    worth_it_beyond=_CELLS_A_BATCH,
)

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="one_cycle",
            max_epochs=_one_cycle_epochs,
            pretrained_epochs=lambda *sizes: math.ceil(_one_cycle_epochs(*sizes) / 3),
            plan_kwargs=_ONE_CYCLE,
            keep_best=True,
            retries=2,
            from_counts=_FROM_COUNTS,
            from_profile=_FROM_PROFILE,
            worth_it_beyond=_CELLS_A_BATCH,
        ),
        Recipe(
            name="long_cycle",
            max_epochs=_long_cycle_epochs,
            pretrained_epochs=lambda *sizes: math.ceil(_long_cycle_epochs(*sizes) / 3),
            plan_kwargs=_ONE_CYCLE,
            retries=2,
            worth_it_beyond=_CELLS_A_BATCH,
        ),
        replace(
            _BRIEF,
            from_counts=replace(
                _BRIEF, plan_kwargs=_FROM_COUNTS.plan_kwargs, lr=_FROM_COUNTS.lr, batch_size=_FROM_COUNTS.batch_size
            ),
        ),
        Recipe(
            name="short_cycle",
            max_epochs=_short_cycle_epochs,
            pretrained_epochs=_short_cycle_epochs,
            plan_kwargs=_ONE_CYCLE,
            retries=2,
        ),
        Recipe(
            name="converging",
            max_epochs=lambda n_obs, batch_size, n_batch: _MOST_EPOCHS_TO_CONVERGE,
            pretrained_epochs=lambda n_obs, batch_size, n_batch: _MOST_EPOCHS_TO_CONVERGE,
            plan_kwargs={"n_epochs_kl_warmup": None},
            converges=True,
            retries=2,
        ),
        Recipe(
            name="classic",
            max_epochs=lambda n_obs, batch_size, n_batch: max_epochs_classic(n_obs),
            pretrained_epochs=lambda n_obs, batch_size, n_batch: min(10, max(2, round(max_epochs_classic(n_obs) / 3))),
            early_stopping_waits=False,
        ),
    )
}

_OWN = "one_cycle"
_default = _OWN


def find_recipe(name: str | None) -> Recipe:
    """The recipe of that name; None is the process's default.

    Raises
    ------
    ValueError
        Names the recipes that exist, nearest first.
    """
    name = _default if name is None else name
    if name not in RECIPES:
        raise ValueError(unknown_name("recipe", name, RECIPES))
    return RECIPES[name]


def default_recipe(*classes: type[HasRecipe]) -> str:
    """Name of the recipe that ``train`` takes when none is given: the process's, where another than celbo's own was
    asked for, whatever the model.

    Parameters
    ----------
    *classes
        Of the model and of the plan: the first one whose ``_recipe`` names a recipe has the say.
    """
    named = [cls._recipe for cls in classes if cls._recipe is not None] if _default == _OWN else []
    return named[0] if named else _default


def use_default_recipe(name: str) -> None:
    """Make a recipe the process's default (what ``celbo.compat.install_as_scvi`` does with ``classic``)."""
    global _default
    _default = find_recipe(name).name
