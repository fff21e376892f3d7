"""``train = training({...})``: the training method of a model, from what sets it apart.

scvi-tools' models differ in the names, the order and the defaults of the arguments of ``train``. A model states these
as one dict, in their order; what an argument means and where it goes (to the splitter, the plan or the trainer) is a
row of :data:`ARGUMENTS`, once for all models.
"""

import inspect
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from .config import KwargsLike, merge_kwargs
from .plans.schedules import max_epochs_classic
from .recipes import default_recipe, find_recipe

__all__ = [
    "ARGUMENTS",
    "NO_PYRO",
    "PASSED_ON",
    "SPLIT",
    "STOPPING",
    "WHERE",
    "Argument",
    "training",
    "with_pyros_epochs",
    "without_pyro",
]

WHERE: Mapping[str, Any] = {"accelerator": "auto", "devices": "auto"}
SPLIT: Mapping[str, Any] = {"train_size": None, "validation_size": None, "shuffle_set_split": True}
PASSED_ON: Mapping[str, Any] = {"datasplitter_kwargs": None, "plan_kwargs": None}
STOPPING: Mapping[str, Any] = {
    "early_stopping": True,
    "early_stopping_patience": 30,
    "early_stopping_warmup_epochs": 0,
    "early_stopping_min_delta": 0.0,
}
"""Arguments that models share, with the defaults that most have."""


class Argument(NamedTuple):
    """What an argument of ``train`` is.

    Parameters
    ----------
    kind
        Its annotation.
    text
        Its line of documentation.
    goes_to
        ``"plan"``: a setting of the training plan, over which ``plan_kwargs`` win; ``"train"``: an argument of
        :meth:`~celbo.model.base.UnsupervisedTrainingMixin.train`, or of the trainer.
    """

    kind: Any
    text: str
    goes_to: Literal["plan", "train"] = "train"


NO_PYRO = Argument(Any, "Must be None: a plan of Pyro's has nothing to train here.")
"""The argument ``training_plan`` of models that scvi-tools trains by Pyro."""


