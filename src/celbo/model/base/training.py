"""``model.train``: data, plan and loop put together under a recipe."""

import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import cuda, mps
from torch.nn import BatchNorm1d, Module

from ...core import checked_methods, settings
from ...dataloaders import AnnTorchDataset, DataSplitter
from ...dataloaders.base import DataModule, as_data_module
from ...module.base import BaseModuleClass
from ...ops.random import fresh_seed
from ...train import KwargsLike, Plan, TrainerConfig, TrainingPlan, TrainRunner, checkpoints, merge_kwargs
from ...train.engines.engine import several_processes
from ...train.recipes import Recipe, default_recipe, find_recipe
from ...train.run import say_unfinished_warmup
from ...verbs.cells import has_few_counts
from .face import ModelFace
from .made_with import build_with_loaders

if TYPE_CHECKING:
    from ...train.checkpoints import SavedRun

__all__ = ["Trainable", "UnsupervisedTrainingMixin", "train_model", "trainer_settings"]

logger = logging.getLogger("celbo")

_CELLS_LOOKED_AT, _CELLS_STREAMED, _COUNTS_LOOKED_AT = 1000, 200, 4_000_000
_CELLS_A_BATCH = 128
_MOST_NONZERO, _FEWEST_COLUMNS = 0.1, 2000
"""Share of nonzero counts up to which, and columns from which on, training on sparse counts is the faster way."""


class Trainable(ModelFace):
    """A model that :func:`train_model` trains."""

    _data_splitter_cls: ClassVar[type] = DataSplitter
    _training_plan_cls: ClassVar[type[Plan]] = TrainingPlan
    _train_runner_cls: ClassVar[type[TrainRunner]] = TrainRunner
    _converging_plan_cls: ClassVar[type[Any] | None]
    _few_cells_by_classic: ClassVar[bool]
    _fewest_steps: ClassVar[int]
    _most_cells_a_batch: ClassVar[int]
    _recipe: ClassVar[str | None]
    seed_: int | None
    recipe_: str
    surgery_: Mapping[str, Any] | None = None  # what a query model keeps of how it was made


def train_model(
    model: Trainable,
    *,
    recipe: str | None,
    max_epochs: int | None,
    batch_size: int | None,
    seed: int | None,
    verbose: int,
    plan_kwargs: dict[str, Any],
    splitter_kwargs: dict[str, Any],
    trainer_kwargs: dict[str, Any],
    datamodule: Any = None,
    pretrained: bool = False,
) -> None:
    """Train a model under a recipe.

    Parameters
    ----------
    model
        Its class says by which splitter, plan and runner; ``_plan_defaults`` what its plan needs whatever the recipe
        says.
    recipe
        Name of the recipe, or None for the default.
    max_epochs
        None: what the recipe says for this number of cells.
    batch_size, seed, verbose
        As in :meth:`UnsupervisedTrainingMixin.train`.
    plan_kwargs, splitter_kwargs, trainer_kwargs
        What the user asked for; wins over the recipe.
    datamodule
        Loaders of the user's own, instead of a split of the training data.
    pretrained
        Whether the module begins with the weights of a trained model.
    """
    data = None if datamodule is None else as_data_module(datamodule)
    if model.module is None:
        build_with_loaders(model, None if data is None else _with_known_epochs(data, max_epochs))
    chosen, plan_cls = _recipe_and_plan(model, recipe)
    seed, resumed = _settled_seed(settings.seed if seed is None else seed, trainer_kwargs)
    size = (_CELLS_A_BATCH if batch_size is None else batch_size) or settings.batch_size
    n_batch = model.summary_stats.get("n_batch", 1)
    if data is None:
        sparse = _sparse_reading(model, trainer_kwargs)
        data = _split(model, size, {"seed": seed} | splitter_kwargs | sparse)
        if recipe is None and max_epochs is None and model._few_cells_by_classic:
            chosen = chosen.for_cells(data.n_train or 0)
        trains = max_epochs != 0 and not pretrained
        if trains and _can_start_from_counts(plan_cls, chosen) and _start_from_counts(model, data):
            chosen = chosen.started(model.module.starts_from_profile)
            if batch_size is None and (smaller := _smaller_batch(model, chosen, data, resumed)) < size:
                size = smaller
                data = _split(model, size, {"seed": seed} | splitter_kwargs | sparse)
    _start_from_cells(model, data, chosen := chosen.lasting(model._fewest_steps))
    of_plan, by_recipe = _settings_by(chosen, plan_cls, data, (size, n_batch), max_epochs, pretrained)
    if resumed is not None:
        of_plan, by_recipe = checkpoints.as_begun(resumed.state["identity"], of_plan, by_recipe)
    n_epochs = by_recipe.pop("max_epochs", max_epochs)
    given, plan_kwargs = plan_kwargs, of_plan | dict(model._plan_defaults) | plan_kwargs
    options = _of_trainer(chosen) | {"seed": seed, "verbose": verbose} | by_recipe
    with _blaming(resumed, {*of_plan, *by_recipe} - {*given, *trainer_kwargs}):
        plan = plan_cls(model.module, **plan_kwargs)
        runner = model._train_runner_cls(
            model,
            training_plan=plan,
            data_splitter=data.given,
            max_epochs=n_epochs,
            **(options | trainer_kwargs | ({} if resumed is None else {"resume": resumed})),
        )
    if verbose:
        say_unfinished_warmup(plan, n_epochs)
    runner()
    model.seed_ = seed
    model.recipe_ = chosen.name


