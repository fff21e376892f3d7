"""Every model that is ended in the middle of a run goes on to the bits of one that was not.

The models are those of the examples of their classes: set up as there, trained for two epochs.
"""

import ast
import doctest
import inspect

import pytest
from tests.train.test_resume import KillAfter, KilledError, assert_same_run

import celbo
from celbo.model.base import BaseModelClass

MODELS = {
    name: found
    for room in (celbo.model, celbo.external)
    for name in room.__all__
    if isinstance(found := getattr(room, name), type) and issubclass(found, BaseModelClass)
}


def examples_of(cls):
    """The example of a class, or that of the class it derives from, of this one."""
    for base in cls.__mro__:
        if found := doctest.DocTestParser().get_examples(inspect.cleandoc(base.__doc__ or "")):
            return [one.source.replace(f".{base.__name__}", f".{cls.__name__}") for one in found]
    raise AssertionError(f"{cls.__name__}: no example")


def untrained(cls):
    """The model of the example of a class, and the arguments of ``train`` there; what it is made from is trained."""
    names: dict = {}

    def value_of(node):
        return eval(compile(ast.Expression(node), "example", "eval"), names)

    for source in examples_of(cls):
        statement = ast.parse(source).body[0]
        if ".train(" in source and isinstance(statement, ast.Expr):
            call = statement.value
            if type(model := value_of(call.func.value)) is cls:
                return (
                    model,
                    [value_of(one) for one in call.args],
                    {one.arg: value_of(one.value) for one in call.keywords},
                )
        exec(source, names)
    raise AssertionError(f"{cls.__name__}: no example that trains")


def trained(cls, **options):
    """The model, trained as its example does, but for these options."""
    model, given, named = untrained(cls)
    model.train(*given, **(named | {"max_epochs": 2, "seed": 4, "verbose": 0, "accelerator": "cpu"} | options))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_goes_on_exactly(name, tmp_path, monkeypatch):
    monkeypatch.setattr(celbo.settings, "seed", 4)  # of models that this one is made from
    cls = MODELS[name]
    whole = trained(cls, callbacks=[KillAfter(-1)])
    n_steps = whole.trainer.global_step
    middle = 1 + n_steps // 2 if n_steps > 2 else 1
    with pytest.raises(KilledError):
        trained(cls, callbacks=[KillAfter(middle)], checkpoint_every="1 step", checkpoint_dir=tmp_path)
    resumed = trained(cls, callbacks=[KillAfter(-1)], resume=tmp_path)
    assert resumed.trainer.global_step == n_steps
    assert_same_run(whole, resumed)