def without_pyro(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments without a plan of Pyro's, which is refused (``TypeError``): the ``prepare`` of such models."""
    if (plan := options.pop("training_plan")) is not None:
        name = type(model).__name__
        raise TypeError(f"{name} is trained without Pyro: give plan_kwargs= instead of training_plan={plan!r}.")
    return with_pyros_epochs(model, options)


_PYROS_EPOCHS = 1000


def with_pyros_epochs(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments with the epochs that scvi-tools gives its models of Pyro, where ``classic`` is to say: up to 1,000."""
    recipe = options["recipe"] or default_recipe(type(model), model._training_plan_cls)
    if options["max_epochs"] is None and recipe == "classic" and model.adata is not None:
        options = options | {"max_epochs": max_epochs_classic(model.adata.n_obs, _PYROS_EPOCHS)}
    return options


_WHERE_TEXT = 'Where to compute: ``"auto"``, ``"cpu"``, ``"gpu"``; number or list of devices.'
_SPLIT_TEXT = "Fractions of the cells to train on and to validate on (the rest), drawn at random."
_STOPPING_TEXT = "Validations without improvement to wait for; validations to ignore at first; smallest improvement."

ARGUMENTS: Mapping[str, Argument] = {
    "max_epochs": Argument(int | None, "Passes over the training cells; None: what the recipe says for their number."),
    "lr": Argument(float | None, "Learning rate; under a one-cycle schedule its peak.", "plan"),
    "weight_decay": Argument(float, "Weight decay of the optimizer.", "plan"),
    "eps": Argument(float, "What the optimizer adds to the root of the second moment.", "plan"),
    "n_steps_kl_warmup": Argument(int | None, "Steps until the KL divergence has its full weight.", "plan"),
    "n_epochs_kl_warmup": Argument(int | None, "Epochs until the KL divergence has its full weight.", "plan"),
    "reduce_lr_on_plateau": Argument(bool, "Lower the learning rate when validation no longer improves.", "plan"),
    "accelerator": Argument(str, _WHERE_TEXT),
    "devices": Argument(int | Sequence[int] | str, _WHERE_TEXT),
    "device": Argument(int | str, "Devices; what other models call ``devices``."),
    "train_size": Argument(float | None, _SPLIT_TEXT),
    "validation_size": Argument(float | None, _SPLIT_TEXT),
    "shuffle_set_split": Argument(bool, _SPLIT_TEXT),
    "batch_size": Argument(int, "Cells in a minibatch."),
    "early_stopping": Argument(bool, "Stop when the validation loss no longer improves."),
    "early_stopping_patience": Argument(int, _STOPPING_TEXT),
    "early_stopping_warmup_epochs": Argument(int, _STOPPING_TEXT),
    "early_stopping_min_delta": Argument(float, _STOPPING_TEXT),
    "check_val_every_n_epoch": Argument(int | None, "Epochs between validations; None: 1; 0: no validation."),
    "datasplitter_kwargs": Argument(
        dict[str, Any] | None, "For :class:`~celbo.dataloaders.DataSplitter`: ``external_indexing``, ``stratify_by``."
    ),
    "plan_config": Argument(KwargsLike | None, "Settings of the training plan, as an object or a mapping."),
    "plan_kwargs": Argument(KwargsLike | None, "Settings of the training plan; win over the arguments above."),
    "trainer_config": Argument(KwargsLike | None, "Settings of the trainer, as an object or a mapping."),
    "recipe": Argument(
        str | None,
        "Name of a recipe of :data:`celbo.train.recipes.RECIPES`; None: the model's own. ``one_cycle`` keeps the "
        "weights of the smallest validation ELBO, in models that begin from their counts that of the last 60% of the "
        "run; the others leave the weights of the last epoch.",
    ),
    "seed": Argument(int | None, "Fixes split, order and noise; None: ``celbo.settings.seed``, or fresh randomness."),
    "verbose": Argument(int, "0: silent, 1: a progress bar, 2: one line an epoch."),
}

_KEYWORDS: Mapping[str, Any] = {"recipe": None, "seed": None, "verbose": 1}

_DOC = """Train the model.

Parameters
----------
{parameters}
**trainer_kwargs
    For :class:`~celbo.train.Trainer`: ``callbacks``, ``logger``, ``gradient_clip_val``, ...

Other Parameters
----------------
checkpoint_every
    How often the state of the run is written, so that it can go on after a kill: ``"5 min"``, ``"1 epoch"``,
    ``"200 steps"``; to ``checkpoint_dir``.
resume
    Folder of the checkpoints of a run that was killed: go on with that run, to the same weights as if it had not been.

Raises
------
ArgumentError
    An argument that nobody knows, with the nearest known one, or one that cannot be meant.
NonFiniteLossError
    The loss became NaN or infinite. The last finite weights are kept.
"""


class _Training:
    """Stands for ``train`` in the body of a class, and puts the method in its place once the class has a name."""

    def __init__(
        self,
        defaults: dict[str, Any],
        own: Mapping[str, Argument],
        fixed: Mapping[str, Any],
        prepare: Callable[[Any, dict[str, Any]], dict[str, Any]] | None,
    ) -> None:
        self.known = dict(ARGUMENTS) | dict(own)
        self.defaults = defaults
        self.keywords = {name: None for name in own if name not in defaults} | dict(_KEYWORDS)
        self.fixed, self.prepare = dict(fixed), prepare

    def __set_name__(self, owner: type, name: str) -> None:
        setattr(owner, name, self._method(owner, name))

    def _method(self, owner: type, name: str) -> Callable[..., None]:
        signature = self._signature()

        def train(self_: Any, /, *args: Any, **kwargs: Any) -> None:
            bound = signature.bind(self_, *args, **kwargs)
            given = set(bound.arguments)
            bound.apply_defaults()
            _, *names = signature.parameters
            options = {one: bound.arguments[one] for one in names if one != "trainer_kwargs"}
            options |= bound.arguments["trainer_kwargs"]
            options = self.fixed | options
            options = _by_recipe(self_, options, given)
            if self.prepare is not None:
                options = self.prepare(self_, options)
            of_model = self_._plan_defaults.keys() - given  # a query model's settings win over defaults of this method
            options = {one: value for one, value in options.items() if one not in of_model}
            getattr(super(owner, self_), name)(**self._routed(options))

        train.__name__, train.__qualname__, train.__module__ = name, f"{owner.__qualname__}.{name}", owner.__module__
        train.__signature__ = signature  # type: ignore[attr-defined]
        train.__doc__ = _DOC.format(parameters=self._texts())
        return train

    def _signature(self) -> inspect.Signature:
        one = inspect.Parameter
        parameters = [one("self", one.POSITIONAL_OR_KEYWORD)]
        for kind, defaults in ((one.POSITIONAL_OR_KEYWORD, self.defaults), (one.KEYWORD_ONLY, self.keywords)):
            parameters += [
                one(name, kind, default=default, annotation=self.known[name].kind) for name, default in defaults.items()
            ]
        return inspect.Signature([*parameters, one("trainer_kwargs", one.VAR_KEYWORD, annotation=Any)])

    def _texts(self) -> str:
        """Arguments of one text share a line, as numpydoc has it."""
        names_of: dict[str, list[str]] = {}
        for name in [*self.defaults, *self.keywords]:
            names_of.setdefault(self.known[name].text, []).append(name)
        return "\n".join(
            f"{', '.join(names)}\n{textwrap.indent(textwrap.fill(text, 112), '    ')}"
            for text, names in names_of.items()
        )

    def _routed(self, options: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the base's ``train``: settings of the plan go below ``plan_kwargs``."""
        of_plan = [name for name in options if name in self.known and self.known[name].goes_to == "plan"]
        plan = {name: options.pop(name) for name in of_plan}
        given = merge_kwargs(options.pop("plan_config", None), options.pop("plan_kwargs", None), name="plan")
        if "device" in options:
            options["devices"] = options.pop("device")
        return options | {"plan_kwargs": plan | given}


_OF_OWN_EPOCHS = {"gives_up_after"}
"""Settings of a recipe that go with its own number of epochs: who asks for ten epochs gets ten."""


def _by_recipe(model: Any, options: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """Settings of the model's own recipe in place of defaults, which are scvi-tools' and meant for ``classic``.

    Who gives a learning rate means ``classic`` too, unless another recipe is named.
    """
    asked = options["recipe"] is not None
    recipe = of_many = find_recipe(options["recipe"] or default_recipe(type(model), model._training_plan_cls))
    if not (model._own_recipe or recipe.converges):
        return options
    if not asked and "lr" in given:
        recipe = of_many = find_recipe("classic")
    elif not asked and "max_epochs" not in given and options.get("datamodule") is None:
        recipe = of_many.for_cells(math.ceil(model.adata_manager.adata.n_obs * (options.get("train_size") or 0.9)))
    own = model._own_settings(recipe.name, asked) if recipe is of_many else model._of_few_cells
    not_meant = given | (_OF_OWN_EPOCHS if "max_epochs" in given else set())
    return options | {"recipe": recipe.name} | {one: value for one, value in own.items() if one not in not_meant}


def training(
    *defaults: Mapping[str, Any],
    own: Mapping[str, Argument] | None = None,
    fixed: Mapping[str, Any] | None = None,
    prepare: Callable[[Any, dict[str, Any]], dict[str, Any]] | None = None,
) -> Callable[..., None]:
    """Make the ``train`` of a model: ``train = training({"max_epochs": 400, "lr": 0.01}, WHERE, SPLIT, PASSED_ON)``.

    Parameters
    ----------
    *defaults
        Arguments that may be given by position, in their order, with their defaults; of one that comes twice the later
        default. Each is a row of :data:`ARGUMENTS`. ``recipe``, ``seed``, ``verbose`` and what the trainer takes come
        after them, by name.
    own
        Rows for arguments that only this model has. One without a default in ``defaults`` is given by name; None is
        its default.
    fixed
        Settings that the model always trains with, unless they are given by name.
    prepare
        ``(model, arguments by name) -> arguments``, for what depends on what was given.

    Returns
    -------
    The method, once the body of the class is done. It calls the ``train`` that the class inherits.
    """
    merged = {name: default for part in defaults for name, default in part.items()}
    made: Any = _Training(merged, own or {}, fixed or {}, prepare)
    return made
