"""Every model that is ended in the middle of a run goes on to the bits of one that was not.

The models are those of the examples of their classes: set up as there, trained for two epochs.
"""

import ast
import doctest
import inspect

import pytest
import torch

import celbo
from celbo.train import Callback

pytestmark = pytest.mark.filterwarnings("ignore")  # of small data; what the examples say is tested elsewhere
TRAINED_OTHERWISE = {"TorchMRVI": "another name of MRVI"}
"""Name -> why the class has no example that trains."""

NAMES = sorted({*celbo.model.__all__, *celbo.external.__all__} - {"BaseModelClass"})


class KilledError(BaseException):
    """Nothing in celbo catches it."""


class KillAfter(Callback):
    """End the run after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise KilledError


def untrained(cls):
    """Names of the example of a class when its model is made, and the call that trains it."""
    names: dict = {}
    for example in doctest.DocTestParser().get_examples(inspect.getdoc(cls) or ""):
        call = ast.parse(example.source).body[0]
        if ".train(" in example.source and isinstance(call, ast.Expr):
            return names, call.value
        exec(example.source, names)
    raise AssertionError(f"{cls.__name__}: no example that trains")


def trained(cls, **options):
    """The model, trained as its example does, but for these options."""
    names, call = untrained(cls)

    def value_of(node):
        return eval(compile(ast.Expression(node), "example", "eval"), names)

    given = {one.arg: value_of(one.value) for one in call.keywords}
    model = value_of(call.func.value)
    fixed = {"max_epochs": 2, "seed": 4, "verbose": 0, "accelerator": "cpu"}
    model.train(*map(value_of, call.args), **(given | fixed | options))
    return model


def models():
    """Classes that train, by name."""
    classes = {name: getattr(celbo.model, name, None) or getattr(celbo.external, name, None) for name in NAMES}
    return {
        name: cls
        for name, cls in classes.items()
        if inspect.isclass(cls) and hasattr(cls, "train") and name not in TRAINED_OTHERWISE
    }


@pytest.mark.parametrize("name", models())
def test_goes_on_exactly(name, tmp_path):
    cls = models()[name]
    whole = trained(cls, callbacks=[KillAfter(-1)])
    n_steps = whole.trainer.global_step
    middle = 1 + n_steps // 2 if n_steps > 2 else 1
    with pytest.raises(KilledError):
        trained(cls, callbacks=[KillAfter(middle)], checkpoint_every="1 step", checkpoint_dir=tmp_path)
    resumed = trained(cls, callbacks=[KillAfter(-1)], resume=tmp_path)
    for key, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[key]), key
    assert resumed.trainer.global_step == n_steps
    for key, frame in whole.history.items():
        assert frame.equals(resumed.history[key]), key
