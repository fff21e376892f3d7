"""Mixins of models of others that are written in Pyro: training, and samples of the posterior.

Nothing of celbo's own is of them. Pyro is an extra: ``pip install 'celbo[pyro]'``.

Dims: s samples, n cells.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from anndata import AnnData

from ...core import checked
from ...core.kinds import Whole
from ...module.base.pyro import pyro_for
from ...train.callbacks import Callback
from ...train.config import as_list
from ...train.method import SPLIT, Argument, training, with_pyros_epochs
from ...train.plans.pyro import PyroTrainingPlan
from .archives.archive import pick_device
from .face import ModelFace
from .training import Trainable, UnsupervisedTrainingMixin

__all__ = ["PyroJitGuideWarmup", "PyroModelGuideWarmup", "PyroSampleMixin", "PyroSviTrainMixin"]

Samples = dict[str, np.ndarray]

_SUMMARIES: Mapping[str, Callable[..., Any]] = {
    "means": np.mean,
    "stds": np.std,
    "q05": lambda x, axis: np.quantile(x, 0.05, axis=axis),
    "q95": lambda x, axis: np.quantile(x, 0.95, axis=axis),
}


class PyroJitGuideWarmup(Callback):
    """Run the guide once before training, so that it makes its parameters on the right device.

    Parameters
    ----------
    dataloader
        Where the minibatch comes from; None: the run's own.
    """

    @checked
    def __init__(self, dataloader: Iterable[Any] | None = None) -> None:
        self.dataloader = dataloader

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Run it."""
        _run_guide(trainer.train_loader if self.dataloader is None else self.dataloader, pl_module)


class PyroModelGuideWarmup(Callback):
    """Run the guide once before the optimizer is made, which is to have its parameters.

    Parameters
    ----------
    dataloader
        Where the minibatch comes from.
    """

    @checked
    def __init__(self, dataloader: Iterable[Any]) -> None:
        self.dataloader = dataloader

    def setup(self, trainer: Any, pl_module: Any, stage: str | None = None) -> None:
        """Run it."""
        _run_guide(self.dataloader, pl_module)


def _run_guide(loader: Iterable[Any], plan: Any) -> None:
    with torch.no_grad():
        batch = {name: table.to(plan.device) for name, table in next(iter(loader)).items()}
        args, kwargs = plan.module._get_fn_args_from_batch(batch)
        plan.module.guide(*args, **kwargs)


def _options(model: Trainable, options: dict[str, Any]) -> dict[str, Any]:
    """The learning rate is the optimizer's of Pyro; without a size of minibatches all cells are one."""
    if (plan := options.pop("training_plan")) is not None:
        model._training_plan_cls = plan if isinstance(plan, type) else type(plan)  # type: ignore[misc]  # this model's
    given = dict(options.pop("plan_kwargs") or {})
    if (lr := options.pop("lr")) is not None and "optim" not in given:
        given["optim_kwargs"] = {"lr": lr} | dict(given.get("optim_kwargs") or {})
    if options["batch_size"] is None:
        options["batch_size"] = model.summary_stats["n_cells"]
    callbacks = [PyroJitGuideWarmup(), *as_list(options.pop("callbacks", None))]
    return with_pyros_epochs(model, options) | {"plan_kwargs": given, "callbacks": callbacks}


class PyroSviTrainMixin(UnsupervisedTrainingMixin):
    """``train`` by stochastic variational inference."""

    _training_plan_cls: ClassVar[type[Any]] = PyroTrainingPlan
    _recipe: ClassVar[str | None] = "classic"

    train = training(
        {"max_epochs": None, "accelerator": "auto", "device": "auto"},
        SPLIT,
        {"batch_size": 128, "early_stopping": False, "lr": None, "training_plan": None, "datasplitter_kwargs": None},
        {"plan_config": None, "plan_kwargs": None, "trainer_config": None},
        own={
            "training_plan": Argument(Any, "A class of plan in place of :class:`~celbo.train.PyroTrainingPlan`."),
            "batch_size": Argument(int | None, "Cells in a minibatch; None: all of them."),
        },
        prepare=_options,
    )


