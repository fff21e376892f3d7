"""``model.train``: data, plan and loop put together under a recipe."""

import inspect
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

from torch.nn import BatchNorm1d, Module

from ...core import checked_methods, settings
from ...dataloaders import DataSplitter
from ...ops.random import fresh_seed
from ...train import KwargsLike, Plan, TrainerConfig, TrainingPlan, TrainRunner, merge_kwargs
from ...train.checkpoints.folder import SavedRun, checked_run
from ...train.engines.processes import several_processes
from ...train.recipes import Recipe, default_recipe, find_recipe
from .sizes import build_with_loaders

__all__ = ["UnsupervisedTrainingMixin", "train_model", "trainer_settings"]

logger = logging.getLogger("celbo")


def train_model(
    model: Any,
    *,
    recipe: str | None,
    max_epochs: int | None,
    batch_size: int,
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
        Has ``_data_splitter_cls``, ``_training_plan_cls`` and ``_train_runner_cls``; in ``_plan_defaults`` what its
        plan needs whatever the recipe says.
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
    plan_cls = model._training_plan_cls
    if model.module is None:
        build_with_loaders(model, _with_known_epochs(datamodule, max_epochs))
    chosen = _recipe_for(plan_cls, find_recipe(recipe or default_recipe(type(model), plan_cls)))
    seed, resumed = _settled_seed(settings.seed if seed is None else seed, trainer_kwargs)
    if datamodule is None:
        datamodule = model._data_splitter_cls(
            model.adata_manager, batch_size=batch_size or settings.batch_size, **({"seed": seed} | splitter_kwargs)
        )
        _refuse_single_cells(model.module, datamodule.n_train, batch_size or settings.batch_size)
    if max_epochs is None:
        n_obs = getattr(datamodule, "n_obs", None) or datamodule.n_train + (datamodule.n_val or 0)
        epochs_of = chosen.pretrained_epochs if pretrained else chosen.max_epochs
        max_epochs = epochs_of(n_obs, batch_size or settings.batch_size, model.summary_stats.get("n_batch", 1))
    plan_kwargs = chosen.kwargs_for(plan_cls) | model._plan_defaults | plan_kwargs
    plan = plan_cls(model.module, **plan_kwargs)
    options: dict[str, Any] = {
        "keep_best": chosen.keep_best,
        "retries": chosen.retries,
        "seed": seed,
        "verbose": verbose,
    }
    if chosen.early_stopping_waits:
        options["early_stopping_warmup_epochs"] = None
    runner = model._train_runner_cls(
        model,
        training_plan=plan,
        data_splitter=datamodule,
        max_epochs=max_epochs,
        **(options | trainer_kwargs | ({} if resumed is None else {"resume": resumed})),
    )
    if verbose:
        _say_unfinished_warmup(plan, max_epochs)
    runner()
    model.seed_ = seed
    model.recipe_ = chosen.name


def _with_known_epochs(loaders: Any, max_epochs: int | None) -> Any:
    """The loaders of a model without data; a ``ValueError`` where nobody says how long to train."""
    if loaders is not None and max_epochs is None and not hasattr(loaders, "n_obs"):
        raise ValueError(
            f"How many epochs to train follows from the number of cells: give {type(loaders).__name__} an attribute "
            "n_obs, or pass max_epochs=."
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
        "use_batch_norm='none'."
    )


def _settled_seed(seed: int | None, trainer_kwargs: dict[str, Any]) -> tuple[int, SavedRun | None]:
    """The seed of a run, and the run it goes on with: that one's seed, where none is given. Processes must agree on it
    before they know of each other: where there are several it is 0.
    """
    resume = trainer_kwargs.get("resume")
    resumed = None if resume is None else checked_run(resume)
    if seed is None and resumed is not None:
        seed = resumed.seed
    if seed is None and several_processes(trainer_kwargs):
        seed = 0
    return fresh_seed(seed), resumed


def _recipe_for(plan_cls: type[Plan], recipe: Recipe) -> Recipe:
    """The recipe, or the classic one for a plan of someone else's that has no such settings."""
    parameters = inspect.signature(plan_cls.__init__).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and issubclass(plan_cls, TrainingPlan)
    missing = [name for name in recipe.plan_kwargs if name not in parameters]
    if missing and not takes_all:
        logger.info(f"{plan_cls.__name__} has no {missing[0]!r}: training with recipe='classic'.")
        return find_recipe("classic")
    return recipe


def _say_unfinished_warmup(plan: Plan, max_epochs: int) -> None:
    epochs = getattr(plan, "n_epochs_kl_warmup", None)
    if epochs and (max_epochs - 1) / epochs < 0.5:
        reached = (max_epochs - 1) / epochs
        logger.info(
            f"The KL weight will only reach {reached:.2f}: its warm-up takes {epochs} epochs, training {max_epochs}. "
            f"plan_kwargs={{'n_epochs_kl_warmup': {max(1, max_epochs // 2)}}} would let it reach 1."
        )


@checked_methods
class UnsupervisedTrainingMixin:
    """``train`` for models whose module returns a :class:`~celbo.module.base.LossOutput`."""

    _data_splitter_cls: ClassVar[type] = DataSplitter
    _training_plan_cls: ClassVar[type[Plan]] = TrainingPlan
    _train_runner_cls: ClassVar[type[TrainRunner]] = TrainRunner

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | Sequence[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        load_sparse_tensor: bool = False,
        batch_size: int = 128,
        early_stopping: bool = False,
        datasplitter_kwargs: dict[str, Any] | None = None,
        plan_config: KwargsLike | None = None,
        plan_kwargs: KwargsLike | None = None,
        datamodule: Any = None,
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
            Cells a minibatch.
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
            For :class:`~celbo.train.Trainer`: ``callbacks``, ``logger``, ``check_val_every_n_epoch``,
            ``gradient_clip_val``, ...; ``checkpoint_every="5 min"`` and ``resume=DIR`` for runs that may be killed.
            A config also says how many epochs, where, and whether to stop early, where the arguments above do not.
        recipe
            ``"one_cycle"`` (default; a one-cycle learning rate, the best weights kept), ``"long_cycle"`` (the same over
            a fifth of scvi-tools' epochs) or ``"classic"`` (scvi-tools' defaults).
        seed
            Fixes split, order and noise; None: ``celbo.settings.seed``, or fresh randomness. Global generators are
            untouched.
        verbose
            0: silent, 1: a progress bar, 2: one line an epoch.

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
