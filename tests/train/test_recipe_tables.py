"""Plans with settings of their own for celbo's recipes have them for each of these."""

import pytest

import celbo
from celbo.external.diagvi import DiagTrainingPlan
from celbo.train import RECIPES, Plan


def plans(cls=Plan):
    for below in cls.__subclasses__():
        yield below
        yield from plans(below)


def test_a_table_that_names_one_cycle_knows_every_cycle():
    """A recipe that such a table left out would train by the settings of the classic one without a word."""
    for package in (celbo.train, celbo.model, celbo.external):
        for name in package.__all__:
            getattr(package, name)
    tables = {plan.__qualname__: set(plan._recipe_kwargs) for plan in plans() if "one_cycle" in plan._recipe_kwargs}
    assert DiagTrainingPlan.__qualname__ in tables
    wanted = set(RECIPES) - {"classic", "converging"}
    assert {name: wanted - known for name, known in tables.items() if wanted - known} == {}


@pytest.mark.parametrize(("model", "n_steps"), [(celbo.model.LinearSCVI, 1000), (celbo.model.DestVI, 240)])
def test_models_that_learn_late_take_more_steps(model, n_steps):
    recipe = RECIPES["one_cycle"]
    lasting = recipe.lasting(model._fewest_steps)
    assert lasting.max_epochs(2560, 128, 1) == max(n_steps // 20, recipe.max_epochs(2560, 128, 1))
    assert lasting.max_epochs(10**6, 128, 1) == recipe.max_epochs(10**6, 128, 1)
    assert RECIPES["classic"].lasting(model._fewest_steps) is RECIPES["classic"]