def _blaming(resumed: "SavedRun | None", names: set[str]) -> AbstractContextManager[None]:
    return nullcontext() if resumed is None else checkpoints.blaming_settings(resumed.path, names)


def _of_trainer(recipe: Recipe) -> dict[str, Any]:
    waits = {"early_stopping_warmup_epochs": None} if recipe.early_stopping_waits else {}
    return {"keep_best": recipe.keep_best, "retries": recipe.retries} | waits


def _settings_by(
    recipe: Recipe,
    plan_cls: type[Plan],
    loaders: DataModule,
    sizes: tuple[int, int],
    max_epochs: int | None,
    pretrained: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the recipe says to the plan and to the trainer; ``max_epochs`` where the user did not.

    ``sizes`` are the cells a minibatch and the experimental batches.
    """
    n_obs, n_epochs = loaders.n_cells, max_epochs
    of_trainer: dict[str, Any] = {"keep_best_from": recipe.keep_best_from}
    if n_epochs is None:
        assert n_obs is not None, "_with_known_epochs"
        epochs_of = recipe.pretrained_epochs if pretrained else recipe.max_epochs
        n_epochs = of_trainer["max_epochs"] = epochs_of(n_obs, *sizes)
    n_train = loaders.n_train or n_obs or 0
    return recipe.kwargs_for(plan_cls, n_obs, n_epochs * math.ceil(n_train / sizes[0])), of_trainer


def _split(model: Trainable, batch_size: int, splitter_kwargs: dict[str, Any]) -> DataModule:
    data = as_data_module(model._data_splitter_cls(model.adata_manager, batch_size=batch_size, **splitter_kwargs))
    _refuse_single_cells(model.module, data.n_train or 0, batch_size)
    return data


def _smaller_batch(model: Trainable, recipe: Recipe, datamodule: DataModule, resumed: "SavedRun | None") -> int:
    """Cells a minibatch by the recipe, no more than are worth it for the model; or those of the run that goes on."""
    n_batch = model.summary_stats.get("n_batch", 1)
    wanted = min(recipe.batch_size(datamodule.n_cells or _CELLS_A_BATCH**2, n_batch), model._most_cells_a_batch)
    begun = None if resumed is None else resumed.state["identity"]["data"].get("batch_size")
    return begun or wanted


def _start_from_counts(model: Trainable, loaders: DataModule) -> bool:
    """Let a module that was never trained begin with what some of its cells' counts say; whether it did."""
    rows = loaders.train_idx
    is_new = not model.is_trained_ and model.surgery_ is None  # query models: as their reference
    if not isinstance(rows, np.ndarray) or not len(rows) or not is_new or model.adata is None:
        return False  # of several data sets there is a list
    keys = list(model.module.counts_to_start_from)
    if not keys or not set(keys) <= set(model.adata_manager.data_registry):
        return False
    tables = AnnTorchDataset(model.adata_manager, keys)
    most = _CELLS_LOOKED_AT if tables.cost is None else _CELLS_STREAMED
    n_cells = min(len(rows), most, 2 + _COUNTS_LOOKED_AT // sum(tables.sources[key].n_columns for key in keys))
    places = np.linspace(0, len(rows) - 1, n_cells).astype(np.int64)
    some = np.sort(np.asarray(rows)[places]).astype(np.int64)
    counts = [table.to_dense() for table in tables.fetch(some).values()]
    return model.module.start_from_counts(counts[0] if len(counts) == 1 else torch.cat(counts, dim=-1))


def _start_from_cells(model: Trainable, data: DataModule, recipe: Recipe) -> None:
    """Let a module that was never trained begin with sums over all cells to train on, where it is to converge."""
    rows = data.train_idx if recipe.converges else None
    if rows is not None and model.adata is not None and not model.is_trained_:
        model.module.start_from_cells(model._make_data_loader(model.adata, rows))


def _sparse_reading(model: Trainable, trainer_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the splitter that leave counts sparse, where module, data and device make that the faster way."""
    module, manager = model.module, model.adata_manager
    takes = isinstance(module, BaseModuleClass) and module.trains_on_sparse_counts
    if not takes or model._data_splitter_cls is not DataSplitter or model.summary_stats["n_vars"] < _FEWEST_COLUMNS:
        return {}
    where = trainer_kwargs.get("accelerator", "auto")
    on_cpu = where == "cpu" or (where == "auto" and not (cuda.is_available() or mps.is_available()))
    if not (on_cpu and has_few_counts(manager, _MOST_NONZERO)):
        return {}
    return {"load_sparse_tensor": True, "sparse_on_cpu": True}


def _with_known_epochs(loaders: DataModule, max_epochs: int | None) -> DataModule:
    """The loaders of a model without data; a ``ValueError`` where nobody says how long to train."""
    if max_epochs is None and loaders.n_obs is None:
        raise ValueError(
            "How many epochs to train follows from the number of cells: give "
            f"{type(loaders.given).__name__} an attribute n_obs, or pass max_epochs=."
        )
    return loaders


def trainer_settings(config: KwargsLike | None, kwargs: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    """Arguments of the trainer from what ``train`` was called with.

    Parameters
    ----------
    config, kwargs
        Settings as an object or mapping, and by keyword; the latter win.
    **arguments
        Arguments of ``train`` that the trainer has too. One that says nothing (None, False, ``"auto"``) leaves the
        word to the config. So does the config: 400 epochs, the default of a
        :class:`~celbo.train.TrainerConfig`, leave it to the recipe.
    """
    settled = merge_kwargs(config, kwargs, name="trainer")
    if isinstance(config, TrainerConfig) and config.max_epochs == TrainerConfig.max_epochs:
        settled["max_epochs"] = None
    for name, value in arguments.items():
        says_nothing = value is None or value is False or value == "auto"
        if not says_nothing or settled.get(name) is None:
            settled[name] = value
    return settled


def _refuse_single_cells(module: Module, n_train: int, batch_size: int) -> None:
    """Batch normalisation takes mean and variance over a minibatch, which one cell does not have."""
    if min(n_train, batch_size) > 1 or not any(isinstance(part, BatchNorm1d) for part in module.modules()):
        return
    came = f"There is {n_train} cell to train on" if n_train == 1 else f"batch_size={batch_size} is one cell"
    raise ValueError(
        f"{came}, and batch normalisation needs two in a minibatch at least. Take more, or build the model without it: "
        "use_batch_norm='none', where it has that argument."
    )


def _settled_seed(seed: int | None, trainer_kwargs: dict[str, Any]) -> "tuple[int, SavedRun | None]":
    """The seed of a run, and the run it goes on with: that one's seed, where none is given. Processes must agree on it
    before they know of each other: where there are several it is 0.
    """
    resume = trainer_kwargs.get("resume")
    resumed = None if resume is None else checkpoints.checked_run(resume)
    if seed is None and resumed is not None:
        seed = resumed.seed
    if seed is None and several_processes(trainer_kwargs):
        seed = 0
    return fresh_seed(seed), resumed


def _recipe_and_plan(model: Trainable, name: str | None) -> tuple[Recipe, Any]:
    """The recipe, or the classic one for a plan of someone else's that has no such settings; and the class of plan."""
    plan_cls: type[Plan] = model._training_plan_cls
    recipe = find_recipe(name or default_recipe(type(model), plan_cls))
    if recipe.converges and model._converging_plan_cls is None:
        whose = f"that of {type(model).__name__} is not"
        raise ValueError(f"recipe={recipe.name!r} is for a loss without noise, which {whose}: leave it out.")
    if missing := _missing_settings(plan_cls, recipe):
        logger.info(f"{plan_cls.__name__} has no {missing[0]!r}: training with recipe='classic'.")
        return find_recipe("classic"), plan_cls
    return recipe, model._converging_plan_cls if recipe.converges else plan_cls


def _can_start_from_counts(plan_cls: type[Plan], recipe: Recipe) -> bool:
    return recipe.from_counts is not None and not _missing_settings(plan_cls, recipe.from_counts)


def _missing_settings(plan_cls: type[Plan], recipe: Recipe) -> list[str]:
    """Those of the recipe that a plan of someone else's does not have."""
    parameters = inspect.signature(plan_cls.__init__).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and issubclass(plan_cls, TrainingPlan)
    return [] if takes_all else [name for name in recipe.plan_kwargs if name not in parameters]


@checked_methods
class UnsupervisedTrainingMixin(Trainable):
    """``train`` for models whose module returns a :class:`~celbo.module.base.LossOutput`."""

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | Sequence[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        load_sparse_tensor: bool = False,
        batch_size: int | None = None,
        early_stopping: bool = False,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_config: KwargsLike | None = None,
        plan_kwargs: KwargsLike | None = None,
        datamodule: object = None,
        trainer_config: KwargsLike | None = None,
        *,
        recipe: str | None = None,
        seed: int | None = None,
        verbose: int = 1,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the model.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; None: what the recipe says for this number of cells.
        accelerator, devices
            Where to compute: ``"auto"``, ``"cpu"``, ``"gpu"``; number or list of devices.
        train_size, validation_size, shuffle_set_split
            Fractions of the cells to train on (0.9) and to validate on (the rest), drawn at random.
        load_sparse_tensor
            Move minibatches to the device as CSR and make them dense there.
        batch_size
            Cells a minibatch; None: 128, or fewer where the recipe says so for few cells; 0:
            ``celbo.settings.batch_size``.
        early_stopping
            Stop when the validation ELBO no longer improves.
        datasplitter_kwargs
            For :class:`~celbo.dataloaders.DataSplitter`: ``external_indexing=[train, validation, test]``,
            ``stratify_by``, ``split_by``, ``drop_last``.
        plan_config, plan_kwargs
            For :class:`~celbo.train.TrainingPlan`: ``lr``, ``n_epochs_kl_warmup``, ...; win over the recipe.
        datamodule
            Loaders of your own: an object with ``train_dataloader()``, ``val_dataloader()``, ``n_train`` and ``n_val``.
        trainer_config, **trainer_kwargs
            For :class:`~celbo.train.Trainer`: ``callbacks``, ``logger``, ... A config also says how many epochs, where,
            and whether to stop early, where the arguments above do not.
        recipe
            ``"one_cycle"`` (default; a one-cycle learning rate, the best weights kept), ``"long_cycle"`` (the same over
            a fifth of scvi-tools' epochs), ``"brief_cycle"`` (over a tenth) or ``"classic"`` (scvi-tools' defaults).
            ``"one_cycle"`` keeps the weights of the smallest validation ELBO, in models that begin from their counts
            that of the last 60% of the run; the others leave the weights of the last epoch.
        seed
            Fixes split, order and noise; None: ``celbo.settings.seed``, or fresh randomness. Global generators are
            untouched.
        verbose
            0: silent, 1: a progress bar, 2: one line an epoch.

        Other Parameters
        ----------------
        checkpoint_every
            How often the state of the run is written, so that it can go on after a kill: ``"5 min"``,
            ``"1 epoch"``, ``"200 steps"``; to ``checkpoint_dir``.
        resume
            Folder of the checkpoints of a run that was killed: go on with that run, to the same
            weights as if it had not been.

        Raises
        ------
        TypeError
            An argument that nobody knows, with the nearest known one.
        NonFiniteLossError
            The loss became NaN or infinite; says which term, cells and parameters. The last finite weights are kept.
        """
        splitter_kwargs = {
            "train_size": train_size,
            "validation_size": validation_size,
            "shuffle_set_split": shuffle_set_split,
            "load_sparse_tensor": load_sparse_tensor,
        }
        trainer = trainer_settings(
            trainer_config,
            trainer_kwargs,
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            early_stopping=early_stopping,
        )
        train_model(
            self,
            recipe=recipe,
            max_epochs=trainer.pop("max_epochs"),
            batch_size=batch_size,
            seed=seed,
            verbose=verbose,
            plan_kwargs=merge_kwargs(plan_config, plan_kwargs, name="plan"),
            splitter_kwargs=splitter_kwargs | (datasplitter_kwargs or {}),
            trainer_kwargs=trainer,
            datamodule=datamodule,
        )