class PyroSampleMixin(ModelFace):
    """``sample_posterior`` of a model whose module is a :class:`~celbo.module.base.PyroBaseModuleClass`."""

    def sample_posterior(
        self,
        adata: AnnData | None = None,
        input_dl: Iterable[Any] | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        num_samples: Annotated[int, Whole(1)] = 1000,
        return_sites: list[str] | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        batch_size: Annotated[int, Whole(1)] | None = None,
        return_observed: bool = False,
        return_samples: bool = False,
        summary_frequency: int | None = None,
        summary_fun: dict[str, Callable[..., Any]] | None = None,
        **sample_kwargs: Any,
    ) -> dict[str, Any]:
        """Draw from the posterior, and summarize.

        Parameters
        ----------
        adata, indices, batch_size
            See :class:`~celbo.model.base.VAEMixin`.
        input_dl
            Minibatches to take instead.
        num_samples
            Draws.
        return_sites
            Sites to give; None: all that are not observed.
        accelerator, device
            Where to compute.
        return_observed
            Give sites that are observed too.
        return_samples
            Give the draws themselves, as ``posterior_samples``.
        summary_frequency
            Accepted for compatibility with scvi-tools.
        summary_fun
            Name -> function of draws and ``axis``; None: ``means``, ``stds``, ``q05`` and ``q95``.
        **sample_kwargs
            Further keyword arguments of model and guide.

        Returns
        -------
        ``post_sample_{name}`` for each summary, a dictionary by site. Sites of cells have all cells, in order; those of
        genes or of the whole are drawn with the first minibatch.
        """
        where = pick_device(accelerator, device)
        self.to_device(where)
        self.module.eval()
        batches = input_dl or self._make_data_loader(
            adata=self._validate_anndata(adata), indices=indices, batch_size=batch_size
        )
        parts: list[tuple[int, Samples]] = []
        for tensors in batches:
            args, kwargs = self.module._get_fn_args_from_batch({k: v.to(where) for k, v in tensors.items()})
            drawn = self._drawn(args, kwargs | sample_kwargs, num_samples, return_sites, return_observed)
            parts.append((len(next(iter(tensors.values()))), self._of_cells(drawn) if parts else drawn))
        samples = self._joined(parts)
        found: dict[str, Any] = {"posterior_samples": samples} if return_samples else {}
        for name, summary in (summary_fun or _SUMMARIES).items():
            found[f"post_sample_{name}"] = {site: summary(values, axis=0) for site, values in samples.items()}
        return found

    def _drawn(self, args: Any, kwargs: Any, num_samples: int, sites: list[str] | None, with_observed: bool) -> Samples:
        """Draws of one minibatch by site, ``(s, ...)``: the model run with what the guide drew."""
        poutine = pyro_for("sample_posterior", "pyro.poutine")
        draws: list[Samples] = []
        with torch.no_grad():
            for _ in range(num_samples):
                guided = poutine.trace(self.module.guide).get_trace(*args, **kwargs)
                trace = poutine.trace(poutine.replay(self.module.model, trace=guided)).get_trace(*args, **kwargs)
                nodes = {name: node for name, node in trace.nodes.items() if _is_drawn(node, with_observed)}
                nodes = nodes if sites is None else {name: trace.nodes[name] for name in sites}
                draws.append({name: node["value"].cpu().numpy() for name, node in nodes.items()})
        return {name: np.stack([draw[name] for draw in draws]) for name in draws[0]}

    def _of_cells(self, drawn: Samples) -> Samples:
        return {name: values for name, values in drawn.items() if name in self.module.list_obs_plate_vars["sites"]}

    def _joined(self, parts: list[tuple[int, Samples]]) -> Samples:
        """Sites of cells over all minibatches, along the axis that is as long as the first minibatch."""
        n_first, joined = parts[0][0], dict(parts[0][1])
        for name, first in self._of_cells(joined).items():
            axis = next((axis for axis in range(1, first.ndim) if first.shape[axis] == n_first), 1)
            joined[name] = np.concatenate([drawn[name] for _, drawn in parts], axis=axis)
        return joined


def _is_drawn(node: Mapping[str, Any], with_observed: bool) -> bool:
    """Whether an entry of a trace is a site, and one whose value the data do not give."""
    if node["type"] != "sample" or type(node["fn"]).__name__ == "_Subsample":  # the latter is a plate
        return False
    return with_observed or not node["is_observed"] or bool(node["infer"].get("_deterministic"))
